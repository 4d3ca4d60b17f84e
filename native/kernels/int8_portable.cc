// The portable level of the 8-bit kernels.
#define SV_LEVEL int8_portable_level
#define SV_PORTABLE
#define SV_TABLE int8_portable
#define SV_LEVEL_NAME "portable"
#include "int8.inl"
