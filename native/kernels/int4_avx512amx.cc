// The level with matrix tiles of the 4-bit kernels: many rows run on tiles, few as at the VNNI level, with the same bits.
#define SV_LEVEL int4_avx512amx_level
#define SV_AVX512
#define SV_AMX
#define SV_TABLE int4_avx512amx
#define SV_LEVEL_NAME "avx512amx"
#include "int4.inl"
