// What csrc/bind/ans.cpp and ans_quantize.cpp call, on threads or without the GIL. The borders are copied there.
#pragma once

#include <cmath>
#include <limits>

#include "ans/ans.h"
#include "ans/quantize.h"
#include "common/cpu.h"
#include "common/pool.h"
#include "callers.h"

namespace ckbd::fuzz {

// Rows of which most are as CompressAI makes them, filled up with zeros.
struct Cdfs {
  size_t rows, columns;
  Exact<int32_t> cdfs, sizes, offsets;
};

inline void fill_row(Caller& caller, int32_t* row, int32_t size) {
  std::vector<uint32_t> weights;
  uint64_t sum = 0;
  for (int32_t s = 0; s + 1 < size; ++s) {
    weights.push_back(1 + static_cast<uint32_t>(caller.random.below(size_t{1} << caller.random.below(20))));
    sum += weights.back();
  }
  const uint64_t share = ckbd::ans::kTotal - weights.size();  // each has a slot at least
  uint64_t before = 0;
  for (int32_t s = 0; s + 1 < size; ++s) {
    row[s] = static_cast<int32_t>(before * share / sum) + s;
    before += weights[static_cast<size_t>(s)];
  }
  row[size - 1] = static_cast<int32_t>(ckbd::ans::kTotal);
}

inline Cdfs any_cdfs(Caller& caller) {
  const size_t rows = caller.between(1, 12), columns = caller.between(3, 40);
  Cdfs all{rows, columns, {rows * columns, 0, 0}, {rows, 0, 0}, {rows, 0, 0}};
  for (size_t i = 0; i < rows; ++i) {
    all.sizes[i] = static_cast<int32_t>(caller.between(3, columns));
    all.offsets[i] = -static_cast<int32_t>(caller.random.below(columns));
    fill_row(caller, all.cdfs.data() + i * columns, all.sizes[i]);
  }
  return all;
}

inline std::vector<std::pair<Cdfs, std::unique_ptr<ckbd::ans::Tables>>> ans_tables;

// Before there are threads.
inline void make_ans_tables(Caller& caller) {
  for (int i = 0; i < 8; ++i) {
    Cdfs cdfs = any_cdfs(caller);
    auto tables = std::make_unique<ckbd::ans::Tables>(cdfs.cdfs.data(), cdfs.rows, cdfs.columns, cdfs.sizes.data(),
                                                      cdfs.offsets.data());
    ans_tables.emplace_back(std::move(cdfs), std::move(tables));
  }
}

inline const std::pair<Cdfs, std::unique_ptr<ckbd::ans::Tables>>& any_ans_tables(Caller& caller) {
  return ans_tables[caller.random.below(ans_tables.size())];
}

// Symbols, mostly of the row's own, the same as latents and means, and their streams.
struct Batch {
  size_t count, n;
  Exact<int32_t> symbols, indexes;
  Exact<float> x, means;
  std::vector<Exact<uint8_t>> streams;
};

inline std::string encoded(const ckbd::ans::Tables& tables, const Batch& batch, size_t b, bool latents) {
  ckbd::ans::Writer writer(batch.n);
  const size_t at = b * batch.n;
  if (latents) {
    const float* const means = batch.means.data() + at;
    ckbd::ans::encode(tables, batch.x.data() + at, means, batch.indexes.data() + at, batch.n, writer);
  } else {
    ckbd::ans::encode(tables, batch.symbols.data() + at, batch.indexes.data() + at, batch.n, writer);
  }
  return writer.finish();
}

inline Batch any_batch(Caller& caller, const Cdfs& cdfs, const ckbd::ans::Tables& tables) {
  const size_t count = caller.between(1, 5), n = caller.random.below(caller.one_in(10) ? 3000 : 200);
  const size_t all = count * n;
  Batch batch{count, n, {all, 1, 0}, {all, 1, 0}, {all, 1, 0}, {all, 1, 0}, {}};
  for (size_t i = 0; i < all; ++i) {
    const size_t row = caller.random.below(cdfs.rows);
    const int wide = caller.one_in(20) ? 3000 : cdfs.sizes[row];
    batch.indexes[i] = static_cast<int32_t>(row);
    batch.symbols[i] = cdfs.offsets[row] + static_cast<int32_t>(caller.random.below(static_cast<size_t>(wide)));
    batch.means[i] = static_cast<float>(caller.random.below(64)) / 8;  // exact
    batch.x[i] = static_cast<float>(batch.symbols[i]) + batch.means[i];
  }
  for (size_t b = 0; b < count; ++b) {
    const std::string made = encoded(tables, batch, b, false);
    batch.streams.emplace_back(std::vector<uint8_t>(made.begin(), made.end()), 1);
  }
  return batch;
}

// As the bindings run a batch.
template <class Task>
void run_batch(Caller& caller, size_t count, Task task) {
  std::vector<std::exception_ptr> errors(count);
  ckbd::run_tasks(count, caller.threads(), [&](size_t b) {
    try {
      task(b);
    } catch (...) {
      errors[b] = std::current_exception();
    }
  });
  for (const auto& error : errors) {
    if (error) caller.refused(error);
  }
}

inline void encode_ans(Caller& caller) {
  const auto& [cdfs, tables] = any_ans_tables(caller);
  const Batch batch = any_batch(caller, cdfs, *tables);
  const bool latents = caller.one_in(2);
  caller.share(batch.indexes);
  caller.share(batch.symbols);
  caller.share(batch.x);
  caller.share(batch.means);
  std::vector<std::string> made(batch.count);
  caller.begin();
  run_batch(caller, batch.count, [&, &tables = *tables](size_t b) { made[b] = encoded(tables, batch, b, latents); });
  caller.end();
  for (size_t b = 0; b < batch.count; ++b) {
    if (made[b].empty()) continue;  // refused
    const auto* const bytes = reinterpret_cast<const uint8_t*>(made[b].data());
    const Exact<uint8_t>& expected = batch.streams[b];
    caller.result(std::equal(bytes, bytes + made[b].size(), expected.data(), expected.data() + expected.size()));
  }
}

inline void decode_ans(Caller& caller) {
  const auto& [cdfs, tables] = any_ans_tables(caller);
  const Batch batch = any_batch(caller, cdfs, *tables);
  const bool latents = caller.one_in(2);
  const Exact<int32_t> out(batch.symbols.size(), 1, 5);
  const Exact<float> x(batch.x.size(), 1, 5);
  caller.share(batch.indexes);
  caller.share(batch.means);
  caller.share(out);
  caller.share(x);
  for (const auto& stream : batch.streams) caller.share(stream);
  caller.begin();
  run_batch(caller, batch.count, [&, &tables = *tables](size_t b) {
    const size_t at = b * batch.n;
    ckbd::ans::Reader reader(batch.streams[b].data(), batch.streams[b].size());
    if (latents) {
      ckbd::ans::decode(tables, reader, batch.indexes.data() + at, batch.n, batch.means.data() + at, x.data() + at);
    } else {
      ckbd::ans::decode(tables, reader, batch.indexes.data() + at, batch.n, out.data() + at);
    }
  });
  caller.end();
  if (latents) {
    caller.result(x, batch.x);
  } else {
    caller.result(out, batch.symbols);
  }
}

// encode_rows() and decode_rows(): the rows themselves are the callers'.
inline void code_rows(Caller& caller) {
  const size_t n = caller.random.below(500), m = caller.between(3, 20);
  const Exact<int32_t> rows(n * m, 1, 0), symbols(n, 1, 0), out(n, 1, 5);
  for (size_t i = 0; i < n; ++i) {
    fill_row(caller, rows.data() + i * m, static_cast<int32_t>(m));
    symbols[i] = static_cast<int32_t>(caller.random.below(caller.one_in(8) ? 4 * m : m));
  }
  const auto row = [&](size_t i) { return ckbd::ans::Row{rows.data() + i * m, m, static_cast<int32_t>(m), 0}; };
  const auto encode = [&] {
    ckbd::ans::Writer writer(n);
    for (size_t i = n; i-- > 0;) {
      writer.reserve(ckbd::ans::kMostWords);
      put(writer, ckbd::ans::parts_of(row(i), symbols[i], i));
    }
    return writer.finish();
  };
  const std::string expected = encode();
  const Exact<uint8_t> stream(std::vector<uint8_t>(expected.begin(), expected.end()), 1);
  caller.share(rows);
  caller.share(symbols);
  caller.share(stream);
  caller.share(out);
  std::string made = expected;
  caller.begin();
  caller.attempt([&] { made = encode(); });
  caller.attempt([&] {
    ckbd::ans::Reader reader(stream.data(), stream.size());
    for (size_t i = 0; i < n; ++i) out[i] = get(reader, row(i), i);
  });
  caller.end();
  caller.result(made == expected);
  caller.result(out, symbols);
}

// Tables made of arrays that change, or compared with them.
inline void make_ans_tables_again(Caller& caller) {
  const Cdfs from = any_cdfs(caller);
  const auto make = [&] {
    return std::make_unique<ckbd::ans::Tables>(from.cdfs.data(), from.rows, from.columns, from.sizes.data(),
                                               from.offsets.data());
  };
  const auto expected = make();
  const Batch batch = any_batch(caller, from, *expected);
  caller.share(from.cdfs);
  caller.share(from.sizes);
  caller.share(from.offsets);
  bool same = true;
  caller.begin();
  for (int i = 0; i < 20; ++i) {
    same &= expected->matches(from.cdfs.data(), from.rows, from.columns, from.sizes.data(), from.offsets.data());
  }
  const auto made = make();
  caller.end();
  caller.result(same);
  // Whatever it has become, it can be used.
  for (size_t b = 0; b < batch.count; ++b) {
    caller.attempt([&] {
      const std::string stream = encoded(*made, batch, b, false);
      const Exact<uint8_t> bytes(std::vector<uint8_t>(stream.begin(), stream.end()), 0);
      ckbd::ans::Reader reader(bytes.data(), bytes.size());
      const Exact<int32_t> out(batch.n, 0, 5);
      ckbd::ans::decode(*made, reader, batch.indexes.data() + b * batch.n, batch.n, out.data());
      caller.result(std::equal(out.data(), out.data() + batch.n, batch.symbols.data() + b * batch.n));
    });
  }
}

inline std::vector<const ckbd::ans::Quantizer*> quantizers() {
  std::vector<const ckbd::ans::Quantizer*> all = {&ckbd::ans::scalar_quantizer};
#if CKBD_X86
  if (ckbd::has_avx2()) all.push_back(&ckbd::ans::avx2_quantizer);
#endif
  return all;
}

inline void quantize(Caller& caller) {
  using ckbd::ans::kGroup;
  const size_t n = caller.random.below(300), count = caller.random.below(caller.one_in(2) ? 64 : 200);
  std::vector<float> sorted;
  for (size_t i = 0; i < count; ++i) sorted.push_back(static_cast<float>(i) / 4);
  const auto border = [&](size_t at) { return at < count ? sorted[at] : std::numeric_limits<float>::infinity(); };
  const auto top = static_cast<int32_t>(count);
  ckbd::ans::Borders borders{sorted.data(), top, 0, top, 0.1f, {}, {}};
  for (size_t g = 0; g < ckbd::ans::kGroups; ++g) {
    borders.group[g] = border(g * kGroup + kGroup - 1);
    for (size_t j = 0; j + 1 < kGroup; ++j) borders.within[j][g] = border(g * kGroup + j);
  }
  const Exact<float> x(n, 1, 0), means(n, 1, 0);
  for (size_t i = 0; i < n; ++i) {
    x[i] = static_cast<float>(caller.random.below(1000)) / 16;
    means[i] = static_cast<float>(caller.random.below(100)) / 16;
  }
  const Exact<int32_t> indexes(n, 1, 5), symbols(n, 1, 5), expected_indexes(n, 0, 0), expected_symbols(n, 0, 0);
  ckbd::ans::scalar_quantizer.scale_indexes(borders, x.data(), n, expected_indexes.data());
  ckbd::ans::scalar_quantizer.symbols_of(x.data(), means.data(), n, expected_symbols.data());
  const auto all = quantizers();
  const ckbd::ans::Quantizer& quantizer = *all[caller.random.below(all.size())];
  caller.share(x);
  caller.share(means);
  caller.share(indexes);
  caller.share(symbols);
  caller.begin();
  quantizer.scale_indexes(borders, x.data(), n, indexes.data());
  quantizer.symbols_of(x.data(), means.data(), n, symbols.data());
  caller.end();
  caller.result(indexes, expected_indexes);
  caller.result(symbols, expected_symbols);
}

}  // namespace ckbd::fuzz
