// The GIL, let go for a while. For bind*.cpp alone.
#pragma once

#include <Python.h>

#include <type_traits>

#include "common/thread_end.h"

namespace ckbd_python {

using ckbd::wait_for_good;

// At the interpreter's end daemon threads that ask for the GIL get it no more. Since Python 3.14 they wait for good;
// before, they end where they asked, by an unwinding that runs destructors without the GIL and that no destructor
// lets pass, and the process goes with them. Here they wait in all versions.
//
// For what asks for the GIL, and for what runs Python code, which lets go of it: call() is one call of Python's C API,
// holds nothing that it would have to let go of, and gives a number or a pointer.
template <class Call>
auto asking_for_gil(Call call) {
  using Result = decltype(call());
  if constexpr (std::is_void_v<Result>) {
    ckbd::call_or_wait([](void* data) { (*static_cast<Call*>(data))(); }, &call);
  } else {
    static_assert(std::is_scalar_v<Result>, "what has a destructor would have to let go of it");
    struct Asked {
      Call& call;
      Result result;
    } asked{call, Result()};
    ckbd::call_or_wait(
        [](void* data) {
          Asked& one = *static_cast<Asked*>(data);
          one.result = one.call();
        },
        &asked);
    return asked.result;
  }
}

// What pybind11's gil_scoped_release is to others. A thread may hold for good what it holds when it asks for the GIL
// again, so that must be nothing which the main thread may still want, such as a mutex.
class WithoutGil {
 public:
  WithoutGil() : ending_(is_ending()), state_(PyEval_SaveThread()) {}
  ~WithoutGil() {
    // Who had the GIL when the end had begun is the one who ends it all, and goes on. It may begin at any time.
    if (!ending_ && is_ending()) wait_for_good();
    asking_for_gil([&] { PyEval_RestoreThread(state_); });
  }
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

 private:
  static bool is_ending() {
#if PY_VERSION_HEX >= 0x030D0000
    return Py_IsFinalizing();
#else
    return _Py_IsFinalizing();
#endif
  }

  const bool ending_;
  PyThreadState* const state_;
};

}  // namespace ckbd_python
