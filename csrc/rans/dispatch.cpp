#include "rans/dispatch.h"

#include "common/cpu.h"
#include "rans/isa.h"

namespace ckbd {

const std::vector<const Coder*>& coders() {
  static const std::vector<const Coder*> found = [] {
    std::vector<const Coder*> usable = {&plain::coder, &scalar::coder};
#if CKBD_X86
    if (has_avx2()) usable.push_back(&avx2::coder);
    if (has_avx512()) usable.push_back(&avx512::coder);
#endif
    return usable;
  }();
  return found;
}

}  // namespace ckbd
