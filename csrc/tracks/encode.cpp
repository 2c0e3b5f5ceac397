// Encoding, backwards.
#include <algorithm>
#include <cmath>

#include "tracks/tracks.h"

namespace ckbd {

TrackEncoder::TrackEncoder(const Tables& tables, const MixtureTables& mixtures, size_t tracks)
    : tables_(tables), mixtures_(mixtures), tracks_(tracks) {}

// A symbol that owns the slots start .. start + f - 1 of 2^precision.
void TrackEncoder::put(Track& track, uint32_t start, uint32_t f, uint32_t precision) {
  const uint64_t limit = uint64_t{kTrackLow >> precision << 8} * f;
  while (track.x >= limit) {
    track.bytes.push_back(static_cast<uint8_t>(track.x));
    track.x >>= 8;
  }
  track.x = (track.x / f << precision) + start + track.x % f;
  bits_ += precision - std::log2(f);
}

void TrackEncoder::put_escape(Track& track, uint32_t u) {
  uint32_t width = 0;
  while ((u + 1) >> (width + 1)) ++width;
  put(track, (u + 1) - (1u << width), 1, width);
  put(track, width, 1, kEscapeBits);
}

void TrackEncoder::residuals(const uint16_t* lane, size_t sites, size_t channels, const Residuals& p,
                             const int16_t* r) {
  const TableView& view = tables_.view();
  for (size_t i = sites; i-- > 0;) {
    Track& track = tracks_[track_of(lane + i, tracks_.size())];
    for (size_t at = (i + 1) * channels; at-- > i * channels;) {
      const int32_t symbol = once(r + at);
      const size_t row = row_of(once(p.k + at));
      const uint32_t size = static_cast<uint32_t>(symbol < 0 ? -symbol : symbol), escape = view.y_escape[row];
      const uint32_t m = std::min(size, escape);
      if (m == escape) put_escape(track, size - escape);
      const Code code = view.y_codes[row * kYCodes + m];
      const uint32_t f = frequency(code);
      // Slots of +m and -m take turns: +m owns the even ones of the interval.
      while (track.x >= uint64_t{kTrackLow >> kTableBits << 8} * f) {
        track.bytes.push_back(static_cast<uint8_t>(track.x));
        track.x >>= 8;
      }
      const uint32_t rest = track.x % f;
      track.x = (track.x / f << kTableBits) + first_slot(code) + (m == 0 ? rest : 2 * rest + (symbol < 0));
      bits_ += kTableBits - std::log2(f);
    }
  }
}

void TrackEncoder::mixture(const uint16_t* lane, size_t sites, size_t channels, const Mixtures& p, const int16_t* y) {
  for (size_t i = sites; i-- > 0;) {
    Track& track = tracks_[track_of(lane + i, tracks_.size())];
    for (size_t c = channels; c-- > 0;) {
      const size_t at = i * static_cast<size_t>(p.count) * channels + c;
      const auto e = mixtures_.element(p.mean + at, p.k + at, p.share + at, p.count, channels);
      const int s = once(y + i * channels + c);
      if (s < e.low) {
        put_escape(track, static_cast<uint32_t>(e.low - 1 - s));
        put(track, 0, e.start(e.low), kMixtureBits);
      } else if (s > e.high) {
        put_escape(track, static_cast<uint32_t>(s - e.high - 1));
        const uint32_t start = e.start(e.high + 1);
        put(track, start, (1u << kMixtureBits) - start, kMixtureBits);
      } else {
        const uint32_t start = e.start(s);
        put(track, start, e.start(s + 1) - start, kMixtureBits);
      }
    }
  }
}

void TrackEncoder::z(const int16_t* z, size_t n) {
  const TableView& view = tables_.view();
  Track& track = tracks_[0];
  for (size_t i = n; i-- > 0;) {
    const size_t c = i % view.channels;
    const int low = view.by_channel.low[c], escape = view.by_channel.escape[c], t = once(z + i) - low;
    const bool out = t < 0 || t >= escape;
    if (out) put_escape(track, static_cast<uint32_t>(t < 0 ? -2 * t - 1 : 2 * (t - escape)));
    const Code code = view.z_codes[c * 256 + static_cast<size_t>(out ? escape : t)];
    put(track, first_slot(code), frequency(code), kTableBits);
  }
}

std::vector<uint8_t> TrackEncoder::finish() {
  std::vector<uint8_t> out;
  for (size_t i = 0; i + 1 < tracks_.size(); ++i) {
    size_t size = tracks_[i].bytes.size() + 4;
    for (; size >= 128; size >>= 7) out.push_back(static_cast<uint8_t>(size | 128));
    out.push_back(static_cast<uint8_t>(size));
  }
  for (const Track& track : tracks_) {
    for (int shift = 0; shift < 32; shift += 8) out.push_back(static_cast<uint8_t>(track.x >> shift));
    out.insert(out.end(), track.bytes.rbegin(), track.bytes.rend());
  }
  return out;
}

}  // namespace ckbd
