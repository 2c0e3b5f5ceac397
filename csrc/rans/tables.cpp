#include "rans/tables.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace ckbd {
namespace {

constexpr int kZMax = 127;

std::string at(const char* name, size_t row) { return std::string(name) + "[" + std::to_string(row) + "]"; }

void check_range(const std::string& name, int value, int low, int high) {
  if (value < low || value > high) {
    throw std::invalid_argument(name + ": expected " + std::to_string(low) + ".." + std::to_string(high) + ", got " +
                                std::to_string(value));
  }
}

// Reads a stored row whose interval `escape` is the last; interval m >= 1 takes `copies` f_m slots, interval 0 f_0.
// All that the coder leans on is checked here: 1 <= f <= 4095, and every slot owned once. slots[i] is for `copies`
// slots.
void read_row(const std::string& name, const int16_t* row, size_t columns, int escape, uint32_t copies, Code* codes,
              Slot* slots) {
  uint32_t next = 0;
  for (int m = 0; m <= escape; ++m) {
    check_range(name + " entry " + std::to_string(m), row[m], 1, kSlots - 1);
    const uint32_t f = static_cast<uint32_t>(row[m]), width = f * (m == 0 ? 1 : copies);
    if (width > kSlots - next) {
      throw std::invalid_argument(name + ": expected frequencies that add to 4096, got more");
    }
    codes[m] = f | next << kTableBits | (m == escape ? kEscapeCode : 0);
    const uint32_t number = m == escape ? kEscapeSize : static_cast<uint32_t>(m);
    std::fill(slots + next / copies, slots + (next + width) / copies, f | next << kTableBits | number << 24);
    next += width;
  }
  if (next != kSlots) {
    throw std::invalid_argument(name + ": expected frequencies that add to 4096, got " + std::to_string(next));
  }
  for (size_t m = static_cast<size_t>(escape) + 1; m < columns; ++m) {
    check_range(name + " entry " + std::to_string(m) + " (after the escape)", row[m], 0, 0);
  }
}

}  // namespace

Tables::Tables(const TableIntegers& integers)
    : y_rows_(kScales),
      y_slots_(kScales * kYSlots),
      z_slots_(integers.channels * kSlots),
      y_codes_(kScales * kYCodes),
      z_codes_(integers.channels * 256),
      min_z_bits_(0) {
  for (size_t k = 0; k < kScales; ++k) read_y(integers, k);
  fill_narrow();
  for (size_t c = 0; c < integers.channels; ++c) read_z(integers, c);
  fill_channels(integers.channels);
  const size_t channels = integers.channels, stride = channels + kMaxLanes;
  view_ = {y_rows_.data(),
           y_slots_.data(),
           y_codes_.data(),
           y_escape_.data(),
           &narrow_,
           z_slots_.data(),
           z_codes_.data(),
           {channel_.data(), z_low_.data(), z_escape_.data(), z_above_.data(), z_rows_.data(), stride},
           channels};
}

// The table of scale k: its row, what a slot means, and what each size costs.
void Tables::read_y(const TableIntegers& integers, size_t k) {
  const int limit = k <= kLastNarrow ? kNarrowMax : kMaxSize;
  const int columns = static_cast<int>(std::min<size_t>(integers.y_columns, kMaxSize + 2));
  check_range(at("y_max", k), integers.y_max[k], 1, std::min(limit, columns - 2));
  const int16_t* row = integers.y_freq + k * integers.y_columns;
  if (row[0] % 2) {
    throw std::invalid_argument(at("y_freq", k) + " entry 0: expected an even number, got " +
                                std::to_string(row[0]));
  }
  const int escape = integers.y_max[k] + 1;
  Code* const codes = &y_codes_[k * kYCodes];
  read_row(at("y_freq", k), row, integers.y_columns, escape, 2, codes, &y_slots_[k * kYSlots]);
  std::fill(codes + escape, codes + kYCodes, codes[escape]);
  YRow& decoding = y_rows_[k];
  for (uint32_t s = 0; s < kSlots; ++s) {
    const Slot slot = y_slots_[k * kYSlots + s / 2];
    const int size = static_cast<int>(slot >> 24);
    const int8_t r = size == kEscapeSize ? kEscapeSymbol : static_cast<int8_t>(s % 2 ? -size : size);
    decoding.symbol[s] = r;
    decoding.of[static_cast<uint8_t>(r)] = {static_cast<uint16_t>(frequency(slot)),
                                            static_cast<uint16_t>(first_slot(slot))};
  }
  y_escape_.push_back(static_cast<uint16_t>(escape));
  for (int m = 0; m < kYCodes; ++m) y_bits_.push_back(kTableBits - std::log2(frequency(codes[m])));
  y_entropy_.push_back(0);
  for (int m = 0; m <= escape; ++m) {
    const double share = frequency(codes[m]) * (m == 0 ? 1.0 : 2.0) / kSlots;
    y_entropy_.back() += share * y_bits_[k * kYCodes + static_cast<size_t>(m)];
  }
}

// What the narrow classes are searched in, by registers.
void Tables::fill_narrow() {
  // Entries past the narrow tables are never used, but loaded.
  for (size_t k = 0; k < 32; ++k) {
    const Code* const codes = &y_codes_[(k <= kLastNarrow ? k : 0) * kYCodes];
    const uint32_t escape = y_escape_[k <= kLastNarrow ? k : 0];
    // Rows of codes go on with the escape's.
    for (uint32_t m = 1; m <= 7; ++m) {
      narrow_.above[m - 1][k] = static_cast<uint16_t>(8 * first_slot(codes[m]) + 7 - (m < escape ? m : 7));
    }
    for (uint32_t m = 1; m <= 4; ++m) {
      const uint32_t last = std::min(escape, 4u);
      narrow_.few[m - 1][k] =
          static_cast<uint16_t>(8 * first_slot(codes[m < last ? m : last]) + 7 - (m < last ? m : 4));
    }
  }
}

void Tables::read_z(const TableIntegers& integers, size_t c) {
  const int columns = static_cast<int>(std::min<size_t>(integers.z_columns, kMaxZSize + 1));
  const int size = integers.z_size[c], low = integers.z_low[c];
  check_range(at("z_size", c), size, 1, columns - 1);
  check_range(at("z_low", c), low, -kZMax, kZMax);
  check_range(at("z_low", c) + " + z_size - 1", low + size - 1, -kZMax, kZMax);
  const int16_t* row = integers.z_freq + c * integers.z_columns;
  read_row(at("z_freq", c), row, integers.z_columns, size, 1, &z_codes_[c * 256], &z_slots_[c * kSlots]);
  z_escape_.push_back(static_cast<uint16_t>(size));
  z_low_.push_back(static_cast<int16_t>(low));
  channel_.push_back(static_cast<uint16_t>(c));
  min_z_bits_ += kTableBits - std::log2(*std::max_element(row, row + size + 1));
}

// Rows of channels go on from their start, as far as the lanes of a step that begins at the last one.
void Tables::fill_channels(size_t channels) {
  const size_t stride = channels + kMaxLanes;
  for (size_t c = channels; c < stride; ++c) {
    z_escape_.push_back(z_escape_[c - channels]);
    z_low_.push_back(z_low_[c - channels]);
    channel_.push_back(channel_[c - channels]);
  }
  const size_t most = *std::max_element(z_escape_.begin(), z_escape_.end());
  z_above_.assign(most * stride, UINT16_MAX);
  for (size_t c = 0; c < stride; ++c) {
    for (size_t m = 1; m <= z_escape_[c]; ++m) {
      z_above_[(m - 1) * stride + c] = static_cast<uint16_t>(first_slot(z_codes_[channel_[c] * 256 + m]));
    }
  }
  for (size_t c = 0; c < channels; ++c) {
    z_rows_.push_back(*std::max_element(&z_escape_[c], &z_escape_[c] + kMaxLanes));
  }
}

double Tables::ideal_bits(uint8_t k, int32_t r) const {
  return y_bits_[size_t{k} * kYCodes + static_cast<size_t>(std::min(std::abs(r), kYCodes - 1))];
}

}  // namespace ckbd
