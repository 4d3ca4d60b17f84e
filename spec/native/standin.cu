// Checks of testing/cuda and cuda/mma.h against the definitions in CUDA's and PTX's manuals. Compiled by standin.spec.ts with
// g++ -x c++ -DSV_STANDIN; what does not ask for the stand-in itself also compiles with nvcc and holds on a GPU. Without an
// argument it runs every check and prints `ok <name>` for each; with one it does something that must end the process.

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "cuda/mma.h"

namespace {

int failures = 0;
#define CHECK(condition)                                                                          \
  do {                                                                                            \
    if (!(condition)) failures++, fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
  } while (0)
template <class A, class B> void check_equal(int line, const char* text, const A& got, const B& want) {
  if (got == A(want)) return;
  failures++;
  fprintf(stderr, "%s:%d: %s is %g, not %g\n", __FILE__, line, text, double(got), double(want));
}
#define CHECK_EQ(a, b) check_equal(__LINE__, #a, (a), (b))

uint32_t word_of(float x) {
  uint32_t word;
  memcpy(&word, &x, sizeof word);
  return word;
}
uint32_t random_state = 1;
uint32_t draw() { return random_state = random_state * 1664525u + 1013904223u, random_state >> 8; }

/** Device memory with a copy on the host. */
template <class T> struct Buffer {
  std::vector<T> host;
  T* device = nullptr;
  explicit Buffer(size_t n, T value = T()) : host(n, value) {
    CHECK(cudaMalloc(&device, n * sizeof(T)) == cudaSuccess);
    put();
  }
  explicit Buffer(const std::vector<T>& values) : Buffer(values.size()) { host = values, put(); }
  Buffer(const Buffer&) = delete;
  ~Buffer() { CHECK(cudaFree(device) == cudaSuccess); }
  void put() { CHECK(cudaMemcpy(device, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice) == cudaSuccess); }
  std::vector<T>& get() {
    CHECK(cudaDeviceSynchronize() == cudaSuccess);
    CHECK(cudaMemcpy(host.data(), device, host.size() * sizeof(T), cudaMemcpyDeviceToHost) == cudaSuccess);
    return host;
  }
};

struct Stream {
  cudaStream_t stream;
  Stream() { CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess); }
  ~Stream() { CHECK(cudaStreamDestroy(stream) == cudaSuccess); }
  operator cudaStream_t() const { return stream; }
};

/** Holds a stream back until it is opened. */
struct Gate {
  std::mutex mutex;
  std::condition_variable changed;
  bool is_open = false;
  void hold(cudaStream_t stream) {
    CHECK(cudaLaunchHostFunc(
              stream, [](void* self) {
                auto* gate = static_cast<Gate*>(self);
                std::unique_lock<std::mutex> lock(gate->mutex);
                gate->changed.wait(lock, [gate] { return gate->is_open; });
              },
              this) == cudaSuccess);
  }
  void open() {
    std::lock_guard<std::mutex> lock(mutex);
    is_open = true;
    changed.notify_all();
  }
};

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

void check_bf16() {
  // clang-format off
  const struct { uint32_t f32, bf16; } table[] = {
      // clang-format off
      {0x3f800000, 0x3f80}, {0x3f808000, 0x3f80}, {0x3f808001, 0x3f81}, {0x3f818000, 0x3f82}, {0x3f817fff, 0x3f81},  // ties to even
      {0x80000000, 0x8000}, {0x7f800000, 0x7f80}, {0xff800000, 0xff80}, {0x7f7fffff, 0x7f80}, {0x00018000, 0x0002}, {0x00008000, 0x0000},
      // clang-format on
  };
  for (const auto& row : table) {
    float x;
    memcpy(&x, &row.f32, sizeof x);
    CHECK_EQ(sv::bf16_bits(x), row.bf16);
    CHECK_EQ(sv::pack_bf16(x, 2.f), row.bf16 | 0x40000000u);
  }
  CHECK(isnan(sv::bf16_low(sv::bf16_bits(NAN))) && isnan(sv::bf16_high(sv::pack_bf16(0.f, -NAN))));
  uint32_t low_bits_only = 0x7f800001;
  float quiet;
  memcpy(&quiet, &low_bits_only, sizeof quiet);
  CHECK(isnan(sv::bf16_low(sv::bf16_bits(quiet))));
  CHECK_EQ(sv::bf16_low(sv::pack_bf16(1.5f, -3.f)), 1.5f);
  CHECK_EQ(sv::bf16_high(sv::pack_bf16(1.5f, -3.f)), -3.f);
}

// --- launches, memory --------------------------------------------------------------------------------------

__global__ void nothing() {}
__global__ void fill(float* y, float value, int n) {
  for (int i = int(blockIdx.x * blockDim.x + threadIdx.x); i < n; i += int(gridDim.x * blockDim.x)) y[i] = value;
}
__global__ void use_shared(int* y, int last) {
  SV_DYNAMIC_SHARED(bytes);
  bytes[last] = 5;
  y[0] = bytes[last];
}
void check_launch_errors() {
  const auto launch = [](dim3 grid, dim3 block) {
    SV_LAUNCH(nothing, grid, block, 0, nullptr);
    const cudaError_t error = cudaGetLastError();
    CHECK(cudaGetLastError() == cudaSuccess);  // it was cleared
    return error;
  };
  CHECK(launch(1, 1024) == cudaSuccess);
  CHECK(launch(1, 1025) == cudaErrorInvalidConfiguration);
  CHECK(launch(1, dim3(64, 4, 8)) == cudaErrorInvalidConfiguration);
  CHECK(launch(1, dim3(2, 2, 65)) == cudaErrorInvalidConfiguration);
  CHECK(launch(1, 0) == cudaErrorInvalidConfiguration);
  CHECK(launch(0, 1) == cudaErrorInvalidConfiguration);
  CHECK(launch(dim3(1, 65536), 1) == cudaErrorInvalidConfiguration);
  CHECK(launch(dim3(1, 1, 65536), 1) == cudaErrorInvalidConfiguration);
  CHECK(launch(70000, 1) == cudaSuccess);

  Buffer<int> y(1);
  const auto with_shared = [&](int bytes) {
    SV_LAUNCH(use_shared, 1, 1, size_t(bytes), nullptr, y.device, bytes - 1);
    return cudaGetLastError();
  };
  CHECK(with_shared(48 << 10) == cudaSuccess);
  CHECK(with_shared((48 << 10) + 4) == cudaErrorInvalidValue);
  CHECK(cudaFuncSetAttribute(use_shared, cudaFuncAttributeMaxDynamicSharedMemorySize, 100 << 20) == cudaErrorInvalidValue);
  CHECK(cudaGetLastError() == cudaErrorInvalidValue);
  CHECK(cudaFuncSetAttribute(use_shared, cudaFuncAttributeMaxDynamicSharedMemorySize, 96 << 10) == cudaSuccess);
  CHECK(with_shared(96 << 10) == cudaSuccess);
  CHECK(with_shared((96 << 10) + 4) == cudaErrorInvalidValue);
  CHECK_EQ(y.get()[0], 5);
}

void check_memory() {
  size_t free_before, free_now, total;
  CHECK(cudaMemGetInfo(&free_before, &total) == cudaSuccess);
  float* x = nullptr;
  CHECK(cudaMalloc(&x, total * 2) == cudaErrorMemoryAllocation && x == nullptr);
  CHECK(cudaGetLastError() == cudaErrorMemoryAllocation);
  CHECK(cudaMalloc(&x, 1000) == cudaSuccess && reinterpret_cast<uintptr_t>(x) % 256 == 0);
  CHECK(cudaMemGetInfo(&free_now, &total) == cudaSuccess && free_now <= free_before);
  float host[250] = {};
  CHECK(cudaMemset(x, 1, 1000) == cudaSuccess);
  CHECK(cudaMemcpy(host, x, 1000, cudaMemcpyDeviceToHost) == cudaSuccess);
  uint32_t word;
  memcpy(&word, &host[249], sizeof word);
  CHECK_EQ(word, 0x01010101u);
  CHECK(cudaFree(x) == cudaSuccess && cudaFree(nullptr) == cudaSuccess);
  CHECK(cudaMemGetInfo(&free_now, &total) == cudaSuccess && free_now == free_before);
}

// --- streams and events ------------------------------------------------------------------------------------

void check_stream_order() {
  Stream one, two;
  Buffer<float> x(5000), y(5000);
  cudaEvent_t event;
  CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming) == cudaSuccess);
  CHECK(cudaEventQuery(event) == cudaSuccess);  // never recorded
  Gate gate;
  gate.hold(one);
  SV_LAUNCH(fill, 7, 64, 0, one, x.device, 1.f, 5000);
  SV_LAUNCH(fill, 7, 64, 0, one, x.device, 2.f, 5000);
  CHECK(cudaEventRecord(event, one) == cudaSuccess);
  CHECK(cudaStreamWaitEvent(two, event, 0) == cudaSuccess);
  CHECK(cudaMemcpyAsync(y.device, x.device, 5000 * sizeof(float), cudaMemcpyDeviceToDevice, two) == cudaSuccess);
  CHECK(cudaEventQuery(event) == cudaErrorNotReady && cudaStreamQuery(two) == cudaErrorNotReady);
  cudaGetLastError();
  gate.open();
  CHECK(cudaStreamSynchronize(two) == cudaSuccess && cudaStreamQuery(two) == cudaSuccess && cudaEventQuery(event) == cudaSuccess);
  for (float v : y.get()) CHECK_EQ(v, 2.f);
  CHECK(cudaEventDestroy(event) == cudaSuccess);
}

/** A stream that nobody orders after another does not wait for it; the default stream and blocking streams take turns. */
void check_independence() {
  Stream one, two;
  cudaStream_t blocking;
  CHECK(cudaStreamCreate(&blocking) == cudaSuccess);
  Buffer<float> x(10);
  Gate gate;
  gate.hold(one);
  SV_LAUNCH(fill, 1, 32, 0, one, x.device, 1.f, 10);
  SV_LAUNCH(fill, 1, 32, 0, two, x.device, 2.f, 10);
  CHECK(cudaStreamSynchronize(two) == cudaSuccess && cudaStreamSynchronize(nullptr) == cudaSuccess && cudaStreamQuery(one) == cudaErrorNotReady);
  cudaGetLastError();
  gate.open();
  CHECK_EQ(x.get()[9], 1.f);
  Gate other;
  other.hold(blocking);
  SV_LAUNCH(fill, 1, 32, 0, nullptr, x.device, 3.f, 10);
  SV_LAUNCH(fill, 1, 32, 0, blocking, x.device, 4.f, 10);
  CHECK(cudaStreamQuery(nullptr) == cudaErrorNotReady);
  cudaGetLastError();
  other.open();
  CHECK_EQ(x.get()[0], 4.f);
  CHECK(cudaStreamDestroy(blocking) == cudaSuccess);
}

void check_copies() {
  Stream stream;
  Buffer<int> x(100), y(100);
  int* pinned;
  CHECK(cudaHostAlloc(&pinned, 100 * sizeof(int), cudaHostAllocDefault) == cudaSuccess);
  std::vector<int> pageable(100, 1);
  for (int i = 0; i < 100; i++) pinned[i] = 1;
  Gate gate;
  gate.hold(stream);
  CHECK(cudaMemcpyAsync(x.device, pageable.data(), 400, cudaMemcpyHostToDevice, stream) == cudaSuccess);
  CHECK(cudaMemcpyAsync(y.device, pinned, 400, cudaMemcpyHostToDevice, stream) == cudaSuccess);
  for (int i = 0; i < 100; i++) pageable[size_t(i)] = pinned[i] = 2;
  gate.open();
  CHECK_EQ(x.get()[99], 1);  // pageable memory was staged
  CHECK_EQ(y.get()[99], 2);  // pinned memory is read when its turn comes
  CHECK(cudaMemcpyAsync(pinned, x.device, 400, cudaMemcpyDefault, stream) == cudaSuccess && cudaStreamSynchronize(stream) == cudaSuccess);
  CHECK_EQ(pinned[50], 1);
  CHECK(cudaMemsetAsync(x.device + 10, 0xff, 40, stream) == cudaSuccess);
  x.get();
  CHECK(x.host[9] == 1 && x.host[10] == -1 && x.host[19] == -1 && x.host[20] == 1);
  CHECK(cudaFreeHost(pinned) == cudaSuccess);
}

void check_events() {
  Stream stream;
  cudaEvent_t from, to, untimed;
  CHECK(cudaEventCreate(&from) == cudaSuccess && cudaEventCreate(&to) == cudaSuccess);
  CHECK(cudaEventCreateWithFlags(&untimed, cudaEventDisableTiming) == cudaSuccess);
  Gate gate;
  CHECK(cudaEventRecord(from, stream) == cudaSuccess);
  gate.hold(stream);
  CHECK(cudaEventRecord(to, stream) == cudaSuccess && cudaEventRecord(untimed, stream) == cudaSuccess);
  float ms = -1;
  CHECK(cudaEventElapsedTime(&ms, from, to) == cudaErrorNotReady);
  gate.open();
  CHECK(cudaEventSynchronize(to) == cudaSuccess && cudaEventElapsedTime(&ms, from, to) == cudaSuccess && ms >= 0);
  CHECK(cudaEventElapsedTime(&ms, from, untimed) == cudaErrorInvalidResourceHandle);
  cudaGetLastError();
  CHECK(cudaEventDestroy(from) == cudaSuccess && cudaEventDestroy(to) == cudaSuccess && cudaEventDestroy(untimed) == cudaSuccess);
}

void check_host_functions() {
  Stream stream;
  struct Seen {
    int calls;
    cudaError_t inside;
  } seen = {0, cudaSuccess};
  for (int i = 0; i < 3; i++)
    CHECK(cudaLaunchHostFunc(
              stream, [](void* data) {
                auto* s = static_cast<Seen*>(data);
                s->calls++;
                int device;
                s->inside = cudaGetDevice(&device);
              },
              &seen) == cudaSuccess);
  CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
  CHECK_EQ(seen.calls, 3);
#if defined(SV_STANDIN)
  CHECK(seen.inside == cudaErrorNotPermitted);
#endif
}

// --- the stand-in's own promises ---------------------------------------------------------------------------

#if defined(SV_STANDIN)
__global__ void swap_neighbors(const int* x, int* y, bool barrier) {
  __shared__ int part[64];
  part[threadIdx.x] = x[threadIdx.x];
  if (barrier) __syncthreads();
  y[threadIdx.x] = part[threadIdx.x ^ 1];
}
/** Some order of running must show that the barrier is missing, and none that it is there. */
void check_orders_differ() {
  std::vector<int> x;
  for (int i = 0; i < 64; i++) x.push_back(i + 100);
  Buffer<int> in(x), out(64);
  const auto errors = [&](bool barrier, int fibers) {
    sparsevila_standin_schedule(1, 0, fibers);
    SV_LAUNCH(swap_neighbors, 1, 64, 0, nullptr, in.device, out.device, barrier);
    out.get();
    int wrong = 0;
    for (size_t i = 0; i < 64; i++) wrong += out.host[i] != x[i ^ 1];
    return wrong;
  };
  CHECK_EQ(errors(true, 0) + errors(true, 1), 0);
  CHECK(errors(false, 0) > 0);
  CHECK(errors(false, 1) > 0);
}

__global__ void note_order(int* ticket, int* y) { y[blockIdx.x] = atomicAdd(ticket, 1); }
void check_block_orders() {
  for (int order = 0; order < 3; order++) {
    Buffer<int> ticket(1), y(100);
    sparsevila_standin_schedule(1, order, 0);
    SV_LAUNCH(note_order, 100, 1, 0, nullptr, ticket.device, y.device);
    y.get();
    int ascending = 0, descending = 0;
    for (size_t i = 1; i < 100; i++) (y.host[i] > y.host[i - 1] ? ascending : descending)++;
    if (order == 0) CHECK_EQ(ascending, 99);
    if (order == 1) CHECK_EQ(descending, 99);
    if (order == 2) CHECK(ascending > 10 && descending > 10);
    CHECK_EQ(ticket.get()[0], 100);
  }
}

__global__ void write_at(float* x, long at) { x[at] = 1; }
void check_canaries() {
  float* x;
  CHECK(cudaMalloc(&x, 100 * sizeof(float)) == cudaSuccess);
  uint32_t fresh[100];
  CHECK(cudaMemcpy(fresh, x, sizeof fresh, cudaMemcpyDeviceToHost) == cudaSuccess);
  for (uint32_t word : fresh) CHECK_EQ(word, 0xffffffffu);
  CHECK_EQ(sparsevila_standin_check(), 0);
  for (long at : {100l, -1l}) {
    SV_LAUNCH(write_at, 1, 1, 0, nullptr, x, at);
    CHECK_EQ(sparsevila_standin_check(), 1);
    SV_LAUNCH(fill, 1, 1, 0, nullptr, x + at, __uint_as_float(0xffffffffu), 1);  // made good
    CHECK_EQ(sparsevila_standin_check(), 0);
  }
  // Copies are checked when they are asked for.
  CHECK(cudaMemcpy(fresh, x + 1, 400, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
  CHECK(cudaMemcpy(x, fresh, 400, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
  CHECK(cudaMemset(x, 0, 404) == cudaErrorInvalidValue);
  CHECK(cudaFree(x + 64) == cudaErrorInvalidValue && cudaFree(x) == cudaSuccess && cudaFree(x) == cudaErrorInvalidValue);
  CHECK(cudaMemcpy(fresh, x, 4, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
  cudaGetLastError();
}

/** Large memory costs what is written of it, and every page of it starts as NaN. */
void check_large() {
  char* x;
  const size_t bytes = (size_t(3) << 30) + 5000;
  CHECK(cudaMalloc(&x, bytes) == cudaSuccess);
  for (size_t at : {size_t(0), size_t(1) << 30, bytes - 4}) {
    uint32_t word = 0;
    CHECK(cudaMemcpy(&word, x + at, 4, cudaMemcpyDeviceToHost) == cudaSuccess);
    CHECK_EQ(word, 0xffffffffu);
  }
  CHECK(cudaFree(x) == cudaSuccess);
}

void check_counters() {
  int64_t before[9], after[9];
  sparsevila_standin_counters(before, 9);
  {
    Buffer<float> x(100);  // one copy there
    SV_LAUNCH(fill, 1, 32, 0, nullptr, x.device, 1.f, 100);
    x.get();
    CHECK(cudaMemcpy(x.device, x.device + 50, 80, cudaMemcpyDeviceToDevice) == cudaSuccess);
    sparsevila_standin_counters(after, 9);
    const int64_t want[9] = {1, 400, 1, 400, 1, 400, 1, 80, 1};
    for (int i = 0; i < 9; i++) CHECK_EQ(after[i] - before[i], want[i]);
  }
  sparsevila_standin_counters(after, 2);
  CHECK_EQ(after[1], before[1]);
}

void check_sticky() {
  Buffer<float> x(10);
  sparsevila_standin_fail(cudaErrorIllegalAddress);
  CHECK(cudaMemcpy(x.host.data(), x.device, 40, cudaMemcpyDeviceToHost) == cudaErrorIllegalAddress);
  CHECK(cudaGetLastError() == cudaErrorIllegalAddress && cudaGetLastError() == cudaErrorIllegalAddress);
  sparsevila_standin_fail(cudaSuccess);
  CHECK(cudaGetLastError() == cudaSuccess);
}

__global__ void block_alone(float* y) {
  if (threadIdx.x != 3) __syncthreads();
  else y[0] = __shfl_sync(0xffu, 1.f, 0);
}
__global__ void wrong_mask(float* y) { y[0] = __shfl_sync(0xfeu, 1.f, 0); }
__global__ void past_shared(float* y) {
  SV_DYNAMIC_SHARED(bytes);
  y[0] = bytes[64];
}

/** Each ends the process, the way the spec expects. */
int misbehave(const std::string& how) {
  float* x;
  if (cudaMalloc(&x, 400) != cudaSuccess) return 3;
  if (how == "read") return x[3] > 0;
  if (how == "write") x[3] = 1;
  if (how == "overrun") SV_LAUNCH(write_at, 1, 1, 0, nullptr, x, 128l);
  if (how == "underrun") SV_LAUNCH(write_at, 1, 1, 0, nullptr, x, -1024l);
  if (how == "freed") cudaFree(x), SV_LAUNCH(write_at, 1, 1, 0, nullptr, x, 0l);
  if (how == "damage") SV_LAUNCH(write_at, 1, 1, 0, nullptr, x, 101l), cudaFree(x);
  if (how == "deadlock") SV_LAUNCH(block_alone, 1, 8, 0, nullptr, x);
  if (how == "mask") SV_LAUNCH(wrong_mask, 1, 8, 0, nullptr, x);
  if (how == "shared") SV_LAUNCH(past_shared, 1, 1, 64, nullptr, x);
  cudaDeviceSynchronize();
  return 3;
}
#endif

struct Check {
  const char* name;
  void (*run)();
};
// clang-format off
const Check kernels[] = {
    {"grid", check_grid}, {"barrier", check_barrier}, {"returned threads", check_returned}, {"shuffles", check_shuffles},
    {"votes", check_votes}, {"bits", check_bits}, {"atomics", check_atomics}, {"mma bf16", check_mma_bf16}, {"mma s8", check_mma_s8},
};
const Check others[] = {
    {"bf16", check_bf16}, {"launch errors", check_launch_errors}, {"memory", check_memory}, {"stream order", check_stream_order},
    {"independence", check_independence}, {"copies", check_copies}, {"events", check_events}, {"host functions", check_host_functions},
#if defined(SV_STANDIN)
    {"orders differ", check_orders_differ}, {"block orders", check_block_orders}, {"canaries", check_canaries}, {"large", check_large},
    {"counters", check_counters}, {"sticky errors", check_sticky},
#endif
};
// clang-format on

void run(const Check& check, const char* how) {
  const int before = failures;
  check.run();
  CHECK(cudaGetLastError() == cudaSuccess);
  printf("%s %s%s\n", failures == before ? "ok" : "FAILED", check.name, how);
}

}  // namespace

int main(int argc, char** argv) {
#if defined(SV_STANDIN)
  if (argc > 1) return misbehave(argv[1]);
  for (int threads : {1, 3})
    for (int blocks : {0, 1, 2})
      for (int fibers : {0, 1}) {
        sparsevila_standin_schedule(threads, blocks, fibers);
        const std::string how = " " + std::to_string(threads) + std::to_string(blocks) + std::to_string(fibers);
        for (const Check& check : kernels) run(check, how.c_str());
      }
#else
  for (const Check& check : kernels) run(check, "");
#endif
  for (const Check& check : others) run(check, "");
  return failures == 0 ? 0 : 1;
}
