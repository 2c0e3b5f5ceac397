#include "passes/loops.h"

namespace ckbd::passes {

const Passes avx2_passes = passes("avx2");

}  // namespace ckbd::passes
