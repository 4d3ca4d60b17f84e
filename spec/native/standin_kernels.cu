// Threads, warps, atomics, numbers and tensor cores against CUDA's and PTX's manuals.
#include "standin_testing.h"

namespace standin {
namespace {

// --- grids, blocks, barriers -------------------------------------------------------------------------------

__global__ void mark_index(int* visits, int* sizes) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  atomicAdd(&visits[block * blockDim.x * blockDim.y * blockDim.z + thread], 1);
  if (block == 0 && thread == 0) {
    const unsigned all[6] = {gridDim.x, gridDim.y, gridDim.z, blockDim.x, blockDim.y, blockDim.z};
    for (int i = 0; i < 6; i++) sizes[i] = int(all[i]);
  }
}
void check_grid() {
  const dim3 grid(5, 3, 7), block(11, 2, 3);
  Buffer<int> visits(5 * 3 * 7 * 11 * 2 * 3), sizes(6);
  SV_LAUNCH(mark_index, grid, block, 0, nullptr, visits.device, sizes.device);
  for (int v : visits.get()) CHECK_EQ(v, 1);
  const int want[6] = {5, 3, 7, 11, 2, 3};
  for (int i = 0; i < 6; i++) CHECK_EQ(sizes.get()[size_t(i)], want[i]);
}

struct Sum {
  int n;
  const int* x;
  int* y;
};
/** y[block] = sum of x, through static and dynamic shared memory. */
template <int kBlock, bool kDynamic> __global__ void sum_blocks(Sum sum) {
  __shared__ int fixed[kBlock];
  SV_DYNAMIC_SHARED(bytes);
  int* part = kDynamic ? reinterpret_cast<int*>(bytes) : fixed;
  int own = 0;
  for (int i = int(blockIdx.x * blockDim.x + threadIdx.x); i < sum.n; i += int(gridDim.x * blockDim.x)) own += sum.x[i];
  part[threadIdx.x] = own;
  __syncthreads();
  for (unsigned half = kBlock / 2; half != 0; half /= 2) {
    if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 0) sum.y[blockIdx.x] = part[0];
}
void check_barrier() {
  std::vector<int> x(10007);
  int want = 0;
  for (int& v : x) want += v = int(draw() % 1000);
  Buffer<int> in(x), out(37);
  const auto total = [&] {
    int sum = 0;
    for (int v : out.get()) sum += v;
    return sum;
  };
  SV_LAUNCH((sum_blocks<256, false>), 37, 256, 0, nullptr, Sum{10007, in.device, out.device});
  CHECK_EQ(total(), want);
  SV_LAUNCH((sum_blocks<512, true>), 37, 512, 512 * sizeof(int), nullptr, Sum{10007, in.device, out.device});
  CHECK_EQ(total(), want);
}

/** Threads from `leave` on return at once; the others still meet. */
__global__ void meet_without(int leave, int* y) {
  __shared__ int part[96];
  if (int(threadIdx.x) >= leave) return;
  part[threadIdx.x] = int(threadIdx.x) + 1;
  __syncthreads();
  y[threadIdx.x] = part[leave - 1 - int(threadIdx.x)] + (__any_sync(0xffffffffu, threadIdx.x == 0) ? 1000 : 0);
}
void check_returned() {
  Buffer<int> y(96);
  SV_LAUNCH(meet_without, 1, 96, 0, nullptr, 41, y.device);
  y.get();
  for (int i = 0; i < 41; i++) CHECK_EQ(y.host[size_t(i)], 41 - i + (i < 32 ? 1000 : 0));
  for (int i = 41; i < 96; i++) CHECK_EQ(y.host[size_t(i)], 0);
}

// --- warp functions ----------------------------------------------------------------------------------------

__global__ void all_shuffles(const int* x, int amount, int width, int* y) {
  const int i = int(threadIdx.x), n = int(blockDim.x);
  y[i] = __shfl_sync(0xffffffffu, x[i], amount, width);
  y[n + i] = __shfl_xor_sync(0xffffffffu, x[i], amount % width, width);
  y[2 * n + i] = __shfl_up_sync(0xffffffffu, x[i], unsigned(amount), width);
  y[3 * n + i] = __shfl_down_sync(0xffffffffu, x[i], unsigned(amount), width);
  y[4 * n + i] = int(__shfl_sync(0xffffffffu, float(x[i]) + 0.5f, amount + i, width) * 2);
}
void check_shuffles() {
  const int n = 96;
  std::vector<int> x;
  for (int i = 0; i < n; i++) x.push_back(int(draw() % 100000));
  Buffer<int> in(x), out(size_t(5 * n));
  for (int width : {2, 4, 8, 16, 32})
    for (int amount = 0; amount < 32; amount += 3) {
      SV_LAUNCH(all_shuffles, 1, n, 0, nullptr, in.device, amount, width, out.device);
      const std::vector<int>& y = out.get();
      for (int i = 0; i < n; i++) {
        const int first = i / width * width, last = first + width - 1;
        const auto at = [&](int from) { return x[size_t(from)]; };
        CHECK_EQ(y[size_t(i)], at(first + amount % width));
        CHECK_EQ(y[size_t(n + i)], at(i ^ (amount % width)));
        CHECK_EQ(y[size_t(2 * n + i)], at(i - amount >= first ? i - amount : i));
        CHECK_EQ(y[size_t(3 * n + i)], at(i + amount <= last ? i + amount : i));
        CHECK_EQ(y[size_t(4 * n + i)], 2 * at(first + (amount + i % 32) % width) + 1);
      }
    }
}

__global__ void all_votes(const int* x, uint32_t* y) {
  const int i = int(threadIdx.x), n = int(blockDim.x);
  y[i] = __ballot_sync(0xffffffffu, x[i] > 1);
  y[n + i] = uint32_t(__any_sync(0xffffffffu, x[i] > 2) * 2 + __all_sync(0xffffffffu, x[i] > 0));
  __syncwarp();
  // Each half for itself, in different numbers of rounds.
  const uint32_t half = i % 32 < 16 ? 0xffffu : 0xffff0000u;
  uint32_t votes = 0;
  for (int round = 0; round < (i % 32 < 16 ? 3 : 5); round++) votes += __ballot_sync(half, x[i] == round);
  y[2 * n + i] = votes;
}
void check_votes() {
  const int n = 77;  // the last warp has 13 lanes
  std::vector<int> x;
  for (int i = 0; i < n; i++) x.push_back(i < 32 ? int(draw() % 4) : (i < 64 ? 1 + int(draw() % 2) : 3));
  Buffer<int> in(x);
  Buffer<uint32_t> out(size_t(3 * n));
  SV_LAUNCH(all_votes, 1, n, 0, nullptr, in.device, out.device);
  const std::vector<uint32_t>& y = out.get();
  for (int i = 0; i < n; i++) {
    uint32_t ballot = 0, any = 0, all = 1, halves = 0;
    for (int j = i / 32 * 32; j < n && j < i / 32 * 32 + 32; j++) {
      ballot |= uint32_t(x[size_t(j)] > 1) << j % 32;
      any |= x[size_t(j)] > 2;
      all &= x[size_t(j)] > 0;
      for (int round = 0; round < (i % 32 < 16 ? 3 : 5); round++)
        if (j / 16 == i / 16 && x[size_t(j)] == round) halves += 1u << j % 32;
    }
    CHECK_EQ(y[size_t(i)], ballot);
    CHECK_EQ(y[size_t(n + i)], any * 2 + all);
    CHECK_EQ(y[size_t(2 * n + i)], halves);
  }
}

// --- numbers and atomics -----------------------------------------------------------------------------------

__global__ void bits(const uint32_t* x, uint32_t* y) {
  const uint32_t v = x[threadIdx.x], w = __ldg(&x[threadIdx.x + 1]);
  uint32_t* own = y + 9 * threadIdx.x;
  own[0] = uint32_t(__popc(v));
  own[1] = uint32_t(__clz(int(v)));
  own[2] = uint32_t(__ffs(int(v)));
  own[3] = uint32_t(__dp4a(int(v), int(w), 5));
  own[4] = __dp4a(v, w, 7u);
  own[5] = __float_as_uint(-__uint_as_float(v | 0x3f800000u));
  own[6] = uint32_t(__float_as_int(__int_as_float(int(v & 0x3fffffffu))));
  own[7] = __byte_perm(v, w, 0x6045);
  own[8] = __float_as_uint(__fmul_rn(float(v), 3.f) - float(v) * 2.f);
}
void check_bits() {
  std::vector<uint32_t> x = {0, 1, 0x80000000u, 0xffffffffu, 0x00ff8001u};
  while (x.size() < 34) x.push_back(draw() * 2654435761u);
  Buffer<uint32_t> in(x), out(9 * 33);
  SV_LAUNCH(bits, 1, 33, 0, nullptr, in.device, out.device);
  const std::vector<uint32_t>& y = out.get();
  for (size_t i = 0; i < 33; i++) {
    uint32_t ones = 0, leading = 32, first = 0, dot_u = 7;
    int dot_s = 5;
    for (int b = 0; b < 32; b++) {
      if (!(x[i] >> b & 1)) continue;
      ones++;
      leading = uint32_t(31 - b);
      if (first == 0) first = uint32_t(b + 1);
    }
    for (int b = 0; b < 4; b++) {
      const uint32_t p = x[i] >> 8 * b & 255, q = x[i + 1] >> 8 * b & 255;
      dot_u += p * q;
      dot_s += (int(p) - (p > 127 ? 256 : 0)) * (int(q) - (q > 127 ? 256 : 0));
    }
    const uint32_t p = x[i], q = x[i + 1], chosen = (q >> 8 & 255) | (q & 255) << 8 | (p & 255) << 16 | (q >> 16 & 255) << 24;
    const volatile float three = float(p) * 3.f, two = float(p) * 2.f;
    const uint32_t want[9] = {ones, leading, first, uint32_t(dot_s), dot_u, (x[i] | 0x3f800000u) ^ 0x80000000u, x[i] & 0x3fffffffu,
                              chosen, word_of(three - two)};
    for (size_t j = 0; j < 9; j++) CHECK_EQ(y[9 * i + j], want[j]);
  }
}

__global__ void all_atomics(int* i, uint32_t* u, float* f) {
  const int n = int(blockIdx.x * blockDim.x + threadIdx.x);
  atomicAdd(&i[0], n);
  atomicMax(&i[1], n - 1000);
  atomicMin(&i[2], -n);
  atomicAdd(&u[0], uint32_t(n));
  atomicMax(&u[1], uint32_t(n) + 0x80000000u);
  atomicMin(&u[2], 0xffffffffu - uint32_t(n));
  atomicAdd(&f[0], float(n % 8));
  for (int old = i[3], seen = -1; seen != old;) seen = old, old = atomicCAS(&i[3], seen, seen + 2);
  if (atomicExch(&u[3], 1u) == 0) atomicAdd(&i[4], 1);  // one thread only
}
void check_atomics() {
  Buffer<int> i(5);
  Buffer<uint32_t> u(std::vector<uint32_t>{0, 0, 0xffffffffu, 0});
  Buffer<float> f(1);
  SV_LAUNCH(all_atomics, 19, 160, 0, nullptr, i.device, u.device, f.device);
  const int n = 19 * 160;
  i.get(), u.get(), f.get();
  CHECK_EQ(i.host[0], n * (n - 1) / 2);
  CHECK_EQ(i.host[1], n - 1001);
  CHECK_EQ(i.host[2], 1 - n);
  CHECK_EQ(i.host[3], 2 * n);
  CHECK_EQ(i.host[4], 1);
  CHECK_EQ(u.host[0], uint32_t(n * (n - 1) / 2));
  CHECK_EQ(u.host[1], uint32_t(n - 1) + 0x80000000u);
  CHECK_EQ(u.host[2], 0xffffffffu - uint32_t(n - 1));
  CHECK_EQ(f.host[0], float(n / 8 * 28));
}

// --- tensor cores ------------------------------------------------------------------------------------------

__global__ void multiply_bf16(const uint32_t* a, const uint32_t* b, float* d) {
  const int lane = int(threadIdx.x);
  sv::mma_m16n8k16_bf16(d + 4 * lane, a + 4 * lane, b + 2 * lane);
}
__global__ void multiply_s8(const uint32_t* a, const uint32_t* b, int32_t* d) {
  const int lane = int(threadIdx.x);
  sv::mma_m16n8k32_s8(d + 4 * lane, a + 4 * lane, b + 2 * lane);
}
/** Where an element of a 16-row matrix lies, parts of `parts` elements: the tables of the PTX manual, from element to lane. */
size_t word_of_a(int row, int column, int parts) {
  return size_t(4 * (row % 8 * 4 + column / parts % 4) + (row >= 8 ? 1 : 0) + (column >= 4 * parts ? 2 : 0));
}
size_t word_of_b(int row, int column, int parts) { return size_t(2 * (column * 4 + row / parts % 4) + (row >= 4 * parts ? 1 : 0)); }
size_t place_of_d(int row, int column) { return size_t(4 * (row % 8 * 4 + column / 2) + (row >= 8 ? 2 : 0) + column % 2); }

void check_mma_bf16() {
  float a[16][16], b[16][8];
  std::vector<uint32_t> words_a(128), words_b(64);
  std::vector<float> start;
  const auto value = [] { return sv::bf16_low(sv::bf16_bits((float(draw() % 4001) - 2000.f) / 512)); };
  for (int m = 0; m < 16; m++)
    for (int k = 0; k < 16; k++) words_a[word_of_a(m, k, 2)] |= sv::bf16_bits(a[m][k] = value()) << 16 * (k % 2);
  for (int k = 0; k < 16; k++)
    for (int n = 0; n < 8; n++) words_b[word_of_b(k, n, 2)] |= sv::bf16_bits(b[k][n] = value()) << 16 * (k % 2);
  for (int i = 0; i < 128; i++) start.push_back(float(draw() % 100));
  Buffer<uint32_t> in_a(words_a), in_b(words_b);
  Buffer<float> d(start);
  SV_LAUNCH(multiply_bf16, 1, 32, 0, nullptr, in_a.device, in_b.device, d.device);
  d.get();
  for (int m = 0; m < 16; m++)
    for (int n = 0; n < 8; n++) {
      double want = start[place_of_d(m, n)];
      for (int k = 0; k < 16; k++) want += double(a[m][k]) * b[k][n];
      CHECK(fabs(d.host[place_of_d(m, n)] - want) < 1e-4 * (1 + fabs(want)));
    }
}
void check_mma_s8() {
  int a[16][32], b[32][8];
  std::vector<uint32_t> words_a(128), words_b(64);
  std::vector<int32_t> start;
  const auto value = [] { return int(draw() % 256) - 128; };
  for (int m = 0; m < 16; m++)
    for (int k = 0; k < 32; k++) words_a[word_of_a(m, k, 4)] |= uint32_t(uint8_t(a[m][k] = value())) << 8 * (k % 4);
  for (int k = 0; k < 32; k++)
    for (int n = 0; n < 8; n++) words_b[word_of_b(k, n, 4)] |= uint32_t(uint8_t(b[k][n] = value())) << 8 * (k % 4);
  for (int i = 0; i < 128; i++) start.push_back(value());
  Buffer<uint32_t> in_a(words_a), in_b(words_b);
  Buffer<int32_t> d(start);
  SV_LAUNCH(multiply_s8, 1, 32, 0, nullptr, in_a.device, in_b.device, d.device);
  d.get();
  for (int m = 0; m < 16; m++)
    for (int n = 0; n < 8; n++) {
      int want = start[place_of_d(m, n)];
      for (int k = 0; k < 32; k++) want += a[m][k] * b[k][n];
      CHECK_EQ(d.host[place_of_d(m, n)], want);
    }
}

}  // namespace

// clang-format off
const std::vector<Check> kernel_checks = {
    {"grid", check_grid}, {"barrier", check_barrier}, {"returned threads", check_returned}, {"shuffles", check_shuffles},
    {"votes", check_votes}, {"bits", check_bits}, {"atomics", check_atomics}, {"mma bf16", check_mma_bf16}, {"mma s8", check_mma_s8},
};
// clang-format on

}  // namespace standin
