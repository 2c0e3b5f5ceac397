// Items of a batch on threads, each with an error of its own.
#pragma once

#include <exception>
#include <vector>

#include "bind/gil.h"
#include "common/attempt.h"
#include "common/pool.h"

namespace ckbd_python {

// Runs task(i) for all i < count on threads, without the GIL; returns what each threw, null for those that went well.
template <class Task>
std::vector<std::exception_ptr> run_each(size_t count, size_t threads, Task task) {
  std::vector<std::exception_ptr> errors(count);
  const WithoutGil released;
  ckbd::run_tasks(count, threads, [&](size_t i) { ckbd::attempt(errors[i], [&] { task(i); }); });
  return errors;
}

}  // namespace ckbd_python
