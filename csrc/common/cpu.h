// What this processor has, and the system saves: the compiler's own look at cpuid.
#pragma once

namespace ckbd {

bool has_avx2();    // with bmi, sse4.2 and popcnt
bool has_avx512();  // and f, bw, vl, dq, vbmi2, bmi2

}  // namespace ckbd
