// The i8mm level of the 8-bit kernels.
#define SV_LEVEL int8_i8mm_level
#define SV_NEON
#define SV_DOTPROD
#define SV_I8MM
#define SV_TABLE int8_i8mm
#define SV_LEVEL_NAME "i8mm"
#include "int8.inl"
