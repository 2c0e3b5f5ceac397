// Fast tables out of rows: what ans.h says of them.
#include <algorithm>
#include <cstring>

#include "ans/ans.h"

namespace ckbd::ans {
namespace {

constexpr int kMostShift = 12, kLeastShift = 4;  // of a bucket's slots
constexpr int32_t kMostMissed = 4;  // of a row's slots, for each bucket. Measured: more buckets cost more than misses.
constexpr uint32_t kLikely = kTotal / 8 * 7;  // slots of a value that is guessed
constexpr Bucket kNone = {0, 0, 0, 0};

size_t used_of(int32_t size, size_t held) { return std::min(static_cast<size_t>(std::max(size, 0)), held); }

// Strictly rising within 0 .. 2^16, and no slot takes all of it, which 16 bits could not say.
bool clean(const Row& row) {
  if (!row.usable() || row.cdf[0] < 0 || row.cdf[row.size - 1] > static_cast<int32_t>(kTotal)) return false;
  for (int32_t s = 0; s + 1 < row.size; ++s) {
    if (row.cdf[s] >= row.cdf[s + 1]) return false;
  }
  return row.cdf[row.size - 1] <= static_cast<int32_t>(kTotal) && row.cdf[1] - row.cdf[0] < static_cast<int32_t>(kTotal);
}

int log2_floor(uint32_t value) {
  int log2 = 0;
  while (value >>= 1) ++log2;
  return log2;
}

// Division of x < 2^63 by f (Alverson, "Integer Division using Reciprocals"): with s = ceil(log2 f) and the reciprocal
// R = ceil(2^(63 + s) / f), floor(x R / 2^(63 + s)) = floor(x / f), as R f exceeds 2^(63 + s) by less than f <= 2^s, so
// that the product is too large by less than x 2^s / (f 2^(63 + s)) < 1 / f. R < 2^64 unless f is 1: then R = 2^64 - 1
// makes x - 1 of any x > 0, and a bias larger by 2^16 - 1 makes up for that.
Symbol symbol_of(uint32_t start, uint32_t freq) {
  if (freq == 1) return {~uint64_t{0}, start + kTotal - 1, 1, 0};
  const int s = log2_floor(freq - 1) + 1;
  // 2^(63 + s) + f - 1 divided by f in two steps of 64 bits; the upper part is 2^(31 + s).
  const uint64_t upper = uint64_t{1} << (31 + s);
  const uint64_t lower = (upper % freq << 32) + freq - 1;
  return {(upper / freq << 32) + lower / freq, start, static_cast<uint16_t>(freq), static_cast<uint16_t>(s - 1)};
}

// The first of the two neighbours among a row's values that have most of the slots from `from` to below `to`. All
// before s end at or before `from`.
int32_t best_pair(const Row& row, int32_t s, int32_t from, int32_t to, int32_t& covered) {
  const auto within = [&](int32_t v) {
    return v < row.escape() ? std::max(0, std::min(row.cdf[v + 1], to) - std::max(row.cdf[v], from)) : 0;
  };
  int32_t best = s;
  covered = within(s) + within(s + 1);
  for (++s; s < row.escape() && row.cdf[s] < to; ++s) {
    const int32_t slots = within(s) + within(s + 1);
    if (slots > covered) {
      covered = slots;
      best = s;
    }
  }
  return best;
}

// Appends a row's buckets of 2^shift slots each; returns how many slots of values are in none.
int32_t add_buckets(const Row& row, int shift, std::vector<Bucket>& buckets) {
  int32_t s = 0, missed = 0;
  for (int32_t from = 0; from < static_cast<int32_t>(kTotal); from += 1 << shift) {
    const int32_t to = from + (1 << shift);
    while (s < row.escape() && row.cdf[s + 1] <= from) ++s;
    int32_t covered = 0;
    const int32_t v = best_pair(row, s, from, to, covered);
    missed += std::max(0, std::min(row.cdf[row.escape()], to) - std::max(row.cdf[0], from)) - covered;
    if (covered == 0) {
      buckets.push_back({0, 0, 0, static_cast<uint16_t>(v)});
      continue;
    }
    const int32_t start = row.cdf[v], border = row.cdf[v + 1], end = row.cdf[std::min(v + 2, row.escape())];
    buckets.push_back({static_cast<uint16_t>(start), static_cast<uint16_t>(border - start),
                       static_cast<uint16_t>(end - border), static_cast<uint16_t>(v)});
  }
  return missed;
}

}  // namespace

Tables::Tables(const int32_t* cdfs, size_t n, size_t m, const int32_t* sizes, const int32_t* offsets) : columns_(m) {
  rows_.reserve(n);
  for (size_t i = 0; i < n; ++i) rows_.push_back({cdfs + i * m, m, sizes[i], offsets[i]});
  make();
}

Tables::Tables(const std::vector<Row>& rows) : rows_(rows) { make(); }

bool Tables::matches(const int32_t* cdfs, size_t n, size_t m, const int32_t* sizes, const int32_t* offsets) const {
  if (n != rows_.size() || m != columns_) return false;
  for (size_t i = 0; i < n; ++i) {
    if (sizes[i] != rows_[i].size || offsets[i] != rows_[i].offset) return false;
  }
  for (size_t i = 0; i < n; ++i) {
    const size_t used = used_of(rows_[i].size, m);  // its own: sizes may have changed since
    if (used > 0 && std::memcmp(cdfs + i * m, rows_[i].cdf, used * sizeof(int32_t)) != 0) return false;
  }
  return true;
}

void Tables::make() {
  size_t total = 0, slots = 0;
  for (const Row& row : rows_) {
    const size_t used = used_of(row.size, row.held);
    total += used;
    if (clean(row)) slots += used - 1;
  }
  entries_.reserve(total);  // rows point into it
  symbols_.reserve(slots);
  buckets_.push_back(kNone);  // of rows that are not clean
  struct At {
    size_t symbols, buckets;
  };
  std::vector<At> at;
  for (Row& row : rows_) {
    const size_t begin = entries_.size();
    entries_.insert(entries_.end(), row.cdf, row.cdf + used_of(row.size, row.held));
    row.cdf = entries_.data() + begin;
    if (!clean(row)) {
      at.push_back({0, 0});
      encode_.push_back({nullptr, row.offset, 0});
      decode_.push_back({nullptr, row.offset, kBits, 0, 0, 0, false});
      continue;
    }
    at.push_back({symbols_.size(), buckets_.size()});
    const int32_t escape = row.escape();
    const auto start = [&](int32_t s) { return static_cast<uint32_t>(row.cdf[s]); };
    const auto freq = [&](int32_t s) { return start(s + 1) - start(s); };
    for (int32_t s = 0; s <= escape; ++s) symbols_.push_back(symbol_of(start(s), freq(s)));
    encode_.push_back({nullptr, row.offset, static_cast<uint32_t>(escape)});
    // The largest buckets that miss little. There are at most 16 for each slot of the row, or 16: memory is in proportion
    // to what came.
    const size_t before = buckets_.size();
    const int least = std::max(kLeastShift, kBits - 4 - log2_floor(static_cast<uint32_t>(escape) + 1));
    int shift = std::max(kMostShift, least);
    while (add_buckets(row, shift, buckets_) > kMostMissed << (kBits - shift) && shift > least) {
      buckets_.resize(before);
      --shift;
    }
    int32_t mode = 0;
    for (int32_t v = 1; v < escape; ++v) mode = freq(v) > freq(mode) ? v : mode;
    const bool likely = escape > 0 && freq(mode) >= kLikely;
    const auto symbol = static_cast<int32_t>(static_cast<uint32_t>(row.offset) + static_cast<uint32_t>(mode));
    decode_.push_back({nullptr, row.offset, shift, start(mode), freq(mode), symbol, likely});
  }
  for (size_t i = 0; i < rows_.size(); ++i) {
    encode_[i].symbols = symbols_.data() + at[i].symbols;
    decode_[i].buckets = buckets_.data() + at[i].buckets;
  }
}

}  // namespace ckbd::ans
