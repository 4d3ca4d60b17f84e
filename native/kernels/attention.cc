// Spreads attention over threads: by (kv head, query strip), and by chunk of rows as well when those are too few.
// Both ways compute the same partials and merge them in the same order, so the result is the same to the last bit.
#include "attention.h"

#include <math.h>
#include <string.h>

#include <algorithm>
#include <vector>

#include "pool.h"

namespace sv {
namespace {

constexpr int64_t kStripQueries = 96;  // query vectors of a strip: queries times heads of the group

int64_t round16(int64_t n) { return (n + 15) / 16 * 16; }
int64_t round32(int64_t n) { return (n + 31) / 32 * 32; }

struct Plan {
  const Attention& a;
  int64_t group, queries, strips, items, length, chunks, m, cp, score_stride;
  bool columns;
  const char* packed = nullptr;  // chunks of all heads, where tiles are used

  explicit Plan(const Attention& in) : a(in) {
    group = a.heads / a.kv_heads;
    queries = kStripQueries / group < 1 ? 1 : kStripQueries / group;
    if (queries > a.t) queries = a.t;
    strips = (a.t + queries - 1) / queries;
    items = a.kv_heads * strips;
    length = a.visible + (a.causal ? a.t - 1 : 0);
    chunks = (length + kAttentionChunk - 1) / kAttentionChunk;
    m = queries * group;
    cp = round16(a.c);
    columns = a.columns != nullptr;
    score_stride = columns ? (round16(length) > kAttentionChunk ? round16(length) : kAttentionChunk) : kAttentionChunk;
  }
  int64_t state_floats() const { return m * (cp + 2); }
  SoftmaxState state(float* p) const { return {p, p + m * cp, p + m * cp + m}; }
  int64_t strip_floats() const { return m * (a.c + 2 + round32(a.c)) + 2 * state_floats() + 64; }
  /** Where a strip's state begins in its memory: after queries, limits, and queries as planes of bf16. */
  int64_t state_at() const { return m * (a.c + 2 + round32(a.c)); }
};

/** Query vectors and limits of one item, in `memory` (strip_floats). Order: query-major, heads of the group inside. */
AttentionStrip load_strip(const Plan& p, int64_t item, float* memory, float* scores) {
  const Attention& a = p.a;
  const int64_t head = item / p.strips, first = item % p.strips * p.queries;
  const int64_t n = a.t - first < p.queries ? a.t - first : p.queries;
  AttentionStrip s = {};
  float* q = memory;
  int32_t* limit = (int32_t*)(memory + p.m * a.c);
  int32_t* seen_from = limit + p.m;
  int64_t least = a.spans ? p.length : 0, most = 0;
  for (int64_t i = 0; i < n; i++)
    for (int64_t g = 0; g < p.group; g++) {
      const float* from = a.q + (first + i) * a.q_ld + (head * p.group + g) * a.c;
      float* to = q + (i * p.group + g) * a.c;
      if (i + 4 < n)  // rows lie pages apart, where the processor does not look ahead itself
        for (int64_t c = 0; c < a.c; c += 16) __builtin_prefetch(from + 4 * a.q_ld + c);
      for (int64_t c = 0; c < a.c; c++) to[c] = from[c] * a.scale;
      const int32_t* span = a.spans ? a.spans + 2 * (first + i) : nullptr;
      const int64_t begin = span ? span[0] : 0, end = span ? span[1] : a.visible + (a.causal ? first + i : 0);
      seen_from[i * p.group + g] = (int32_t)begin;
      limit[i * p.group + g] = (int32_t)end;
      least = begin < least ? begin : least;
      most = end > most ? end : most;
    }
  s.q = q;
  s.limit = limit;
  s.m = n * p.group;
  s.c = a.c;
  s.first = a.spans ? seen_from : nullptr;
  s.begin = least / kAttentionChunk * kAttentionChunk;
  s.length = most;
  s.rows = a.rows;
  s.softcap = a.softcap;
  s.rows.k += head * a.head_stride;
  s.rows.v += head * a.head_stride;
  s.scores = scores;
  s.score_stride = p.score_stride;
  if (p.packed == nullptr) return s;
  auto* planes = (uint16_t*)(memory + p.m * (a.c + 2));
  const int64_t c32 = round32(a.c);
  for (int64_t i = 0; i < s.m; i++) kernels().split_row(q + i * a.c, a.c, planes + i * 2 * c32, planes + i * 2 * c32 + c32);
  s.planes = planes;
  s.packed = p.packed + head * p.chunks * kernels().chunk_bytes(a.c);
  return s;
}

/** Normalized output of a finished item, and its column sums. */
void finish(const Plan& p, int64_t item, const AttentionStrip& s, SoftmaxState total, float* columns) {
  const Attention& a = p.a;
  const int64_t head = item / p.strips, first = item % p.strips * p.queries;
  if (a.out)
    for (int64_t i = 0; i < s.m; i++) {
      const float inv = total.sum[i] == 0 ? 0.f : 1.f / total.sum[i];
      float* out = a.out + (first + i / p.group) * a.out_ld + (head * p.group + i % p.group) * a.c;
      for (int64_t c = 0; c < a.c; c++) out[c] = total.o[i * p.cp + c] * inv;
    }
  if (columns) kernels().column_sum(s, total.max, total.sum, columns + item * p.length);
}

void run_item(const Plan& p, int64_t item, int thread, float* columns) {
  const Kernels& k = kernels();
  float* memory = thread_scratch(thread, kStripSlot);
  float* states = memory + p.state_at();
  SoftmaxState total = p.state(states), partial = p.state(states + p.state_floats());
  AttentionStrip s = load_strip(p, item, memory, thread_scratch(thread, kTileSlot));
  s.fetch_to = s.length;
  for (int64_t begin = s.begin; begin < s.length; begin += kAttentionChunk) {
    s.fetched = begin > s.begin;
    (p.a.out ? k.attend_chunk : k.scores_only)(s, begin, partial, thread_scratch(thread, kChunkSlot));
    k.merge(total, partial, s.m, p.a.out ? p.cp : 0, begin == s.begin);
  }
  finish(p, item, s, total, columns);
}

/** Few items, many rows: partials of all chunks in parallel, then merged in order. */
void run_split(const Plan& p, float* columns) {
  const Kernels& k = kernels();
  const int64_t partial_floats = p.chunks * p.state_floats();
  const int64_t score_floats = p.columns ? p.m * p.score_stride : 0;
  float* memory = shared_scratch(kPartials, p.items * (partial_floats + score_floats));
  float* scores = memory + p.items * partial_floats;
  parallel(p.items * p.chunks, 1, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t item = i / p.chunks, chunk = i % p.chunks;
      float* own = p.columns ? scores + item * score_floats : thread_scratch(thread, kTileSlot);
      AttentionStrip s = load_strip(p, item, thread_scratch(thread, kStripSlot), own);
      if (chunk * kAttentionChunk >= s.length || chunk * kAttentionChunk < s.begin) continue;
      s.fetched = i > begin && chunk * kAttentionChunk > s.begin;
      s.fetch_to = i + 1 < end ? s.length : 0;
      (p.a.out ? k.attend_chunk : k.scores_only)(s, chunk * kAttentionChunk,
                                                 p.state(memory + item * partial_floats + chunk * p.state_floats()),
                                                 thread_scratch(thread, kChunkSlot));
    }
  });
  parallel(p.items, 1, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t item = begin; item < end; item++) {
      AttentionStrip s = load_strip(p, item, thread_scratch(thread, kStripSlot), scores + item * score_floats);
      const auto partial = [&](int64_t c) { return p.state(memory + item * partial_floats + c * p.state_floats()); };
      const int64_t first = s.begin / kAttentionChunk;
      const SoftmaxState total = partial(first);
      for (int64_t c = first + 1; c * kAttentionChunk < s.length; c++) k.merge(total, partial(c), s.m, p.a.out ? p.cp : 0, 0);
      finish(p, item, s, total, columns);
    }
  });
}

/** Packs the rows of all heads for tiles. */
const char* pack_heads(const Plan& p) {
  const Attention& a = p.a;
  const Kernels& k = kernels();
  const int64_t bytes = k.chunk_bytes(a.c);
  char* packed = (char*)shared_scratch(kPackedRows, a.kv_heads * p.chunks * bytes / 4);
  parallel(a.kv_heads * p.chunks, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) {
      AttentionRows rows = a.rows;
      rows.k += i / p.chunks * a.head_stride;
      rows.v += i / p.chunks * a.head_stride;
      const int64_t first = i % p.chunks * kAttentionChunk, left = p.length - first;
      k.pack_chunk(rows, a.c, first, left < kAttentionChunk ? left : kAttentionChunk, packed + i * bytes);
    }
  });
  return packed;
}

}  // namespace

void attend(const Attention& a) {
  Plan p(a);
  if (a.tiles && !a.rows.bf16 && a.c <= kMostTileWidth && kernels().pack_chunk) p.packed = pack_heads(p);
  float* columns = nullptr;
  if (p.columns) {
    columns = shared_scratch(kColumns, p.items * p.length);
    memset(columns, 0, (size_t)(p.items * p.length) * 4);
  }
  const bool split = p.items < 2 * thread_count() && p.chunks > 1;
  reserve_thread_scratch(kStripSlot, p.strip_floats());
  reserve_thread_scratch(kChunkSlot, attention_scratch(p.m, a.c));
  reserve_thread_scratch(kTileSlot, p.m * (split ? kAttentionChunk : p.score_stride));
  if (split) run_split(p, columns);
  else
    parallel(p.items, 1, [&](int64_t begin, int64_t end, int thread) {
      for (int64_t i = begin; i < end; i++) run_item(p, i, thread, columns);
    });
  if (!p.columns) return;
  const float share = 1.f / (float)(a.heads * a.t);
  parallel(p.length, 1024, [&](int64_t begin, int64_t end, int) {
    for (int64_t j = begin; j < end; j++) a.columns[j] = columns[j];
    for (int64_t i = 1; i < p.items; i++) kernels().add(a.columns + begin, columns + i * p.length + begin, end - begin, a.columns + begin);
    for (int64_t j = begin; j < end; j++) a.columns[j] *= share;
  });
}

void attend_all(const Attention* calls, int64_t count) {
  std::vector<Plan> plans;
  std::vector<int64_t> first;  // of each call, the number of its first item
  int64_t items = 0, strip = 0, chunk = 0, scores = 0;
  bool is_plain = true;  // without columns and tiles
  for (int64_t i = 0; i < count; i++) {
    const Plan& p = plans.emplace_back(calls[i]);
    first.push_back(items);
    items += p.items;
    is_plain = is_plain && !p.columns && !calls[i].tiles;
    strip = std::max(strip, p.strip_floats());
    chunk = std::max(chunk, attention_scratch(p.m, p.a.c));
    scores = std::max(scores, p.m * p.score_stride);
  }
  if (count == 1 || !is_plain || items < 2 * thread_count()) {
    for (int64_t i = 0; i < count; i++) attend(calls[i]);
    return;
  }
  reserve_thread_scratch(kStripSlot, strip);
  reserve_thread_scratch(kChunkSlot, chunk);
  reserve_thread_scratch(kTileSlot, scores);
  parallel(items, 1, [&](int64_t begin, int64_t end, int thread) {
    int64_t call = 0;
    for (int64_t i = begin; i < end; i++) {
      while (call + 1 < count && first[(size_t)call + 1] <= i) call++;
      run_item(plans[(size_t)call], i - first[(size_t)call], thread, nullptr);
    }
  });
}

void kv_write(char* k, char* v, bool bf16, int64_t head_stride, int64_t row_stride, int64_t at, const float* keys,
              const float* values, int64_t ld, int64_t t, int64_t kv_heads, int64_t c) {
  for (int64_t i = 0; i < t; i++)
    for (int64_t h = 0; h < kv_heads; h++) {
      const int64_t to = h * head_stride + (at + i) * row_stride, from = i * ld + h * c;
      if (bf16) {
        kernels().to_bf16(keys + from, c, (uint16_t*)(k + to));
        kernels().to_bf16(values + from, c, (uint16_t*)(v + to));
      } else {
        memcpy(k + to, keys + from, (size_t)c * 4);
        memcpy(v + to, values + from, (size_t)c * 4);
      }
    }
}

}  // namespace sv
