// Chooses the kernel table at run time: the best that the processor and the operating system support, capped by SPARSEVILA_ISA.
#include <stdlib.h>
#include <string.h>

#include <string>
#include <vector>

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
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace sv {
namespace {

struct Features {
  bool avx2 = false, avx512 = false, bf16 = false, vnni = false, amx = false, amd = false;
  bool dotprod = false, i8mm = false;  // ARM's, with bf16
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
#elif defined(__aarch64__)
/** Each level has those below it: a processor with i8mm but no dotprod (there is none) counts as plain. */
Features in_order(bool dotprod, bool i8mm, bool bf16) {
  Features f;
  f.dotprod = dotprod;
  f.i8mm = f.dotprod && i8mm;
  f.bf16 = f.i8mm && bf16;
  return f;
}

#if defined(__APPLE__)
bool has(const char* name) {
  int value = 0;
  size_t size = sizeof value;
  return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
}
Features detect() {
  return in_order(has("hw.optional.arm.FEAT_DotProd"), has("hw.optional.arm.FEAT_I8MM"), has("hw.optional.arm.FEAT_BF16"));
}
#elif defined(__linux__)
Features detect() {
  constexpr unsigned long kDotprod = 1ul << 20, kI8mm = 1ul << 13, kBf16 = 1ul << 14;  // the kernel's asm/hwcap.h
  const unsigned long first = getauxval(AT_HWCAP), second = getauxval(AT_HWCAP2);
  return in_order(first & kDotprod, second & kI8mm, second & kBf16);
}
#else
Features detect() { return {}; }
#endif
#else
Features detect() { return {}; }
#endif

const Features& features() {
  static const Features f = detect();
  return f;
}

/** A level, and whether this processor has it; the plainest first. */
struct Level {
  const Kernels* kernels;
  bool present;
};

#if defined(__aarch64__)
/** The table of neon, under the name of a level whose integer kernels differ. */
Kernels neon_named(const char* name) {
  Kernels k = kernels_neon;
  k.name = name;
  return k;
}
Kernels with_dot_bf16(Kernels k) {
  k.matmul_dot_bf16 = dot_bf16_matmul;
  k.bf16_loop = dot_bf16_loop;
  return k;
}
const Kernels& kernels_dotprod() {
  static const Kernels k = neon_named("dotprod");
  return k;
}
const Kernels& kernels_i8mm() {
  static const Kernels k = neon_named("i8mm");
  return k;
}
const Kernels& kernels_bf16() {
  static const Kernels k = with_dot_bf16(neon_named("bf16"));
  return k;
}
#endif

std::vector<Level> levels() {
#if defined(__x86_64__)
  const Features& f = features();
  return {{&kernels_portable, true},
          {&kernels_avx2, f.avx2},
          {&kernels_avx512, f.avx512},
          {&kernels_avx512bf16, f.bf16},
          {&kernels_avx512amx, f.amx}};
#elif defined(__aarch64__)
  const Features& f = features();
  return {{&kernels_portable, true}, {&kernels_neon, true}, {&kernels_dotprod(), f.dotprod}, {&kernels_i8mm(), f.i8mm}, {&kernels_bf16(), f.bf16}};
#else
  return {{&kernels_portable, true}};
#endif
}

const Kernels* best() {
#if defined(__x86_64__)
  // Zen's bf16 dot product has twice the rate of f32 multiply-adds; Intel's Xeons run it at half (88 against 173 GFLOP/s
  // per core measured on Sapphire Rapids), so there f32 arithmetic is exact and faster where tiles are not to be had.
  if (features().amx) return &kernels_avx512amx;
  if (features().bf16 && features().amd) return &kernels_avx512bf16;
  if (features().avx512) return &kernels_avx512;
  if (features().avx2) return &kernels_avx2;
#elif defined(__aarch64__)
  if (features().bf16) return &kernels_bf16();
  if (features().i8mm) return &kernels_i8mm();
  return features().dotprod ? &kernels_dotprod() : &kernels_neon;
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
  for (const Level& l : levels()) {
    if (strcmp(level, l.kernels->name) != 0) continue;
    if (!l.present) return "this processor does not have that instruction set";
    current = l.kernels;
    return nullptr;
  }
#if defined(__aarch64__)
  return "expected portable, neon, dotprod, i8mm or bf16";
#else
  return "expected portable, avx2, avx512, avx512bf16 or avx512amx";
#endif
}

const Kernels& kernels() {
  if (!current && select_kernels(getenv("SPARSEVILA_ISA"))) select_kernels(nullptr);
  return *current;
}

namespace {
#if defined(__x86_64__)
/** The integer kernels of the level in use: AVX-512 counts only with VNNI. */
template <class Table>
const Table& integer_level(const Table& portable, const Table& avx2, const Table& vnni, const Table& amx) {
  const Kernels* k = &kernels();
  if (k == &kernels_portable) return portable;
  if (k == &kernels_avx512amx) return amx;
  return k != &kernels_avx2 && features().vnni ? vnni : avx2;
}
#elif defined(__aarch64__)
/** The integer kernels of the level in use; bf16 has those of i8mm. */
template <class Table>
const Table& integer_level(const Table& portable, const Table& neon, const Table& dotprod, const Table& i8mm) {
  const Kernels* k = &kernels();
  if (k == &kernels_portable) return portable;
  if (k == &kernels_neon) return neon;
  return k == &kernels_dotprod() ? dotprod : i8mm;
}
#endif
}  // namespace

#if defined(__x86_64__)
const Int4Kernels& int4_kernels() { return integer_level(int4_portable, int4_avx2, int4_avx512vnni, int4_avx512amx); }
const Int8Kernels& int8_kernels() { return integer_level(int8_portable, int8_avx2, int8_avx512vnni, int8_avx512amx); }
#elif defined(__aarch64__)
const Int4Kernels& int4_kernels() { return integer_level(int4_portable, int4_neon, int4_dotprod, int4_i8mm); }
const Int8Kernels& int8_kernels() { return integer_level(int8_portable, int8_neon, int8_dotprod, int8_i8mm); }
#else
const Int4Kernels& int4_kernels() { return int4_portable; }
const Int8Kernels& int8_kernels() { return int8_portable; }
#endif

const char* cpu_features() {
  static const std::string text = [] {
    const Features& f = features();
    std::string names;
    const auto add = [&names](bool has, const char* name) { if (has) names += (names.empty() ? "" : " ") + std::string(name); };
#if defined(__aarch64__)
    add(true, "neon");
    add(f.dotprod, "dotprod");
    add(f.i8mm, "i8mm");
    add(f.bf16, "bf16");
#else
    add(f.avx2, "avx2");
    add(f.avx512, "avx512");
    add(f.vnni, "avx512vnni");
    add(f.bf16, "avx512bf16");
    add(f.amx, "avx512amx");
#endif
    return names;
  }();
  return text.c_str();
}

}  // namespace sv
