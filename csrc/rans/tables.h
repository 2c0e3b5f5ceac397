// Tables from the integers of a model file (docs/format.md, section 6).
#pragma once

#include <vector>

#include "rans/rans.h"

namespace ckbd {

struct TableIntegers {
  const int16_t* y_freq;  // kScales rows of y_columns
  size_t y_columns;
  const uint8_t* y_max;
  const int16_t* z_freq;  // channels rows of z_columns
  size_t z_columns;
  const int16_t* z_low;
  const int16_t* z_size;
  size_t channels;  // at least 1
};

// Owns what a TableView shows. Immutable, so many threads may use it at once.
class Tables {
 public:
  // Throws std::invalid_argument for what the format forbids.
  explicit Tables(const TableIntegers& integers);
  Tables(const Tables&) = delete;
  Tables& operator=(const Tables&) = delete;

  const TableView& view() const { return view_; }
  size_t channels() const { return view_.channels; }
  // Sum over the channels of log2(4096 / largest frequency): the least ideal bits of the z symbols of one site.
  //
  // What a payload must hold is 7/8 of min_z_bits(). A decoder's step maps x = 4096 q + s to f q + bias, with q >=
  // 16, bias < f and bias <= s. So
  //   (f q + bias + 1) / (4096 q + s + 1) <= (f q + f) / (4096 q + f) <= 17 f / (65536 + f):
  // log2(x + 1) falls by at least log2((65536 + f) / (17 f)), which is 0.94 times log2(4096 / f) or more. A word, 16
  // bits, raises log2(x + 1) by at most 16, since 2^16 x + word + 1 <= 2^16 (x + 1). A lane starts at 17 + e at most,
  // for which the payload has 20 + e bits, and ends above 16.
  double min_z_bits() const { return min_z_bits_; }
  // -log2(f / 4096) of symbol r by y table k; an escape counts as its slot alone.
  double ideal_bits(uint8_t k, int32_t r) const;
  // Its mean if the symbols are as y table k says.
  double entropy(uint8_t k) const { return y_entropy_[k]; }

 private:
  void read_y(const TableIntegers& integers, size_t k);
  void fill_narrow();
  void read_z(const TableIntegers& integers, size_t c);
  void fill_channels(size_t channels);

  std::vector<YRow> y_rows_;
  std::vector<Slot> y_slots_, z_slots_;
  std::vector<Code> y_codes_, z_codes_;
  std::vector<uint16_t> y_escape_, channel_, z_escape_, z_above_, z_rows_;
  std::vector<int16_t> z_low_;
  NarrowTables narrow_;
  std::vector<double> y_bits_;  // kScales rows of kYCodes
  std::vector<double> y_entropy_;
  double min_z_bits_;
  TableView view_;
};

}  // namespace ckbd
