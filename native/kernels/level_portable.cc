// The portable level of the kernel table.
#define SV_LEVEL portable
#define SV_PORTABLE
#define SV_TABLE kernels_portable
#define SV_LEVEL_NAME "portable"
#include "level.inl"
