// The avx512 level of the kernel table.
#define SV_LEVEL avx512
#define SV_AVX512
#define SV_TABLE kernels_avx512
#define SV_LEVEL_NAME "avx512"
#include "level.inl"
