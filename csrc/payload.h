// The payload of a stream (docs/format.md, sections 2 to 4): everything around the groups that is the same
// for all instruction sets.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "tables.h"

namespace ckbd {

// A payload that violates the format: the field, and the offset within the payload where it shows.
class StreamError : public std::runtime_error {
 public:
  StreamError(const char* field, size_t offset, const std::string& message)
      : std::runtime_error(message), field(field), offset(offset) {}
  const char* field;
  size_t offset;
};

// The coded groups of a phase in decoding order. skip_max <= 15, so neither range is empty.
struct Coded {
  Group narrow, wide;
};

inline Coded coded(int skip_max) {
  return {{static_cast<uint8_t>(skip_max + 1), kLastNarrow}, {kLastNarrow + 1, kScales - 1}};
}

inline Group skipped(int skip_max) { return {0, static_cast<uint8_t>(skip_max)}; }

inline size_t count(Group group, const uint8_t* k, size_t n) {
  return static_cast<size_t>(std::count_if(k, k + n, [group](uint8_t one) { return contains(group, one); }));
}

// Decodes a payload from outside. Tables and payload must outlive it. z() comes first, then phase() as often
// as there are phases, then finish(); every one may throw StreamError, after which the decoder is of no use.
class PayloadDecoder {
 public:
  PayloadDecoder(const Tables& tables, const uint8_t* payload, size_t size, int lanes_log2, int skip_max,
                 uint32_t tail, int phases);

  void z(int16_t* z, size_t n);
  // k: table indices below kScales. Writes all of r.
  void phase(const uint8_t* k, int16_t* r, size_t n);
  void finish();

 private:
  struct Exceptions {
    const uint8_t* next;
    uint32_t left;
    int low_bits;  // b
  };

  void read_states();
  void read_exceptions(int phases);
  void read_escapes();
  void apply_exceptions(Exceptions exceptions, const uint8_t* k, int16_t* r, size_t n);
  void start_tail();
  size_t offset(const uint8_t* at) const { return static_cast<size_t>(at - payload_); }

  const Tables& tables_;
  const uint8_t* const payload_;
  const uint8_t* const end_;
  const uint8_t* next_;  // while the parts before the words are read
  const int skip_max_;
  const uint32_t tail_;
  DecoderState state_{};
  std::vector<Exceptions> exceptions_;  // one for each phase
  size_t phase_ = 0;
  uint8_t tail_bytes_[2 * (kMaxLanes - 1)];
  Words tail_words_{};
};

struct Phase {
  const uint8_t* k;  // below kScales
  const int16_t* r;
  size_t n;
};

struct Encoded {
  std::vector<uint8_t> payload;
  int lanes_log2;
  size_t tail;
};

// lanes_log2: the most lanes to use; fewer if the last phase is too short for the tail. There is at least one
// phase, and z and the phases together have fewer than 2^32 elements.
Encoded encode(const Tables& tables, const int16_t* z, size_t n_z, const std::vector<Phase>& phases,
               int lanes_log2, int skip_max);

}  // namespace ckbd
