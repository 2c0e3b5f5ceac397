// The GIL, let go for a while. For bind*.cpp alone.
#pragma once

#include <Python.h>

#include <chrono>
#include <thread>
#if __has_include(<cxxabi.h>)
#include <cxxabi.h>  // which tells whether the library is libstdc++, too
#endif

namespace ckbd_python {

// At the interpreter's end daemon threads that ask for the GIL get it no more. Since Python 3.14 they wait for good;
// before, they end where they asked, by an unwinding that runs destructors without the GIL and that no destructor
// lets pass, and the process goes with them. Here they wait in all versions.
[[noreturn]] inline void wait_for_good() {
  for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
}

// For what asks for the GIL, and for what runs Python code, which lets go of it: call() itself may hold nothing that
// it would have to let go of.
template <class Call>
auto asking_for_gil(Call call) {
#if defined(__GLIBCXX__)
  try {
    return call();
  } catch (const abi::__forced_unwind&) {
    wait_for_good();  // which must not be left, as the unwinding would go on
  }
#else
  return call();
#endif
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
