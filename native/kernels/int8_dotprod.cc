// The dotprod level of the 8-bit kernels.
#define SV_LEVEL int8_dotprod_level
#define SV_NEON
#define SV_DOTPROD
#define SV_TABLE int8_dotprod
#define SV_LEVEL_NAME "dotprod"
#include "int8.inl"
