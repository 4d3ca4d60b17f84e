// Exact softmax attention over fixed chunks of 128 key rows, which may be gathered through an index: the arithmetic of
// kernels/attention.inl. A chunk gives a partial (maximum, sum, output) of its own, and partials are merged in order (the
// online softmax of Milakov and Gimelshein). Every sum has an order that only positions decide, so a query's bits depend
// neither on the queries computed beside it nor on how chunks are spread over blocks: cached equals full.
//
// A block of 4 warps takes a tile of 4 Q query vectors (query-major, the heads of a kv head's group inside); each warp has Q
// of them, each lane 4 keys of the chunk and then some columns of the output. Keys and values pass through shared memory in
// slices of 32 words per row. Few queries: a block per chunk, merged by a second kernel. Many: a block goes through all chunks.
#include "cuda.h"
#include "launchers.h"

#if defined(SV_STANDIN)
#define SV_UNROLL
#define SV_UNROLL_BY(n)
#else
#define SV_PRAGMA(text) _Pragma(#text)
#define SV_UNROLL SV_PRAGMA(unroll)
#define SV_UNROLL_BY(n) SV_PRAGMA(unroll n)
#endif

namespace sv {
namespace gpu {
namespace {

constexpr int kWarps = 4, kThreads = 32 * kWarps;
constexpr int kChunk = (int)kAttentionChunk, kGroups = kChunk / 32;  // a lane's keys of a chunk: 4
constexpr int kSlice = 32, kSliceStride = kSlice + 1;                // words of a row in shared memory: odd, no bank conflicts
constexpr int kEnoughBlocks = 264;                                   // two for each multiprocessor of a large GPU
constexpr int64_t kMostPartials = 16 << 20;                          // floats of partial outputs at a time
constexpr int kMergeBatch = 256;
constexpr int64_t kMostWidth = 256;
constexpr int64_t kMostVectors = 1 << 30;  // of a kv head
constexpr uint32_t kAll = 0xffffffffu;

/** The arguments of one launch. Vector u of a kv head is query u / group, head u % group of the group. */
struct Job {
  const float* q;
  int64_t q_ld;
  int32_t vectors;  // per kv head: t * group. 32 bits, since divisions of 64 bits are calls
  int32_t group, kv_heads, c, causal;
  float scale, softcap;
  int32_t aligned;  // rows start and end at multiples of 16 bytes
  const char *k, *v;
  int64_t stride, head_stride;
  const int32_t* rows;
  int64_t n_rows, tail, visible;
  const int32_t* spans;  // [t][2], or null; positions outside [0, visible) do not exist
  float* out;            // null: sums and maxima only
  int64_t out_ld;
  float2* state;   // [chunk, if split][kv_heads][vectors]: maximum and sum; may be null when not split
  float* partial;  // [chunk][kv_heads][vectors][c], if split
  int32_t tiles;
  int64_t first_chunk;

  /** Vector u sees positions [first, limit). */
  __device__ int64_t first(int u) const {
    const int64_t from = spans ? spans[u / group * 2] : 0;
    return from < 0 ? 0 : from;
  }
  __device__ int64_t limit(int u) const {
    if (!spans) return visible + (causal ? u / group : 0);
    const int64_t to = spans[u / group * 2 + 1];
    return to < visible ? to : visible;
  }
};

/** All positions that a tile's vectors [from, to), at most 32, see are in [begin, end). Every lane of a warp must call it. */
struct Reach {
  int64_t begin, end;
};
__device__ Reach reach_of(const Job& a, int from, int to) {
  if (!a.spans) return {0, a.limit(to - 1)};
  const int u = from + (int)(threadIdx.x & 31);
  int32_t begin = u < to ? (int32_t)a.first(u) : 0x7fffffff, end = u < to ? (int32_t)a.limit(u) : 0;
  for (int step = 16; step; step /= 2) {
    const int32_t other_begin = __shfl_xor_sync(kAll, begin, step), other_end = __shfl_xor_sync(kAll, end, step);
    begin = other_begin < begin ? other_begin : begin;
    end = other_end > end ? other_end : end;
  }
  return {begin, end};
}

// --- values in memory ------------------------------------------------------------------------------------------------

/** The number of values in a 32-bit word of a row, and one of them. */
template <typename T> struct Word;
template <> struct Word<float> {
  static constexpr int kValues = 1;
  static __device__ __forceinline__ float value(uint32_t word, int) { return __uint_as_float(word); }
  static __device__ uint32_t load(const char* row, int64_t word, int64_t) { return ((const uint32_t*)row)[word]; }
};
template <> struct Word<uint16_t> {  // bf16
  static constexpr int kValues = 2;
  static __device__ __forceinline__ float value(uint32_t word, int i) { return __uint_as_float(i ? word & 0xffff0000u : word << 16); }
  static __device__ uint32_t load(const char* row, int64_t word, int64_t c) {
    const uint16_t* x = (const uint16_t*)row + 2 * word;
    return x[0] | (2 * word + 1 < c ? (uint32_t)x[1] << 16 : 0);
  }
};

template <typename T>
__device__ __forceinline__ int words_of(const Job& a) { return (a.c + Word<T>::kValues - 1) / Word<T>::kValues; }

/** Storage rows of the chunk that begins at position `begin`; -1 for a row that does not exist. */
__device__ void find_rows(const Job& a, int64_t begin, int64_t length, int32_t* rows) {
  for (int i = threadIdx.x; i < kChunk; i += kThreads) {
    const int64_t at = begin + i;
    int64_t row = -1;
    if (at < a.n_rows) row = at < length && a.rows[at] < a.tail ? a.rows[at] : -1;
    else if (at < length) row = a.tail + at - a.n_rows;
    rows[i] = row < 0 ? -1 : (int32_t)row;
  }
}

/** Words [32 slice, 32 slice + 32) of the chunk's rows -> tile [128][kSliceStride], zeros where there is nothing. */
template <typename T>
__device__ void load_slice(const Job& a, const char* base, const int32_t* rows, int slice, uint32_t* tile) {
  if (a.aligned) {
    const int part = threadIdx.x & 7, byte = slice * kSlice * 4 + part * 16;
    uint4 values[kChunk / 16];
    SV_UNROLL
    for (int r = 0; r < kChunk / 16; r++) {
      const int32_t row = rows[(threadIdx.x >> 3) + 16 * r];
      values[r] = row >= 0 && byte < a.c * (int)sizeof(T) ? *(const uint4*)(base + row * a.stride + byte) : make_uint4(0, 0, 0, 0);
    }
    SV_UNROLL
    for (int r = 0; r < kChunk / 16; r++) {
      uint32_t* to = tile + ((threadIdx.x >> 3) + 16 * r) * kSliceStride + part * 4;
      to[0] = values[r].x;
      to[1] = values[r].y;
      to[2] = values[r].z;
      to[3] = values[r].w;
    }
    return;
  }
  const int lane = threadIdx.x & 31, word = slice * kSlice + lane;
  for (int r = threadIdx.x >> 5; r < kChunk; r += kWarps)
    tile[r * kSliceStride + lane] = rows[r] >= 0 && word < words_of<T>(a) ? Word<T>::load(base + rows[r] * a.stride, word, a.c) : 0;
}

/** Floats between the columns of a tile's queries in shared memory: a multiple of 4, few bank conflicts. */
template <int Q> constexpr int kQueryStride = kWarps * Q + 4;

/** Queries of a tile, scaled, transposed: q[column][kQueryStride]; zeros beyond the last vector and the last column. */
template <typename T, int Q>
__device__ void load_queries(const Job& a, int head, int first, float* q) {
  const int columns = words_of<T>(a) * Word<T>::kValues, lane = threadIdx.x & 31;
  for (int vector = threadIdx.x >> 5; vector < kWarps * Q; vector += kWarps) {
    const int u = first + vector;
    const float* from = a.q + u / a.group * a.q_ld + (int64_t)(head * a.group + u % a.group) * a.c;
    for (int column = lane; column < columns; column += 32)
      q[column * kQueryStride<Q> + vector] = u < a.vectors && column < a.c ? from[column] * a.scale : 0;
  }
}

template <int Q>
__device__ __forceinline__ void read_vector(const float* from, float (&x)[Q]) {
  if constexpr (Q % 4 == 0) {
    SV_UNROLL
    for (int i = 0; i < Q; i += 4) {
      const float4 four = *(const float4*)(from + i);
      x[i] = four.x;
      x[i + 1] = four.y;
      x[i + 2] = four.z;
      x[i + 3] = four.w;
    }
  } else {
    SV_UNROLL
    for (int i = 0; i < Q; i++) x[i] = from[i];
  }
}

// --- a chunk ---------------------------------------------------------------------------------------------------------

/** s[j][i] = q_j . k_(32 i + lane), a chain of fused multiply-adds over ascending columns, capped where there is a cap. Begins with a barrier. */
template <typename T, int Q>
__device__ void score_chunk(const Job& a, const char* keys, const int32_t* rows, const float* q, uint32_t* tile, float (&s)[Q][kGroups]) {
  constexpr int kValues = Word<T>::kValues;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, words = words_of<T>(a);
  SV_UNROLL
  for (int j = 0; j < Q; j++) {
    SV_UNROLL
    for (int i = 0; i < kGroups; i++) s[j][i] = 0;
  }
  for (int slice = 0; slice * kSlice < words; slice++) {
    __syncthreads();
    load_slice<T>(a, keys, rows, slice, tile);
    __syncthreads();
    const int here = words - slice * kSlice < kSlice ? words - slice * kSlice : kSlice;
    const float* columns = q + slice * kSlice * kValues * kQueryStride<Q> + warp * Q;
    for (int w = 0; w < here; w++) {
      uint32_t key[kGroups];
      SV_UNROLL
      for (int i = 0; i < kGroups; i++) key[i] = tile[(32 * i + lane) * kSliceStride + w];
      SV_UNROLL
      for (int n = 0; n < kValues; n++) {
        float x[Q];
        read_vector<Q>(columns + (w * kValues + n) * kQueryStride<Q>, x);
        SV_UNROLL
        for (int i = 0; i < kGroups; i++) {
          SV_UNROLL
          for (int j = 0; j < Q; j++) s[j][i] = fmaf(x[j], Word<T>::value(key[i], n), s[j][i]);
        }
      }
    }
  }
  if (a.softcap <= 0) return;
  SV_UNROLL
  for (int j = 0; j < Q; j++) {
    SV_UNROLL
    for (int i = 0; i < kGroups; i++) s[j][i] = a.softcap * tanhf(s[j][i] / a.softcap);
  }
}

/** The number of a chunk's keys before a position. */
__device__ __forceinline__ int keys_before(int64_t position, int64_t begin) {
  const int64_t keys = position - begin;
  return keys < 0 ? 0 : keys > kChunk ? kChunk
                                      : (int)keys;
}

/** Running maximum and sum of a query. */
struct Softmax {
  float max, sum;
};

/** The factors of the running state and of a new partial: e^(max - new max), and 1 if both are equal (also -inf). */
struct Shares {
  float old, fresh;
};
__device__ __forceinline__ Shares shares_of(float old, float fresh, float top) {
  return {old == top ? 1.f : expf(old - top), fresh == top ? 1.f : expf(fresh - top)};
}
__device__ __forceinline__ float merged(float old, float fresh, Shares w) { return fmaf(old, w.old, fresh * w.fresh); }

/** Scores of one query, which sees keys [hidden, seen) -> probabilities against the chunk's own maximum, 0 where unseen. A maximum
 *  drops NaN, a sum does not. */
__device__ __forceinline__ Softmax soften(float (&s)[kGroups], int hidden, int seen, const int32_t* rows) {
  const int lane = threadIdx.x & 31;
  Softmax r = {-INFINITY, 0};
  bool sees[kGroups];
  SV_UNROLL
  for (int i = 0; i < kGroups; i++) {
    sees[i] = 32 * i + lane >= hidden && 32 * i + lane < seen && rows[32 * i + lane] >= 0;
    if (sees[i]) r.max = fmaxf(r.max, s[i]);
  }
  for (int step = 16; step; step /= 2) r.max = fmaxf(r.max, __shfl_xor_sync(kAll, r.max, step));
  SV_UNROLL
  for (int i = 0; i < kGroups; i++) {
    s[i] = sees[i] ? expf(s[i] - r.max) : 0;
    r.sum += s[i];
  }
  for (int step = 16; step; step /= 2) r.sum += __shfl_xor_sync(kAll, r.sum, step);
  return r;
}

/** Adds keys [from, to) of a group of 32 to each query's sum of p v; with kMasked only those below its own `seen`. */
template <typename T, int Q, bool kMasked>
__device__ __forceinline__ void weigh_values(const uint32_t* tile, const float* p, int from, int to, int before, const int (&seen)[Q],
                                             float (&sum)[Q][Word<T>::kValues]) {
  const int lane = threadIdx.x & 31;
  SV_UNROLL_BY(kMasked ? 1 : 4)
  for (int key = from; key < to; key++) {
    const uint32_t word = tile[(before + key) * kSliceStride + lane];
    float share[Q];
    read_vector<Q>(p + key * Q, share);
    SV_UNROLL
    for (int j = 0; j < Q; j++) {
      SV_UNROLL
      for (int n = 0; n < Word<T>::kValues; n++)
        if (!kMasked || before + key < seen[j]) sum[j][n] = fmaf(share[j], Word<T>::value(word, n), sum[j][n]);
    }
  }
}

__device__ __forceinline__ int within(int x, int low, int high) { return x < low ? low : (x > high ? high : x); }

/** One slice of sum_j p_j v_j over the chunk's keys in order. p: the warp's 32 x Q floats. */
template <typename T, int Q>
__device__ __forceinline__ void sum_values(const uint32_t* tile, float* p, const float (&s)[Q][kGroups], const int (&seen)[Q],
                                           float (&sum)[Q][Word<T>::kValues]) {
  const int lane = threadIdx.x & 31;
  int least = kChunk, most = 0;
  SV_UNROLL
  for (int j = 0; j < Q; j++) {
    least = seen[j] < least ? seen[j] : least;
    most = seen[j] > most ? seen[j] : most;
    SV_UNROLL
    for (int n = 0; n < Word<T>::kValues; n++) sum[j][n] = 0;
  }
  SV_UNROLL_BY(1)  // else the code is four times as long, and so is compiling it
  for (int i = 0; i < kGroups; i++) {
    __syncwarp();
    SV_UNROLL
    for (int j = 0; j < Q; j++) p[lane * Q + j] = i < 2 ? (i ? s[j][1] : s[j][0]) : (i == 2 ? s[j][2] : s[j][3]);
    __syncwarp();
    const int all = within(least - 32 * i, 0, 32), some = within(most - 32 * i, 0, 32);
    weigh_values<T, Q, false>(tile, p, 0, all, 32 * i, seen, sum);
    weigh_values<T, Q, true>(tile, p, all, some, 32 * i, seen, sum);
  }
}

// --- attention -------------------------------------------------------------------------------------------------------

/** Shared memory of a tile: queries are dynamic, the rest fixed. */
template <int Q>
struct TileMemory {
  uint32_t tile[kChunk * kSliceStride];
  alignas(16) float p[kWarps][32 * Q];
  int32_t rows[kChunk];
};

/** Writes a warp's results: normalized outputs, or the partial of a chunk. */
template <typename T, int Q, int S>
__device__ void store_outputs(const Job& a, int head, int first, int64_t chunk, bool split, const Softmax (&state)[Q],
                              const float (&o)[Q][S * Word<T>::kValues]) {
  constexpr int kValues = Word<T>::kValues;
  const int lane = threadIdx.x & 31;
  SV_UNROLL
  for (int j = 0; j < Q; j++) {
    const int u = first + j;
    if (u >= a.vectors) continue;
    const int64_t at = ((split ? chunk * a.kv_heads : 0) + head) * a.vectors + u;
    if (a.state && lane == 0) a.state[at] = make_float2(state[j].max, state[j].sum);
    if (!a.out) continue;
    float* to = split ? a.partial + at * a.c : a.out + u / a.group * a.out_ld + (int64_t)(head * a.group + u % a.group) * a.c;
    const float share = split ? 1.f : (state[j].sum == 0 ? 0.f : 1.f / state[j].sum);
    SV_UNROLL
    for (int i = 0; i < S * kValues; i++) {
      const int column = (i / kValues * kSlice + lane) * kValues + i % kValues;
      if (column < a.c) to[column] = o[j][i] * share;
    }
  }
}

/** S: slices of the widest row this instance takes. split: one chunk, else all. */
template <typename T, int Q, int S>
__global__ void __launch_bounds__(kThreads) attend_kernel(Job a, int32_t split) {
  constexpr int kValues = Word<T>::kValues;
  __shared__ TileMemory<Q> memory;
  SV_DYNAMIC_SHARED(dynamic);
  float* q = (float*)dynamic;
  const int warp = threadIdx.x >> 5;
  const int head = blockIdx.y, tile = a.tiles - 1 - (int)(blockIdx.x % (unsigned)a.tiles);  // longest first
  const int64_t chunk = split ? blockIdx.x / (unsigned)a.tiles : 0;
  const int first = tile * kWarps * Q, last = first + kWarps * Q < a.vectors ? first + kWarps * Q : a.vectors;
  const Reach reach = reach_of(a, first, last);
  const int64_t length = reach.end;
  int64_t begin = split ? (a.first_chunk + chunk) * kChunk : reach.begin / kChunk * kChunk;
  const int64_t end = split && begin + kChunk < length ? begin + kChunk : length;
  if (split && (begin >= length || begin + kChunk <= reach.begin)) return;
  const char *keys = a.k + head * a.head_stride, *values = a.v + head * a.head_stride;

  load_queries<T, Q>(a, head, first, q);
  Softmax state[Q];
  float o[Q][S * kValues];
  SV_UNROLL
  for (int j = 0; j < Q; j++) {
    state[j] = {-INFINITY, 0};
    SV_UNROLL
    for (int i = 0; i < S * kValues; i++) o[j][i] = 0;
  }
  for (; begin < end; begin += kChunk) {
    __syncthreads();
    find_rows(a, begin, length, memory.rows);
    float s[Q][kGroups];
    score_chunk<T, Q>(a, keys, memory.rows, q, memory.tile, s);
    int seen[Q];
    Shares shares[Q];
    SV_UNROLL
    for (int j = 0; j < Q; j++) {
      const int u = first + warp * Q + j;
      seen[j] = u < a.vectors ? keys_before(a.limit(u), begin) : 0;
      const Softmax fresh = soften(s[j], a.spans && u < a.vectors ? keys_before(a.first(u), begin) : 0, seen[j], memory.rows);
      const float top = fmaxf(state[j].max, fresh.max);
      shares[j] = shares_of(state[j].max, fresh.max, top);
      state[j] = {top, merged(state[j].sum, fresh.sum, shares[j])};
    }
    if (!a.out) continue;
    SV_UNROLL
    for (int slice = 0; slice < S; slice++) {
      if (slice * kSlice >= words_of<T>(a)) continue;
      __syncthreads();
      load_slice<T>(a, values, memory.rows, slice, memory.tile);
      __syncthreads();
      float sum[Q][kValues];
      sum_values<T, Q>(memory.tile, memory.p[warp], s, seen, sum);
      SV_UNROLL
      for (int j = 0; j < Q; j++) {
        SV_UNROLL
        for (int n = 0; n < kValues; n++) o[j][slice * kValues + n] = merged(o[j][slice * kValues + n], sum[j][n], shares[j]);
      }
    }
  }
  store_outputs<T, Q, S>(a, head, first + warp * Q, chunk, split, state, o);
}

/** Running results of vectors between rounds of chunks, [kv_heads][vectors]. */
struct Running {
  float2* state;
  float* o;
};

/** Merges the partials of a round's chunks in order, one vector per block: block (vector, kv head). */
__global__ void __launch_bounds__(kThreads) merge_kernel(Job a, Running running, int64_t chunks, int32_t first_round, int32_t last_round) {
  __shared__ float max[kMergeBatch], sum[kMergeBatch];
  __shared__ Shares shares[kMergeBatch];
  constexpr int kColumns = (int)kMostWidth / kThreads;
  const int u = blockIdx.x, head = blockIdx.y;
  const int64_t at = (int64_t)head * a.vectors + u, per_chunk = (int64_t)a.kv_heads * a.vectors;
  int64_t end = (a.limit(u) + kChunk - 1) / kChunk - a.first_chunk;  // chunks of this round that the vector sees
  if (end > chunks) end = chunks;
  int64_t seen_from = a.first(u) / kChunk - a.first_chunk;
  if (seen_from < 0) seen_from = 0;
  Softmax state = {-INFINITY, 0};
  float o[kColumns] = {};
  if (!first_round) {
    const float2 before = running.state[at];
    state = {before.x, before.y};
    SV_UNROLL
    for (int i = 0; i < kColumns; i++) {
      const int column = threadIdx.x + i * kThreads;
      if (a.out && column < a.c) o[i] = running.o[at * a.c + column];
    }
  }
  for (int64_t begin = seen_from; begin < end; begin += kMergeBatch) {
    const int n = end - begin < kMergeBatch ? (int)(end - begin) : kMergeBatch;
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += kThreads) {
      const float2 one = a.state[(begin + i) * per_chunk + at];
      max[i] = one.x;
      sum[i] = one.y;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += kThreads) {
      float before = state.max;
      for (int e = 0; e < i; e++) before = fmaxf(before, max[e]);
      shares[i] = shares_of(before, max[i], fmaxf(before, max[i]));
    }
    __syncthreads();
    for (int i = 0; i < n; i++) {
      state = {fmaxf(state.max, max[i]), merged(state.sum, sum[i], shares[i])};
      if (!a.out) continue;
      const float* from = a.partial + ((begin + i) * per_chunk + at) * a.c;
      SV_UNROLL
      for (int e = 0; e < kColumns; e++) {
        const int column = threadIdx.x + e * kThreads;
        if (column < a.c) o[e] = merged(o[e], from[column], shares[i]);
      }
    }
  }
  if (threadIdx.x == 0) running.state[at] = make_float2(state.max, state.sum);
  if (!a.out) return;
  float* to = last_round ? a.out + u / a.group * a.out_ld + (int64_t)(head * a.group + u % a.group) * a.c : running.o + at * a.c;
  const float share = !last_round ? 1.f : (state.sum == 0 ? 0.f : 1.f / state.sum);
  SV_UNROLL
  for (int i = 0; i < kColumns; i++) {
    const int column = threadIdx.x + i * kThreads;
    if (column < a.c) to[column] = o[i] * share;
  }
}

// --- column means ----------------------------------------------------------------------------------------------------

/** Sums of the softmax over the vectors of one kv head's strip of tiles, [strip][kv_heads][length], by a chunk's owner: block
 *  (chunk, kv head, strip). `state` holds each vector's final maximum and sum. */
template <typename T, int Q>
__global__ void __launch_bounds__(kThreads) columns_kernel(Job a, int64_t length, int32_t strip_tiles, float* columns) {
  __shared__ TileMemory<Q> memory;
  __shared__ float sums[kWarps][kChunk];
  SV_DYNAMIC_SHARED(dynamic);
  float* q = (float*)dynamic;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int head = blockIdx.y, from = (int)blockIdx.z * strip_tiles;
  const int to = from + strip_tiles < a.tiles ? from + strip_tiles : a.tiles;
  const int64_t begin = (int64_t)blockIdx.x * kChunk;
  find_rows(a, begin, length, memory.rows);
  float total[kGroups] = {};
  for (int tile = from; tile < to; tile++) {
    const int first = tile * kWarps * Q, last = first + kWarps * Q < a.vectors ? first + kWarps * Q : a.vectors;
    const Reach reach = reach_of(a, first, last);
    if (reach.end <= begin || reach.begin >= begin + kChunk) continue;
    __syncthreads();
    load_queries<T, Q>(a, head, first, q);
    float s[Q][kGroups];
    score_chunk<T, Q>(a, a.k + head * a.head_stride, memory.rows, q, memory.tile, s);
    SV_UNROLL
    for (int j = 0; j < Q; j++) {
      const int u = first + warp * Q + j;
      if (u >= a.vectors) continue;
      const float2 state = a.state[(int64_t)head * a.vectors + u];
      const float share = state.y == 0 ? 0.f : 1.f / state.y;
      const int hidden = keys_before(a.first(u), begin), seen = keys_before(a.limit(u), begin);
      SV_UNROLL
      for (int i = 0; i < kGroups; i++)
        if (32 * i + lane >= hidden && 32 * i + lane < seen && memory.rows[32 * i + lane] >= 0) total[i] = fmaf(expf(s[j][i] - state.x), share, total[i]);
    }
  }
  SV_UNROLL
  for (int i = 0; i < kGroups; i++) sums[warp][32 * i + lane] = total[i];
  __syncthreads();
  const int64_t at = begin + threadIdx.x;
  if (at >= length) return;
  float sum = sums[0][threadIdx.x];
  for (int w = 1; w < kWarps; w++) sum += sums[w][threadIdx.x];
  columns[((int64_t)blockIdx.z * a.kv_heads + head) * length + at] = sum;
}
static_assert(kThreads == kChunk, "a thread per column");

__global__ void mean_kernel(const float* columns, int64_t length, int64_t parts, float share, float* mean) {
  const int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= length) return;
  float sum = columns[at];
  for (int64_t i = 1; i < parts; i++) sum += columns[i * length + at];
  mean[at] = sum * share;
}

// --- launches --------------------------------------------------------------------------------------------------------

/** Slices of rows up to 128 and 256 wide. */
template <typename T> constexpr int slices_of(int c) { return (c / Word<T>::kValues + kSlice - 1) / kSlice; }

/** Vectors per warp: many queries share a tile; few are spread so that no warp is idle; wide heads need the registers. */
int vectors_per_warp(const Job& a) { return a.vectors <= 2 * kWarps ? 2 : (a.c <= 128 ? 8 : 4); }

template <typename T>
size_t query_bytes(const Job& a, int q) {
  const int columns = (a.c + Word<T>::kValues - 1) / Word<T>::kValues * Word<T>::kValues;
  return (size_t)columns * (size_t)(kWarps * q + 4) * sizeof(float);
}

template <typename T>
void launch_attend(cudaStream_t stream, const Job& a, int64_t chunks, bool split) {
  const int q = vectors_per_warp(a);
  const dim3 grid((unsigned)(a.tiles * chunks), (unsigned)a.kv_heads);
  const size_t shared = query_bytes<T>(a, q);
  if (q == 2) SV_LAUNCH((attend_kernel<T, 2, slices_of<T>(256)>), grid, kThreads, shared, stream, a, (int32_t)split);
  else if (q == 8) SV_LAUNCH((attend_kernel<T, 8, slices_of<T>(128)>), grid, kThreads, shared, stream, a, (int32_t)split);
  else SV_LAUNCH((attend_kernel<T, 4, slices_of<T>(256)>), grid, kThreads, shared, stream, a, (int32_t)split);
}

template <typename T>
void launch_columns(cudaStream_t stream, const Job& a, int64_t length, int32_t strips, int32_t strip_tiles, float* columns) {
  const int q = vectors_per_warp(a);
  const dim3 grid((unsigned)((length + kChunk - 1) / kChunk), (unsigned)a.kv_heads, (unsigned)strips);
  const size_t shared = query_bytes<T>(a, q);
  if (q == 2) SV_LAUNCH((columns_kernel<T, 2>), grid, kThreads, shared, stream, a, length, strip_tiles, columns);
  else if (q == 8) SV_LAUNCH((columns_kernel<T, 8>), grid, kThreads, shared, stream, a, length, strip_tiles, columns);
  else SV_LAUNCH((columns_kernel<T, 4>), grid, kThreads, shared, stream, a, length, strip_tiles, columns);
}

template <typename V>
V* take(GpuScratch scratch, int64_t count) { return static_cast<V*>(scratch.take(scratch.state, count * (int64_t)sizeof(V))); }

/** Chunks in rounds, so that partials stay within kMostPartials; the running state goes from round to round. False: no memory. */
template <typename T>
bool attend_split(cudaStream_t stream, GpuScratch scratch, Job a, int64_t chunks, float2* state) {
  const int64_t vectors = (int64_t)a.kv_heads * a.vectors;
  int64_t round = kMostPartials / (vectors * a.c);
  round = round < 1 ? 1 : (round > chunks ? chunks : round);
  a.state = take<float2>(scratch, round * vectors);
  a.partial = a.out ? take<float>(scratch, round * vectors * a.c) : nullptr;
  const Running running = {state, a.out && round < chunks ? take<float>(scratch, vectors * a.c) : nullptr};
  if (!a.state || (a.out && !a.partial) || (a.out && round < chunks && !running.o)) return false;
  for (a.first_chunk = 0; a.first_chunk < chunks; a.first_chunk += round) {
    const int64_t left = chunks - a.first_chunk, n = left < round ? left : round;
    launch_attend<T>(stream, a, n, true);
    SV_LAUNCH(merge_kernel, dim3((unsigned)a.vectors, (unsigned)a.kv_heads), kThreads, 0, stream, a, running, n,
              (int32_t)(a.first_chunk == 0), (int32_t)(n == left));
  }
  return true;
}

template <typename T>
void attend_as(cudaStream_t stream, GpuScratch scratch, const Attention& in, Job a) {
  const int64_t length = in.visible + (in.causal ? in.t - 1 : 0), chunks = (length + kChunk - 1) / kChunk;
  const int tile = kWarps * vectors_per_warp(a);
  const int64_t vectors = (int64_t)a.kv_heads * a.vectors;
  a.tiles = (a.vectors + tile - 1) / tile;
  const bool split = chunks > 1 && (int64_t)a.tiles * a.kv_heads < kEnoughBlocks;
  float2* state = split || in.columns ? take<float2>(scratch, vectors) : nullptr;
  if (!state && (split || in.columns)) return;
  if (split) {
    if (!attend_split<T>(stream, scratch, a, chunks, state)) return;
  } else {
    a.state = state;
    launch_attend<T>(stream, a, 1, false);
  }
  if (!in.columns || length <= 0) return;
  const int64_t owners = chunks * a.kv_heads;
  int32_t strips = (int32_t)((kEnoughBlocks + owners - 1) / owners);
  if (strips > a.tiles) strips = a.tiles;
  const int32_t strip_tiles = (a.tiles + strips - 1) / strips;
  strips = (a.tiles + strip_tiles - 1) / strip_tiles;
  float* columns = take<float>(scratch, (int64_t)strips * a.kv_heads * length);
  if (!columns) return;
  a.state = state;
  launch_columns<T>(stream, a, length, strips, strip_tiles, columns);
  SV_LAUNCH(mean_kernel, (unsigned)((length + kThreads - 1) / kThreads), kThreads, 0, stream, (const float*)columns, length,
            (int64_t)strips * a.kv_heads, 1.f / (float)(in.heads * in.t), in.columns);
}

}  // namespace

void attend(GpuStream stream, GpuScratch scratch, const Attention* in) {
  if (in->c < 1 || in->c > kMostWidth) return refuse("attend: expected heads of 1 to 256 columns");
  if (in->kv_heads < 1 || in->heads % in->kv_heads || in->kv_heads > 65535) return refuse("attend: expected heads to be a multiple of the kv heads");
  if (in->t < 1 || (!in->out && !in->columns)) return;
  if (in->t > kMostVectors / (in->heads / in->kv_heads)) return refuse("attend: expected at most 2^30 queries of the heads of a kv head");
  Job a = {};
  a.q = in->q;
  a.q_ld = in->q_ld;
  a.group = (int32_t)(in->heads / in->kv_heads);
  a.vectors = (int32_t)(in->t * a.group);
  a.kv_heads = (int32_t)in->kv_heads;
  a.c = (int32_t)in->c;
  a.causal = in->causal;
  a.scale = in->scale;
  a.softcap = in->softcap;
  a.k = in->rows.k;
  a.v = in->rows.v;
  a.stride = in->rows.stride;
  a.head_stride = in->head_stride;
  a.rows = in->rows.rows;
  a.n_rows = in->rows.n_rows;
  a.tail = in->rows.tail;
  a.visible = in->visible;
  a.spans = in->spans;
  a.out = in->out;
  a.out_ld = in->out_ld;
  const int64_t row_bytes = in->c * (in->rows.bf16 ? 2 : 4);
  a.aligned = !(((uintptr_t)a.k | (uintptr_t)a.v | (uintptr_t)a.stride | (uintptr_t)a.head_stride | (uintptr_t)row_bytes) % 16);
  if (in->rows.bf16) attend_as<uint16_t>((cudaStream_t)stream, scratch, *in, a);
  else attend_as<float>((cudaStream_t)stream, scratch, *in, a);
}

}  // namespace gpu
}  // namespace sv
