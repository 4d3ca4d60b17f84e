// The i8mm level of the 4-bit kernels.
#define SV_LEVEL int4_i8mm_level
#define SV_NEON
#define SV_DOTPROD
#define SV_I8MM
#define SV_TABLE int4_i8mm
#define SV_LEVEL_NAME "i8mm"
#include "int4.inl"
