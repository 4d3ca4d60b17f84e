// The AVX-512 VNNI level of the 8-bit kernels.
#define SV_LEVEL int8_avx512vnni_level
#define SV_AVX512
#define SV_TABLE int8_avx512vnni
#define SV_LEVEL_NAME "avx512vnni"
#include "int8.inl"
