// What this processor has, and the system saves.
#pragma once

// Whether files for x86's instruction sets have anything in them: intrinsics and assembly as GCC and Clang have them.
#if defined(__x86_64__) && defined(__GNUC__)
#define CKBD_X86 1
#else
#define CKBD_X86 0
#endif

namespace ckbd {

bool has_avx2();    // with bmi, sse4.2 and popcnt
bool has_avx512();  // and f, bw, vl, dq, vbmi2, bmi2

}  // namespace ckbd
