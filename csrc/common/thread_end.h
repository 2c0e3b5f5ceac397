// Threads that are told to end where they cannot.
#pragma once

namespace ckbd {

[[noreturn]] void wait_for_good();

// Calls call(data), which throws nothing. If the thread is to end in there (pthread_exit, as Python before 3.14 has it
// for daemon threads that want the GIL when the interpreter ends), it waits for good instead, and nothing is unwound
// that called this. What call() itself has on the stack stays as it is: C alone, since C++ may be unwound by the C
// library's code with a C++ library that is not the one it was made for.
void call_or_wait(void (*call)(void*), void* data);

}  // namespace ckbd
