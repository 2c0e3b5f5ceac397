// Probabilities as cumulative frequencies, as CompressAI makes its tables.
#include <cmath>
#include <stdexcept>

#include "ans/ans.h"

namespace ckbd::ans {

std::vector<uint32_t> quantized_cdf(const std::vector<float>& pmf, int precision) {
  if (precision < 0 || precision > 30) {
    throw std::domain_error("precision: expected 0..30, got " + std::to_string(precision));
  }
  const uint32_t total = 1u << precision;
  for (const float p : pmf) {
    if (p < 0 || !std::isfinite(p)) {
      throw std::domain_error("Invalid `pmf`, non-finite or negative element found: " + std::to_string(p));
    }
    if (std::round(p * static_cast<float>(total)) >= 4294967296.0f) {
      throw std::domain_error("pmf: expected less than 2^32 units of 2^-precision, got " + std::to_string(p));
    }
  }
  // Rounded, scaled to what they sum to modulo 2^32, summed up.
  std::vector<uint32_t> cdf(pmf.size() + 1, 0);
  uint32_t sum = 0;
  for (size_t i = 0; i < pmf.size(); ++i) {
    cdf[i + 1] = static_cast<uint32_t>(std::round(pmf[i] * static_cast<float>(total)));
    sum += cdf[i + 1];
  }
  if (sum == 0) throw std::domain_error("Invalid `pmf`: at least one element must have a non-zero probability.");
  for (size_t i = 1; i < cdf.size(); ++i) {
    cdf[i] = cdf[i - 1] + static_cast<uint32_t>(uint64_t{total} * cdf[i] / sum);
  }
  cdf.back() = total;

  // Who has nothing takes one from the least frequent that can spare it, the first of these.
  for (size_t i = 0; i < pmf.size(); ++i) {
    if (cdf[i] != cdf[i + 1]) continue;
    size_t donor = pmf.size();
    uint32_t least = ~0u;
    for (size_t j = 0; j < pmf.size(); ++j) {
      const uint32_t freq = cdf[j + 1] - cdf[j];
      if (freq > 1 && freq < least) {
        least = freq;
        donor = j;
      }
    }
    if (donor == pmf.size()) {
      throw std::domain_error("pmf: expected at most 2^precision elements, got " + std::to_string(pmf.size()));
    }
    if (donor < i) {
      for (size_t j = donor + 1; j <= i; ++j) --cdf[j];
    } else {
      for (size_t j = i + 1; j <= donor; ++j) ++cdf[j];
    }
  }
  return cdf;
}

}  // namespace ckbd::ans
