// The neon level of the 4-bit kernels.
#define SV_LEVEL int4_neon_level
#define SV_NEON
#define SV_TABLE int4_neon
#define SV_LEVEL_NAME "neon"
#include "int4.inl"
