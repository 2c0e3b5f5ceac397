// The coders there are: the one to read, and one for each instruction set.
#pragma once

#include "common/cpu.h"
#include "rans/rans.h"

namespace ckbd {

namespace plain {
extern const Coder coder;
}
namespace scalar {
extern const Coder coder;
}
#if CKBD_X86
namespace avx2 {
extern const Coder coder;
}
namespace avx512 {
extern const Coder coder;
}
#endif

}  // namespace ckbd
