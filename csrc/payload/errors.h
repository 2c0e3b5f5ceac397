// What coding may throw.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace ckbd {

// A payload that violates the format: the field, and the offset within the payload where it shows.
class StreamError : public std::runtime_error {
 public:
  StreamError(const char* field, size_t offset, const std::string& message)
      : std::runtime_error(message), field(field), offset(offset) {}
  const char* field;
  size_t offset;
};

// A table index of kScales or more: the caller's fault, not the stream's. Nothing has been decoded.
struct BadIndex {
  uint8_t k;
  size_t phase, at;
};

[[noreturn]] void throw_bad_index(size_t phase, const uint8_t* k, size_t n);

}  // namespace ckbd
