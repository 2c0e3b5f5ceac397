// Many streams at once: on threads, and two to a thread, so that one computes while the other waits for its words.
#pragma once

#include <variant>
#include <vector>

#include "payload/payload.h"

namespace ckbd {

// Runs all tasks on up to `threads` threads. Errors are kept in the tasks.
template <class R>
void decode_phases(std::vector<PhaseTask<R>>& tasks, size_t threads);

// A phase to decode into.
template <class R>
struct PhaseOut {
  const uint8_t* k;
  R* r;
  size_t n;
};

// A whole payload whose table indices are all known.
struct ImageTask {
  const uint8_t* payload;
  size_t size;
  int lanes_log2;
  int skip_max;
  uint32_t tail;
  int16_t* z;
  size_t n_z;
  std::variant<std::vector<PhaseOut<int8_t>>, std::vector<PhaseOut<int16_t>>> phases;
  std::exception_ptr error = nullptr;
};

void decode_images(const Coder& coder, const Tables& tables, std::vector<ImageTask>& images, size_t threads);

}  // namespace ckbd
