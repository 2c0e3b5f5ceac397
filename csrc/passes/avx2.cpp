#include "passes/loops.h"

#if CKBD_X86

namespace ckbd::passes {

const Passes avx2_passes = passes("avx2");

}  // namespace ckbd::passes

#endif
