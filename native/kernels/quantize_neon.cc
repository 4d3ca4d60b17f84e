// The loops of quantize.h, compiled for neon.
#define SV_LEVEL quantize_neon_level
#define SV_NEON
#define SV_TABLE quantize_neon
#include "quantize.inl"
