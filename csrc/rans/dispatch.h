// Which instruction sets this processor has.
#pragma once

#include <string>
#include <vector>

#include "rans/rans.h"

namespace ckbd {

// Usable here, slowest first; the scalar coder is always there.
const std::vector<const Coder*>& coders();

// Throws std::invalid_argument, which says what there is.
const Coder& coder_named(const std::string& name);

}  // namespace ckbd
