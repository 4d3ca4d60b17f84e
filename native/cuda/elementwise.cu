// Elementwise arithmetic with broadcasting, strided copies, gathers of rows, and transfers. Knows no model.
#include <string.h>

#include <mutex>

#include "cuda.h"
#include "launchers.h"

namespace sv {
namespace gpu {
namespace {

constexpr int kThreads = 256;
constexpr int kMostRank = 7;  // six dimensions and the bytes of an element

int blocks_for(int64_t n) {
  const int64_t blocks = (n + kThreads - 1) / kThreads;
  return (int)(blocks < 65536 ? blocks : 65536);  // kernels stride over the rest
}

/** A box of elements and how two operands step through it, in elements. */
struct Box {
  int32_t rank;
  int64_t count, dims[kMostRank], a[kMostRank], b[kMostRank];
};

/** Without dimensions of size 1, and with neighbors joined where both operands step evenly over them. */
Box box_of(int32_t rank, const int64_t* dims, const int64_t* a, const int64_t* b) {
  Box box = {};
  box.count = 1;
  for (int32_t d = 0; d < rank; d++) {
    box.count *= dims[d];
    if (dims[d] == 1) continue;
    const int32_t last = box.rank - 1;
    if (box.rank && box.a[last] == a[d] * dims[d] && box.b[last] == b[d] * dims[d]) {
      box.dims[last] *= dims[d];
      box.a[last] = a[d];
      box.b[last] = b[d];
    } else {
      box.dims[box.rank] = dims[d];
      box.a[box.rank] = a[d];
      box.b[box.rank++] = b[d];
    }
  }
  return box;
}

struct Offsets {
  int64_t a, b;
};

__device__ Offsets offsets_of(const Box& box, int64_t i) {
  Offsets at = {0, 0};
  for (int32_t d = box.rank - 1; d > 0; d--) {
    const int64_t rest = i / box.dims[d], here = i - rest * box.dims[d];
    at.a += here * box.a[d];
    at.b += here * box.b[d];
    i = rest;
  }
  if (box.rank) {
    at.a += i * box.a[0];
    at.b += i * box.b[0];
  }
  return at;
}

template <int32_t kOp>
__global__ void binary_kernel(Box box, const float* a, const float* b, float* y) {
  const int64_t step = (int64_t)gridDim.x * blockDim.x;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < box.count; i += step) {
    const Offsets at = offsets_of(box, i);
    const float u = a[at.a], v = b[at.b];
    y[i] = kOp == kAdd ? u + v : (kOp == kSub ? u - v : (kOp == kMul ? u * v : u / v));
  }
}

template <typename T>
__global__ void copy_kernel(Box box, const T* x, T* y) {
  const int64_t step = (int64_t)gridDim.x * blockDim.x;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < box.count; i += step) {
    const Offsets at = offsets_of(box, i);
    y[at.b] = x[at.a];
  }
}

template <typename T>
void launch_copy(GpuStream stream, const Box& box, const void* x, void* y) {
  SV_LAUNCH(copy_kernel<T>, blocks_for(box.count), kThreads, 0, (cudaStream_t)stream, box, (const T*)x, (T*)y);
}

/** Rows of `units` T each. */
template <typename T>
__global__ void gather_kernel(const T* x, const int32_t* ids, int64_t total, int64_t n, int64_t count, int64_t units, T* y) {
  const int64_t step = (int64_t)gridDim.x * blockDim.x;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < total; i += step) {
    const int64_t row = i / units, outer = row / count, id = ids[row - outer * count];
    T value = {};
    if (id >= 0 && id < n) value = x[(outer * n + id) * units + i - row * units];
    y[i] = value;
  }
}

struct GatherSizes {
  int64_t outer, n, count, row_bytes;
};

template <typename T>
bool launch_gather(GpuStream stream, const void* x, const int32_t* ids, const GatherSizes& s, void* y) {
  const int64_t unit = (int64_t)sizeof(T);
  if (s.row_bytes % unit || (uintptr_t)x % sizeof(T) || (uintptr_t)y % sizeof(T)) return false;
  const int64_t units = s.row_bytes / unit, total = s.outer * s.count * units;
  SV_LAUNCH(gather_kernel<T>, blocks_for(total), kThreads, 0, (cudaStream_t)stream, (const T*)x, ids, total, s.n, s.count, units, (T*)y);
  return true;
}

// --- transfers -------------------------------------------------------------------------------------------------------

/** Pinned memory through which uploads pass, so that their source is free at once. A part is written again only after the
 *  copies out of it are done: the host waits only when it is a whole ring ahead of the device. */
class UploadRing {
 public:
  void upload(cudaStream_t stream, char* device, const char* host, int64_t bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!memory_ && !allocate()) return;
    while (bytes > 0) {
      if (used_ == kPartBytes || (used_ && stream != stream_)) next_part();
      stream_ = stream;
      const int64_t room = kPartBytes - used_, n = bytes < room ? bytes : room;
      char* staged = memory_ + part_ * kPartBytes + used_;
      memcpy(staged, host, (size_t)n);
      cudaMemcpyAsync(device, staged, (size_t)n, cudaMemcpyHostToDevice, stream);
      used_ = (used_ + n + 255) / 256 * 256;
      device += n;
      host += n;
      bytes -= n;
    }
  }

 private:
  static constexpr int64_t kPartBytes = 1 << 20;
  static constexpr int kParts = 32;

  bool allocate() {
    void* memory = nullptr;
    if (cudaHostAlloc(&memory, (size_t)(kPartBytes * kParts), cudaHostAllocDefault) != cudaSuccess) return false;  // see last_error
    for (cudaEvent_t& done : done_)
      if (cudaEventCreateWithFlags(&done, cudaEventDisableTiming) != cudaSuccess) return false;
    memory_ = static_cast<char*>(memory);
    return true;
  }
  void next_part() {
    cudaEventRecord(done_[part_], stream_);
    part_ = (part_ + 1) % kParts;
    used_ = 0;
    cudaEventSynchronize(done_[part_]);  // an event that was never recorded is done
  }

  std::mutex mutex_;
  char* memory_ = nullptr;
  cudaEvent_t done_[kParts] = {};
  cudaStream_t stream_ = nullptr;
  int part_ = 0;
  int64_t used_ = 0;
};

}  // namespace

void binary(GpuStream stream, int32_t op, int32_t rank, const int64_t* dims, const float* a, const int64_t* a_strides,
            const float* b, const int64_t* b_strides, float* y) {
  if (rank < 0 || rank >= kMostRank) return refuse("binary: expected a rank of at most 6");
  const Box box = box_of(rank, dims, a_strides, b_strides);
  if (box.count <= 0) return;
  const int blocks = blocks_for(box.count);
  const cudaStream_t s = (cudaStream_t)stream;
  switch (op) {
    case kAdd: SV_LAUNCH(binary_kernel<kAdd>, blocks, kThreads, 0, s, box, a, b, y); break;
    case kSub: SV_LAUNCH(binary_kernel<kSub>, blocks, kThreads, 0, s, box, a, b, y); break;
    case kMul: SV_LAUNCH(binary_kernel<kMul>, blocks, kThreads, 0, s, box, a, b, y); break;
    case kDiv: SV_LAUNCH(binary_kernel<kDiv>, blocks, kThreads, 0, s, box, a, b, y); break;
    default: refuse("binary: expected add, sub, mul or div");
  }
}

void copy(GpuStream stream, int32_t rank, const int64_t* dims, const void* x, const int64_t* x_strides, void* y,
          const int64_t* y_strides, int32_t width) {
  if (rank < 0 || rank >= kMostRank || width < 1) return refuse("copy: expected a rank of at most 6 and elements of at least a byte");
  const bool whole = width == 1 || width == 2 || width == 4 || width == 8;
  int64_t size[kMostRank], from[kMostRank], to[kMostRank];
  for (int32_t d = 0; d < rank; d++) {
    size[d] = dims[d];
    from[d] = x_strides[d] * (whole ? 1 : width);
    to[d] = y_strides[d] * (whole ? 1 : width);
  }
  if (!whole) {  // bytes become the last dimension
    size[rank] = width;
    from[rank] = to[rank] = 1;
  }
  const Box box = box_of(rank + (whole ? 0 : 1), size, from, to);
  if (box.count <= 0) return;
  if (!whole || width == 1) launch_copy<uint8_t>(stream, box, x, y);
  else if (width == 2) launch_copy<uint16_t>(stream, box, x, y);
  else if (width == 4) launch_copy<uint32_t>(stream, box, x, y);
  else launch_copy<uint2>(stream, box, x, y);
}

void gather(GpuStream stream, const void* x, const int32_t* ids, int64_t outer, int64_t n, int64_t count, int64_t inner,
            int32_t width, void* y) {
  const GatherSizes s = {outer, n, count, inner * width};
  if (outer <= 0 || count <= 0 || s.row_bytes <= 0) return;
  launch_gather<uint4>(stream, x, ids, s, y) || launch_gather<uint2>(stream, x, ids, s, y) ||
      launch_gather<uint32_t>(stream, x, ids, s, y) || launch_gather<uint16_t>(stream, x, ids, s, y) ||
      launch_gather<uint8_t>(stream, x, ids, s, y);
}

void upload(GpuStream stream, void* device, const void* host, int64_t bytes) {
  static UploadRing* ring = new UploadRing;  // never freed: the driver may be gone before statics are
  ring->upload((cudaStream_t)stream, static_cast<char*>(device), static_cast<const char*>(host), bytes);
}

void move(GpuStream stream, void* to, const void* from, int64_t bytes) {
  if (bytes > 0) cudaMemcpyAsync(to, from, (size_t)bytes, cudaMemcpyDeviceToDevice, (cudaStream_t)stream);
}

}  // namespace gpu
}  // namespace sv
