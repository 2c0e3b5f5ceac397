// The plain form, which says what is right.
#include "ans/quantize.h"

#include <algorithm>
#include <cmath>

namespace ckbd::ans {
namespace {

// Written so that what is no number is above every border.
bool above(float v, float border) { return !(v <= border); }

void search(const Borders& borders, const float* scales, size_t n, int32_t* out) {
  const float* const end = borders.sorted + borders.count;
  for (size_t i = 0; i < n; ++i) {
    const float v = scales[i] < borders.bound ? borders.bound : scales[i];
    const auto below = std::partition_point(borders.sorted, end, [v](float border) { return above(v, border); });
    out[i] = std::min(borders.base + static_cast<int32_t>(below - borders.sorted), borders.top);
  }
}

// Two rounds of counting have no branch to guess.
void scale_indexes(const Borders& borders, const float* scales, size_t n, int32_t* out) {
  if (borders.count > kSmallTable) return search(borders, scales, n, out);
  for (size_t i = 0; i < n; ++i) {
    const float v = scales[i] < borders.bound ? borders.bound : scales[i];
    int32_t group = 0, within = 0;
    for (int g = 0; g < kGroups - 1; ++g) group += above(v, borders.group[g]);
    for (int j = 0; j < kGroup - 1; ++j) within += above(v, borders.within[j][group]);
    out[i] = std::min(borders.base + kGroup * group + within, borders.top);
  }
}

int32_t symbol_of(float value) {
  // To even, as long as nobody changes the rounding mode.
  const float rounded = std::nearbyint(value);
  return rounded >= -2147483648.0f && rounded < 2147483648.0f ? static_cast<int32_t>(rounded) : INT32_MIN;
}

void symbols_of(const float* x, const float* means, size_t n, int32_t* out) {
  for (size_t i = 0; i < n; ++i) out[i] = symbol_of(means == nullptr ? x[i] : x[i] - means[i]);
}

}  // namespace

const Quantizer scalar_quantizer = {"scalar", scale_indexes, symbols_of};

}  // namespace ckbd::ans
