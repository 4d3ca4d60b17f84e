// The dotprod level of the 4-bit kernels.
#define SV_LEVEL int4_dotprod_level
#define SV_NEON
#define SV_DOTPROD
#define SV_TABLE int4_dotprod
#define SV_LEVEL_NAME "dotprod"
#include "int4.inl"
