// The avx2 level of the 8-bit kernels.
#define SV_LEVEL int8_avx2_level
#define SV_AVX2
#define SV_TABLE int8_avx2
#define SV_LEVEL_NAME "avx2"
#include "int8.inl"
