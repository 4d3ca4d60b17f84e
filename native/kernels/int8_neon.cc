// The neon level of the 8-bit kernels.
#define SV_LEVEL int8_neon_level
#define SV_NEON
#define SV_TABLE int8_neon
#define SV_LEVEL_NAME "neon"
#include "int8.inl"
