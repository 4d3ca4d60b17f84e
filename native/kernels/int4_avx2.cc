// The avx2 level of the 4-bit kernels.
#define SV_LEVEL int4_avx2_level
#define SV_AVX2
#define SV_TABLE int4_avx2
#define SV_LEVEL_NAME "avx2"
#include "int4.inl"
