// Fills one level's kernel table. The including file defines SV_LEVEL, the level macro, and SV_TABLE, the table's name.
#include "kernels.h"
#include "vec.h"
#include "matmul.inl"
#include "rows.inl"
#include "attention.inl"

namespace sv {
#ifndef SV_DOT_BF16
#define SV_DOT_BF16 nullptr
#endif
const Kernels SV_TABLE = {
    SV_LEVEL_NAME,
    {SV_LEVEL::matmul<SV_LEVEL::F32Weights>, SV_LEVEL::matmul<SV_LEVEL::F16Weights>, SV_LEVEL::matmul<SV_LEVEL::Bf16Weights>},
    SV_DOT_BF16,
    SV_LEVEL::transpose_words,
    SV_LEVEL::rms_norm,
    SV_LEVEL::layer_norm,
    SV_LEVEL::activate,
    SV_LEVEL::silu_mul,
    SV_LEVEL::add_rows,
    SV_LEVEL::rope,
    SV_LEVEL::to_bf16_row,
    SV_LEVEL::from_bf16_row,
    SV_LEVEL::from_f16_row,
    SV_LEVEL::attend_chunk,
    SV_LEVEL::merge,
    SV_LEVEL::column_sum,
    SV_LEVEL::scores_only,
};
}  // namespace sv
