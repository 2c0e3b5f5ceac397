#include "common/thread_end.h"

#include <chrono>
#include <thread>
#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace ckbd {

void wait_for_good() {
  for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
}

#if defined(_WIN32)

void call_or_wait(void (*call)(void*), void* data) { call(data); }

#else

// Compiled without exceptions: only then is the handler one that the C library jumps to, and no destructor.
#if defined(__cpp_exceptions)
#error "needs -fno-exceptions, as setup.py has it"
#endif

static void wait_instead(void*) { wait_for_good(); }

void call_or_wait(void (*call)(void*), void* data) {
  pthread_cleanup_push(wait_instead, nullptr);
  call(data);
  pthread_cleanup_pop(0);
}

#endif

}  // namespace ckbd
