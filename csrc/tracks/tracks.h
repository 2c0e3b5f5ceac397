// The coder of version 2 streams: one rANS state a track, any site from any track. docs/format.md, section 9.
//
// Sites of a raster scan lie in tracks by row, so that rows can be decoded side by side by whoever keeps the context's
// lag, or one after the other. Within a track symbols come in raster order either way. Models with phases have one track.
#pragma once

#include <array>
#include <stdexcept>
#include <vector>

#include "payload/payload.h"
#include "rans/tables.h"

namespace ckbd {

constexpr uint32_t kTrackLow = 1u << 23;  // states live in [2^23, 2^31), bytes go in and out
constexpr uint32_t kMixtureBits = 16;
constexpr uint32_t kEscapeBits = 4;  // of the count of bits of an escape value
constexpr int kSymbolMax = 1023;
constexpr int kMixtures = 3;
constexpr size_t kCdf = 8193;

// Integer tables of a mixture (ckbd/papers/file.py makes them).
class MixtureTables {
 public:
  // cdf[u]: 2^24 Phi(u / 1024), u = 0..8192, rising, from 2^23 up to 2^24; inverse, share (64): 1 .. 2^30 and 1 .. 2^16;
  // radius (64): 1..1023. Throws std::invalid_argument.
  MixtureTables(const int32_t* cdf, const int32_t* inverse, const int32_t* share, const int16_t* radius);

  // The distribution of one element: intervals [start(s), start(s + 1)) of 2^16 slots for s = low .. high, one below for
  // smaller symbols and one above for larger ones.
  struct Element {
    const MixtureTables* tables;
    int count;
    int32_t mean[kMixtures];  // in 1/16
    uint8_t k[kMixtures];
    uint64_t share[kMixtures], total;
    int low, high;

    // First slot of symbol s, low <= s <= high + 1.
    uint32_t start(int s) const;
  };
  // mean, k, share: `count` values, `stride` apart. k and share < 64.
  Element element(const int16_t* mean, const uint8_t* k, const uint8_t* share, int count, size_t stride) const;

 private:
  uint64_t phi(int64_t distance, uint8_t k) const {  // distance in 1/16; times 2^24
    const uint64_t size = static_cast<uint64_t>(distance < 0 ? -distance : distance);
    const uint64_t u = (size * inverse_[k] + 32768) >> 16;
    const uint64_t up = cdf_[u < kCdf ? u : kCdf - 1];
    return distance < 0 ? (1u << 24) - up : up;
  }

  std::vector<uint32_t> cdf_;
  std::array<uint64_t, kScales> inverse_, share_;
  std::array<int, kScales> radius_;
};

// Symbols of `sites` sites, `channels` each, channels last. Site i belongs to track[i].
struct Residuals {
  const uint8_t* k;
};
struct Mixtures {
  const int16_t* mean;  // (sites, count, channels)
  const uint8_t* k;
  const uint8_t* share;
  int count;
};

// *track, if there are so many. Throws std::runtime_error: who calls has checked it, and somebody has written to it since.
inline size_t track_of(const uint16_t* track, size_t tracks) {
  const uint16_t found = once(track);
  if (found >= tracks) throw std::runtime_error("track: changed during the call");
  return found;
}

class TrackEncoder {
 public:
  TrackEncoder(const Tables& tables, const MixtureTables& mixtures, size_t tracks);
  // Each takes its sites backwards; so parts are given last first, and z, which is in track 0, at the end.
  void residuals(const uint16_t* track, size_t sites, size_t channels, const Residuals& p, const int16_t* r);
  void mixture(const uint16_t* track, size_t sites, size_t channels, const Mixtures& p, const int16_t* y);
  void z(const int16_t* z, size_t n);
  std::vector<uint8_t> finish();
  // -log2 of what has been encoded, without any state.
  double bits() const { return bits_; }

 private:
  struct Track {
    uint32_t x = kTrackLow;
    std::vector<uint8_t> bytes;  // last first
  };
  void put(Track& track, uint32_t start, uint32_t f, uint32_t precision);
  void put_escape(Track& track, uint32_t u);

  const Tables& tables_;
  const MixtureTables& mixtures_;
  std::vector<Track> tracks_;
  double bits_ = 0;
};

class TrackDecoder {
 public:
  TrackDecoder(const Tables& tables, const MixtureTables& mixtures, const uint8_t* payload, size_t size, size_t tracks);
  // All throw StreamError; `sites` sites in the order given.
  void z(int16_t* z, size_t n);
  void residuals(const uint16_t* track, size_t sites, size_t channels, const Residuals& p, int16_t* r);
  void mixture(const uint16_t* track, size_t sites, size_t channels, const Mixtures& p, int16_t* y);
  void finish() const;

 private:
  struct Track {
    uint32_t x;
    const uint8_t* next;
    const uint8_t* end;
  };
  void refill(Track& track);
  uint32_t bits(Track& track, uint32_t count);
  uint32_t escape(Track& track);
  int16_t fit(const Track& track, int64_t value) const;

  const Tables& tables_;
  const MixtureTables& mixtures_;
  const uint8_t* payload_;
  std::vector<Track> tracks_;
};

}  // namespace ckbd
