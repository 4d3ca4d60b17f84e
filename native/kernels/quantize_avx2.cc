// The loops of quantize.h, compiled for avx2.
#define SV_LEVEL quantize_avx2_level
#define SV_AVX2
#define SV_TABLE quantize_avx2
#include "quantize.inl"
