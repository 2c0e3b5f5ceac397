// The first bytes of an input of the target `ans`: what is coded, in which pieces, and what is done to it then.
#pragma once

#include "input.h"

namespace ckbd::fuzz {

enum Mode { kRaw, kSteps, kInts, kMoreInts, kFloats, kMoreFloats, kPmf, kScales };

constexpr int kHurts = 3;
constexpr size_t kMostSymbols = 64;

// Every bit means something, so that no mutation is in vain. fuzz/seeds/ans.py writes these.
struct AnsHeader {
  Mode mode;
  bool apart;   // rows that end where their memory ends, and not an array of them
  bool misfit;  // one index of no row
  bool means;
  size_t lead, rows, piece, n;
  int pattern;
  uint8_t seed;
  struct Hurt {
    uint8_t how;
    size_t where;
  } hurt[kHurts];

  explicit AnsHeader(Input& in) {
    const uint32_t kinds = in.number(1);
    mode = static_cast<Mode>(kinds & 7);
    apart = kinds >> 3 & 1;
    misfit = kinds >> 4 & 1;
    lead = kinds >> 5 & 3;
    means = kinds >> 7;
    const uint32_t more = in.number(1);
    rows = more & 7;
    pattern = static_cast<int>(more >> 3 & 7);
    const uint32_t each = more >> 6;
    piece = each == 3 ? 256 + in.number(2) % 512 : 1 + in.number(1) % (each == 0 ? 7 : 63);
    n = elements(in.number(2));
    seed = static_cast<uint8_t>(in.number(1));
    for (Hurt& one : hurt) {
      one.how = static_cast<uint8_t>(in.number(1));
      one.where = in.number(2);
    }
  }

 private:
  // Few, or near the ends of what the coder takes at a time.
  static size_t elements(uint32_t number) {
    const size_t low = number & 0x1FFF;
    return number >> 13 == 7 ? 512 * (1 + low % 4) + low / 4 % 3 - 1 : low % (kMostSymbols + 1);
  }
};

// What an input has, and when it ends what its seed makes, so that long arrays need no long inputs.
class Source {
 public:
  Source(Input& in, uint8_t seed) : in_(in), random_(seed) {}
  uint32_t number(int bytes) {
    if (in_.left() > 0) return in_.number(bytes);
    return static_cast<uint32_t>(random_.next() >> (64 - 8 * bytes));
  }
  // Which kind of thing comes next. From 180 on they are wild, and one may refuse all, so the input says where.
  uint32_t kind() { return in_.left() > 0 ? in_.number(1) : static_cast<uint32_t>(random_.below(180)); }
  int32_t any() { return static_cast<int32_t>(number(4)); }
  size_t below(size_t n) { return number(n > 256 ? 2 : 1) % n; }

 private:
  Input& in_;
  Random random_;
};

inline void damage(const AnsHeader& header, std::vector<uint8_t>& stream) {
  for (const AnsHeader::Hurt& one : header.hurt) {
    const int value = one.how >> 3;
    const size_t at = one.where % (stream.size() + 1);
    const auto place = stream.begin() + static_cast<ptrdiff_t>(at);
    switch (one.how & 7) {
      case 1:
        if (at < stream.size()) *place ^= static_cast<uint8_t>(1 << value % 8);
        break;
      case 2:
        if (at < stream.size()) *place = static_cast<uint8_t>(value < 16 ? value : 224 + value);
        break;
      case 3:
        stream.insert(place, static_cast<size_t>(1 + value % 4), static_cast<uint8_t>(one.where));
        break;
      case 4:
        if (at < stream.size()) stream.erase(place);
        break;
      case 5:
        stream.erase(place, stream.end());
        break;
      case 6:
        stream.resize(stream.size() + at % 40, static_cast<uint8_t>(value));
        break;
      case 7:  // from the end, where words go missing
        stream.resize(stream.size() - std::min<size_t>(stream.size(), static_cast<size_t>(value)));
        break;
      default:
        break;
    }
  }
}

}  // namespace ckbd::fuzz
