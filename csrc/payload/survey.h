// A look at a sample of the symbols, from which the encoder chooses what to skip.
#pragma once

#include <vector>

#include "payload/payload.h"

namespace ckbd {

// The skip_max that makes the payload shortest, or nearly, with less to code. Throws BadIndex.
template <class R>
int choose_skip_max(const Coder& coder, const Tables& tables, const std::vector<Phase<R>>& phases);

}  // namespace ckbd
