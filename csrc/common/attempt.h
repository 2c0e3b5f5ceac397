// Errors of tasks that run beside others: kept where they happen, thrown where somebody waits for them.
#pragma once

#include <exception>
#include <utility>

namespace ckbd {

// Runs work(), unless an earlier attempt has failed, and keeps what it throws.
template <class Work>
void attempt(std::exception_ptr& error, Work work) {
  if (error) return;
  try {
    work();
  } catch (...) {
    error = std::current_exception();
  }
}

// Throws what has been kept, once.
inline void settle(std::exception_ptr& error) {
  if (error) std::rethrow_exception(std::exchange(error, nullptr));
}

}  // namespace ckbd
