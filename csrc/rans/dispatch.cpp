#include "rans/dispatch.h"

#include <stdexcept>

#include "common/cpu.h"
#include "rans/isa.h"

namespace ckbd {

const std::vector<const Coder*>& coders() {
  static const std::vector<const Coder*> found = [] {
    std::vector<const Coder*> usable = {&scalar::coder};
#if CKBD_X86
    if (has_avx2()) usable.push_back(&avx2::coder);
    if (has_avx512()) usable.push_back(&avx512::coder);
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
