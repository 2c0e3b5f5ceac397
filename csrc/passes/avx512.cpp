#include "passes/loops.h"

#if CKBD_X86

namespace ckbd::passes {

const Passes avx512_passes = passes("avx512");

}  // namespace ckbd::passes

#endif
