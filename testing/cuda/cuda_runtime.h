// The stand-in for CUDA: what cuda/cuda.h lists, on a processor, so that kernels and the device run and are tested where
// there is no GPU. This header is the runtime's interface and the kernels' dialect; behind it are runtime.h and its files (streams,
// events, copies), memory.cc (guarded device memory) and blocks.cc (threads of a block as fibers). It is stricter than a GPU
// wherever CUDA leaves room, never more lenient. Knows no kernel of ours and no TensorFlow. As long as it is because CUDA's own
// header, whose name it has, is one.
//
// Device pointers cannot be read by the host: a launch gives the kernel a copy of its arguments in which every aligned word
// that is an address of device memory, also inside structs, points to the memory itself. So device memory that holds
// pointers is not supported. All shared memory is 0xFF when a grid starts, dynamic shared memory also when a block does.
//
// SPARSEVILA_STANDIN, comma-separated, read once: devices=1, memory=8589934592 (bytes of each), capability=90, driver=13000,
// threads=<OS threads that share a grid's blocks>, blocks=forward|reverse|shuffled, fibers=forward|reverse (order of running).
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>

// --- types -------------------------------------------------------------------------------------------------

// clang-format off
struct uint3 { unsigned x, y, z; };
struct alignas(8) int2 { int x, y; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) float4 { float x, y, z, w; };
// clang-format on
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
inline int2 make_int2(int x, int y) { return {x, y}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

// --- the runtime -------------------------------------------------------------------------------------------

// clang-format off
enum cudaError_t {
  cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorMemoryAllocation = 2, cudaErrorInvalidConfiguration = 9,
  cudaErrorInsufficientDriver = 35, cudaErrorNoDevice = 100, cudaErrorInvalidDevice = 101, cudaErrorInvalidResourceHandle = 400,
  cudaErrorNotReady = 600, cudaErrorIllegalAddress = 700, cudaErrorLaunchFailure = 719, cudaErrorNotPermitted = 800,
};
enum cudaMemcpyKind {
  cudaMemcpyHostToHost = 0, cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3, cudaMemcpyDefault = 4,
};
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16, cudaDevAttrComputeCapabilityMajor = 75, cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum : unsigned {
  cudaHostAllocDefault = 0, cudaHostAllocPortable = 1, cudaStreamDefault = 0, cudaStreamNonBlocking = 1, cudaEventDefault = 0,
  cudaEventBlockingSync = 1, cudaEventDisableTiming = 2,
};
// clang-format on
struct cudaDeviceProp {
  char name[256];
  size_t totalGlobalMem, sharedMemPerBlock, sharedMemPerBlockOptin, sharedMemPerMultiprocessor;
  int warpSize, maxThreadsPerBlock, multiProcessorCount, major, minor, pciBusID, pciDeviceID, pciDomainID, l2CacheSize;
};
using cudaStream_t = struct CUstream_st*;
using cudaEvent_t = struct CUevent_st*;
using cudaHostFn_t = void (*)(void*);

cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaDeviceGetPCIBusId(char* id, int size, int device);
cudaError_t cudaDeviceSynchronize();
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaRuntimeGetVersion(int* version);
cudaError_t cudaMemGetInfo(size_t* free, size_t* total);

cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();
const char* cudaGetErrorName(cudaError_t error);
const char* cudaGetErrorString(cudaError_t error);

cudaError_t sv_standin_malloc(void** pointer, size_t bytes);
template <class T> cudaError_t cudaMalloc(T** pointer, size_t bytes) { return sv_standin_malloc(reinterpret_cast<void**>(pointer), bytes); }
cudaError_t cudaFree(void* pointer);
cudaError_t sv_standin_host_alloc(void** pointer, size_t bytes);
template <class T> cudaError_t cudaHostAlloc(T** pointer, size_t bytes, unsigned /*flags*/) {
  return sv_standin_host_alloc(reinterpret_cast<void**>(pointer), bytes);
}
cudaError_t cudaFreeHost(void* pointer);
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream = nullptr);
cudaError_t cudaMemset(void* to, int value, size_t bytes);
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream = nullptr);

cudaError_t cudaStreamCreate(cudaStream_t* stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data);
cudaError_t cudaEventCreate(cudaEvent_t* event);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream = nullptr);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to);

cudaError_t sv_standin_function_attribute(const void* kernel, cudaFuncAttribute attribute, int value);
template <class K> cudaError_t cudaFuncSetAttribute(K* kernel, cudaFuncAttribute attribute, int value) {
  return sv_standin_function_attribute(reinterpret_cast<const void*>(kernel), attribute, value);
}

// What tests ask of the stand-in.
extern "C" {
/** allocations, bytes allocated now, host-to-device copies, bytes, device-to-host copies, bytes, device-to-device copies, bytes,
 * kernel launches. Writes the first n. */
void sparsevila_standin_counters(int64_t* out, int32_t n);
/** Waits for all work, then counts the live allocations whose surroundings were written to, and says which on stderr. */
int64_t sparsevila_standin_check();
/** threads >= 1; blocks 0 forward, 1 reverse, 2 shuffled; fibers (threads of a block) 0 forward, 1 reverse. Waits for all work. */
void sparsevila_standin_schedule(int32_t threads, int32_t blocks, int32_t fibers);
/** Every later call fails with this error, as after a kernel that crashed. 0: the device works again. */
void sparsevila_standin_fail(int32_t error);
}

// --- the kernels' dialect ----------------------------------------------------------------------------------

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define __shared__ static thread_local

namespace sv_standin {

/** What an OS thread runs now, and what CUDA keeps per host thread. */
struct Current {
  uint3 thread, block, block_size, grid_size;
  unsigned char* shared;
  struct Runner* runner;
  cudaError_t last_error;
  int device;
  bool in_host_function;
};
extern __thread Current current __attribute__((visibility("hidden")));

/** What the lanes of a warp bring to a warp function, and take away from it. */
struct Lanes {
  uint32_t mask, present;  // as called; who is there
  alignas(16) unsigned char slot[32][32];
};
/** Gathers `bytes` of each lane in `mask`, lets the last to arrive run `finish`, and gives each lane its slot back. */
void warp_together(const char* function, uint32_t mask, void* data, size_t bytes, void (*finish)(Lanes&));
void sync_threads();
unsigned lane();

/** Enqueues a grid; errors are for cudaGetLastError. */
void launch_grid(const char* name, const void* kernel, dim3 grid, dim3 block, size_t shared, cudaStream_t stream, std::function<void()> thread);
/** In the copy of an argument, addresses of device memory become addresses that the kernel can use. */
void translate(void* argument, size_t bytes);

template <class... P> struct Launch {
  const char* name;
  void (*kernel)(P...);
  dim3 grid, block;
  size_t shared;
  cudaStream_t stream;
  void operator()(P... given) const {
    static_assert((std::is_trivially_copyable_v<P> && ...), "kernel arguments are copied byte by byte");
    std::tuple<P...> arguments(given...);
    std::apply([](auto&... argument) { (translate(&argument, sizeof argument), ...); }, arguments);
    launch_grid(name, reinterpret_cast<const void*>(kernel), grid, block, shared, stream,
                [k = kernel, arguments] { std::apply(k, arguments); });
  }
};
template <class... P> Launch<P...> launch(const char* name, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, cudaStream_t stream) {
  return {name, kernel, grid, block, shared, stream};
}

template <class T> struct Shuffle {
  T value;
  int from;
};
template <class T> T shuffle(const char* function, uint32_t mask, T value, int from) {
  static_assert(std::is_arithmetic_v<T>, "warp shuffles take numbers");
  Shuffle<T> mine = {value, from};
  warp_together(function, mask, &mine, sizeof mine, [](Lanes& lanes) {
    T values[32];
    for (int i = 0; i < 32; i++) memcpy(&values[i], lanes.slot[i], sizeof(T));  // of absent lanes 0xFF
    for (int i = 0; i < 32; i++) {
      if (!(lanes.present >> i & 1)) continue;
      auto* slot = reinterpret_cast<Shuffle<T>*>(lanes.slot[i]);
      slot->value = values[slot->from];
    }
  });
  return mine.value;
}
inline uint32_t ballot(const char* function, uint32_t mask, bool predicate) {
  uint32_t mine = predicate;
  warp_together(function, mask, &mine, sizeof mine, [](Lanes& lanes) {
    uint32_t votes = 0;
    for (int i = 0; i < 32; i++) votes |= uint32_t(lanes.present >> i & 1 && lanes.slot[i][0]) << i;
    for (int i = 0; i < 32; i++) memcpy(lanes.slot[i], &votes, sizeof votes);
  });
  return mine;
}

}  // namespace sv_standin

/** Dynamic shared memory of a kernel, 16-byte aligned. Its end is the end of a page. */
#define SV_DYNAMIC_SHARED(name) unsigned char* const name = ::sv_standin::current.shared
#define SV_LAUNCH(kernel, grid, block, shared, stream, ...) \
  ::sv_standin::launch(#kernel, kernel, (grid), (block), (shared), (stream))(__VA_ARGS__)

#define threadIdx (::sv_standin::current.thread)
#define blockIdx (::sv_standin::current.block)
#define blockDim (::sv_standin::current.block_size)
#define gridDim (::sv_standin::current.grid_size)
constexpr int warpSize = 32;

inline void __syncthreads() { ::sv_standin::sync_threads(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { ::sv_standin::warp_together("__syncwarp", mask, nullptr, 0, nullptr); }
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_block() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

// A source lane outside the own segment of `width` lanes gives the own value, except that xor may look at earlier segments.
template <class T> T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
  return ::sv_standin::shuffle("__shfl_sync", mask, value, int(::sv_standin::lane() & ~(width - 1)) + (from & (width - 1)));
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
  const int lane = ::sv_standin::lane(), from = lane ^ bits;
  return ::sv_standin::shuffle("__shfl_xor_sync", mask, value, from <= (lane | (width - 1)) ? from : lane);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const int lane = ::sv_standin::lane(), from = lane - int(delta);
  return ::sv_standin::shuffle("__shfl_up_sync", mask, value, from >= (lane & ~(width - 1)) ? from : lane);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const int lane = ::sv_standin::lane(), from = lane + int(delta);
  return ::sv_standin::shuffle("__shfl_down_sync", mask, value, from <= (lane | (width - 1)) ? from : lane);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) { return ::sv_standin::ballot("__ballot_sync", mask, predicate); }
inline int __any_sync(unsigned mask, int predicate) { return ::sv_standin::ballot("__any_sync", mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return ::sv_standin::ballot("__all_sync", mask, !predicate) == 0; }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(unsigned(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
template <class T> T __ldg(const T* pointer) { return *pointer; }

inline int atomicAdd(int* at, int x) { return __atomic_fetch_add(at, x, __ATOMIC_SEQ_CST); }
inline unsigned atomicAdd(unsigned* at, unsigned x) { return __atomic_fetch_add(at, x, __ATOMIC_SEQ_CST); }
template <class T, class F> T sv_standin_atomic(T* at, F change) {
  T old, next;
  __atomic_load(at, &old, __ATOMIC_SEQ_CST);
  do next = change(old);
  while (!__atomic_compare_exchange(at, &old, &next, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
  return old;
}
inline float atomicAdd(float* at, float x) {
  return sv_standin_atomic(at, [x](float old) { return old + x; });
}
inline int atomicMax(int* at, int x) {
  return sv_standin_atomic(at, [x](int old) { return old > x ? old : x; });
}
inline unsigned atomicMax(unsigned* at, unsigned x) {
  return sv_standin_atomic(at, [x](unsigned old) { return old > x ? old : x; });
}
inline int atomicMin(int* at, int x) {
  return sv_standin_atomic(at, [x](int old) { return old < x ? old : x; });
}
inline unsigned atomicMin(unsigned* at, unsigned x) {
  return sv_standin_atomic(at, [x](unsigned old) { return old < x ? old : x; });
}
inline int atomicExch(int* at, int x) { return __atomic_exchange_n(at, x, __ATOMIC_SEQ_CST); }
inline unsigned atomicExch(unsigned* at, unsigned x) { return __atomic_exchange_n(at, x, __ATOMIC_SEQ_CST); }
inline float atomicExch(float* at, float x) {
  return sv_standin_atomic(at, [x](float) { return x; });
}
inline int atomicCAS(int* at, int expected, int x) {
  __atomic_compare_exchange_n(at, &expected, x, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
  return expected;
}
inline unsigned atomicCAS(unsigned* at, unsigned expected, unsigned x) {
  __atomic_compare_exchange_n(at, &expected, x, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
  return expected;
}

template <class To, class From> To sv_standin_bits(From x) {
  static_assert(sizeof(To) == sizeof(From), "same width");
  To y;
  memcpy(&y, &x, sizeof y);
  return y;
}
inline unsigned __float_as_uint(float x) { return sv_standin_bits<unsigned>(x); }
inline int __float_as_int(float x) { return sv_standin_bits<int>(x); }
inline float __uint_as_float(unsigned x) { return sv_standin_bits<float>(x); }
inline float __int_as_float(int x) { return sv_standin_bits<float>(x); }
/** Rounded by itself: never fused with a sum. */
inline float __fmul_rn(float a, float b) {
  volatile float product = a * b;
  return product;
}
/** Bytes of b:a, chosen by the selector's hexadecimal digits, lowest first. */
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  const uint64_t both = uint64_t(b) << 32 | a;
  unsigned out = 0;
  for (int i = 0; i < 4; i++) out |= unsigned(both >> 8 * (selector >> 4 * i & 7) & 255) << 8 * i;
  return out;
}
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float x) { return expf(x); }
inline int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 32; i += 8) c += int(int8_t(a >> i)) * int(int8_t(b >> i));
  return c;
}
inline unsigned __dp4a(unsigned a, unsigned b, unsigned c) {
  for (int i = 0; i < 32; i += 8) c += (a >> i & 255u) * (b >> i & 255u);
  return c;
}
