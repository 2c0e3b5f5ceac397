#include "passes/loops.h"

namespace ckbd::passes {

const Passes scalar_passes = passes("scalar");

}  // namespace ckbd::passes
