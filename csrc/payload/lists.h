// What a payload has before its words (docs/format.md, section 2), from outside: states, exceptions, escape values.
#pragma once

#include <vector>

#include "rans/rans.h"

namespace ckbd {

// Of one phase, or what is left of them: where the next exception's bits begin, and how many there are.
struct ExceptionList {
  const uint8_t* payload;
  const uint8_t* end;
  const uint8_t* next;
  uint32_t left;
  int low_bits;  // b

  // Sets r where the list says, all of it. `coded`: elements which are not skipped. Throws StreamError.
  template <class R>
  void apply(const Coder& coder, const uint64_t* coded, R* r, size_t n, int32_t largest);
};

// `left` varints in [next, end).
struct EscapeValues {
  const uint8_t* payload = nullptr;
  const uint8_t* next = nullptr;
  const uint8_t* end = nullptr;
  uint32_t left = 0;

  size_t offset() const { return static_cast<size_t>(next - payload); }
  // Throws StreamError if there is none.
  uint32_t take();
};

struct Lists {
  uint32_t states[kMaxLanes];
  std::vector<ExceptionList> exceptions;  // one for each phase
  EscapeValues escapes;
  const uint8_t* words;  // where they begin
};

// Walks all of them, so that the words are found. Exceptions are walked again when their phase is decoded: nothing is
// allocated for what a list says. Throws StreamError.
Lists read_lists(const uint8_t* payload, size_t size, size_t lanes, int phases);

}  // namespace ckbd
