// Samples a token id from logits, by radix selection over many blocks. Each step is a kernel, because a step needs the sums of all blocks
// of the one before: the best logit; a histogram for each byte of the key that top-k ends at, and one for each byte that top-p ends
// at; sums by ranges of ids; the draw in one block. Steps that a draw does not need are left out.
#include "../kernels/sample.h"
#include "cuda.h"
#include "launchers.h"
#include "radix.cuh"

namespace sv {
namespace gpu {
namespace {

constexpr int kMostBlocks = 64;
constexpr int64_t kBlockLogits = 512;  // fewer are not worth a block

/** What the kernels of one draw hand on to the next ones, in scratch. */
struct Draft {
  uint2 best[kMostBlocks];       // each block's best (key, index)
  double mass[kMostBlocks];      // sum of the weights of each range of ids that top-k keeps
  Sums counts[4], masses[4];     // by each byte of the key, from the top
  Threshold top_k[4], top_p[4];  // after each byte
  double larger[kMostBlocks];    // of each range: weights above the threshold of top-p,
  double equals[kMostBlocks];    // and how many are at it
};

// --- sampling --------------------------------------------------------------------------------------------------------

/** The better of two (key, index) pairs: the larger key, then the lower index. */
__device__ uint2 better(uint2 a, uint2 b) { return b.x > a.x || (b.x == a.x && b.y < a.y) ? b : a; }

__device__ uint2 best_of_warp(uint2 best) {
  for (int step = 16; step; step /= 2)
    best = better(best, make_uint2(__shfl_xor_sync(kAll, best.x, step), __shfl_xor_sync(kAll, best.y, step)));
  return best;
}

constexpr uint32_t kBroken = 0xffffffffu;  // above every key: an element that makes the whole row invalid

/** Each block's best (key, index), where NaN and +infinity count as kBroken, so that they win; and zeros in all sums. */
__global__ void __launch_bounds__(kThreads) best_kernel(const float* x, int64_t n, Draft* draft) {
  __shared__ uint2 memory[kWarps];
  const int first = (int)(blockIdx.x * blockDim.x + threadIdx.x), step = (int)(gridDim.x * blockDim.x);
  uint32_t *counts = draft->counts[0].limb[0], *masses = draft->masses[0].limb[0];
  for (int i = first; i < 4 * 3 * 256; i += step) counts[i] = masses[i] = 0;
  uint2 best = make_uint2(0, 0);
  for (int64_t i = first; i < n; i += step) best = better(best, make_uint2(x[i] < INFINITY ? sortable(x[i]) : kBroken, (uint32_t)i));
  best = best_of_warp(best);
  if (lane_of() == 0) memory[warp_of()] = best;
  __syncthreads();
  if (threadIdx.x) return;
  for (int w = 1; w < kWarps; w++) best = better(best, memory[w]);
  draft->best[blockIdx.x] = best;
}

/** The best of all blocks, or -1 when the row is broken or nothing is above -infinity. Every lane of a warp must call it. */
__device__ int32_t best_id(const Draft* draft, int blocks) {
  uint2 best = make_uint2(0, 0);
  for (int b = lane_of(); b < blocks; b += 32) best = better(best, draft->best[b]);
  best = best_of_warp(best);
  return best.x == kBroken || best.x <= sortable(-INFINITY) ? -1 : (int32_t)best.y;
}

/** A block's range of ids. */
struct Range {
  int64_t begin, end;
};
__device__ Range range_of(int64_t n, int64_t block, int64_t blocks) { return {n * block / blocks, n * (block + 1) / blocks}; }

/** The sum of one number of each block. */
__device__ double sum_of_blocks(const double* each, int blocks) {
  double sum = 0;
  for (int b = 0; b < blocks; b++) sum += each[b];
  return sum;
}

/** The elements that top-k keeps, and their weights. */
struct Draw {
  float highest, temperature;
  uint32_t floor;  // keys below it weigh nothing
  __device__ uint64_t operator()(float score, uint32_t key) const { return key < floor ? 0 : sample_weight(score, highest, temperature); }
};

/** What every kernel after the first knows. */
struct Known {
  int32_t best;  // -1: there is nothing to draw
  Draw draw;
};
__device__ Known known(const float* x, int64_t n, const GpuSampling& s, int blocks, Draft* draft, Threshold* found) {
  const int32_t best = best_id(draft, blocks);
  const uint32_t floor = s.top_k > 0 && s.top_k < n ? threshold_after(4, (uint64_t)s.top_k, draft->counts, draft->top_k, found).key : 0;
  return {best, {best < 0 ? 0 : x[best], s.temperature, floor}};
}

/** Counts the next byte of the keys that begin with top-k's first `bytes` bytes. */
__global__ void __launch_bounds__(kThreads) count_kernel(const float* x, int64_t n, int32_t top_k, Draft* draft, int bytes) {
  __shared__ Sums sums;
  __shared__ Threshold found;
  clear_sums(&sums, 1);
  const uint32_t prefix = threshold_after(bytes, (uint64_t)top_k, draft->counts, draft->top_k, &found).key;
  const Range range = range_of(n, blockIdx.x, gridDim.x);
  for (int64_t base = range.begin; base < range.end; base += kThreads) {
    const int64_t i = base + threadIdx.x;
    const uint32_t key = i < range.end ? sortable(x[i]) : 0;
    count_byte(sums.limb[0], key >> (24 - 8 * bytes) & 255, i < range.end && begins_with(key, prefix, bytes));
  }
  add_sums(sums, 1, &draft->counts[bytes]);
}

/** The weights of each range of ids. */
__global__ void __launch_bounds__(kThreads) mass_kernel(const float* x, int64_t n, GpuSampling s, Draft* draft) {
  __shared__ Threshold found;
  __shared__ double memory[kWarps];
  const Known k = known(x, n, s, (int)gridDim.x, draft, &found);
  if (k.best < 0) return;
  const Range range = range_of(n, blockIdx.x, gridDim.x);
  double mine = 0, total;
  for (int64_t i = range.begin + threadIdx.x; i < range.end; i += kThreads) mine += (double)k.draw(x[i], sortable(x[i]));
  sum_before(mine, memory, &total);
  if (threadIdx.x == 0) draft->mass[blockIdx.x] = total;
}

/** Weights by the next byte of the keys that begin with top-p's first `bytes` bytes. */
__global__ void __launch_bounds__(kThreads) weigh_kernel(const float* x, int64_t n, GpuSampling s, Draft* draft, int bytes) {
  __shared__ Sums sums;
  __shared__ Threshold found;
  const Known k = known(x, n, s, (int)gridDim.x, draft, &found);
  if (k.best < 0) return;
  clear_sums(&sums, 3);
  const uint64_t need = share_above(s.top_p, (uint64_t)sum_of_blocks(draft->mass, (int)gridDim.x));
  const uint32_t prefix = threshold_after(bytes, need, draft->masses, draft->top_p, &found).key;
  const Range range = range_of(n, blockIdx.x, gridDim.x);
  for (int64_t i = range.begin + threadIdx.x; i < range.end; i += kThreads) {
    const uint32_t key = sortable(x[i]), byte = key >> (24 - 8 * bytes) & 255;
    const uint64_t w = begins_with(key, prefix, bytes) ? k.draw(x[i], key) : 0;
    for (int limb = 0; limb < 3 && w; limb++) atomicAdd(&sums.limb[limb][byte], (uint32_t)(w >> (12 * limb)) & 4095u);
  }
  add_sums(sums, 3, &draft->masses[bytes]);
}

/** Top-p keeps all weights above the threshold's key, and the first elements at it whose weights reach `need`. Without top-p, all. */
__device__ Threshold top_p_of(const GpuSampling& s, Draft* draft, Threshold* found) {
  if (s.top_p >= 1) return {0, ~(uint64_t)0};
  return threshold_after(4, 0, draft->masses, draft->top_p, found);
}

/** The weights above the threshold and the number of elements at it, of each range of ids. */
__global__ void __launch_bounds__(kThreads) ranges_kernel(const float* x, int64_t n, GpuSampling s, Draft* draft) {
  __shared__ Threshold found;
  __shared__ double memory[kWarps];
  const Known k = known(x, n, s, (int)gridDim.x, draft, &found);
  if (k.best < 0) return;
  const Threshold least = top_p_of(s, draft, &found);
  const Range range = range_of(n, blockIdx.x, gridDim.x);
  double larger = 0, equals = 0, all;
  for (int64_t i = range.begin + threadIdx.x; i < range.end; i += kThreads) {
    const uint32_t key = sortable(x[i]);
    const double weight = (double)k.draw(x[i], key);
    if (key > least.key) larger += weight;
    else if (key == least.key && weight > 0) equals++;
  }
  sum_before(larger, memory, &all);
  if (threadIdx.x == 0) draft->larger[blockIdx.x] = all;
  sum_before(equals, memory, &all);
  if (threadIdx.x == 0) draft->equals[blockIdx.x] = all;
}

/** The first id, ascending, whose share of the weights reaches beyond a random share of them: the range that has it, then the id in it. */
__global__ void __launch_bounds__(kThreads) draw_kernel(const float* x, int64_t n, GpuSampling s, int blocks, Draft* draft, int32_t* id) {
  __shared__ Threshold found;
  __shared__ double memory[kWarps];
  if (s.temperature == 0) {
    const int32_t best = best_id(draft, blocks);
    if (threadIdx.x == 0) *id = best;
    return;
  }
  const Known k = known(x, n, s, blocks, draft, &found);
  if (k.best < 0) {
    if (threadIdx.x == 0) *id = -1;
    return;
  }
  const Threshold least = top_p_of(s, draft, &found);
  // The threshold's equals weigh the same, so as many of them are kept as `need` takes.
  union {
    uint32_t u;
    float f;
  } score = {least.key >> 31 ? least.key & 0x7fffffffu : ~least.key};
  const double at = s.top_p < 1 ? (double)k.draw(score.f, least.key) : 0;
  const double kept = s.top_p < 1 ? (double)((least.need + (uint64_t)at - 1) / (uint64_t)at) : 0;
  const auto mass_of = [&](double larger, double equals) { return larger + (equals < kept ? equals : kept) * at; };
  const double total = mass_of(sum_of_blocks(draft->larger, blocks), sum_of_blocks(draft->equals, blocks));
  const double target = (double)share_below(s.uniform, (uint64_t)total);
  double larger = 0, equals = 0;  // before the range
  int block = 0;
  while (block + 1 < blocks && mass_of(larger + draft->larger[block], equals + draft->equals[block]) <= target) {
    larger += draft->larger[block];
    equals += draft->equals[block++];
  }
  const Range range = range_of(n, block, blocks);
  for (int64_t base = range.begin; base < range.end; base += kThreads) {
    const int64_t i = base + threadIdx.x;
    const uint32_t key = i < range.end ? sortable(x[i]) : 0;
    const double weight = i < range.end && key >= least.key ? (double)k.draw(x[i], key) : 0;
    const bool is_equal = weight > 0 && key == least.key;
    double larger_here, equals_here;
    const double larger_before = larger + sum_before(is_equal ? 0 : weight, memory, &larger_here);
    const double equals_before = equals + sum_before((double)is_equal, memory, &equals_here);
    const double before = mass_of(larger_before, equals_before);
    const double after = mass_of(larger_before + (is_equal ? 0 : weight), equals_before + (double)is_equal);
    if (before <= target && target < after) *id = (int32_t)i;
    larger += larger_here;
    equals += equals_here;
    if (mass_of(larger, equals) > target) return;
  }
}

__global__ void broken_kernel(int32_t* id) { *id = -1; }

}  // namespace

void sample(GpuStream stream, GpuScratch scratch, const float* logits, int64_t n, const GpuSampling* sampling, int32_t* id) {
  const cudaStream_t s = (cudaStream_t)stream;
  if (n <= 0 || n > kMostLogits) {
    SV_LAUNCH(broken_kernel, 1, 1, 0, s, id);
    return;
  }
  Draft* draft = static_cast<Draft*>(scratch.take(scratch.state, (int64_t)sizeof(Draft)));
  if (!draft) return;
  const int64_t wanted = (n + kBlockLogits - 1) / kBlockLogits;
  const int blocks = (int)(wanted < kMostBlocks ? wanted : kMostBlocks);
  const GpuSampling& draw = *sampling;
  SV_LAUNCH(best_kernel, blocks, kThreads, 0, s, logits, n, draft);
  if (draw.temperature != 0) {
    if (draw.top_k > 0 && draw.top_k < n)
      for (int bytes = 0; bytes < 4; bytes++) SV_LAUNCH(count_kernel, blocks, kThreads, 0, s, logits, n, draw.top_k, draft, bytes);
    if (draw.top_p < 1) {
      SV_LAUNCH(mass_kernel, blocks, kThreads, 0, s, logits, n, draw, draft);
      for (int bytes = 0; bytes < 4; bytes++) SV_LAUNCH(weigh_kernel, blocks, kThreads, 0, s, logits, n, draw, draft, bytes);
    }
    SV_LAUNCH(ranges_kernel, blocks, kThreads, 0, s, logits, n, draw, draft);
  }
  SV_LAUNCH(draw_kernel, 1, kThreads, 0, s, logits, n, draw, blocks, draft, id);
}

}  // namespace gpu
}  // namespace sv
