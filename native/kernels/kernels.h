// The table of single-threaded kernels that each instruction-set level fills, and the packed form of a weight matrix.
// Pointers and sizes only: knows neither TensorFlow nor Node nor threads.
//
// Numerics, the same at every level but `portable` (which does not fuse): an output of a matrix product is one chain of
// fused multiply-adds over ascending k; attention works on fixed chunks of 128 rows merged in order. Results therefore do
// not depend on how many rows are computed together, on tile sizes or on threads: cached equals full bit for bit.
#pragma once
#include <stdint.h>

namespace sv {

constexpr int kLanes = 16;            // outputs per strip
constexpr int kAttentionChunk = 128;  // key rows per softmax chunk

/** How weights are stored. */
enum WeightType : int32_t {
  kF32 = 0,
  kF16 = 1,
  kBf16 = 2,
  kInt4 = 3,
  kInt8 = 4
};

/** Header of a packed [n, k] matrix; strips of 16 outputs follow at +64 bytes, each k-major with outputs in lanes:
 *  f32/f16 [k][16]; bf16 [k/2][16][2]; int4 and int8 as int4.h and int8.h say. k is padded to even (int4: to the group) and n to 16, with zeros. */
struct PackedHeader {
  uint32_t magic;
  int32_t type;      // WeightType
  int32_t dot_bf16;  // 1: round activations to bf16 and use the bf16 dot product where the processor has it
  int32_t gated;     // 1: strips alternate gate, up, gate, up ...: the epilogue yields silu(gate) * up
  int64_t n, k;      // logical outputs (gate and up counted once each when gated) and inputs
  int64_t strips;    // strips stored
  int64_t strip_bytes;
  int32_t group;        // int4: inputs per scale
  int32_t scale_bf16;   // int4: scales are bf16, else f16
  int32_t zero_scaled;  // int4: the zero entry is -z s in f16, else z itself
  int32_t planes;       // int4: activation planes of 8 bits, 1 (fast) or 2 (exact)
};
static_assert(sizeof(PackedHeader) == 64, "the packed body starts on a cache line");
constexpr uint32_t kPackedMagic = 0x4b505653;  // "SVPK"

inline int64_t padded_k(int64_t k) { return (k + 1) / 2 * 2; }
inline int64_t weight_bytes(int32_t type) { return type == kF32 ? 4 : 2; }

/** x[rows][k] times `strips` strips -> out[rows][strips * 16]. Strides in bytes; x is f32, or bf16 pairs for a dot kernel. */
using MatmulFn = void (*)(const void* x, int64_t x_stride, int64_t rows, const char* w, int64_t strip_stride, int64_t k,
                          int64_t strips, float* out, int64_t out_stride);

enum Activation : int32_t {
  kNone = 0,
  kGeluTanh = 1,
  kGeluErf = 2,
  kQuickGelu = 3,
  kSilu = 4,
  kSigmoid = 5
};

/** Rows of keys and values that one query strip attends: rows `rows[0..n_rows)`, then tail rows from `tail`. */
struct AttentionRows {
  const char *k, *v;     // first row of this kv head
  int64_t stride;        // bytes between rows
  int32_t bf16;          // else f32
  const int32_t* rows;   // gathered rows, ascending; may be null
  int64_t n_rows, tail;  // listed rows, then tail, tail + 1, ...
};

/** One strip: m query vectors of width c, of which vector i sees rows [first[i], limit[i]). Scratch as attention_scratch says. */
struct AttentionStrip {
  const float* q;  // [m][c], scaled already
  int64_t m, c;
  const int32_t* limit;   // [m]
  const int32_t* first;   // [m], or null: all 0
  int64_t begin, length;  // rows that any of them sees lie in [begin, length); begin is a chunk's
  AttentionRows rows;
  float softcap;  // 0: none, see attention.h
  float* scores;  // [m][score_stride]: all of them when columns are wanted, else one chunk
  int64_t score_stride;
  const uint16_t* planes;  // where tiles are used: the queries as two planes of bf16, [m][2][c padded to 32]; else null
  const char* packed;      // and the chunks of this head, as pack_chunk packs them
  bool fetched;            // whether the chunk before has fetched this one's rows
  int64_t fetch_to;        // rows of the next chunk before this one are fetched
};

/** Running softmax state of a strip: o [m][cp] unnormalized, cp = c padded to 16; row maximum and sum. */
struct SoftmaxState {
  float *o, *max, *sum;
};

constexpr int kMostTileWidth = 256;  // of a head whose attention runs on tiles
constexpr int kMostTaps = 16;        // of a convolution

/** Rows of one head: queries and keys of width dk, values of width dv, [t][ld]; out [t][ldo]. */
struct DeltaRows {
  const float *q, *k, *v;
  int64_t ld, t, dk, dv;
  const float *decay, *beta;  // [t]
  float* out;
  int64_t ldo;
};

struct Kernels {
  const char* name;
  MatmulFn matmul[3];          // by WeightType, f32 activations
  MatmulFn matmul_dot_bf16;    // bf16 weights and activations; null where the processor lacks it
  MatmulFn matmul_split_bf16;  // bf16 weights, activations as two bf16 planes, as good as f32; may be null
  /** Of 16 rows. */
  void (*transpose_words)(const uint32_t* const* rows, int64_t words, uint32_t* out, int64_t ld);
  void (*rms_norm)(const float* x, const float* w, float eps, int64_t d, float* y);
  void (*layer_norm)(const float* x, const float* w, const float* b, float eps, int64_t d, float* y);
  void (*activate)(float* x, int64_t n, int32_t kind);
  /** y = activation(gate) up. */
  void (*gated_mul)(const float* gate, const float* up, int64_t n, int32_t kind, float* y);
  void (*add)(const float* a, const float* b, int64_t n, float* y);
  void (*mul)(const float* a, const float* b, int64_t n, float* y);
  void (*rope)(float* x, const float* cos, const float* sin, int64_t half);
  void (*to_bf16)(const float* x, int64_t n, uint16_t* y);
  /** bf16 of x - hi; 0 where hi is not finite. */
  void (*bf16_rest)(const float* x, int64_t n, const uint16_t* hi, uint16_t* rest);
  /** Of n 16-bit numbers, which need no alignment: in files they lie anywhere. */
  void (*from_bf16)(const void* x, int64_t n, float* y);
  void (*from_f16)(const void* x, int64_t n, float* y);
  /** One chunk of rows [begin, begin + 128) into a fresh partial state. scratch: attention_scratch floats. */
  void (*attend_chunk)(const AttentionStrip&, int64_t begin, SoftmaxState partial, float* scratch);
  void (*merge)(SoftmaxState into, SoftmaxState partial, int64_t m, int64_t cp, int first);
  /** Of levels with matrix tiles, else null: bytes of a packed chunk of rows of width c; packs f32 rows [begin, begin + n), n <= 128; splits
   *  x [c] into two planes of bf16. With them attend_chunk and scores_only run on tiles, where a strip has `packed`. */
  int64_t (*chunk_bytes)(int64_t c);
  void (*pack_chunk)(const AttentionRows&, int64_t c, int64_t begin, int64_t n, char* out);
  void (*split_row)(const float* x, int64_t c, uint16_t* hi, uint16_t* lo);
  /** columns[j] += sum_i e^(scores[i][j] - max[i]) / sum[i], over the strip's vectors in order. */
  void (*column_sum)(const AttentionStrip&, const float* max, const float* sum, float* columns);
  void (*scores_only)(const AttentionStrip&, int64_t begin, SoftmaxState partial, float* scratch);
  /** See delta.inl. */
  void (*conv_silu)(const float* const* x, const float* w, int64_t ldw, int64_t taps, int64_t n, float* y);
  void (*l2_norm)(float* x, float scale, int64_t n);
  void (*delta_rows)(float* state, const DeltaRows&);
  /** A SampleWeights of sample.h. */
  void (*sample_weights)(const float* logits, int64_t n, float highest, float temperature, float* weights);
  /** For machine_peak.h: iterations of independent multiply-adds, returning the operations of one; a sum over n floats. */
  double (*f32_loop)(int64_t iterations);
  double (*bf16_loop)(int64_t iterations);
  float (*read_all)(const float* x, int64_t n);
};

/** Floats that attend_chunk needs: keys transposed, values, probabilities. */
inline int64_t attention_scratch(int64_t m, int64_t c) {
  int64_t cp = (c + 15) / 16 * 16;
  return kAttentionChunk * (cp + cp + m) + 64;
}

extern const Kernels kernels_portable;
#if defined(__x86_64__)
extern const Kernels kernels_avx2, kernels_avx512, kernels_avx512bf16, kernels_avx512amx;
#elif defined(__aarch64__)
/** The levels above it differ in the integer kernels and in bf16's dot product (dot_bf16.cc) alone. */
extern const Kernels kernels_neon;
void dot_bf16_matmul(const void* x, int64_t x_stride, int64_t rows, const char* w, int64_t strip_stride, int64_t k, int64_t strips,
                     float* out, int64_t out_stride);
double dot_bf16_loop(int64_t iterations);
#endif

/** The level in use: the best the processor has, or the one SPARSEVILA_ISA names: portable, avx2, avx512, avx512bf16, avx512amx;
 *  on ARM portable, neon, dotprod, i8mm, bf16. */
const Kernels& kernels();
/** Chooses again from the environment; returns an error message or null. For tests. */
const char* select_kernels(const char* level);
/** Space-separated processor features that matter here. */
const char* cpu_features();

}  // namespace sv
