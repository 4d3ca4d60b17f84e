// The avx2 level of the kernel table.
#define SV_LEVEL avx2
#define SV_AVX2
#define SV_TABLE kernels_avx2
#define SV_LEVEL_NAME "avx2"
#include "level.inl"
