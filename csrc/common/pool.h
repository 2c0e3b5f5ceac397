// Threads that wait for work, so that a batch need not start any.
#pragma once

#include <cstddef>
#include <functional>

namespace ckbd {

// Calls task(0) ... task(n - 1), each once, on up to `threads` threads, of which the caller is one, and returns when
// all are done. Tasks are begun in order and must not throw. Any number of threads may call this at once; a task may
// not. After a fork the child has a pool of its own.
void run_tasks(size_t n, size_t threads, const std::function<void(size_t)>& task);

// Processors that this process may use.
size_t usable_cpus();

}  // namespace ckbd
