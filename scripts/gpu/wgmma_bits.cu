// Whether wgmma and mma.sync add up products to the same bits, which decides if products of many rows may use wgmma while those of few rows
// use mma.sync: a row's result must not depend on the rows that are computed with it. Hopper only; first.sh builds and runs it:
//   nvcc -std=c++17 -gencode=arch=compute_90a,code=sm_90a -Inative scripts/gpu/wgmma_bits.cu -o wgmma_bits
// The last line is JSON. Exit code 1: small integers, whose sums are exact, differ, so that the operands are laid out wrongly.
#include <stdio.h>

#include <vector>

#include "cuda/mma.h"

namespace {

constexpr int kRows = 64, kColumns = 8, kDepth = 16;

/** d [64][8] += a [64][16] b [16][8] by a group of four warps; a's and d's fragments are mma.sync's, 16 rows to a warp. b in shared memory:
 *  two blocks of 8 inputs, each [8 columns][8 inputs]. */
__device__ void wgmma_m64n8k16(float d[4], const uint32_t a[4], const uint16_t* b) {
  const uint64_t place = (__cvta_generic_to_shared(b) & 0x3ffff) >> 4, step = 128 >> 4;  // from one block to the next
  const uint64_t descriptor = place | step << 16 | step << 32;
  asm volatile(
      "{\n"
      "wgmma.fence.sync.aligned;\n"
      "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0,%1,%2,%3}, {%4,%5,%6,%7}, %8, 1, 1, 1, 0;\n"
      "wgmma.commit_group.sync.aligned;\n"
      "wgmma.wait_group.sync.aligned 0;\n"
      "}\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(descriptor)
      : "memory");
}

/** a [64][k], b [k][8] in bf16; both results [64][8]. */
__global__ void __launch_bounds__(128) multiply_twice(const uint16_t* a, const uint16_t* b, int k, float* by_mma, float* by_wgmma) {
  __shared__ alignas(128) uint16_t tile[2][kColumns][8];
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, row = threadIdx.x / 32 * 16 + g;
  float d[4] = {}, e[4] = {};
  for (int begin = 0; begin < k; begin += kDepth) {
    __syncthreads();
    const int input = threadIdx.x / kColumns, column = threadIdx.x % kColumns;
    tile[input / 8][column][input % 8] = b[(begin + input) * kColumns + column];
    asm volatile("fence.proxy.async.shared::cta;" ::
                     : "memory");
    __syncthreads();
    uint32_t x[4], y[2];
    for (int r = 0; r < 4; r++) memcpy(&x[r], a + (row + 8 * (r % 2)) * k + begin + 2 * t + 8 * (r / 2), 4);
    for (int r = 0; r < 2; r++) memcpy(&y[r], &tile[r][g][2 * t], 4);
    sv::mma_m16n8k16_bf16(d, x, y);
    wgmma_m64n8k16(e, x, &tile[0][0][0]);
  }
  for (int r = 0; r < 4; r++) {
    const int at = (row + 8 * (r / 2)) * kColumns + 2 * t + r % 2;
    by_mma[at] = d[r];
    by_wgmma[at] = e[r];
  }
}

uint32_t state = 1;
uint32_t bits32() { return state = state * 1664525u + 1013904223u; }

/** How many of the 512 results differ; `scale` 0: small integers. -1: CUDA failed. */
int differing(int k, float scale) {
  std::vector<uint16_t> host[2] = {std::vector<uint16_t>(kRows * k), std::vector<uint16_t>(kColumns * k)};
  for (auto& values : host)
    for (uint16_t& v : values) {
      const float number = scale == 0 ? (float)(int)(bits32() >> 29) - 3 : ((float)(bits32() >> 8) * 0x1p-23f - 1) * scale;
      v = (uint16_t)sv::bf16_bits(number);
    }
  uint16_t* in[2];
  float *out[2], results[2][kRows * kColumns];
  for (int i = 0; i < 2; i++) {
    cudaMalloc(&in[i], host[i].size() * 2);
    cudaMalloc(&out[i], sizeof results[i]);
    cudaMemcpy(in[i], host[i].data(), host[i].size() * 2, cudaMemcpyHostToDevice);
  }
  multiply_twice<<<1, 128>>>(in[0], in[1], k, out[0], out[1]);
  for (int i = 0; i < 2; i++) cudaMemcpy(results[i], out[i], sizeof results[i], cudaMemcpyDeviceToHost);
  const cudaError_t error = cudaDeviceSynchronize();
  if (error != cudaSuccess) {
    printf("%s\n", cudaGetErrorString(error));
    return -1;
  }
  int different = 0;
  for (int i = 0; i < kRows * kColumns; i++) different += memcmp(&results[0][i], &results[1][i], 4) != 0;
  return different;
}

}  // namespace

int main() {
  const int exact = differing(256, 0), one = differing(16, 1), chain = differing(2048, 1);
  printf("{\"integers_differ\":%d,\"one_step_differs\":%d,\"chain_differs\":%d,\"of\":%d}\n", exact, one, chain, kRows * kColumns);
  return exact != 0 || one < 0 || chain < 0;
}
