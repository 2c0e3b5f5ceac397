// From floats to what is coded: probabilities to rows, scales to indexes, latents to symbols.
#pragma once

#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>
#include <stdexcept>

#include "ans/ans.h"
#include "ans/header.h"
#include "ans/plain.h"
#include "ans/quantize.h"
#include "common/cpu.h"

namespace ckbd::fuzz {

inline float of_bits(uint32_t bits) {
  float value;
  static_assert(sizeof value == sizeof bits);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Near 0 and between two integers, at the ends of what there is, or any.
inline float any_float(Source& in) {
  constexpr uint32_t kSpecial[] = {
      0x7FC00000, 0xFFC00000, 0x7F800001, 0x7F800000, 0xFF800000, 0x80000000, 1, 0x80000001,  // NaN, infinity, 0
      0x7F7FFFFF, 0xFF7FFFFF, 0x4F000000, 0xCF000000, 0x4EFFFFFF, 0xCF000001, 0x00800000, 0x007FFFFF,  // most, 2^31
      0x4B000000, 0x4B000001, 0x4AFFFFFF, 0xCAFFFFFF, 0x3EFFFFFF, 0x3F000001, 0xBF000000, 0x3FC00000};  // halves
  const uint32_t code = in.number(1);
  if (code < 160) return static_cast<float>(static_cast<int>(code) - 80) / 4;
  if (code < 208) return of_bits(kSpecial[code % std::size(kSpecial)]);
  return of_bits(in.number(4));
}

inline std::vector<const ckbd::ans::Quantizer*> quantizers() {
  std::vector<const ckbd::ans::Quantizer*> all = {&ckbd::ans::scalar_quantizer};
#if CKBD_X86
  if (ckbd::has_avx2()) all.push_back(&ckbd::ans::avx2_quantizer);
#endif
  return all;
}

// x - means as symbols, by everyone.
inline Exact<int32_t> quantize(const Exact<float>& x, const float* means, size_t lead) {
  const size_t n = x.size();
  Exact<int32_t> right(n, lead, 0);
  for (size_t i = 0; i < n; ++i) right[i] = plain::symbol_of(x[i], means == nullptr ? 0.0f : means[i]);
  for (const auto* quantizer : quantizers()) {
    const Exact<int32_t> out(n, lead, 7);
    quantizer->symbols_of(x.data(), means, n, out.data());
    out.check_lead();
    if (!(out == right)) fail(quantizer->name, " rounds to other symbols");
  }
  return right;
}

// Scales by a table's borders, which come sorted, as csrc/bind/ans_quantize.cpp has them.
inline void scales_to_indexes(const AnsHeader& header, Source& in) {
  constexpr size_t kCounts[] = {0, 1, 7, 8, 9, 62, 63, 64, 65, 130};
  const uint32_t code = in.number(1);
  const size_t count = code < 200 ? code % 70 : kCounts[code % std::size(kCounts)];
  const float given = any_float(in), least = std::isnan(given) ? 0.11f : given;
  std::vector<float> borders;
  for (size_t i = 0; i < count; ++i) borders.push_back(header.means ? 0.1f * static_cast<float>(i) : any_float(in));
  Exact<float> scales(header.n, header.lead, 0);
  for (size_t i = 0; i < header.n; ++i) {
    const bool same = count > 0 && in.number(1) % 2 == 0;
    scales[i] = same ? borders[in.below(count)] : any_float(in);
  }
  std::vector<float> sorted;
  std::copy_if(borders.begin(), borders.end(), std::back_inserter(sorted), [](float b) { return !std::isnan(b); });
  std::sort(sorted.begin(), sorted.end());
  const Exact<float> held(sorted, 0);
  const auto n = static_cast<int32_t>(sorted.size()), top = static_cast<int32_t>(count);
  ckbd::ans::Borders product{held.data(), n, top - n, top, least, {}, {}};
  const auto border = [&](int at) { return at < n ? sorted[at] : std::numeric_limits<float>::infinity(); };
  for (int g = 0; g < ckbd::ans::kGroups; ++g) {
    product.group[g] = border((g + 1) * ckbd::ans::kGroup - 1);
    for (int j = 0; j + 1 < ckbd::ans::kGroup; ++j) product.within[j][g] = border(g * ckbd::ans::kGroup + j);
  }
  for (const auto* quantizer : quantizers()) {
    const Exact<int32_t> out(header.n, header.lead, 7);
    quantizer->scale_indexes(product, scales.data(), header.n, out.data());
    out.check_lead();
    for (size_t i = 0; i < header.n; ++i) {
      if (out[i] != plain::index_of(borders, least, scales[i])) fail(quantizer->name, " gives a scale another index");
    }
  }
}

// Cumulative frequencies of any floats, or std::domain_error.
inline void pmf_to_row(const AnsHeader& header, Source& in) {
  const uint32_t code = in.number(1);
  const int precision = code < 160 ? 16 : code < 250 ? static_cast<int>(code % 31) : static_cast<int>(in.any());
  std::vector<float> pmf;
  for (size_t i = 0; i < header.n % 600; ++i) {
    if (header.pattern == 0) {
      pmf.push_back(any_float(in));
    } else if (header.pattern < 3) {
      pmf.push_back(of_bits(in.number(4) & 0x7FFFFFFF));
    } else if (header.pattern < 6) {
      pmf.push_back(static_cast<float>(in.number(2)) / 16777216.0f);
    } else {
      pmf.push_back(std::ldexp(1.0f, -static_cast<int>(in.number(1) % 40)));
    }
  }
  std::vector<uint32_t> made, right;
  bool refused = false, refused_by_twin = false, rises = false;
  try {
    made = ckbd::ans::quantized_cdf(pmf, precision);
  } catch (const std::domain_error&) {
    refused = true;
  }
  try {
    right = plain::quantized_cdf(pmf, precision, rises);
  } catch (const plain::Refusal&) {
    refused_by_twin = true;
  }
  if (refused != refused_by_twin) fail("probabilities are refused by one and not by the other");
  if (made != right) fail("of probabilities the twin makes another row");
  if (refused || !rises) return;
  if (made.front() != 0 || made.back() != 1u << precision) fail("a row does not go from 0 to all");
  for (size_t i = 0; i + 1 < made.size(); ++i) {
    if (made[i] >= made[i + 1]) fail("a row has an empty slot");
  }
}

}  // namespace ckbd::fuzz
