#include "rans/dispatch.h"

#include <stdexcept>

#include "rans/isa.h"

namespace ckbd {

const std::vector<const Coder*>& coders() {
  static const std::vector<const Coder*> found = [] {
    std::vector<const Coder*> usable = {&scalar::coder};
#if CKBD_X86
    // The compiler's own look at cpuid, which also asks whether the system saves the wide registers.
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("sse4.2") &&
        __builtin_cpu_supports("popcnt")) {
      usable.push_back(&avx2::coder);
      if (__builtin_cpu_supports("bmi2") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
          __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
          __builtin_cpu_supports("avx512vbmi2")) {
        usable.push_back(&avx512::coder);
      }
    }
#endif
    return usable;
  }();
  return found;
}

const Coder& coder_named(const std::string& name) {
  std::string names;
  for (const Coder* coder : coders()) {
    if (name == coder->name) return *coder;
    names += (names.empty() ? "" : ", ") + std::string(coder->name);
  }
  throw std::invalid_argument("isa: expected one that this machine has (" + names + "), got '" + name + "'");
}

}  // namespace ckbd
