// Chooses the kernel table at run time: the best that the processor and the operating system support, capped by SPARSEVILA_ISA.
#include <stdlib.h>
#include <string.h>

#include <string>

#include "int4.h"
#include "int8.h"
#include "kernels.h"
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace sv {
namespace {

struct Features {
  bool avx2 = false, avx512 = false, bf16 = false, vnni = false, amx = false, amd = false;
};

#if defined(__x86_64__)
uint64_t xgetbv0() {
  uint32_t a, d;
  asm volatile("xgetbv"
               : "=a"(a), "=d"(d)
               : "c"(0));
  return ((uint64_t)d << 32) | a;
}

/** Linux gives a process the tiles' register state when it asks for it, for all its threads. */
bool may_use_tiles() {
#if defined(__linux__) && defined(SYS_arch_prctl)
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

Features detect() {
  Features f;
  uint32_t a, b, c, d;
  if (!__get_cpuid(0, &a, &b, &c, &d)) return f;
  f.amd = b == signature_AMD_ebx && c == signature_AMD_ecx && d == signature_AMD_edx;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return f;
  const bool os = c & (1u << 27), fma = c & (1u << 12), f16c = c & (1u << 29);
  if (!os) return f;
  const uint64_t state = xgetbv0();
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return f;
  f.avx2 = (state & 0x6) == 0x6 && (b & (1u << 5)) && fma && f16c;
  const uint32_t need = (1u << 16) | (1u << 17) | (1u << 30) | (1u << 31);  // F, DQ, BW, VL
  f.avx512 = f.avx2 && (state & 0xe0) == 0xe0 && (b & need) == need;
  f.vnni = f.avx512 && (c & (1u << 11));
  const uint32_t tiles = (1u << 22) | (1u << 24) | (1u << 25);  // bf16, tile, int8
  f.amx = f.vnni && (d & tiles) == tiles && (state & 0x60000) == 0x60000 && may_use_tiles();
  f.bf16 = f.avx512 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & (1u << 5));
  return f;
}
#else
Features detect() { return {}; }
#endif

const Features& features() {
  static const Features f = detect();
  return f;
}

const Kernels* best() {
#if defined(__x86_64__)
  // Zen's bf16 dot product has twice the rate of f32 multiply-adds; Intel's Xeons run it at half (88 against 173 GFLOP/s
  // per core measured on Sapphire Rapids), so there f32 arithmetic is exact and faster where tiles are not to be had.
  if (features().amx) return &kernels_avx512amx;
  if (features().bf16 && features().amd) return &kernels_avx512bf16;
  if (features().avx512) return &kernels_avx512;
  if (features().avx2) return &kernels_avx2;
#endif
  return &kernels_portable;
}

const Kernels* current = nullptr;

}  // namespace

const char* select_kernels(const char* level) {
  if (!level || !*level) {
    current = best();
    return nullptr;
  }
  const Kernels* wanted = nullptr;
  if (!strcmp(level, "portable")) wanted = &kernels_portable;
#if defined(__x86_64__)
  const Kernels* all[] = {&kernels_avx2, &kernels_avx512, &kernels_avx512bf16, &kernels_avx512amx};
  const bool have[] = {features().avx2, features().avx512, features().bf16, features().amx};
  for (int i = 0; i < 4; i++)
    if (!strcmp(level, all[i]->name)) {
      if (!have[i]) return "this processor does not have that instruction set";
      wanted = all[i];
    }
#endif
  if (!wanted) return "expected portable, avx2, avx512, avx512bf16 or avx512amx";
  current = wanted;
  return nullptr;
}

const Kernels& kernels() {
  if (!current && select_kernels(getenv("SPARSEVILA_ISA"))) select_kernels(nullptr);
  return *current;
}

namespace {
/** The integer kernels of the level in use: AVX-512 counts only with VNNI. */
#if defined(__x86_64__)
template <class Table>
const Table& integer_level(const Table& portable, const Table& avx2, const Table& vnni, const Table& amx) {
  const Kernels* k = &kernels();
  if (k == &kernels_portable) return portable;
  if (k == &kernels_avx512amx) return amx;
  return k != &kernels_avx2 && features().vnni ? vnni : avx2;
}
#endif
}  // namespace

#if defined(__x86_64__)
const Int4Kernels& int4_kernels() { return integer_level(int4_portable, int4_avx2, int4_avx512vnni, int4_avx512amx); }
const Int8Kernels& int8_kernels() { return integer_level(int8_portable, int8_avx2, int8_avx512vnni, int8_avx512amx); }
#else
const Int4Kernels& int4_kernels() { return int4_portable; }
const Int8Kernels& int8_kernels() { return int8_portable; }
#endif

const char* cpu_features() {
  static const std::string text = [] {
    const Features& f = features();
    std::string names;
    const auto add = [&names](bool has, const char* name) { if (has) names += (names.empty() ? "" : " ") + std::string(name); };
    add(f.avx2, "avx2");
    add(f.avx512, "avx512");
    add(f.vnni, "avx512vnni");
    add(f.bf16, "avx512bf16");
    add(f.amx, "avx512amx");
    return names;
  }();
  return text.c_str();
}

}  // namespace sv
