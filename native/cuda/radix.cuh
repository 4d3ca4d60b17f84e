// Selection by bytes of a 32-bit key from the top, over the blocks of several kernels: sums by a byte's value, and the value at which
// they reach what is asked for. Blocks have kThreads threads. Knows neither what the keys are nor what the weights mean.
#pragma once
#include "cuda.h"

namespace sv {
namespace gpu {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
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
  const T warps = sum_through_lane(lane_of() < kWarps ? memory[lane_of()] : T(0));
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

/** Adds a block's sums to those of all. */
__device__ void add_sums(const Sums& mine, int limbs, Sums* all) {
  __syncthreads();
  for (int limb = 0; limb < limbs; limb++)
    for (int i = threadIdx.x; i < 256; i += kThreads)
      if (mine.limb[limb][i]) atomicAdd(&all->limb[limb][i], mine.limb[limb][i]);
}

__device__ void clear_sums(Sums* sums, int limbs) {
  for (int limb = 0; limb < limbs; limb++)
    for (int i = threadIdx.x; i < 256; i += kThreads) sums->limb[limb][i] = 0;
  __syncthreads();
}

/** Whether a key begins with the bytes of a threshold. */
__device__ bool begins_with(uint32_t key, uint32_t prefix, int bytes) { return bytes == 0 || key >> (32 - 8 * bytes) == prefix; }

/** The threshold after `bytes` bytes of the key, from the sums of the last one and the threshold before it; block 0 keeps it for the kernels
 *  after the next histogram. Every thread of a block must call it. */
__device__ Threshold threshold_after(int bytes, uint64_t need, const Sums* sums, Threshold* kept, Threshold* found) {
  __syncthreads();
  if (warp_of() == 0) {
    if (lane_of() == 0) *found = bytes < 2 ? Threshold{0, need} : kept[bytes - 2];
    __syncwarp();
    if (bytes > 0) find_byte(sums[bytes - 1], found);
    __syncwarp();
    if (lane_of() == 0 && blockIdx.x == 0 && bytes > 0) kept[bytes - 1] = *found;
  }
  __syncthreads();
  return *found;
}

}  // namespace
}  // namespace gpu
}  // namespace sv
