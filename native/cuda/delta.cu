// The gated delta rule of one sequence: convolution and norms of all rows, then the recurrence, a thread per column of a head's
// matrix, and last the rows that the state keeps. As kernels/delta.h, whose layouts of a state and of a row it shares.
#include "epilogue.cuh"
#include "launch.h"
#include "launchers.h"

namespace sv {
namespace gpu {
namespace {

constexpr int kThreads = 256;

/** A state, and the rows of a call: pointers are device memory. */
struct Rows {
  DeltaSizes sizes;
  const float* x;
  int64_t ldx, t;
  float *tail, *mixed;  // mixed [t][width]: rows after the convolution
};

/** Column c of row i before the convolution; negative rows are of the state. */
__device__ float before(const Rows& r, int64_t i, int64_t c) {
  return i < 0 ? r.tail[(r.sizes.taps - 1 + i) * r.sizes.width() + c] : r.x[i * r.ldx + c];
}

__global__ void convolve(Rows r, const float* conv) {
  const int64_t width = r.sizes.width(), taps = r.sizes.taps, step = (int64_t)gridDim.x * blockDim.x;
  for (int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; at < r.t * width; at += step) {
    const int64_t i = at / width, c = at - i * width;
    float sum = before(r, i - taps + 1, c) * conv[c * taps];
    for (int64_t j = 1; j < taps; j++) sum = fmaf(before(r, i - taps + 1 + j, c), conv[c * taps + j], sum);
    r.mixed[at] = activate(sum, kSilu);
  }
}

/** Queries and keys get length 1, queries then 1 / sqrt(dk): a block per head and row. */
__global__ void normalize(Rows r) {
  __shared__ float shared[kWarp];
  const int64_t dk = r.sizes.dk, head = blockIdx.y;
  float* x = r.mixed + blockIdx.x * r.sizes.width() + head * dk;
  float s = 0;
  for (int64_t i = threadIdx.x; i < dk; i += blockDim.x) s = fmaf(x[i], x[i], s);
  const float length = sqrtf(block_reduce(s, Sum(), shared) + 1e-6f);
  const float scale = head < r.sizes.key_heads ? 1.f / sqrtf((float)dk) : 1.f;
  for (int64_t i = threadIdx.x; i < dk; i += blockDim.x) x[i] = x[i] * (scale / length);
}

struct Gates {
  const float *values, *a_log, *dt_bias;
  int64_t ld;
};

/** A block of one warp: 32 columns of the matrix of one value head. */
__global__ void recur(Rows r, Gates g, float* matrices, float* out, int64_t ldo) {
  const DeltaSizes& s = r.sizes;
  const int64_t head = blockIdx.x, column = (int64_t)blockIdx.y * kWarp + threadIdx.x, key_head = head / (s.value_heads / s.key_heads);
  if (column >= s.dv) return;
  float* S = matrices + head * s.matrix_floats() + column / kLanes * s.dk * kLanes + column % kLanes;
  const float rate = expf(g.a_log[head]), bias = g.dt_bias[head];
  for (int64_t i = 0; i < r.t; i++) {
    const float* row = r.mixed + i * s.width();
    const float *q = row + key_head * s.dk, *k = row + s.key_width() + key_head * s.dk;
    const float* gates = g.values + i * g.ld;
    const float x = gates[s.value_heads + head] + bias;
    const float decay = expf(-rate * (x > 20.f ? x : log1pf(expf(x)))), beta = sigmoid(gates[head]);
    float memory = 0, read = 0;
    for (int64_t j = 0; j < s.dk; j++) memory = fmaf(k[j], S[j * kLanes], memory);
    const float change = beta * (row[2 * s.key_width() + head * s.dv + column] - decay * memory);
    for (int64_t j = 0; j < s.dk; j++) {
      const float value = fmaf(k[j], change, decay * S[j * kLanes]);
      S[j * kLanes] = value;
      read = fmaf(q[j], value, read);
    }
    out[i * ldo + head * s.dv + column] = read;
  }
}

/** The last rows become those of the state: a thread per column, ascending, because rows may move within the state. */
__global__ void keep_tail(Rows r) {
  const int64_t c = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, kept = r.sizes.taps - 1;
  if (c >= r.sizes.width()) return;
  for (int64_t j = 0; j < kept; j++) r.tail[j * r.sizes.width() + c] = before(r, r.t - kept + j, c);
}

}  // namespace

void delta_rule(GpuStream stream, GpuScratch scratch, const Delta* d) {
  const DeltaSizes& s = d->sizes;
  const int64_t t = d->sequences->t, total = t * s.width(), blocks = ceil_div(total, kThreads);
  if (total <= 0) return;
  float* state = d->sequences->state;
  auto* mixed = static_cast<float*>(scratch.take(scratch.state, total * 4));
  if (!mixed) return;
  const Rows rows = {s, d->x, d->ldx, t, state + s.value_heads * s.matrix_floats(), mixed};
  const cudaStream_t on = stream_of(stream);
  SV_LAUNCH(convolve, (unsigned)(blocks < 65536 ? blocks : 65536), kThreads, 0, on, rows, d->conv);
  SV_LAUNCH(normalize, dim3((unsigned)t, (unsigned)(2 * s.key_heads)), row_threads(s.dk), 0, on, rows);
  const Gates gates = {d->gates, d->a_log, d->dt_bias, d->ldg};
  SV_LAUNCH(recur, dim3((unsigned)s.value_heads, (unsigned)ceil_div(s.dv, kWarp)), kWarp, 0, on, rows, gates, state, d->out, d->ldo);
  SV_LAUNCH(keep_tail, (unsigned)ceil_div(s.width(), kThreads), kThreads, 0, on, rows);
}

}  // namespace gpu
}  // namespace sv
