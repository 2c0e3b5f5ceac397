// What the loops of a decoder do rarely: escapes, the last words, and errors, which they keep for their caller.
#pragma once

#include <exception>
#include <vector>

#include "rans/payload.h"

namespace ckbd {

struct Rare {
  // Escape values still to be read: `left` varints in [next, end).
  const uint8_t* payload = nullptr;
  const uint8_t* next = nullptr;
  const uint8_t* end = nullptr;
  uint32_t left = 0;
  int32_t largest = INT16_MAX;  // that the array of symbols holds
  std::vector<Escaped> found, taken;
  std::exception_ptr error;
  uint8_t page[2 * kStepBytes];  // the last words, fewer than kStepBytes: a step that begins at their end still fits
};

// The last words go where a whole step may be loaded from any of them.
void turn_page(Words& words, uint8_t* page);

}  // namespace ckbd
