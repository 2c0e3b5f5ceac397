// Which instruction sets this processor has.
#pragma once

#include <vector>

#include "rans/rans.h"

namespace ckbd {

// Usable here, slowest first; plain and scalar are always there.
const std::vector<const Coder*>& coders();

}  // namespace ckbd
