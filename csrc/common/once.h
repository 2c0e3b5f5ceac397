// Reading what belongs to the caller, whose other threads may write to it meanwhile: they get wrong numbers for it, and
// nothing else.
#pragma once

namespace ckbd {

// *at, read once, so that what was checked is what is used: a compiler may read plain memory again. Static, as all that
// is compiled for several instruction sets.
template <class T>
static inline T once(const T* at) {
  return *static_cast<const volatile T*>(at);
}

}  // namespace ckbd
