#include "tables.h"

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
    throw std::invalid_argument(name + ": expected " + std::to_string(low) + ".." + std::to_string(high) +
                                ", got " + std::to_string(value));
  }
}

// Fills a table from a stored row whose interval `escape` is the last; interval m >= 1 takes `copies` f_m
// slots, interval 0 f_0. All that the coder leans on is checked here: 1 <= f <= 4095, and every slot owned.
Table from_row(const std::string& name, const int16_t* row, size_t columns, int escape, int low,
               uint32_t copies) {
  Table table{};
  table.escape = escape;
  table.low = low;
  uint32_t next = 0;
  for (int m = 0; m <= escape; ++m) {
    check_range(name + " entry " + std::to_string(m), row[m], 1, kSlots - 1);
    const uint32_t width = static_cast<uint32_t>(row[m]) * (m == 0 ? 1 : copies);
    if (width > kSlots - next) {
      throw std::invalid_argument(name + ": expected frequencies that add to 4096, got more");
    }
    table.freq[m] = static_cast<uint16_t>(row[m]);
    table.start[m] = static_cast<uint16_t>(next);
    std::fill_n(table.slot + next, width, static_cast<uint8_t>(m));
    next += width;
  }
  if (next != kSlots) {
    throw std::invalid_argument(name + ": expected frequencies that add to 4096, got " +
                                std::to_string(next));
  }
  for (size_t m = static_cast<size_t>(escape) + 1; m < columns; ++m) {
    check_range(name + " entry " + std::to_string(m) + " (after the escape)", row[m], 0, 0);
  }
  return table;
}

}  // namespace

Tables build_tables(const TableIntegers& integers) {
  Tables tables;
  for (size_t k = 0; k < kScales; ++k) {
    const int limit = k <= kLastNarrow ? kNarrowMax : kMaxSize;
    const int columns = static_cast<int>(std::min<size_t>(integers.y_columns, kMaxSize + 2));
    check_range(at("y_max", k), integers.y_max[k], 1, std::min(limit, columns - 2));
    const int16_t* row = integers.y_freq + k * integers.y_columns;
    if (row[0] % 2) {
      throw std::invalid_argument(at("y_freq", k) + " entry 0: expected an even number, got " +
                                  std::to_string(row[0]));
    }
    tables.y.push_back(from_row(at("y_freq", k), row, integers.y_columns, integers.y_max[k] + 1, 0, 2));
  }
  for (size_t c = 0; c < integers.channels; ++c) {
    const int columns = static_cast<int>(std::min<size_t>(integers.z_columns, kMaxZSize + 1));
    const int size = integers.z_size[c], low = integers.z_low[c];
    check_range(at("z_size", c), size, 1, columns - 1);
    check_range(at("z_low", c), low, -kZMax, kZMax);
    check_range(at("z_low", c) + " + z_size - 1", low + size - 1, -kZMax, kZMax);
    const int16_t* row = integers.z_freq + c * integers.z_columns;
    tables.z.push_back(from_row(at("z_freq", c), row, integers.z_columns, size, low, 1));
  }
  return tables;
}

// What a payload must hold is 7/8 of this. A decoder's step maps x = 4096 q + s to f q + bias, with q >= 16, bias < f
// and bias <= s. So
//   (f q + bias + 1) / (4096 q + s + 1) <= (f q + f) / (4096 q + f) <= 17 f / (65536 + f):
// log2(x + 1) falls by at least log2((65536 + f) / (17 f)), which is 0.94 times log2(4096 / f) or more. A word, 16
// bits, raises log2(x + 1) by at most 16, since 2^16 x + word + 1 <= 2^16 (x + 1). A lane starts at 17 + e at most,
// for which the payload has 20 + e bits, and ends above 16.
double min_z_bits(const Tables& tables) {
  double bits = 0;
  for (const Table& table : tables.z) {
    bits += kTableBits - std::log2(*std::max_element(table.freq, table.freq + table.escape + 1));
  }
  return bits;
}

double ideal_bits(const Tables& tables, const uint8_t* k, const int16_t* r, size_t n) {
  double bits = 0;
  for (size_t j = 0; j < n; ++j) {
    const Table& table = tables.y[k[j]];
    bits += kTableBits - std::log2(table.freq[std::min<int32_t>(std::abs(r[j]), table.escape)]);
  }
  return bits;
}

}  // namespace ckbd
