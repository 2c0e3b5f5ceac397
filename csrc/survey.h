// A look at a sample of the symbols, from which the encoder makes its choices.
#pragma once

#include <vector>

#include "payload.h"

namespace ckbd {

struct Survey {
  int skip_max;  // the one that makes the payload shortest, or nearly, with less to code
  double bytes;  // about the size of the payload without z
};

template <class R>
Survey take_survey(const Coder& coder, const Tables& tables, const std::vector<Phase<R>>& phases);

}  // namespace ckbd
