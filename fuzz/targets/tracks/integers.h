// Tables of the target `tracks` as the integers they are made of, for the twin to read, and those of mixtures.
#pragma once

#include <memory>

#include "tables.h"
#include "tracks/tracks.h"

namespace ckbd::fuzz {

// What a model file says: docs/format.md, sections 6 and 9.
struct Integers {
  size_t y_columns = 0, z_columns = 0, channels = 0;
  std::vector<int16_t> y_freq, z_freq, z_low, z_size;
  std::vector<uint8_t> y_max;
};
struct MixtureIntegers {
  std::vector<int32_t> cdf, inverse, share;
  std::vector<int16_t> radius;
};

constexpr size_t kMixtureSpecs = 8;

// How each of the arrays is filled: shapes of the distribution, and numbers that rise or are at one of their ends.
inline MixtureIntegers mixture_integers(size_t spec) {
  constexpr int64_t kHalf = 1 << 23, kLast = ckbd::kCdf - 1;
  constexpr struct {
    int cdf, inverse, share, radius;
  } kSpecs[kMixtureSpecs] = {{0, 0, 0, 0}, {0, 3, 3, 3}, {1, 2, 1, 0}, {2, 2, 2, 2},
                             {3, 1, 0, 1}, {4, 3, 3, 3}, {0, 2, 2, 1}, {1, 0, 0, 2}};
  const auto& by = kSpecs[spec];
  MixtureIntegers out;
  for (int64_t u = 0; u <= kLast; ++u) {
    const int64_t tail = 1024 * 1024 / (1024 + u);  // a bell would have less; what counts is that it falls
    const int64_t up = by.cdf == 0   ? kHalf - kHalf / 1024 * tail / 1024 * tail
                       : by.cdf == 1 ? (u == 0 ? 0 : kHalf)       // a step at once,
                       : by.cdf == 2 ? 0                          // no step,
                       : by.cdf == 3 ? kHalf * u / kLast          // a slope,
                                     : (u == kLast ? kHalf : 0);  // a step at the end
    out.cdf.push_back(static_cast<int32_t>(kHalf + up));
  }
  const auto of = [](int kind, size_t i, int64_t rising, int64_t largest) {
    return kind == 0 ? rising : kind == 1 || (kind == 3 && i % 2 == 0) ? 1 : largest;
  };
  for (size_t i = 0; i < ckbd::kScales; ++i) {
    out.inverse.push_back(static_cast<int32_t>(of(by.inverse, i, (int64_t{1} << 25) >> i / 4, 1 << 30)));
    out.share.push_back(static_cast<int32_t>(of(by.share, i, (8 + i % 8) << (5 + i / 8), 1 << 16)));
    out.radius.push_back(static_cast<int16_t>(of(by.radius, i, 1 + static_cast<int64_t>(i * i / 8), 1023)));
  }
  return out;
}

inline std::unique_ptr<ckbd::MixtureTables> make_mixtures(const MixtureIntegers& from) {
  const Exact<int32_t> cdf(from.cdf, 0), inverse(from.inverse, 0), share(from.share, 0);
  const Exact<int16_t> radius(from.radius, 0);
  return std::make_unique<ckbd::MixtureTables>(cdf.data(), inverse.data(), share.data(), radius.data());
}

// The integers of tables that there are, by what their encoder uses; a decoder has arrays of its own.
inline Integers integers_of(const Tables& tables) {
  const ckbd::TableView& view = tables.view();
  Integers out;
  out.y_columns = ckbd::kMaxSize + 2;
  out.z_columns = ckbd::kMaxZSize + 1;
  out.channels = view.channels;
  out.y_freq.resize(ckbd::kScales * out.y_columns);
  out.z_freq.resize(out.channels * out.z_columns);
  for (size_t k = 0; k < ckbd::kScales; ++k) {
    const size_t escape = view.y_escape[k];
    out.y_max.push_back(static_cast<uint8_t>(escape - 1));
    for (size_t m = 0; m <= escape; ++m) {
      out.y_freq[k * out.y_columns + m] =
          static_cast<int16_t>(ckbd::frequency(view.y_codes[k * ckbd::kYCodes + m]));
    }
  }
  for (size_t c = 0; c < out.channels; ++c) {
    out.z_low.push_back(view.by_channel.low[c]);
    out.z_size.push_back(static_cast<int16_t>(view.by_channel.escape[c]));
    for (size_t i = 0; i <= view.by_channel.escape[c]; ++i) {
      out.z_freq[c * out.z_columns + i] = static_cast<int16_t>(ckbd::frequency(view.z_codes[c * 256 + i]));
    }
  }
  return out;
}

inline std::unique_ptr<Tables> make_tables(const Integers& from) {
  const Exact<int16_t> y_freq(from.y_freq, 0), z_freq(from.z_freq, 0), z_low(from.z_low, 0), z_size(from.z_size, 0);
  const Exact<uint8_t> y_max(from.y_max, 0);
  return std::make_unique<Tables>(ckbd::TableIntegers{y_freq.data(), from.y_columns, y_max.data(), z_freq.data(),
                                                      from.z_columns, z_low.data(), z_size.data(), from.channels});
}

// Whether docs/format.md allows them. Where a row is not as wide as the sizes say there is no reading it.
inline bool allowed_row(const int16_t* row, size_t columns, size_t last, int copies) {
  int sum = 0;
  for (size_t m = 0; m < columns; ++m) {
    if (m <= last ? row[m] < 1 : row[m] != 0) return false;
    sum += row[m] * (m == 0 ? 1 : copies);
  }
  return sum == 4096;
}

inline bool allowed(const Integers& from) {
  for (size_t k = 0; k < ckbd::kScales; ++k) {
    const size_t most = from.y_max[k];
    const int16_t* const row = &from.y_freq[k * from.y_columns];
    if (most < 1 || most > (k <= 22 ? 6 : 126) || most + 2 > from.y_columns) return false;
    if (row[0] % 2 != 0 || !allowed_row(row, from.y_columns, most + 1, 2)) return false;
  }
  for (size_t c = 0; c < from.channels; ++c) {
    const int low = from.z_low[c], size = from.z_size[c];
    if (size < 1 || size > 255 || low < -127 || low + size - 1 > 127) return false;
    if (static_cast<size_t>(size) + 1 > from.z_columns) return false;
    const int16_t* const row = &from.z_freq[c * from.z_columns];
    if (!allowed_row(row, from.z_columns, static_cast<size_t>(size), 1)) return false;
  }
  return true;
}

inline bool allowed(const MixtureIntegers& from) {
  const auto within = [](const auto& all, int low, int high) {
    return std::all_of(all.begin(), all.end(), [&](int one) { return low <= one && one <= high; });
  };
  return from.cdf[0] == 1 << 23 && std::is_sorted(from.cdf.begin(), from.cdf.end()) && from.cdf.back() <= 1 << 24 &&
         within(from.inverse, 1, 1 << 30) && within(from.share, 1, 1 << 16) && within(from.radius, 1, 1023);
}

// What codes, and what the twin reads.
struct Models {
  std::shared_ptr<const Tables> tables;
  std::shared_ptr<const ckbd::MixtureTables> mixtures;
  std::shared_ptr<const Integers> integers;
  std::shared_ptr<const MixtureIntegers> mixture_integers;
};

}  // namespace ckbd::fuzz
