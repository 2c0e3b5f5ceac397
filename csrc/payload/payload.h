// The payload of a stream (docs/format.md, sections 2 to 4): everything around the groups that is the same
// for all instruction sets.
#pragma once

#include <exception>
#include <memory>
#include <vector>

#include "payload/errors.h"
#include "payload/lists.h"
#include "payload/tail.h"
#include "rans/members.h"
#include "rans/tables.h"

namespace ckbd {

template <class R>
const YCoder<R>& y_coder(const Coder& coder) {
  if constexpr (sizeof(R) == 1) {
    return coder.y8;
  } else {
    return coder.y16;
  }
}

template <class R>
struct PhaseTask;

// One or two tasks, two at once if they have the same coder and tables. What a task throws (StreamError, BadIndex) is
// kept in it and stops no other.
template <class R>
void decode_phases(PhaseTask<R>* tasks, size_t count);

// Decodes a payload from outside. Tables and payload must outlive it. z() comes first, then as many phases as there
// are, each by decode_phases(), then finish(); every one may fail with StreamError, after which the decoder is of no
// use.
class PayloadDecoder {
 public:
  PayloadDecoder(const Coder& coder, const Tables& tables, const uint8_t* payload, size_t size, int lanes_log2,
                 int skip_max, uint32_t tail, int phases);
  ~PayloadDecoder();
  PayloadDecoder(const PayloadDecoder&) = delete;
  PayloadDecoder& operator=(const PayloadDecoder&) = delete;

  void z(int16_t* z, size_t n);
  void finish();

 private:
  template <class R>
  friend void decode_phases(PhaseTask<R>* tasks, size_t count);

  // What a phase has outside its tail, and in it.
  struct Plan {
    Members members;  // less those of the tail
    size_t narrow, wide;
    TailPart narrow_tail, wide_tail;
  };

  Plan plan(const uint8_t* k, size_t n, int32_t largest, Scratch<uint64_t>& scratch);
  template <class R>
  void finish_phase(const Plan& plan, const uint8_t* k, R* r);
  bool same_coder_and_tables(const PayloadDecoder& other) const {
    return &coder_ == &other.coder_ && tables_.y_slots == other.tables_.y_slots;
  }
  size_t word_offset() const;

  const Coder& coder_;
  const TableView tables_;
  const uint8_t* const end_;
  const int skip_max_;
  const uint32_t tail_size_;
  DecoderState state_{};
  std::unique_ptr<Rare> rare_;
  std::vector<ExceptionList> exceptions_;  // one for each phase
  size_t phase_ = 0;
  TailDecoder tail_;
};

// One phase of a stream: all of r is written, from table indices k.
template <class R>
struct PhaseTask {
  PayloadDecoder* decoder;
  const uint8_t* k;
  R* r;
  size_t n;
  std::exception_ptr error = nullptr;
};

// A phase to encode; k below kScales.
template <class R>
struct Phase {
  const uint8_t* k;
  const R* r;
  size_t n;
};

// What decides how a payload is written; -1 leaves it to the encoder.
struct Choice {
  int lanes_log2 = -1;
  int skip_max = -1;
};

struct Encoded {
  std::vector<uint8_t> payload;
  int lanes_log2;
  int skip_max;
  size_t tail;
};

// The most lanes to use are those of `choice`; fewer if the last phase is too short for the tail. There is at least
// one phase, and z and the phases together have fewer than 2^32 elements. Throws BadIndex.
template <class R>
Encoded encode(const Coder& coder, const Tables& tables, const int16_t* z, size_t n_z,
               const std::vector<Phase<R>>& phases, Choice choice);

}  // namespace ckbd
