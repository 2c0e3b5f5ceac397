// The coders there are: the one to read, and one for each instruction set.
#pragma once

#include "rans/rans.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define CKBD_X86 1
#else
#define CKBD_X86 0
#endif

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
