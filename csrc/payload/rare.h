// What the loops of a decoder do rarely: escapes, the last words, and errors, which they keep for their caller.
#pragma once

#include <exception>
#include <vector>

#include "payload/errors.h"
#include "payload/lists.h"

namespace ckbd {

struct Rare {
  EscapeValues escapes;         // still to be read
  int32_t largest = INT16_MAX;  // that the array of symbols holds
  std::vector<Escaped> found, taken;
  std::exception_ptr error;
  uint8_t page[2 * kStepBytes];  // the last words, fewer than kStepBytes: a step that begins at their end still fits
};

// The last words go where a whole step may be loaded from any of them.
void turn_page(Words& words, uint8_t* page);

}  // namespace ckbd
