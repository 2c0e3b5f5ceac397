// Tables by integers alone, so that they are the same everywhere; tests/cases/rans_cases.py has the first of them.
#pragma once

#include "input.h"
#include "rans/tables.h"

namespace ckbd::fuzz {

using ckbd::Tables;

// `count` numbers of at least 1 that add to `total` and fall by step / 16 from each to the next; without a step they
// differ by any power of two.
inline std::vector<int16_t> spread(int64_t total, size_t count, int64_t step) {
  static Random random(1);
  std::vector<int64_t> weights = {int64_t{1} << 24};
  while (weights.size() < count) {
    weights.push_back(step == 0 ? int64_t{1} << random.below(30) : weights.back() * step / 16);
  }
  int64_t sum = 0, left = total;
  for (const int64_t weight : weights) sum += weight;
  std::vector<int16_t> parts;
  for (const int64_t weight : weights) {
    parts.push_back(static_cast<int16_t>(1 + (total - static_cast<int64_t>(count)) * weight / sum));
    left -= parts.back();
  }
  parts[0] = static_cast<int16_t>(parts[0] + left);
  return parts;
}

struct Channel {
  int low, size, step;
};

struct TableSpec {
  std::vector<Channel> channels;
  int first_step, last_step;  // of y tables 0, and from 42 on; 0: any frequencies
  bool largest_sizes;         // y tables of the largest size there may be, instead of one that grows with k
};

inline std::unique_ptr<Tables> make_tables(const TableSpec& spec) {
  constexpr size_t kColumns = ckbd::kMaxSize + 2, kZColumns = ckbd::kMaxZSize + 1;
  std::vector<int16_t> y_freq(ckbd::kScales * kColumns), z_freq(spec.channels.size() * kZColumns), z_low, z_size;
  std::vector<uint8_t> y_max;
  for (int k = 0; k < ckbd::kScales; ++k) {
    const bool narrow = k <= ckbd::kLastNarrow;
    const int largest = narrow ? ckbd::kNarrowMax : ckbd::kMaxSize;
    const int growing = narrow ? std::max(1, k / 2) : 3 * (k - 20);
    y_max.push_back(static_cast<uint8_t>(spec.largest_sizes ? largest : std::min(largest, growing)));
    const int step = spec.first_step + (spec.last_step - spec.first_step) * std::min(k, 42) / 42;
    std::vector<int16_t> row = spread(ckbd::kYSlots, size_t{y_max.back()} + 2, step);
    row[0] = static_cast<int16_t>(2 * row[0]);
    std::copy(row.begin(), row.end(), y_freq.begin() + k * static_cast<ptrdiff_t>(kColumns));
  }
  for (const Channel& channel : spec.channels) {
    const std::vector<int16_t> row = spread(ckbd::kSlots, static_cast<size_t>(channel.size) + 1, channel.step);
    std::copy(row.begin(), row.end(), z_freq.begin() + static_cast<ptrdiff_t>(z_low.size() * kZColumns));
    z_low.push_back(static_cast<int16_t>(channel.low));
    z_size.push_back(static_cast<int16_t>(channel.size));
  }
  return std::make_unique<Tables>(ckbd::TableIntegers{y_freq.data(), kColumns, y_max.data(), z_freq.data(), kZColumns,
                                                      z_low.data(), z_size.data(), z_low.size()});
}

inline std::vector<std::unique_ptr<Tables>> make_all_tables() {
  std::vector<std::unique_ptr<Tables>> all;
  // As in tests/cases/rans_cases.py; fuzz/seeds/ count on it.
  all.push_back(make_tables({{{0, 1, 1}, {-127, 255, 15}, {-2, 4, 8}, {-3, 9, 12}}, 1, 15, false}));
  // One channel, flat tables.
  all.push_back(make_tables({{{-127, 255, 16}}, 16, 16, true}));
  // More channels than lanes; tables that fall so fast that most f are 1.
  TableSpec many{{}, 1, 2, true};
  for (int c = 0; c < 37; ++c) many.channels.push_back({-c, 1 + 7 * c % 64, 1 + c % 3});
  all.push_back(make_tables(many));
  // Anything, among it escapes that are the commonest.
  all.push_back(make_tables({{{5, 1, 0}, {-9, 70, 0}, {127, 1, 0}}, 0, 0, false}));
  return all;
}

inline std::vector<std::unique_ptr<Tables>> all_tables;

}  // namespace ckbd::fuzz
