#include "passes/loops.h"

namespace ckbd::passes {

const Passes avx512_passes = passes("avx512");

}  // namespace ckbd::passes
