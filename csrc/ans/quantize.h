// From floats to what is coded: table indices and symbols, as CompressAI's tensors say them.
//
// Compiled for several instruction sets, so nothing here is inline with external linkage; see rans.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/cpu.h"

namespace ckbd::ans {

constexpr int kGroups = 8, kGroup = 8;
constexpr int kSmallTable = kGroups * kGroup - 1;

// Borders between indices: the index of v is `base` and how many of `count` borders are below v, at most `top`.
// A scale that is no number is below none and above all, and comes out as `top`.
// If count <= kSmallTable, `group` is the last border of each eighth but the last, and `within` those between them:
// within[j][g] is number j of eighth g. Behind the borders there is infinity, which is below nothing.
struct Borders {
  const float* sorted;
  int32_t count, base, top;
  float bound;  // what is below counts as this
  float group[kGroups];
  float within[kGroup - 1][kGroups];
};

struct Quantizer {
  const char* name;
  // out[i]: the index of scales[i].
  void (*scale_indexes)(const Borders& borders, const float* scales, size_t n, int32_t* out);
  // out[i]: x[i] - means[i] (means may be null), rounded half to even; -2^31 for what int32 has no room for.
  void (*symbols_of)(const float* x, const float* means, size_t n, int32_t* out);
};

extern const Quantizer scalar_quantizer;
#if CKBD_X86
extern const Quantizer avx2_quantizer;
#endif

}  // namespace ckbd::ans
