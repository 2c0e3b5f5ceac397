// The loops, written for a compiler to make vectors of: each instruction set's file compiles them with its own flags.
// Integers, or floats in one order without fused operations, so all give the same.
#pragma once

#include <cstring>

#include "passes/passes.h"

// What a loop writes, no turn of it reads.
#ifdef __clang__
#define CKBD_ANY_ORDER _Pragma("clang loop vectorize(assume_safety)")
#else
#define CKBD_ANY_ORDER _Pragma("GCC ivdep")
#endif

namespace ckbd::passes {
namespace {

inline int32_t cut(int32_t v, int32_t low, int32_t high) {
  v = v < low ? low : v;
  return v > high ? high : v;
}

// As int32 does: around.
inline int32_t sum(int32_t a, int32_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
}

void gather(const uint8_t* x, const Map& map, const Tap* taps, size_t count, const uint8_t* outside, size_t first,
            size_t last, uint8_t* out, size_t stride) {
  const auto height = static_cast<int64_t>(map.height), width = static_cast<int64_t>(map.width);
  const size_t channels = map.channels;
  for (size_t g = first; g < last; ++g) {
    const auto row = static_cast<int64_t>(g % map.height);
    uint8_t* const sites = out + (g - first) * map.width * stride;
    for (size_t t = 0; t < count; ++t) {
      const int64_t shift = row & 1 ? taps[t].odd : taps[t].even;
      const int64_t from = row + taps[t].row;
      const bool inside = from >= 0 && from < height;
      const uint8_t* const source = x + static_cast<size_t>(static_cast<int64_t>(g) + (inside ? taps[t].row : 0)) *
                                            map.width * channels;
      uint8_t* to = sites + t * channels;
      for (int64_t j = 0; j < width; ++j, to += stride) {
        const int64_t at = j + shift;
        const bool there = inside && at >= 0 && at < width;
        std::memcpy(to, there ? source + static_cast<size_t>(at) * channels : outside, channels);
      }
    }
  }
}

inline void requantise_channels(const int32_t* __restrict sums, size_t n, const int32_t* __restrict bias,
                                const int32_t* __restrict shift, uint8_t* __restrict out) {
  for (size_t i = 0; i < n; ++i) out[i] = static_cast<uint8_t>(cut(sum(sums[i], bias[i]) >> shift[i], 0, 127));
}

void requantise(const int32_t* sums, const Map& map, const int32_t* bias, const int32_t* shift, size_t first,
                size_t last, Into into, size_t half, uint8_t* out) {
  const size_t channels = map.channels, n = channels / 4;
  for (size_t i = first; i < last; ++i) {
    for (size_t j = 0; j < map.width; ++j, sums += channels) {
      if (into == Into::kRows) {
        requantise_channels(sums, channels, bias, shift, out);
        out += channels;
        continue;
      }
      for (size_t a = 0; a < 2; ++a) {
        for (size_t b = 0; b < 2; ++b) {
          const size_t row = 2 * i + a, corner = (2 * a + b) * n;
          uint8_t* const to = into == Into::kMap ? out + (row * 2 * map.width + 2 * j + b) * n
                                                 : out + (a ^ b) * half + (row * map.width + j) * n;
          requantise_channels(sums + corner, n, bias + corner, shift + corner, to);
        }
      }
    }
  }
}

void output(const int32_t* sums, size_t sites, size_t channels, const int32_t* bias, const int32_t* shift,
            int16_t* mean, uint8_t* k) {
  const auto site = [&](const int32_t* __restrict from, int16_t* __restrict m, uint8_t* __restrict index) {
    for (size_t i = 0; i < channels; ++i) {
      m[i] = static_cast<int16_t>(cut(sum(from[i], bias[i]) >> shift[i], -16383, 16383));
    }
    const int32_t* const more = from + channels;
    for (size_t i = 0; i < channels; ++i) {
      index[i] = static_cast<uint8_t>(cut(sum(more[i], bias[channels + i]) >> shift[channels + i], 0, 63));
    }
  };
  for (size_t s = 0; s < sites; ++s) site(sums + s * 2 * channels, mean + s * channels, k + s * channels);
}

// Of any two int16: beyond what docs/numerics.md allows it is nonsense, but defined.
inline int32_t compand(int32_t y) {
  const int32_t v = (y + 2) >> 2, size = v < 0 ? -v : v;
  const int32_t c = cut(size > 64 ? 64 + ((size - 64) >> 4) : size, 0, 127);
  return v < 0 ? -c : c;
}

void assemble(const int16_t* r, const int16_t* mean, size_t sites, size_t channels, int reach, uint8_t* near,
              uint8_t* far, uint8_t* any) {
  for (size_t s = 0; s < sites; ++s, r += channels, mean += channels, near += channels) {
    if (far == nullptr) {
      for (size_t i = 0; i < channels; ++i) near[i] = static_cast<uint8_t>(compand(16 * r[i] + mean[i]) + reach);
      continue;
    }
    for (size_t i = 0; i < channels; ++i) {
      const int32_t c = compand(16 * r[i] + mean[i]), close = cut(c, -reach, reach);
      near[i] = static_cast<uint8_t>(close + reach);
      far[i] = static_cast<uint8_t>(c - close + 63);
      any[i] = static_cast<uint8_t>(any[i] | (c != close));
    }
    far += channels;
  }
}

void merge(const int16_t* r, const int16_t* mean, size_t half, const Map& map, size_t first, size_t last, float* out) {
  for (size_t g = first; g < last; ++g) {
    const size_t odd = g % map.height & 1;
    for (size_t j = 0; j < map.width; ++j) {
      for (size_t b = 0; b < 2; ++b, out += map.channels) {
        const size_t from = (b ^ odd) * half + (g * map.width + j) * map.channels;
        for (size_t i = 0; i < map.channels; ++i) out[i] = static_cast<float>(16 * r[from + i] + mean[from + i]);
      }
    }
  }
}

// Half to even; what is no number stays none.
inline uint16_t narrowed(float v) {
  uint32_t bits;
  std::memcpy(&bits, &v, sizeof bits);
  const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded);
}

inline float widened(uint16_t v) {
  const uint32_t bits = static_cast<uint32_t>(v) << 16;
  float f;
  std::memcpy(&f, &bits, sizeof f);
  return f;
}

// S sites side by side in columns j .. j + S - 1 of row i, so that they share what they load.
template <size_t S, class Out, class Convert>
void depthwise_sites(const float* x, const Map& map, const float* weight, const float* bias, const float* zeros,
                     size_t i, size_t j, Out* __restrict out, Convert convert) {
  const size_t n = map.channels;
  const float* from[3][S + 2];
  for (size_t v = 0; v < 3; ++v) {
    for (size_t u = 0; u < S + 2; ++u) {
      const size_t row = i + v, column = j + u;  // one more than they are
      const bool inside = row >= 1 && row <= map.height && column >= 1 && column <= map.width;
      from[v][u] = inside ? x + ((row - 1) * map.width + column - 1) * n : zeros;
    }
  }
CKBD_ANY_ORDER
  for (size_t c = 0; c < n; ++c) {
    float sum[S];
#pragma GCC unroll 8
    for (size_t s = 0; s < S; ++s) sum[s] = bias[c];
#pragma GCC unroll 8
    for (size_t v = 0; v < 3; ++v) {
      const float* const w = weight + 3 * v * n + c;
#pragma GCC unroll 8
      for (size_t s = 0; s < S; ++s) {
        sum[s] += from[v][s][c] * w[0] + from[v][s + 1][c] * w[n] + from[v][s + 2][c] * w[2 * n];
      }
    }
#pragma GCC unroll 8
    for (size_t s = 0; s < S; ++s) out[s * n + c] = convert(sum[s]);
  }
}

template <class Out, class Convert>
void depthwise_as(const float* x, const Map& map, const float* weight, const float* bias, const float* zeros,
                  const Part& part, Out* out, Convert convert) {
  constexpr size_t kSites = 4;
  for (size_t i = part.first; i < part.last; ++i) {
    size_t j = part.left;
    for (; j + kSites <= part.right; j += kSites, out += kSites * map.channels) {
      depthwise_sites<kSites>(x, map, weight, bias, zeros, i, j, out, convert);
    }
    for (; j < part.right; ++j, out += map.channels) {
      depthwise_sites<1>(x, map, weight, bias, zeros, i, j, out, convert);
    }
  }
}

void depthwise(const float* x, const Map& map, const float* weight, const float* bias, const float* zeros,
               const Part& part, bool narrow, void* out) {
  if (narrow) {
    depthwise_as(x, map, weight, bias, zeros, part, static_cast<uint16_t*>(out), narrowed);
  } else {
    depthwise_as(x, map, weight, bias, zeros, part, static_cast<float*>(out), [](float v) { return v; });
  }
}

void add(const float* x, const uint16_t* more, size_t n, float* out) {
CKBD_ANY_ORDER
  for (size_t i = 0; i < n; ++i) out[i] = x[i] + widened(more[i]);
}

// To [0, 1]; what is no number is 0.
inline float cut(float v) {
  v = v > 0.0f ? v : 0.0f;
  return v < 1.0f ? v : 1.0f;
}

// A pixel's value.
inline uint8_t rounded(float v) {
  v = cut(v) * 255.0f + 8388608.0f;  // 2^23: the last bit is a whole
  uint32_t bits;
  std::memcpy(&bits, &v, sizeof bits);
  return static_cast<uint8_t>(bits);
}

template <size_t kSide>
void paint_squares(const float* squares, size_t down, size_t across, bool gray, uint8_t* out) {
  constexpr size_t kRow = 3 * kSide, kSquare = kSide * kRow;
  const size_t stride = across * kRow;
  uint8_t bytes[kSquare];
  for (size_t i = 0; i < down; ++i, out += kSide * stride) {
    for (size_t j = 0; j < across; ++j, squares += kSquare) {
      if (gray) {
        for (size_t p = 0; p < kSide * kSide; ++p) {
          const float* const v = squares + 3 * p;
          bytes[3 * p] = bytes[3 * p + 1] = bytes[3 * p + 2] = rounded((cut(v[0]) + cut(v[1]) + cut(v[2])) / 3.0f);
        }
      } else {
        for (size_t p = 0; p < kSquare; ++p) bytes[p] = rounded(squares[p]);
      }
      for (size_t a = 0; a < kSide; ++a) std::memcpy(out + a * stride + j * kRow, bytes + a * kRow, kRow);
    }
  }
}

void paint(const float* squares, size_t side, size_t down, size_t across, bool gray, uint8_t* out) {
  switch (side) {
    case 1:
      return paint_squares<1>(squares, down, across, gray, out);
    case 2:
      return paint_squares<2>(squares, down, across, gray, out);
    case 4:
      return paint_squares<4>(squares, down, across, gray, out);
    default:
      return paint_squares<8>(squares, down, across, gray, out);
  }
}

constexpr Passes passes(const char* name) {
  return {name, gather, requantise, output, assemble, merge, depthwise, add, paint};
}

}  // namespace
}  // namespace ckbd::passes
