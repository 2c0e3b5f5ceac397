// The last symbols of the last phase: in lane 0 alone, with the other lanes' states as words (docs/format.md, 4).
#pragma once

#include <vector>

#include "rans/members.h"

namespace ckbd {

// Members taken off the end of a group.
struct TailPart {
  size_t first_block = 0;
  std::vector<uint64_t> blocks;

  template <class Visit>
  void for_each(Visit visit) const {
    for (size_t b = 0; b < blocks.size(); ++b) {
      for (uint64_t in = blocks[b]; in != 0; in &= in - 1) visit((first_block + b) * kBlock + lowest_bit(in));
    }
  }
};

// Takes the last `count` members off; there are as many.
TailPart take_tail(uint64_t* members, size_t blocks, size_t count);

class TailDecoder {
 public:
  // Takes the words out of the lanes. Throws StreamError, at `offset`, if one holds none.
  void start(const DecoderState& state, size_t offset);
  template <class R>
  void decode(DecoderState& state, const TableView& tables, const TailPart& part, const uint8_t* k, R* r);
  // Throws StreamError if words are left.
  void finish() const;

 private:
  uint8_t bytes_[2 * (kMaxLanes - 1)];
  Words words_{};
};

}  // namespace ckbd
