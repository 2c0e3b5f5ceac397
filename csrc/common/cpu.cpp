#include "common/cpu.h"

#if CKBD_X86

#include <cpuid.h>

namespace ckbd {
namespace {

// The compilers have __builtin_cpu_supports for this, and some come with a library behind it that finds nothing.
struct Found {
  bool avx2 = false, avx512 = false;

  Found() {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0, ebx7 = 0, ecx7 = 0;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !__get_cpuid_count(7, 0, &eax, &ebx7, &ecx7, &edx)) return;
    constexpr unsigned kOsxsave = 1u << 27, kSse42 = 1u << 20, kPopcnt = 1u << 23, kAvx = 1u << 28;
    if (!has(ecx, kOsxsave | kSse42 | kPopcnt | kAvx)) return;
    unsigned saved = 0, high = 0;  // by the system, when it takes a processor from a process and gives it back
    asm volatile("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
    constexpr unsigned kYmm = 0x6, kZmm = 0xe6;
    constexpr unsigned kBmi = 1u << 3, kAvx2 = 1u << 5, kBmi2 = 1u << 8;
    constexpr unsigned kF = 1u << 16, kDq = 1u << 17, kBw = 1u << 30, kVl = 1u << 31, kVbmi2 = 1u << 6;
    avx2 = has(saved, kYmm) && has(ebx7, kAvx2 | kBmi);
    avx512 = avx2 && has(saved, kZmm) && has(ebx7, kBmi2 | kF | kDq | kBw | kVl) && has(ecx7, kVbmi2);
  }

  static bool has(unsigned word, unsigned bits) { return (word & bits) == bits; }
};

const Found& found() {
  static const Found once;
  return once;
}

}  // namespace

bool has_avx2() { return found().avx2; }
bool has_avx512() { return found().avx512; }

}  // namespace ckbd

#else

namespace ckbd {

bool has_avx2() { return false; }
bool has_avx512() { return false; }

}  // namespace ckbd

#endif
