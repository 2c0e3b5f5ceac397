// Who calls, and the thread that writes to the callers' arrays meanwhile.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <iterator>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "ans/ans.h"
#include "input.h"
#include "payload/payload.h"
#include "streams/container.h"

namespace ckbd::fuzz {

// An array that a call reads or writes, and what was in it.
struct Shared {
  uint8_t* data;
  size_t size, width;  // in bytes: of all, of an element
  std::vector<uint8_t> before;
};

// Those of the call that a caller is in. Who holds the mutex may write to them.
struct Slot {
  std::mutex mutex;
  std::vector<Shared> arrays;
};

inline uint64_t hostile_value(size_t width, Random& random) {
  const uint64_t top = uint64_t{1} << (8 * width - 1);
  const uint64_t values[] = {0,  1,  63,      64,         255,        ~uint64_t{0}, top,
                             top - 1, top + 1, 1u << 16, 0x7fc00000, 0x7f800000,   0xff7fffff, random.next()};
  return values[random.below(std::size(values))];
}

// Everything that is written without asking is written here, byte by byte, and ThreadSanitizer looks away: races with
// this function are what there must be, and each would take it longer to tell (or to hide) than a call takes. So what
// it tells is of anything else.
#if defined(__clang__)
__attribute__((noinline, no_sanitize("thread")))
#endif
inline void rewrite_the_callers_arrays(const std::vector<Shared>& arrays, Random& random) {
  for (int round = 0; round < 4; ++round) {
    const Shared& one = arrays[random.below(arrays.size())];
    volatile uint8_t* const to = one.data;
    const uint8_t* const before = one.before.data();
    const size_t items = one.size / one.width, pick = random.below(8);
    if (pick < 2) {
      const auto byte = static_cast<uint8_t>(pick == 0 ? random.next() : random.below(2) ? 255 : 63);
      for (size_t i = 0; i < one.size; ++i) to[i] = byte;
    } else if (pick == 2) {  // other values of its own
      const size_t from = random.below(items) * one.width;
      for (size_t i = from; i < one.size; ++i) to[i - from] = before[i];
    } else {
      for (size_t left = 1 + random.below(8); left > 0; --left) {
        const uint64_t value = hostile_value(one.width, random);
        const size_t at = random.below(items) * one.width;
        for (size_t b = 0; b < one.width; ++b) to[at + b] = static_cast<uint8_t>(value >> 8 * b);
      }
    }
    // Mostly there is something wrong for a moment only, so that calls get beyond what they check first.
    if (random.below(8) == 0) continue;
    for (size_t i = 0; i < one.size; ++i) to[i] = before[i];
  }
}

// Until `over`.
inline void keep_rewriting(std::vector<Slot>& slots, const std::atomic<bool>& over, uint64_t seed) {
  Random random(seed);
  while (!over) {
    for (Slot& slot : slots) {
      const std::lock_guard lock(slot.mutex);
      if (!slot.arrays.empty()) rewrite_the_callers_arrays(slot.arrays, random);
    }
  }
}

struct Counts {
  size_t calls = 0, rewritten = 0, spoiled = 0;  // spoiled: went through, with other results
  std::map<std::string, size_t> refused;
};

class Caller {
 public:
  Caller(uint64_t seed, Slot& slot) : random(seed), slot_(slot) {}

  Random random;
  std::map<std::string, Counts> counts;

  size_t between(size_t low, size_t high) { return low + random.below(high - low + 1); }
  bool one_in(size_t n) { return random.below(n) == 0; }
  size_t threads() { return between(1, 4); }

  // A call of one kind. In two of three the arrays named by share() are written to between begin() and end().
  void start(const char* kind) {
    here_ = &counts[kind];
    kind_ = kind;
    ++here_->calls;
    rewriting_ = !one_in(3);
    here_->rewritten += rewriting_;
    went_through_ = true;
  }
  bool rewriting() const { return rewriting_; }
  template <class T>
  void share(const Exact<T>& array) {
    if (array.size() == 0) return;
    auto* const data = reinterpret_cast<uint8_t*>(array.data());
    shared_.push_back({data, sizeof(T) * array.size(), sizeof(T), {data, data + sizeof(T) * array.size()}});
  }
  void begin() {
    if (!rewriting_) return shared_.clear();
    const std::lock_guard lock(slot_.mutex);
    slot_.arrays.swap(shared_);
  }
  void end() {
    const std::lock_guard lock(slot_.mutex);
    slot_.arrays.clear();
    shared_.clear();
  }

  // A part of the call; false if it was refused, which it may be only for what another thread wrote.
  template <class Part>
  bool attempt(Part part) {
    try {
      part();
      return true;
    } catch (...) {
      refused(std::current_exception());
      return false;
    }
  }
  void refused(const std::exception_ptr& error) {
    const std::string type = type_of(error);
    if (!rewriting_) fail(kind_, ": ", type, ", though nobody wrote to anything");
    ++here_->refused[type];
    went_through_ = false;
  }
  // After end(): whether the results are what they are without threads.
  void result(bool same) {
    if (same) return;
    if (!rewriting_) fail(kind_, ": other results than without threads");
    here_->spoiled += std::exchange(went_through_, false);
  }
  template <class T>
  void result(const Exact<T>& got, const Exact<T>& expected) {
    got.check_lead();
    if (went_through_) result(got == expected);
  }

 private:
  static std::string type_of(const std::exception_ptr& error) {
    try {
      std::rethrow_exception(error);
    } catch (const ckbd::StreamError&) {
      return "StreamError";
    } catch (const ckbd::FormatError&) {
      return "FormatError";
    } catch (const ckbd::BadIndex&) {
      return "BadIndex";
    } catch (const ckbd::ans::Refused&) {
      return "Refused";
    } catch (const std::runtime_error& changed) {
      const std::string text = changed.what();
      if (text.find(": changed during the call") == std::string::npos) fail("an error of no known kind: ", text);
      return "changed during the call";
    } catch (const std::exception& other) {
      fail("an exception of no known kind: ", other.what());
    }
  }

  Slot& slot_;
  std::vector<Shared> shared_;
  Counts* here_ = nullptr;
  const char* kind_ = nullptr;
  bool rewriting_ = false, went_through_ = true;
};

}  // namespace ckbd::fuzz
