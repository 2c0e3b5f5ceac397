// Tables from the integers of a model file (docs/format.md, section 6).
#pragma once

#include <vector>

#include "rans.h"

namespace ckbd {

struct Tables {
  std::vector<Table> y;  // kScales of them
  std::vector<Table> z;  // one for each channel
};

struct TableIntegers {
  const int16_t* y_freq;  // kScales rows of y_columns
  size_t y_columns;
  const uint8_t* y_max;
  const int16_t* z_freq;  // channels rows of z_columns
  size_t z_columns;
  const int16_t* z_low;
  const int16_t* z_size;
  size_t channels;
};

// Throws std::invalid_argument for what the format forbids.
Tables build_tables(const TableIntegers& integers);

// Sum over the channels of log2(4096 / largest frequency): the least ideal bits of the z symbols of one site.
double min_z_bits(const Tables& tables);

// Sum of -log2(f / 4096) over a phase as if every element were coded; an escape counts as its slot alone.
double ideal_bits(const Tables& tables, const uint8_t* k, const int16_t* r, size_t n);

}  // namespace ckbd
