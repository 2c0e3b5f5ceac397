// Probabilities as cumulative frequencies, as CompressAI makes its tables.
#include <cmath>
#include <functional>
#include <queue>
#include <stdexcept>
#include <utility>

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
  // Rounded, and scaled to what they sum to modulo 2^32; the last one has what is left.
  std::vector<uint32_t> freqs;
  uint32_t sum = 0, given = 0;
  for (const float p : pmf) {
    freqs.push_back(static_cast<uint32_t>(std::round(p * static_cast<float>(total))));
    sum += freqs.back();
  }
  if (sum == 0) throw std::domain_error("Invalid `pmf`: at least one element must have a non-zero probability.");
  for (uint32_t& freq : freqs) {
    freq = static_cast<uint32_t>(uint64_t{total} * freq / sum);
    given += freq;
  }
  freqs.back() += total - given;

  // Who has nothing takes one from the least frequent that can spare it, the first of these.
  using Donor = std::pair<uint32_t, size_t>;
  std::priority_queue<Donor, std::vector<Donor>, std::greater<Donor>> donors;
  for (size_t i = 0; i < freqs.size(); ++i) {
    if (freqs[i] > 1) donors.push({freqs[i], i});
  }
  for (uint32_t& freq : freqs) {
    if (freq != 0) continue;
    if (donors.empty()) {
      throw std::domain_error("pmf: expected at most 2^precision elements, got " + std::to_string(pmf.size()));
    }
    const auto [spare, donor] = donors.top();
    donors.pop();
    freq = 1;
    freqs[donor] = spare - 1;
    if (freqs[donor] > 1) donors.push({freqs[donor], donor});
  }
  std::vector<uint32_t> cdf{0};
  for (const uint32_t freq : freqs) cdf.push_back(cdf.back() + freq);
  return cdf;
}

}  // namespace ckbd::ans
