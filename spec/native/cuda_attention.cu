// Attention on the GPU against plain double precision; cached equals full, listed equals dense, to the last bit. More than 300
// lines, since every case attends in the same problem.
#include "cuda_testing.h"

using namespace testing;

namespace {

struct Sizes {
  int64_t t, heads, kv_heads, c, listed, tail_rows;  // rows seen by query 0: listed, then tail_rows
  bool causal, bf16, columns, odd_strides;
  std::string name() const {
    char text[160];
    snprintf(text, sizeof text, "%d queries, %d/%d heads of %d, rows %d + %d%s%s%s", (int)t, (int)heads, (int)kv_heads, (int)c, (int)listed,
             (int)tail_rows, causal ? ", causal" : "", bf16 ? ", bf16" : "", columns ? ", columns" : "");
    return text;
  }
};

/** A cache [2][kv_heads][capacity][c] of which only rows in view hold numbers, a query and a list. */
struct Problem {
  Sizes s;
  int64_t capacity, tail, length;    // length: rows of the sequence, the last query's included
  std::vector<int32_t> rows, spans;  // spans: [t][2], if any
  std::vector<float> q, k, v;        // k, v: [length][kv_heads][c] as stored, in the order of the sequence
  std::vector<char> cache;

  Problem(const Sizes& sizes, uint32_t seed, int64_t spread = 2) : s(sizes) {
    Random random(seed);
    length = s.listed + s.tail_rows + (s.causal ? s.t - 1 : 0);
    tail = s.listed * spread;
    capacity = tail + length - s.listed + 3;
    for (int64_t i = 0; i < s.listed; i++) rows.push_back((int32_t)(i * spread + random.below(spread)));
    q = random.noises(s.t * s.heads * s.c);
    k = random.noises(length * s.kv_heads * s.c);
    v = random.noises(length * s.kv_heads * s.c);
    if (s.bf16)
      for (auto* x : {&k, &v})
        for (float& f : *x) f = from_bf16(bf16(f));
    store();
  }
  bool sees(int64_t i, int64_t j) const {
    if (spans.empty()) return j < s.listed + s.tail_rows + (s.causal ? i : 0);
    return j >= spans[(size_t)(2 * i)] && j < spans[(size_t)(2 * i + 1)];
  }
  int64_t row_bytes() const { return s.c * (s.bf16 ? 2 : 4); }
  int64_t row_of(int64_t at) const { return at < s.listed ? rows[(size_t)at] : tail + at - s.listed; }
  void store() {
    cache.assign((size_t)(2 * s.kv_heads * capacity * row_bytes()), (char)0xff);
    for (int64_t which = 0; which < 2; which++)
      for (int64_t i = 0; i < length * s.kv_heads * s.c; i++) {
        const int64_t at = i / (s.kv_heads * s.c), head = i / s.c % s.kv_heads, column = i % s.c;
        char* to = cache.data() + ((which * s.kv_heads + head) * capacity + row_of(at)) * row_bytes();
        const float x = (which ? v : k)[(size_t)i];
        if (s.bf16) ((uint16_t*)to)[column] = bf16(x);
        else ((float*)to)[column] = x;
      }
  }
};

struct Result {
  std::vector<float> out, columns;
};

/** Queries [from, from + t) of the problem in one call, on a fresh device. */
Result attend(const Problem& p, int64_t from, int64_t t, bool with_out = true) {
  const Sizes& s = p.s;
  const int64_t ld = s.heads * s.c + (s.odd_strides ? 5 : 0), visible = s.listed + s.tail_rows + (s.causal ? from : 0);
  std::vector<float> q((size_t)(t * ld), NAN);
  for (int64_t i = 0; i < t; i++)
    memcpy(&q[(size_t)(i * ld)], &p.q[(size_t)((from + i) * s.heads * s.c)], (size_t)(s.heads * s.c) * 4);
  const int64_t length = visible + (s.causal ? t - 1 : 0);
  Device<char> cache(p.cache);
  Device<float> dq(q), out((size_t)(t * ld)), columns((size_t)length);
  const bool masked = !p.spans.empty();
  Device<int32_t> rows(p.rows), spans(std::vector<int32_t>(p.spans.begin() + (masked ? 2 * from : 0), masked ? p.spans.begin() + 2 * (from + t) : p.spans.end()));
  Scratch scratch;
  sv::Attention a = {};
  a.q = dq.data;
  a.q_ld = ld;
  a.t = t;
  a.heads = s.heads;
  a.kv_heads = s.kv_heads;
  a.c = s.c;
  a.head_stride = p.capacity * p.row_bytes();
  a.rows = {cache.data, cache.data + s.kv_heads * a.head_stride, p.row_bytes(), s.bf16, rows.data, s.listed, p.tail};
  a.visible = visible;
  a.causal = s.causal;
  a.spans = masked ? spans.data : nullptr;
  a.scale = 1 / sqrtf((float)s.c);
  a.out = with_out ? out.data : nullptr;
  a.out_ld = ld;
  a.columns = s.columns ? columns.data : nullptr;
  sv::gpu::attend(nullptr, scratch.gpu(), &a);
  Result r;
  const std::vector<float> padded = out.host();
  for (int64_t i = 0; i < t; i++) {
    r.out.insert(r.out.end(), padded.begin() + i * ld, padded.begin() + i * ld + s.heads * s.c);
    for (int64_t e = s.heads * s.c; e < ld; e++) check(isnan(padded[(size_t)(i * ld + e)]), s.name() + ": wrote between rows of out");
  }
  if (s.columns) r.columns = columns.host();
  return r;
}

/** The definition in double precision. `sees`: whether a position of the sequence is there at all. */
template <typename Sees>
void expect_definition(const Problem& p, const Result& r, Sees sees, const std::string& name) {
  const Sizes& s = p.s;
  std::vector<double> out((size_t)(s.t * s.heads * s.c)), columns((size_t)p.length);
  for (int64_t i = 0; i < s.t; i++)
    for (int64_t h = 0; h < s.heads; h++) {
      const int64_t g = h / (s.heads / s.kv_heads);
      std::vector<double> score((size_t)p.length, -INFINITY);
      double top = -INFINITY, sum = 0;
      for (int64_t j = 0; j < p.length; j++) {
        if (!sees(j) || !p.sees(i, j)) continue;
        double dot = 0;
        for (int64_t e = 0; e < s.c; e++) dot += (double)p.q[(size_t)((i * s.heads + h) * s.c + e)] * p.k[(size_t)((j * s.kv_heads + g) * s.c + e)];
        score[(size_t)j] = dot / sqrt((double)s.c);
        top = fmax(top, score[(size_t)j]);
      }
      for (double& x : score) sum += x = x == -INFINITY ? 0 : exp(x - top);
      for (int64_t j = 0; j < p.length; j++) {
        if (score[(size_t)j] == 0) continue;
        const double share = score[(size_t)j] / sum;
        columns[(size_t)j] += share / (double)(s.heads * s.t);
        for (int64_t e = 0; e < s.c; e++) out[(size_t)((i * s.heads + h) * s.c + e)] += share * p.v[(size_t)((j * s.kv_heads + g) * s.c + e)];
      }
    }
  const double error = nmse(r.out, out);
  check(error < 1e-10, name + ": out, NMSE " + std::to_string(error));
  if (!s.columns) return;
  const double off = nmse(r.columns, columns);
  check(off < 1e-10, name + ": columns, NMSE " + std::to_string(off));
}

std::vector<float> joined(const Result& r) {
  std::vector<float> all = r.out;
  all.insert(all.end(), r.columns.begin(), r.columns.end());
  return all;
}

void definition_cases() {
  const auto all = [](int64_t) { return true; };
  const Sizes cases[] = {
      // clang-format off
      // queries, heads, kv heads, c, listed, tail, causal, bf16, columns, strides
      {1, 7, 1, 128, 0, 1, true, true, true, false},     {1, 7, 1, 128, 300, 0, true, true, true, true},
      {1, 14, 2, 64, 63, 65, true, true, true, false},   {1, 14, 2, 72, 64, 64, true, false, true, false},
      {2, 14, 2, 80, 127, 1, true, true, true, true},    {2, 3, 3, 1, 128, 1, true, true, true, false},
      {5, 3, 3, 7, 65, 64, true, true, true, false},     {5, 4, 2, 7, 0, 129, false, false, true, true},
      {17, 7, 1, 33, 129, 300, true, true, true, false}, {17, 2, 2, 72, 0, 128, false, false, true, true},
      {130, 2, 1, 80, 0, 300, false, false, true, false}, {130, 2, 2, 64, 100, 27, true, true, false, false},
      {3, 2, 1, 256, 65, 70, true, true, true, false},   {9, 2, 1, 200, 0, 131, true, false, true, true},
      {1, 1, 1, 255, 0, 140, true, true, false, false},  {40, 16, 1, 130, 0, 90, true, true, true, false},
      // clang-format on
  };
  uint32_t seed = 1;
  for (const Sizes& s : cases) {
    const Problem p(s, seed++);
    Result r;
    in_every_order(s.name(), [&] { return joined(r = attend(p, 0, s.t)); });
    expect_definition(p, r, all, s.name());
    if (!s.columns) continue;
    check(same_bits(attend(p, 0, s.t, false).columns, r.columns), s.name() + ": other columns without out");
  }
}

/** More query tiles than kEnoughBlocks: no block per chunk. */
void many_queries() {
  const Sizes s = {520, 20, 20, 9, 0, 3, true, false, true, false};
  const Problem p(s, 77);
  const Result r = attend(p, 0, s.t);
  expect_definition(
      p, r, [](int64_t) { return true; }, "many queries");
  for (int64_t i : {0, 1, 126, 127, 255, 300, 519}) {
    const Result one = attend(p, i, 1);
    check(!memcmp(one.out.data(), &r.out[(size_t)(i * s.heads * s.c)], one.out.size() * 4), "query " + std::to_string(i) + " alone: other bits than among many");
  }
}

/** A query's bits do not depend on what is computed with it. */
void cached_equals_full() {
  for (const Sizes& s : {Sizes{150, 14, 2, 16, 130, 1, true, true, false, false}, Sizes{131, 3, 3, 7, 0, 1, true, false, false, false},
                         Sizes{20, 2, 1, 144, 250, 1, true, true, false, false}}) {
    const Problem p(s, 5);
    const Result full = attend(p, 0, s.t);
    const int64_t width = s.heads * s.c;
    for (int64_t split = 1; split < s.t; split += split % 7 ? 1 : 6)
      for (int64_t n : {(int64_t)1, (int64_t)2, s.t - split}) {
        if (split + n > s.t) continue;
        const Result part = attend(p, split, n);
        check(!memcmp(part.out.data(), &full.out[(size_t)(split * width)], part.out.size() * 4),
              s.name() + ": " + std::to_string(n) + " queries from " + std::to_string(split) + " differ from all at once");
      }
  }
}

/** Spans: a kind of mask each; those of a query alone give the bits that it has among others. */
void spans() {
  const auto all = [](int64_t) { return true; };
  const Sizes cases[] = {
      {500, 2, 2, 72, 0, 500, false, false, true, true},
      {333, 2, 2, 80, 0, 333, false, true, true, false},
      {150, 4, 2, 16, 40, 300, false, true, true, false},
      {2, 4, 2, 32, 0, 700, false, true, true, false},
      {1, 7, 1, 64, 0, 900, false, false, true, false},
      {520, 20, 20, 9, 0, 520, false, false, true, false},
  };
  for (const Sizes& s : cases) {
    Problem p(s, 41);
    const int64_t before = p.length - s.t;
    for (int64_t i = 0; i < s.t; i++) {
      int64_t from = i / 64 * 64, to = from + 64 < p.length ? from + 64 : p.length;  // windows
      if (s.c == 72) from = i < 131 ? 0 : i < 420 ? 131
                                                  : 420,
                     to = i < 131 ? 131 : i < 420 ? 420
                                                  : 500;                                                           // segments
      if (before > 0) from = before + i > 129 ? before + i - 129 : 0, to = before + i + 1 - (s.t == 1 ? 200 : 0);  // sliding
      p.spans.push_back((int32_t)from);
      p.spans.push_back((int32_t)to);
    }
    Result r;
    in_every_order(s.name() + ", spans", [&] { return joined(r = attend(p, 0, s.t)); });
    expect_definition(p, r, all, s.name() + ", spans");
    for (int64_t i = 0; i < s.t; i += 37) {
      const Result one = attend(p, i, 1);
      check(!memcmp(one.out.data(), &r.out[(size_t)(i * s.heads * s.c)], one.out.size() * 4), s.name() + ", spans: query " + std::to_string(i) + " alone");
    }
  }
  // What lies outside the rows is not there; nothing to see gives zeros.
  Problem p({3, 2, 1, 40, 0, 150, false, false, true, false}, 42);
  p.spans = {-5, 150, 0, 151, 70, 70};
  const Result outside = attend(p, 0, 3);
  p.spans = {0, 150, 0, 150, 70, 70};
  check(same_bits(joined(outside), joined(attend(p, 0, 3))), "spans beyond the rows: other bits than all rows");
  for (int64_t e = 160; e < 240; e++) check(outside.out[(size_t)e] == 0, "an empty span: expected zeros");
  for (float x : outside.columns) check(isfinite(x), "an empty span: expected finite columns");
  // Causal, as spans.
  Problem causal({150, 4, 2, 32, 20, 31, true, true, true, false}, 43);
  const Result expected = attend(causal, 0, 150);
  Problem as_spans({150, 4, 2, 32, 20, 180, false, true, true, false}, 43);
  as_spans.q = causal.q;
  as_spans.k = causal.k;
  as_spans.v = causal.v;
  as_spans.store();
  for (int64_t i = 0; i < 150; i++) as_spans.spans.insert(as_spans.spans.end(), {0, (int32_t)(51 + i)});
  check(same_bits(joined(attend(as_spans, 0, 150)), joined(expected)), "causal as spans: other bits");
}

void listed_equals_dense() {
  const Sizes listed = {3, 14, 2, 64, 200, 40, true, true, true, false}, dense = {3, 14, 2, 64, 0, 240, true, true, true, false};
  Problem p(listed, 9, 1), d(dense, 9);
  d.q = p.q;
  d.k = p.k;
  d.v = p.v;
  d.store();
  check(same_bits(joined(attend(p, 0, 3)), joined(attend(d, 0, 3))), "a list of all rows: other bits than no list");
}

void rows_out_of_range() {
  const Sizes s = {2, 7, 1, 72, 150, 4, true, true, true, false};
  Problem p(s, 12);
  const std::vector<int32_t> bad = {0, 3, 64, 127, 128, 149};
  for (size_t i = 0; i < bad.size(); i++) p.rows[(size_t)bad[i]] = i % 3 == 0 ? -1 : (i % 3 == 1 ? (int32_t)p.tail : 2147483647);
  const auto there = [&](int64_t at) {
    for (int32_t b : bad)
      if (at == b) return false;
    return true;
  };
  expect_definition(p, attend(p, 0, s.t), there, "rows out of range");
  Problem none(Sizes{1, 2, 1, 8, 3, 0, true, true, true, false}, 4);
  none.rows = {-1, 1000, -5};
  const Result r = attend(none, 0, 1);
  for (float x : joined(r)) check(x == 0, "nothing to see: expected zeros");
}

/** Equal scores: the mean of the values, and equal columns. NaN goes to those who see it. */
void special_values() {
  Sizes s = {2, 2, 1, 40, 0, 129, true, true, true, false};
  Problem p(s, 21);
  for (float& x : p.q) x = 0;
  const Result r = attend(p, 0, 2);
  expect_definition(
      p, r, [](int64_t) { return true; }, "equal scores");
  for (int64_t j = 1; j < 129; j++) check(r.columns[(size_t)j] == r.columns[0], "equal scores: columns differ");

  s = {12, 1, 1, 40, 0, 120, true, true, false, false};  // the queries of a warp see different rows
  Problem n(s, 22);
  n.v[(size_t)(125 * 40 + 3)] = n.k[(size_t)(126 * 40)] = NAN;
  n.store();
  const Result with = attend(n, 0, s.t);
  for (int64_t i = 0; i < s.t; i++)
    for (int64_t e = 0; e < 40; e++)
      check(isnan(with.out[(size_t)(i * 40 + e)]) == (i > 6 || (i == 6 && e == 3)), "query " + std::to_string(i) + ": NaN where it sees none, or none where it sees one");
}

void refusals() {
  sv::Attention a = {};
  float x = 0;
  a.t = a.heads = a.kv_heads = 1;
  a.c = 257;
  a.out = &x;
  sv::gpu::attend(nullptr, {}, &a);
  const char* why = sv::gpu::last_error();
  check(why && strstr(why, "1 to 256"), "heads of 257 columns: expected a refusal");
  check(!sv::gpu::last_error(), "last_error: expected to be cleared");
}

}  // namespace

int main() {
  definition_cases();
  many_queries();
  cached_equals_full();
  spans();
  listed_equals_dense();
  rows_out_of_range();
  special_values();
  refusals();
  return finish();
}
