// What lies between the matrix products of a CPU: neighbours gathered, sums requantised, latents put together.
//
// Compiled for several instruction sets from the same loops (loops.h), so nothing here is inline with external linkage;
// see rans.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/cpu.h"

namespace ckbd::passes {

// A neighbour: so many rows down, and columns to the right of a site in an even row, and in an odd one.
struct Tap {
  int32_t row, even, odd;
};

// Pictures of one height and width below one another, channels last. Rows are counted through all of them.
struct Map {
  size_t height, width, channels;
};

// Of a picture.
struct Part {
  size_t first, last, left, right;
};

// Where the four corners of a site go when a map grows to twice its size.
enum class Into { kRows, kMap, kHalves };

struct Passes {
  const char* name;

  // The neighbours of the sites in rows first .. last - 1 of x, tap by tap, `stride` bytes a site. Those outside of the
  // picture are `outside`, a byte a channel.
  void (*gather)(const uint8_t* x, const Map& map, const Tap* taps, size_t count, const uint8_t* outside, size_t first,
                 size_t last, uint8_t* out, size_t stride);

  // min(max((sums + bias) >> shift, 0), 127) of sites in rows first .. last - 1 of a map, map.channels each; shift in
  // 0..31. kRows: out holds those rows. Otherwise channel (2 a + b) N + n, of 4 N, becomes channel n of row 2 i + a,
  // column 2 j + b: in out as a whole map, or in its two halves, `half` bytes apart, (row + column) even first.
  void (*requantise)(const int32_t* sums, const Map& map, const int32_t* bias, const int32_t* shift, size_t first,
                     size_t last, Into into, size_t half, uint8_t* out);

  // (sums + bias) >> shift of 2 M channels a site: M means, cut to -16383..16383, and M indices, cut to 0..63.
  void (*output)(const int32_t* sums, size_t sites, size_t channels, const int32_t* bias, const int32_t* shift,
                 int16_t* mean, uint8_t* k);

  // 16 r + mean companded into c (docs/numerics.md), and that in two parts: near is c cut to +-reach, plus reach; far
  // the rest, plus 63, and any[m] set if it is not 0 for a site of channel m. Without far, reach must be 127.
  void (*assemble)(const int16_t* r, const int16_t* mean, size_t sites, size_t channels, int reach, uint8_t* near,
                   uint8_t* far, uint8_t* any);

  // The latents 16 r + mean of rows first .. last - 1 of a map from its two halves: r and mean of each, `half` elements
  // apart. map.width is that of a half.
  void (*merge)(const int16_t* r, const int16_t* mean, size_t half, const Map& map, size_t first, size_t last,
                float* out);

  // 3x3 convolution of each channel by itself, zeros outside: of columns left .. right - 1 in rows first .. last - 1 of
  // one picture x. weight: (9, channels), bias: (channels). out: those sites, in bfloat16, half to even, if `narrow`,
  // else in float32.
  void (*depthwise)(const float* x, const Map& map, const float* weight, const float* bias, const float* zeros,
                    const Part& part, bool narrow, void* out);

  // out = x + more of n elements; more is bfloat16.
  void (*add)(const float* x, const uint16_t* more, size_t n, float* out);

  // Squares of side x side pixels in [0, 1], their values by row, column and colour, rounded half to even to 0..255:
  // rows of `across` squares to rows of pixels. side: 1, 2, 4 or 8. gray: all colours of a pixel are their mean.
  void (*paint)(const float* squares, size_t side, size_t down, size_t across, bool gray, uint8_t* out);
};

extern const Passes scalar_passes;
#if CKBD_X86
extern const Passes avx2_passes;
extern const Passes avx512_passes;
#endif

}  // namespace ckbd::passes
