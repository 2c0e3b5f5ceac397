// The container of a stream of version 1 (docs/format.md, section 1): the checks of ckbd/codec/container.py, in its
// order and its words.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "rans/rans.h"

namespace ckbd {

// A stream that breaks a rule: what Python's FormatError is made of. offset is within the file.
struct FormatError {
  std::string field;
  size_t offset;
  std::string reason;
};

constexpr size_t kModelBytes = 6;

// Bytes as Python's hex() writes them.
std::string hex(const uint8_t* bytes, size_t count, const char* between);

// What a stream says of itself. Pointers are into the stream.
struct Container {
  const uint8_t* model = nullptr;  // kModelBytes
  const uint8_t* payload = nullptr;
  size_t payload_size = 0, payload_offset = 0;
  uint32_t width = 0, height = 0, tail = 0;
  int quality2 = 0, lanes_log2 = 0, skip_max = 0;
  bool gray = false;
  uint32_t sections = 0;
};

// Checks all of a stream from outside, its sections too. Throws FormatError.
Container parse_container(const Coder& coder, const uint8_t* data, size_t size, uint64_t max_pixels);

}  // namespace ckbd
