// The level with matrix tiles of the 8-bit kernels.
#define SV_LEVEL int8_avx512amx_level
#define SV_AVX512
#define SV_AMX
#define SV_TABLE int8_avx512amx
#define SV_LEVEL_NAME "avx512amx"
#include "int8.inl"
