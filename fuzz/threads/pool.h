// The pool by itself: every task once, whoever else asks for threads, and whatever is thrown and caught in tasks.
#pragma once

#include <stdexcept>

#include "common/pool.h"
#include "callers.h"

namespace ckbd::fuzz {

// Arrays of plain numbers, which a task writes and the caller reads: it is for the pool to put these in order, and
// ThreadSanitizer says if it does not.
inline void run_tasks_of(Caller& caller, size_t depth) {
  const size_t n = caller.random.below(40), threads = caller.one_in(20) ? caller.between(5, 40) : caller.threads();
  std::vector<int> done(n);
  std::vector<std::exception_ptr> errors(n);
  std::vector<Random> random;
  for (size_t i = 0; i < n; ++i) random.emplace_back(caller.random.next());
  // csrc/common/pool.h leaves out that a task asks for threads itself. It must not wait for good, all the same.
  std::vector<std::vector<int>> inner(n);
  ckbd::run_tasks(n, threads, [&](size_t i) {
    try {
      ++done[i];
      if (depth > 0 && random[i].below(8) == 0) {
        inner[i].resize(random[i].below(10));
        ckbd::run_tasks(inner[i].size(), 1 + random[i].below(4), [&](size_t j) { ++inner[i][j]; });
      }
      if (random[i].below(4) == 0) throw std::runtime_error(std::to_string(i));
    } catch (...) {
      errors[i] = std::current_exception();
    }
  });
  for (size_t i = 0; i < n; ++i) {
    if (done[i] != 1) fail("a task ran ", std::to_string(done[i]), " times");
    for (const int one : inner[i]) {
      if (one != 1) fail("a task within a task ran ", std::to_string(one), " times");
    }
    try {
      if (errors[i]) std::rethrow_exception(errors[i]);
    } catch (const std::runtime_error& error) {
      if (error.what() != std::to_string(i)) fail("an exception of another task");
    }
  }
}

inline void use_pool(Caller& caller) {
  run_tasks_of(caller, 1);
}

}  // namespace ckbd::fuzz
