// The loops of quantize.h, compiled for avx512.
#define SV_LEVEL quantize_avx512_level
#define SV_AVX512
#define SV_TABLE quantize_avx512
#include "quantize.inl"
