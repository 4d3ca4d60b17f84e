// The portable level of the 4-bit kernels.
#define SV_LEVEL int4_portable_level
#define SV_PORTABLE
#define SV_TABLE int4_portable
#define SV_LEVEL_NAME "portable"
#include "int4.inl"
