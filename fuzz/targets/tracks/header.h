// The first bytes of an input of the target `tracks`: what is coded, by which tables, and what is done to it then.
#pragma once

#include "input.h"
#include "tracks/integers.h"

namespace ckbd::fuzz {

constexpr size_t kParts = 4;
constexpr size_t kDamages = 4;
constexpr size_t kMostMixed = 12;  // elements of a part that is coded by mixtures: the twin looks for each from below

enum Mode { kRaw, kPutTogether, kEncode, kHostileTables };

// One call, or as many as there are sites. Without parts it is of residuals, else of mixtures of so many.
struct Shape {
  int parts;
  size_t sites, channels;
  int pattern;  // of k, mean and share
  uint8_t seed;
  size_t elements() const { return sites * channels; }
  size_t arguments() const { return elements() * static_cast<size_t>(std::max(parts, 1)); }
};

// Every bit means something, so that no mutation is in vain. fuzz/seeds/tracks.py writes these.
struct Header {
  Mode mode;
  size_t tables, mixtures;
  bool hostile;  // arguments that nobody checked: k and share beyond 63, any mean, tracks that there are not
  size_t tracks;
  size_t z_sites;
  size_t lead;
  bool beyond;  // symbols beyond 1023 too
  int rows;     // how sites lie in tracks
  uint8_t rows_seed;
  size_t split;  // where a part is cut in two
  std::vector<Shape> shapes;
  struct Damage {
    uint8_t how;
    size_t where;
  } damage[kDamages];

  explicit Header(Input& in) {
    const uint32_t kinds = in.number(1);
    mode = static_cast<Mode>(kinds & 3);
    hostile = kinds >> 7;
    if (mode == kHostileTables && !std::exchange(hostile, false)) mode = kEncode;  // tables take long to make
    tables = kinds >> 2 & 3;
    mixtures = (kinds >> 4 & 7) % kMixtureSpecs;
    const uint32_t many = in.number(1);
    const uint32_t arrays = in.number(1);
    z_sites = arrays & 7;
    if (z_sites == 7) z_sites = 40;
    lead = arrays >> 3 & 3;
    beyond = arrays >> 5 & 1;
    const size_t count = 1 + (arrays >> 6);
    const uint32_t lanes = in.number(1);
    rows = static_cast<int>(lanes & 3);
    rows_seed = static_cast<uint8_t>(lanes >> 2);
    tracks = count_of_tracks(many);
    split = in.number(1);
    for (size_t i = 0; i < kParts; ++i) {
      const uint32_t kind = in.number(1), sites = in.number(1), how = in.number(1);
      Shape one{static_cast<int>(kind & 3), sites % 49, 1 + (kind >> 2 & 7), static_cast<int>(kind >> 5 & 7),
                static_cast<uint8_t>(how)};
      if (one.parts > 0) one.sites = std::min(one.sites, kMostMixed / one.channels);
      if (i < count) shapes.push_back(one);
    }
    for (Damage& one : damage) {
      one.how = static_cast<uint8_t>(in.number(1));
      one.where = in.number(2);
    }
  }

 private:
  // Few, but for those who ask for many. As many as there may be (65535) would take long, and do nothing else.
  size_t count_of_tracks(uint32_t number) const {
    if (number < 224) return 1 + number % 14;
    if (number < 255) return 10 * (number - 223);
    return rows_seed == 63 ? 4096 : 500;
  }
};

// What a call decodes by.
struct Arguments {
  Shape shape;
  Exact<uint16_t> track;
  Exact<uint8_t> k, share;
  Exact<int16_t> mean;
};

inline Exact<uint16_t> make_rows(const Header& header, const Shape& shape, Random& random) {
  Exact<uint16_t> rows(shape.sites, header.lead, 0);
  const size_t width = 1 + header.rows_seed % 8;
  for (size_t i = 0; i < shape.sites; ++i) {
    size_t row = 0;
    switch (header.rows) {
      case 0:  // a raster scan
        row = i / width;
        break;
      case 1:  // all in the first: a pattern's phases
        break;
      case 2:  // a wavefront: a site of each row in turn
        row = i % (width + 1);
        break;
      default:
        row = random.below(header.tracks);
    }
    rows[i] = static_cast<uint16_t>(row % header.tracks);
    if (header.hostile && random.below(64) == 0) rows[i] = static_cast<uint16_t>(random.next());
  }
  return rows;
}

// Table indices, shares and means: by a pattern, or as they are written out.
inline Arguments make_arguments(const Header& header, const Shape& shape, Input& in) {
  Random random(shape.seed + 256u * header.rows_seed);
  const size_t n = shape.arguments(), mixed = shape.parts > 0 ? n : 0;
  Arguments out{shape, make_rows(header, shape, random), Exact<uint8_t>(n, header.lead, 0),
                Exact<uint8_t>(mixed, header.lead, 0), Exact<int16_t>(mixed, header.lead, 0)};
  const auto index = [&](uint32_t written) {
    const size_t seed = shape.seed;
    const size_t any = shape.pattern == 0   ? written
                       : shape.pattern == 1 ? seed
                       : shape.pattern == 2 ? random.below(16)
                       : shape.pattern == 3 ? 48 + random.below(16)
                       : shape.pattern == 4 ? (random.below(8) == 0 ? random.below(64) : seed)
                                            : random.below(64);
    return static_cast<uint8_t>(header.hostile ? any + 64 * random.below(4) : any % 64);
  };
  const auto middle = [&](uint32_t written) {
    constexpr int kEnds[] = {-16383, -16383 + 7, -16368, -8, 0, 7, 8, 16368, 16383 - 8, 16383};
    int any = static_cast<int>(random.below(32767)) - 16383;
    if (shape.pattern == 0) any = static_cast<int16_t>(written);
    if (shape.pattern % 3 == 1) any /= 128;
    if (shape.pattern == 6) any = kEnds[random.below(std::size(kEnds))];
    if (header.hostile) return static_cast<int16_t>(any * (random.below(8) == 0 ? 2 : 1));
    return static_cast<int16_t>(std::clamp(any, -16383, 16383));
  };
  const bool written = shape.pattern == 0;
  for (size_t i = 0; i < n; ++i) out.k[i] = index(written ? in.number(1) : 0);
  for (size_t i = 0; i < mixed; ++i) {
    out.share[i] = index(written ? in.number(1) : 0);
    out.mean[i] = middle(written ? in.number(2) : 0);
  }
  return out;
}

}  // namespace ckbd::fuzz
