// Fills one level's kernel table. The including file defines SV_LEVEL, the level macro, and SV_TABLE, the table's name.
#include "kernels.h"
#include "vec.h"
#include "matmul.inl"
#include "rows.inl"
#include "attention.inl"
#include "delta.inl"

namespace sv {
namespace SV_LEVEL {

static double f32_loop(int64_t iterations) {
  vec acc[10];
  float first[16];  // lanes differ and all are used, or the compiler computes half of them
  for (int i = 0; i < 16; i++) first[i] = (float)i;
  for (int i = 0; i < 10; i++) acc[i] = add(load(first), splat((float)i));
  const vec x = splat(1.0000001f), y = splat(1e-9f);
  for (int64_t it = 0; it < iterations; it++)
#pragma GCC unroll 10
    for (int i = 0; i < 10; i++) acc[i] = fma(acc[i], x, y);
  float out[16];
  for (int i = 1; i < 10; i++) acc[0] = add(acc[0], acc[i]);
  store(out, acc[0]);
  for (int i = 1; i < 16; i++) out[0] += out[i];
  volatile float sink = out[0];
  (void)sink;
  return 10 * 2 * kLanes;
}

/** Four streams with software prefetch, as the matrix products read their strips. */
static float read_all(const float* x, int64_t n) {
  vec sum[4] = {zero(), zero(), zero(), zero()};
  const int64_t quarter = n / 4;
  for (int64_t i = 0; i + 16 <= quarter; i += 16)
#pragma GCC unroll 4
    for (int s = 0; s < 4; s++) {
      __builtin_prefetch(x + s * quarter + i + 512);
      sum[s] = add(sum[s], load(x + s * quarter + i));
    }
  return sum_lanes(add(add(sum[0], sum[1]), add(sum[2], sum[3])));
}

}  // namespace SV_LEVEL

#ifndef SV_DOT_BF16
#define SV_DOT_BF16 nullptr
#define SV_BF16_LOOP nullptr
#endif
#ifndef SV_SPLIT_BF16
#define SV_SPLIT_BF16 nullptr
#endif
#ifdef SV_TILES
#define SV_TILE_CHUNKS SV_LEVEL::tile_chunk_bytes, SV_LEVEL::pack_tile_chunk, SV_LEVEL::split_row
#else
#define SV_TILE_CHUNKS nullptr, nullptr, nullptr
#endif
const Kernels SV_TABLE = {
    SV_LEVEL_NAME,
    {SV_LEVEL::matmul<SV_LEVEL::F32Weights>, SV_LEVEL::matmul<SV_LEVEL::F16Weights>, SV_LEVEL::matmul<SV_LEVEL::Bf16Weights>},
    SV_DOT_BF16,
    SV_SPLIT_BF16,
    SV_LEVEL::transpose_words,
    SV_LEVEL::rms_norm,
    SV_LEVEL::layer_norm,
    SV_LEVEL::activate,
    SV_LEVEL::gated_mul,
    SV_LEVEL::add_rows,
    SV_LEVEL::mul_rows,
    SV_LEVEL::rope,
    SV_LEVEL::to_bf16_row,
    SV_LEVEL::bf16_rest_row,
    SV_LEVEL::from_bf16_row,
    SV_LEVEL::from_f16_row,
    SV_LEVEL::attend_chunk,
    SV_LEVEL::merge,
    SV_TILE_CHUNKS,
    SV_LEVEL::column_sum,
    SV_LEVEL::scores_only,
    SV_LEVEL::conv_silu,
    SV_LEVEL::l2_norm,
    SV_LEVEL::delta_rows,
    SV_LEVEL::sample_weights,
    SV_LEVEL::f32_loop,
    SV_BF16_LOOP,
    SV_LEVEL::read_all,
};
}  // namespace sv
