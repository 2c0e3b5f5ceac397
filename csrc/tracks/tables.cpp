// Mixtures of Gaussians as slots: what docs/format.md, section 9, computes.
#include "tracks/tracks.h"

#include <algorithm>
#include <string>

namespace ckbd {
namespace {

void check(const char* name, size_t at, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high) {
    throw std::invalid_argument(std::string(name) + "[" + std::to_string(at) + "]: expected " + std::to_string(low) +
                                ".." + std::to_string(high) + ", got " + std::to_string(value));
  }
}

}  // namespace

MixtureTables::MixtureTables(const int32_t* cdf, const int32_t* inverse, const int32_t* share, const int16_t* radius) {
  int32_t before = 1 << 23;
  check("cdf", 0, cdf[0], before, before);
  for (size_t u = 0; u < kCdf; before = cdf[u++]) {
    check("cdf", u, cdf[u], before, 1 << 24);
    cdf_.push_back(static_cast<uint32_t>(cdf[u]));
  }
  for (size_t k = 0; k < kScales; ++k) {
    check("inverse", k, inverse[k], 1, 1 << 30);
    check("share", k, share[k], 1, 1 << 16);
    check("radius", k, radius[k], 1, kSymbolMax);
    inverse_[k] = static_cast<uint64_t>(inverse[k]);
    share_[k] = static_cast<uint64_t>(share[k]);
    radius_[k] = radius[k];
  }
}

MixtureTables::Element MixtureTables::element(const int16_t* mean, const uint8_t* k, const uint8_t* share, int count,
                                              size_t stride) const {
  Element e{this, count, {}, {}, {}, 0, kSymbolMax, -kSymbolMax};
  for (int j = 0; j < count; ++j) {
    const size_t at = static_cast<size_t>(j) * stride;
    e.mean[j] = once(mean + at);
    e.k[j] = static_cast<uint8_t>(row_of(once(k + at)));
    e.share[j] = share_[row_of(once(share + at))];
    e.total += e.share[j] << 24;
    const int centre = (e.mean[j] + 8) >> 4;
    e.low = std::min(e.low, centre - radius_[e.k[j]]);
    e.high = std::max(e.high, centre + radius_[e.k[j]]);
  }
  // A mean is at most 1023 15/16, so its symbols and [-1023, 1023] have some in common.
  e.low = std::max(e.low, -kSymbolMax);
  e.high = std::min(e.high, kSymbolMax);
  return e;
}

// shares and Phi at most 2^16 and 2^24: the sum of three is below 2^42, times a width of 2^16 below 2^58.
uint32_t MixtureTables::Element::start(int s) const {
  const uint64_t width = (1u << kMixtureBits) - static_cast<uint64_t>(high - low + 3);
  uint64_t mass = 0;
  for (int j = 0; j < count; ++j) mass += share[j] * tables->phi(16 * s - 8 - mean[j], k[j]);
  return static_cast<uint32_t>(1 + (s - low) + mass * width / total);
}

}  // namespace ckbd
