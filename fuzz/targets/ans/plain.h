// CompressAI's streams and tables as simply as they can be said, by the rules of tests/plain/plain_ans.py: the twin
// of csrc/ans/, of which it uses nothing.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace ckbd::fuzz::plain {

struct Refusal {
  std::string field;
};

struct Table {
  std::vector<int32_t> entries;
  int32_t size, offset;
};

constexpr int64_t kTwo16 = 1 << 16, kTwo31 = int64_t{1} << 31, kTwo32 = int64_t{1} << 32;

inline int64_t modulo(int64_t value, int64_t by) { return (value % by + by) % by; }
inline int32_t int32(int64_t value) { return static_cast<int32_t>(modulo(value + kTwo31, kTwo32) - kTwo31); }

// Rising within 0..2^16, and none has it all: such rows give back what they were given.
inline bool gives_back(const Table& table) {
  const auto& entries = table.entries;
  if (table.size < 2 || static_cast<size_t>(table.size) > entries.size()) return false;
  for (int32_t s = 0; s + 1 < table.size; ++s) {
    const int64_t freq = int64_t{entries[s + 1]} - entries[s];
    if (entries[s] < 0 || entries[s + 1] > kTwo16 || freq <= 0 || freq == kTwo16) return false;
  }
  return true;
}

inline const Table& pick(const std::vector<Table>& tables, int32_t index) {
  if (index < 0 || static_cast<size_t>(index) >= tables.size()) throw Refusal{"indexes"};
  const Table& table = tables[index];
  if (table.size < 2 || static_cast<size_t>(table.size) > table.entries.size()) throw Refusal{"sizes"};
  return table;
}

// What is coded: a slot that has `freq` of 2^bits from `start` on.
struct Step {
  int64_t start, freq;
  int bits;
};

// Those of a symbol, in the order of reading.
inline std::vector<Step> steps_of(const Table& table, int32_t symbol) {
  const int64_t value = int32(int64_t{symbol} - table.offset), escape = table.size - 2;
  const int64_t slot = value >= 0 && value < escape ? value : escape;
  std::vector<Step> digits;
  if (slot == escape) {
    const int64_t raw = value >= 0 ? 2 * (value - escape) : -2 * value - 1;
    if (raw >= 1 << 28) throw Refusal{"symbols"};
    for (int64_t left = raw; left > 0; left /= 16) digits.push_back({left % 16, 1, 4});
    digits.insert(digits.begin(), {static_cast<int64_t>(digits.size()), 1, 4});
  }
  const int64_t freq = int64_t{table.entries[slot + 1]} - table.entries[slot];
  if (freq <= 0 || freq % kTwo16 == 0) throw Refusal{"cdfs"};
  std::vector<Step> steps = {{modulo(table.entries[slot], kTwo16), freq % kTwo16, 16}};
  steps.insert(steps.end(), digits.begin(), digits.end());
  return steps;
}

inline void put_little(std::vector<uint8_t>& out, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<uint8_t>(value >> 8 * i));
}

inline std::vector<uint8_t> write(const std::vector<Step>& steps) {
  uint64_t state = kTwo31;
  std::vector<uint32_t> words;
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    const auto freq = static_cast<uint64_t>(step->freq);
    if (state >= freq << (63 - step->bits)) {
      words.push_back(static_cast<uint32_t>(state));
      state >>= 32;
    }
    state = (state / freq << step->bits) + state % freq + static_cast<uint64_t>(step->start);
  }
  std::vector<uint8_t> out;
  put_little(out, state, 8);
  for (auto word = words.rbegin(); word != words.rend(); ++word) put_little(out, *word, 4);
  return out;
}

inline std::vector<uint8_t> encode(const std::vector<Table>& tables, const std::vector<int32_t>& symbols,
                                   const std::vector<int32_t>& indexes) {
  std::vector<Step> steps;
  for (size_t i = 0; i < symbols.size(); ++i) {
    for (const Step& step : steps_of(pick(tables, indexes[i]), symbols[i])) steps.push_back(step);
  }
  return write(steps);
}

class Decoder {
 public:
  explicit Decoder(std::vector<uint8_t> stream) : stream_(std::move(stream)) {
    if (stream_.size() < 8) throw Refusal{"stream"};
    state = little(8);
  }
  int32_t symbol(const Table& table) {
    const auto slot = static_cast<int64_t>(state % kTwo16);
    int64_t above = 0;  // negative entries count as above all
    while (above < table.size && table.entries[above] >= 0 && table.entries[above] <= slot) ++above;
    if (above == 0 || above == table.size) throw Refusal{"stream"};
    const int64_t start = table.entries[above - 1];
    if (table.entries[above] < start) throw Refusal{"cdfs"};
    take({start, table.entries[above] - start, 16});
    const int64_t escape = table.size - 2;
    if (above - 1 != escape) return int32(above - 1 + table.offset);
    const uint32_t count = digit();
    if (count > 8) throw Refusal{"stream"};
    uint32_t raw = 0;
    for (uint32_t j = 0; j < count; ++j) raw += digit() << 4 * j;
    const int64_t number = int32(raw), half = number >= 0 ? number / 2 : -((1 - number) / 2);  // rounded down
    return int32((raw % 2 == 1 ? -half - 1 : half + escape) + table.offset);
  }

  uint64_t state;
  size_t at = 0;

 private:
  uint64_t little(int bytes) {
    uint64_t value = 0;
    for (int i = 0; i < bytes; ++i) value |= uint64_t{stream_[at++]} << 8 * i;
    return value;
  }
  void take(const Step& step) {
    const uint64_t within = state % (uint64_t{1} << step.bits);
    state = static_cast<uint64_t>(step.freq) * (state >> step.bits) + within - static_cast<uint64_t>(step.start);
    if (state >= kTwo31) return;
    if (stream_.size() - at < 4) throw Refusal{"stream"};
    state = state << 32 | little(4);
  }
  uint32_t digit() {
    const auto digit = static_cast<uint32_t>(state % 16);
    take({digit, 1, 4});
    return digit;
  }

  std::vector<uint8_t> stream_;
};

// Frequencies, rounded, then cut to their share of 2^precision; who has none takes one of another. Whether all they
// add to has 32 bits goes to `rises`: only then is the result sure to.
inline std::vector<uint32_t> quantized_cdf(const std::vector<float>& pmf, int precision, bool& rises) {
  if (precision < 0 || precision > 30) throw Refusal{"precision"};
  const int64_t total = int64_t{1} << precision;
  std::vector<int64_t> freqs;
  int64_t whole = 0;
  for (const float p : pmf) {
    const float part = p * static_cast<float>(total);
    if (!(part >= 0 && part < 4294967296.0f)) throw Refusal{"pmf"};
    freqs.push_back(static_cast<int64_t>(std::floor(double{part} + 0.5)));
    whole += freqs.back();
  }
  rises = whole < kTwo32;
  whole %= kTwo32;
  if (whole == 0) throw Refusal{"pmf"};
  std::vector<uint32_t> cdf = {0};
  for (const int64_t freq : freqs) cdf.push_back(cdf.back() + static_cast<uint32_t>(total * freq / whole));
  cdf.back() = static_cast<uint32_t>(total);
  for (size_t i = 0; i < freqs.size(); ++i) {
    if (cdf[i] != cdf[i + 1]) continue;
    size_t donor = freqs.size();
    uint32_t least = std::numeric_limits<uint32_t>::max();
    for (size_t j = 0; j < freqs.size(); ++j) {
      const uint32_t freq = cdf[j + 1] - cdf[j];
      if (freq <= 1 || freq >= least) continue;
      least = freq;
      donor = j;
    }
    if (donor == freqs.size()) throw Refusal{"pmf"};
    for (size_t j = donor + 1; j <= i; ++j) cdf[j] -= 1;
    for (size_t j = i + 1; j <= donor; ++j) cdf[j] += 1;
  }
  return cdf;
}

// x - mean, rounded half to even; -2^31 if int32 has no room for it.
inline int32_t symbol_of(float x, float mean) {
  const float value = x - mean;
  const double low = std::floor(double{value});
  if (!(low >= -2147483649.0 && low < 2147483648.0)) return std::numeric_limits<int32_t>::min();
  const double over = double{value} - low;
  const auto below = static_cast<int64_t>(low);
  const int64_t rounded = below + (over > 0.5 || (over == 0.5 && below % 2 != 0));
  return rounded >= -kTwo31 && rounded < kTwo31 ? static_cast<int32_t>(rounded) : std::numeric_limits<int32_t>::min();
}

// The last index, less one for each border that a scale, or the least there is, is at or below.
inline int32_t index_of(const std::vector<float>& borders, float least, float scale) {
  const float clipped = scale < least ? least : scale;
  auto index = static_cast<int32_t>(borders.size());
  for (const float border : borders) index -= clipped <= border;
  return index;
}

}  // namespace ckbd::fuzz::plain
