// Tables of an input: rows as upstream's own functions make them, and of every other kind.
#pragma once

#include <iterator>

#include "ans/ans.h"
#include "ans/header.h"
#include "ans/plain.h"

namespace ckbd::fuzz {

constexpr int32_t kLeast = INT32_MIN, kMost = INT32_MAX, kWhole = 1 << 16;

// From 0 to `total`, in the proportions of weights, each slot at least 1.
inline std::vector<int32_t> cumulative(const std::vector<int64_t>& weights, int64_t total) {
  int64_t sum = 0, used = 0, best = 0;
  for (const int64_t weight : weights) sum += weight;
  std::vector<int64_t> freqs;
  for (size_t i = 0; i < weights.size(); ++i) {
    freqs.push_back(1 + (total - static_cast<int64_t>(weights.size())) * weights[i] / sum);
    used += freqs.back();
    if (freqs[i] > freqs[static_cast<size_t>(best)]) best = static_cast<int64_t>(i);
  }
  freqs[static_cast<size_t>(best)] += total - used;
  std::vector<int32_t> row = {0};
  for (const int64_t freq : freqs) row.push_back(row.back() + static_cast<int32_t>(freq));
  return row;
}

// `param`: how steep, which one, from where.
inline std::vector<int32_t> make_row(int kind, size_t slots, uint8_t param, Source& in) {
  Random random(param);
  std::vector<int64_t> weights(slots, 1);
  std::vector<int32_t> row;
  switch (kind) {
    case 0:  // falling either side of a middle
      for (size_t i = 0; i < slots; ++i) {
        const size_t away = i > slots / 2 ? i - slots / 2 : slots / 2 - i;
        weights[i] = (int64_t{1} << 40) >> std::min<size_t>(40, away * (1 + param % 64) / 16);
      }
      return cumulative(weights, kWhole);
    case 1:  // any powers of 2
      for (int64_t& weight : weights) weight = int64_t{1} << random.below(1 + param % 30);
      return cumulative(weights, kWhole);
    case 2:  // one value has nearly all, or what makes it nearly `likely`
      weights[param % slots] = param < 128 ? int64_t{1} << 30 : static_cast<int64_t>(7 * slots);
      return cumulative(weights, kWhole);
    case 3:  // neither from 0 nor to 2^16
      while (row.size() <= slots) row.push_back(static_cast<int32_t>(random.below(kWhole + 1)));
      std::sort(row.begin(), row.end());
      for (size_t i = 1; i < row.size(); ++i) row[i] = std::max(row[i], row[i - 1] + 1);
      return row;
    case 4:  // of one each
      for (size_t i = 0; i <= slots; ++i) row.push_back(static_cast<int32_t>(param + i));
      return row;
    case 5:  // nearly always the escape
      weights[slots - 1] = int64_t{1} << 30;
      return cumulative(weights, kWhole - param % 3);
    case 6: {  // as upstream makes them of probabilities
      std::vector<float> pmf;
      for (size_t i = 0; i < slots; ++i) pmf.push_back(1.0f / static_cast<float>(1 + random.below(1 + param) * i));
      for (const uint32_t entry : ckbd::ans::quantized_cdf(pmf, 16)) row.push_back(static_cast<int32_t>(entry));
      return row;
    }
    default:  // written out
      for (size_t i = 0; i <= slots % 12; ++i) row.push_back(in.any());
      return row;
  }
}

inline void edit(std::vector<int32_t>& row, Source& in) {
  const size_t at = in.below(row.size());
  const auto wrapped = [&](int64_t value) { row[at] = plain::int32(value); };
  switch (in.number(1) % 8) {
    case 0:
      row[at] = row[at > 0 ? at - 1 : 0];
      break;
    case 1:
      wrapped(int64_t{row[at]} + kWhole);
      break;
    case 2:
      wrapped(int64_t{row[at]} - kWhole);
      break;
    case 3:
      row[at] = -1;
      break;
    case 4:
      row[at] = in.any();
      break;
    case 5:
      std::swap(row[at], row[(at + 1) % row.size()]);
      break;
    case 6:
      row[at] = kWhole;
      break;
    default:
      row.resize(at);  // also to none
      if (row.empty()) row.push_back(0);
  }
}

inline plain::Table make_table(Source& in) {
  const uint32_t kinds = in.number(1), width = in.number(1);
  const size_t slots = 1 + (width < 192 ? width % 16 : (width - 192) * 16);
  const auto param = static_cast<uint8_t>(in.number(1));
  plain::Table table{make_row(static_cast<int>(kinds & 7), slots, param, in), 0, 0};
  for (uint32_t edits = kinds >> 3 & 3; edits > 0; --edits) edit(table.entries, in);
  const auto held = static_cast<int32_t>(table.entries.size());
  constexpr int32_t kSizes[] = {kLeast, -1, 0, 1, 2, 1 << 16, kMost - 1, kMost};
  switch (kinds >> 5) {
    case 5:
      table.size = held + 1;
      break;
    case 6:
      table.size = kSizes[param % 8];
      break;
    case 7:
      table.size = held - 1 - param % 3;
      break;
    default:
      table.size = held;
  }
  const auto code = static_cast<int32_t>(in.number(1));
  table.offset = code < 32    ? 0
                 : code < 64  ? -held / 2
                 : code < 128 ? code - 96
                 : code < 160 ? kLeast + (code - 128)
                 : code < 192 ? kMost - (code - 160)
                              : in.any();
  return table;
}

// An input's rows: for the twin, as the product's rows that came, and as its Tables.
class Rows {
 public:
  Rows(const AnsHeader& header, Source& in) {
    for (size_t i = 0; i < header.rows; ++i) plain_.push_back(make_table(in));
    size_t m = 0;
    for (const auto& table : plain_) m = std::max(m, table.entries.size());
    if (!header.apart) {
      for (auto& table : plain_) table.entries.resize(m, -77);  // what nobody may read, unless its size says so
    }
    for (const auto& table : plain_) {
      Exact<int32_t>& row = memory_.emplace_back(table.entries, header.lead);
      rows_.push_back({row.data(), row.size(), table.size, table.offset});
    }
    // What they are made from is gone before they are used.
    if (header.apart) {
      std::vector<Exact<int32_t>> copies;
      std::vector<ckbd::ans::Row> rows;
      for (const auto& table : plain_) {
        Exact<int32_t>& copy = copies.emplace_back(table.entries, 0);
        rows.push_back({copy.data(), copy.size(), table.size, table.offset});
      }
      tables_ = std::make_unique<ckbd::ans::Tables>(rows);
    } else {
      from_array(m, header.lead);
    }
    if (tables_->count() != plain_.size()) fail("tables have another number of rows");
  }
  const std::vector<plain::Table>& plain() const { return plain_; }
  const std::vector<ckbd::ans::Row>& rows() const { return rows_; }
  const ckbd::ans::Tables& tables() const { return *tables_; }
  size_t count() const { return plain_.size(); }

 private:
  void from_array(size_t m, size_t lead) {
    const size_t n = plain_.size();
    const Exact<int32_t> cdfs(n * m, lead, 0), sizes(n, lead, 0), offsets(n, lead, 0);
    for (size_t i = 0; i < n; ++i) {
      std::copy(plain_[i].entries.begin(), plain_[i].entries.end(), cdfs.data() + i * m);
      sizes[i] = plain_[i].size;
      offsets[i] = plain_[i].offset;
    }
    tables_ = std::make_unique<ckbd::ans::Tables>(cdfs.data(), n, m, sizes.data(), offsets.data());
    const auto matches = [&] { return tables_->matches(cdfs.data(), n, m, sizes.data(), offsets.data()); };
    if (!matches()) fail("tables do not match what they are made from");
    for (size_t i = 0; i < n; ++i) {
      if (m == 0) break;
      const size_t at = (i * 5 + lead) % m;
      cdfs[i * m + at] ^= 1;
      const bool counts = static_cast<int64_t>(at) < plain_[i].size;
      if (matches() == counts) fail("tables match by other entries than those that count");
      cdfs[i * m + at] ^= 1;
      offsets[i] ^= 1;
      if (matches()) fail("tables match another offset");
      offsets[i] ^= 1;
      sizes[i] ^= 1;
      if (matches()) fail("tables match another size");
      sizes[i] ^= 1;
    }
    if (tables_->matches(cdfs.data(), n, m + 1, sizes.data(), offsets.data())) fail("tables match another width");
    if (n == 0) return;
    if (tables_->matches(cdfs.data(), n - 1, m, sizes.data(), offsets.data())) fail("tables match fewer rows");
  }

  std::vector<plain::Table> plain_;
  std::vector<Exact<int32_t>> memory_;
  std::vector<ckbd::ans::Row> rows_;
  std::unique_ptr<ckbd::ans::Tables> tables_;
};

inline Exact<int32_t> make_indexes(const AnsHeader& header, size_t rows, Source& in) {
  Exact<int32_t> indexes(header.n, header.lead, 0);
  const size_t count = std::max<size_t>(rows, 1);
  Random random(header.seed + 1u);
  size_t run = 0, which = 0;
  for (size_t i = 0; i < header.n; ++i) {
    int32_t& index = indexes[i];
    switch (header.pattern) {
      case 0:
      case 1:  // written out
        index = static_cast<int32_t>(in.number(1) % count);
        break;
      case 2:
      case 3:
        index = static_cast<int32_t>(random.below(count));
        break;
      case 4:  // all the same
        index = static_cast<int32_t>(header.seed % count);
        break;
      case 5:  // long runs
      case 6:
        if (run == 0) {
          run = 1 + random.below(header.pattern == 5 ? 12 : 400);
          which = random.below(count);
        }
        --run;
        index = static_cast<int32_t>(which);
        break;
      default:  // mostly the first
        index = random.below(20) == 0 ? static_cast<int32_t>(random.below(count)) : 0;
    }
  }
  if (header.misfit && header.n > 0) {
    const size_t at = in.number(2) % header.n;
    const auto end = static_cast<int32_t>(rows);
    const int32_t kinds[] = {-1, end, kLeast, kMost, end + 1, -end, 1 << 16, in.any()};
    indexes[at] = kinds[in.number(1) % 8];
  }
  return indexes;
}

}  // namespace ckbd::fuzz
