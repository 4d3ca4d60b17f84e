// Samples a token id from logits. Radix selection in one block of 1024 threads: one multiprocessor reads its input a few times, which is
// simple, and fast enough for a row of logits.
#include "cuda.h"
#include "launchers.h"
#include "../kernels/sample.h"

namespace sv {
namespace gpu {
namespace {

constexpr int kThreads = 1024, kWarps = kThreads / 32;
constexpr int kBestBlocks = 64, kBestThreads = 256;
constexpr uint32_t kAll = 0xffffffffu;

__device__ int lane_of() { return threadIdx.x & 31; }
__device__ int warp_of() { return threadIdx.x >> 5; }

// Sums are integers below 2^53, which doubles hold exactly: they have no order, and need no 64-bit shuffles.

/** The inclusive sum over the warp's lanes. */
template <typename T>
__device__ T sum_through_lane(T mine) {
  for (int step = 1; step < 32; step *= 2) {
    const T other = __shfl_up_sync(kAll, mine, step);
    if (lane_of() >= step) mine += other;
  }
  return mine;
}

/** The sum over the block's threads before this one; `total` is over all. `memory`: kWarps values that the block shares. */
template <typename T>
__device__ T sum_before(T mine, T* memory, T* total) {
  const T sum = sum_through_lane(mine);
  __syncthreads();  // the last call's readers are done
  if (lane_of() == 31) memory[warp_of()] = sum;
  __syncthreads();
  const T warps = sum_through_lane(memory[lane_of()]);
  *total = __shfl_sync(kAll, warps, kWarps - 1);
  const T before = __shfl_sync(kAll, warps, warp_of() ? warp_of() - 1 : 0);
  return (warp_of() ? before : 0) + sum - mine;
}

/** Weights per byte of the key, below 2^36, as three limbs of 12 bits: 2^20 of them cannot overflow 32 bits. */
struct Sums {
  uint32_t limb[3][256];
};

__device__ uint64_t sum_of(const Sums& s, int byte) {
  return (uint64_t)s.limb[0][byte] + ((uint64_t)s.limb[1][byte] << 12) + ((uint64_t)s.limb[2][byte] << 24);
}

/** Adds 1 to a count for every lane that `wants` to: those that share the first lane's byte at once, the others one by one. */
__device__ void count_byte(uint32_t* counts, uint32_t byte, bool wants) {
  const uint32_t wanting = __ballot_sync(kAll, wants);
  if (!wanting) return;
  const int leader = __ffs(wanting) - 1;
  const uint32_t common = __shfl_sync(kAll, byte, leader);
  const uint32_t equal = __ballot_sync(kAll, wants && byte == common);
  if (lane_of() == leader) atomicAdd(&counts[common], (uint32_t)__popc(equal));
  else if (wants && byte != common) atomicAdd(&counts[byte], 1u);
}

/** The largest key that, with all larger ones, reaches `need`, and the weight that it and its equals must contribute. */
struct Threshold {
  uint32_t key;
  uint64_t need;
};

/** Appends to the key the byte at which the sums from the top reach `need`. One warp; lane i has bytes 255 - 8 i and the 7 below. */
__device__ void find_byte(const Sums& sums, Threshold* found) {
  uint64_t need = found->need;
  double mine = 0;
  int byte = 255 - 8 * lane_of();
  for (int i = 0; i < 8; i++) mine += (double)sum_of(sums, byte - i);
  const double through = sum_through_lane(mine);
  const uint32_t reached = __ballot_sync(kAll, through >= (double)need);
  if (!reached || lane_of() != __ffs(reached) - 1) return;
  need -= (uint64_t)(through - mine);
  for (; sum_of(sums, byte) < need; byte--) need -= sum_of(sums, byte);
  *found = {found->key << 8 | (uint32_t)byte, need};
}

/** By bytes of the key from the top. `weight` 0 leaves an element out; kCounts: weights are 1. */
template <bool kCounts, typename Weight>
__device__ Threshold select(const float* x, int64_t n, uint64_t need, Sums* sums, Threshold* found, Weight weight) {
  const int64_t padded = (n + kThreads - 1) / kThreads * kThreads;
  if (threadIdx.x == 0) *found = {0, need};
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int i = threadIdx.x; i < 256; i += kThreads) sums->limb[0][i] = sums->limb[1][i] = sums->limb[2][i] = 0;
    __syncthreads();
    const uint32_t prefix = found->key;
    for (int64_t i = threadIdx.x; i < padded; i += kThreads) {
      const uint32_t key = i < n ? sortable(x[i]) : 0, byte = key >> shift & 255;
      const bool wants = i < n && (shift == 24 || key >> (shift + 8) == prefix);
      if (kCounts) {
        count_byte(sums->limb[0], byte, wants);
      } else if (wants) {
        const uint64_t w = weight(x[i], key);
        if (!w) continue;
        for (int limb = 0; limb < 3; limb++) atomicAdd(&sums->limb[limb][byte], (uint32_t)(w >> (12 * limb)) & 4095u);
      }
    }
    __syncthreads();
    if (warp_of() == 0) find_byte(*sums, found);
    __syncthreads();
  }
  return *found;
}

// --- sampling --------------------------------------------------------------------------------------------------------

/** The better of two (key, index) pairs: the larger key, then the lower index. */
__device__ uint2 better(uint2 a, uint2 b) { return b.x > a.x || (b.x == a.x && b.y < a.y) ? b : a; }

__device__ uint2 best_of_warp(uint2 best) {
  for (int step = 16; step; step /= 2)
    best = better(best, make_uint2(__shfl_xor_sync(kAll, best.x, step), __shfl_xor_sync(kAll, best.y, step)));
  return best;
}

constexpr uint32_t kBroken = 0xffffffffu;  // above every key: an element that makes the whole row invalid

/** Each block's best (key, index). NaN and +infinity count as kBroken, so that they win. */
__global__ void best_kernel(const float* x, int64_t n, uint2* out) {
  __shared__ uint2 memory[kBestThreads / 32];
  uint2 best = make_uint2(0, 0);
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x)
    best = better(best, make_uint2(x[i] < INFINITY ? sortable(x[i]) : kBroken, (uint32_t)i));
  best = best_of_warp(best);
  if (lane_of() == 0) memory[warp_of()] = best;
  __syncthreads();
  if (threadIdx.x) return;
  for (int w = 1; w < kBestThreads / 32; w++) best = better(best, memory[w]);
  out[blockIdx.x] = best;
}

/** The best of all blocks, or -1 when the row is broken or nothing is above -infinity. */
__device__ int32_t best_id(const uint2* blocks, int32_t count) {
  uint2 best = make_uint2(0, 0);
  for (int32_t b = 0; b < count; b++) best = better(best, blocks[b]);
  return best.x == kBroken || best.x <= sortable(-INFINITY) ? -1 : (int32_t)best.y;
}

/** The elements that may still be drawn, and their weights. */
struct Draw {
  float highest, temperature;
  uint32_t floor;   // by top-k: keys below it weigh nothing
  Threshold least;  // by top-p: keys below it neither; of its equals the first few
  __device__ uint64_t operator()(float score, uint32_t key) const {
    return key < floor ? 0 : sample_weight(score, highest, temperature);
  }
};

/** The sum of the weights of all elements at or above `key`. */
__device__ double mass_above(const Draw& draw, const float* x, int64_t n, uint32_t key, double* memory) {
  double mine = 0, total;
  for (int64_t i = threadIdx.x; i < n; i += kThreads) {
    const uint32_t here = sortable(x[i]);
    if (here > key) mine += (double)draw(x[i], here);
  }
  sum_before(mine, memory, &total);
  return total;
}

/** The first id, ascending, whose share of the weights reaches beyond `target`. */
__device__ void draw_id(const Draw& draw, const float* x, int64_t n, double target, double* memory, int32_t* id) {
  double mass = 0, equals = 0;
  for (int64_t base = 0; base < n; base += kThreads) {
    const int64_t i = base + threadIdx.x;
    const uint32_t key = i < n ? sortable(x[i]) : 0;
    double weight = i < n && key >= draw.least.key ? (double)draw(x[i], key) : 0;
    const bool is_equal = weight > 0 && key == draw.least.key;
    double equals_here, mass_here;
    const double equals_before = equals + sum_before((double)is_equal, memory, &equals_here);
    if (is_equal && equals_before * weight >= (double)draw.least.need) weight = 0;  // those before it suffice
    const double before = mass + sum_before(weight, memory, &mass_here);
    if (before <= target && target < before + weight) *id = (int32_t)i;
    mass += mass_here;
    equals += equals_here;
    if (mass > target) return;
  }
}

__global__ void __launch_bounds__(kThreads) sample_kernel(const float* x, int64_t n, GpuSampling s, const uint2* blocks, int32_t* id) {
  __shared__ Sums sums;
  __shared__ Threshold found;
  __shared__ double memory[kWarps];
  const int32_t best = best_id(blocks, kBestBlocks);
  if (best < 0 || s.temperature == 0) {
    if (threadIdx.x == 0) *id = best;
    return;
  }
  Draw draw = {x[best], s.temperature, 0, {0, ~(uint64_t)0}};
  if (s.top_k > 0 && s.top_k < n)
    draw.floor = select<true>(x, n, (uint64_t)s.top_k, &sums, &found, [](float, uint32_t) { return (uint64_t)1; }).key;
  double mass = mass_above(draw, x, n, 0, memory);
  if (s.top_p < 1) {
    draw.least = select<false>(x, n, share_above(s.top_p, (uint64_t)mass), &sums, &found, draw);
    const double larger = mass_above(draw, x, n, draw.least.key, memory);
    // The threshold's equals weigh the same, so as many of them are kept as `need` takes.
    union {
      uint32_t u;
      float f;
    } score = {draw.least.key >> 31 ? draw.least.key & 0x7fffffffu : ~draw.least.key};
    const uint64_t weight = draw(score.f, draw.least.key);
    mass = larger + (double)((draw.least.need + weight - 1) / weight * weight);
  }
  draw_id(draw, x, n, (double)share_below(s.uniform, (uint64_t)mass), memory, id);
}

__global__ void broken_kernel(int32_t* id) { *id = -1; }

}  // namespace

void sample(GpuStream stream, GpuScratch scratch, const float* logits, int64_t n, const GpuSampling* sampling, int32_t* id) {
  const cudaStream_t s = (cudaStream_t)stream;
  if (n <= 0 || n > kMostLogits) {
    SV_LAUNCH(broken_kernel, 1, 1, 0, s, id);
    return;
  }
  uint2* blocks = static_cast<uint2*>(scratch.take(scratch.state, kBestBlocks * (int64_t)sizeof(uint2)));
  if (!blocks) return;
  SV_LAUNCH(best_kernel, kBestBlocks, kBestThreads, 0, s, logits, n, blocks);
  SV_LAUNCH(sample_kernel, 1, kThreads, 0, s, logits, n, *sampling, (const uint2*)blocks, id);
}

}  // namespace gpu
}  // namespace sv
