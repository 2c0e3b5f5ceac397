// The first bytes of an input of the target `payload`: what is coded, how, and what is done to it then.
#pragma once

#include "input.h"
#include "rans/rans.h"

namespace ckbd::fuzz {

constexpr int kMostPhases = 3;
constexpr int kDamages = 4;
constexpr size_t kMostZ = 200;

enum Mode { kRaw, kParts, kEncode };

// Every bit means something, so that no mutation is in vain. fuzz/seeds/payload.py writes these.
struct Header {
  Mode mode;
  bool narrow_type;  // int8 residuals
  int phases;
  size_t tables;
  bool bad_index;  // ask with a table index too large first
  int lanes_log2;
  int skip_max;
  bool own_lanes, own_skip;  // the encoder's choice
  uint32_t tail;
  size_t sites;
  size_t lead;
  size_t partner;
  size_t batch;  // which coder decodes in batches, and of how many
  bool other_type;  // decode damaged symbols into the other type than they were encoded from
  struct Phase {
    size_t n;
    int pattern;
    uint8_t seed;
  } phase[kMostPhases];
  struct Damage {
    uint8_t how;
    size_t where;
  } damage[kDamages];

  explicit Header(Input& in) {
    const uint32_t kinds = in.number(1);
    mode = kinds % 4 < 2 ? static_cast<Mode>(kinds % 4) : kEncode;
    narrow_type = kinds >> 2 & 1;
    phases = 1 + static_cast<int>((kinds >> 3 & 3) % kMostPhases);
    tables = kinds >> 5 & 3;
    bad_index = kinds >> 7;
    const uint32_t coder = in.number(1);
    lanes_log2 = static_cast<int>((coder & 7) % 6);
    own_lanes = (coder & 7) == 7;
    skip_max = static_cast<int>(coder >> 3 & 15);
    own_skip = coder >> 7;
    tail = in.number(2);
    if (tail == UINT16_MAX) tail = UINT32_MAX;
    sites = in.number(1);
    const uint32_t arrays = in.number(1);
    lead = arrays & 3;
    partner = arrays >> 2 & 3;
    other_type = arrays >> 4 & 1;
    batch = arrays >> 5;
    bool large = false;
    for (Phase& one : phase) {
      one.n = elements(in.number(2), large);
      one.pattern = static_cast<int>(in.number(1) % 8);
      one.seed = static_cast<uint8_t>(in.number(1));
    }
    if (partner == 2 && !large) partner = 0;  // the large one takes long
    for (Damage& one : damage) {
      one.how = static_cast<uint8_t>(in.number(1));
      one.where = in.number(2);
    }
  }

 private:
  // How many elements a phase has: few, near the end of a block, or, in one phase at most, a little more than the
  // coders take at a time.
  static size_t elements(uint32_t number, bool& large) {
    const size_t low = number & 0xFFF;
    switch (number >> 12) {
      case 14:
        return std::max<size_t>(1, 64 * (low % 9) + low / 9 % 3) - 1;
      case 15:
        if (!std::exchange(large, true)) return 8192 - 80 + low % 480;
        [[fallthrough]];
      default:
        return number % 201;
    }
  }
};

inline Exact<uint8_t> make_k(const Header& header, const Header::Phase& phase, Input& in) {
  Exact<uint8_t> k(phase.n, header.lead, 0);
  Random random(phase.seed);
  const auto between = [&](int low, int high) {
    return static_cast<uint8_t>(low + static_cast<int>(random.below(static_cast<size_t>(high - low + 1))));
  };
  const auto of_class = [&](size_t which) {
    return which == 0   ? between(0, header.skip_max)
           : which == 1 ? between(header.skip_max + 1, ckbd::kLastNarrow)
                        : between(ckbd::kLastNarrow + 1, ckbd::kScales - 1);
  };
  // Large phases take long, so most have their symbols near the ends.
  const bool thin = phase.n > 8000 && phase.seed % 4 != 0;
  size_t run = 0, which = 0;
  for (size_t i = 0; i < phase.n; ++i) {
    if (thin && 200 < i && i < 8000) {
      if (i % 500 == 0) k[i] = of_class(i / 500 % 3);
      continue;
    }
    switch (phase.pattern) {
      case 0:  // written out
        k[i] = static_cast<uint8_t>(in.number(1) % ckbd::kScales);
        break;
      case 1:
        k[i] = between(0, ckbd::kScales - 1);
        break;
      case 2:
      case 3:
      case 4:  // one class
        k[i] = of_class(static_cast<size_t>(phase.pattern - 2));
        break;
      case 5:  // runs
        if (run == 0) {
          run = 1 + random.below(1 + random.below(300));
          which = random.below(3);
        }
        --run;
        k[i] = of_class(which);
        break;
      case 6:  // one class, but for a few
        k[i] = of_class(random.below(90) == 0 ? random.below(3) : phase.seed % 3);
        break;
      default:  // all the same
        k[i] = phase.seed % ckbd::kScales;
    }
  }
  return k;
}

}  // namespace ckbd::fuzz
