// The neon level of the kernel table.
#define SV_LEVEL neon
#define SV_NEON
#define SV_TABLE kernels_neon
#define SV_LEVEL_NAME "neon"
#include "level.inl"
