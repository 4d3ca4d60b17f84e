// The loops of quantize.h, compiled for portable.
#define SV_LEVEL quantize_portable_level
#define SV_PORTABLE
#define SV_TABLE quantize_portable
#include "quantize.inl"
