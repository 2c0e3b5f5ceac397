#include "tracks.h"

#include <algorithm>
#include <cmath>
#include <string>

namespace ckbd {
namespace {

constexpr uint32_t kEscapeBits = 4;  // of the count of bits of an escape value

void check(const char* name, size_t at, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high) {
    throw std::invalid_argument(std::string(name) + "[" + std::to_string(at) + "]: expected " + std::to_string(low) +
                                ".." + std::to_string(high) + ", got " + std::to_string(value));
  }
}

}  // namespace

MixtureTables::MixtureTables(const int32_t* cdf, const int32_t* inverse, const int32_t* share, const int16_t* radius) {
  int32_t before = 1 << 23;
  check("cdf", 0, cdf[0], before, before);
  for (size_t u = 0; u < kCdf; before = cdf[u++]) {
    check("cdf", u, cdf[u], before, 1 << 24);
    cdf_.push_back(static_cast<uint32_t>(cdf[u]));
  }
  for (size_t k = 0; k < kScales; ++k) {
    check("inverse", k, inverse[k], 1, 1 << 30);
    check("share", k, share[k], 1, 1 << 16);
    check("radius", k, radius[k], 1, kSymbolMax);
    inverse_[k] = static_cast<uint64_t>(inverse[k]);
    share_[k] = static_cast<uint64_t>(share[k]);
    radius_[k] = radius[k];
  }
}

MixtureTables::Element MixtureTables::element(const int16_t* mean, const uint8_t* k, const uint8_t* share, int count,
                                              size_t stride) const {
  Element e{this, count, {}, {}, {}, 0, kSymbolMax, -kSymbolMax};
  for (int j = 0; j < count; ++j) {
    const size_t at = static_cast<size_t>(j) * stride;
    e.mean[j] = mean[at];
    e.k[j] = k[at];
    e.share[j] = share_[share[at]];
    e.total += e.share[j] << 24;
    const int centre = (e.mean[j] + 8) >> 4;
    e.low = std::min(e.low, centre - radius_[e.k[j]]);
    e.high = std::max(e.high, centre + radius_[e.k[j]]);
  }
  // A mean is at most 1023 15/16, so its symbols and [-1023, 1023] have some in common.
  e.low = std::max(e.low, -kSymbolMax);
  e.high = std::min(e.high, kSymbolMax);
  return e;
}

// shares below 2^16, Phi at most 2^24: the sum of three is below 2^42, times a width of 2^16 below 2^58.
uint32_t MixtureTables::Element::start(int s) const {
  const uint64_t width = (1u << kMixtureBits) - static_cast<uint64_t>(high - low + 3);
  uint64_t mass = 0;
  for (int j = 0; j < count; ++j) mass += share[j] * tables->phi(16 * s - 8 - mean[j], k[j]);
  return static_cast<uint32_t>(1 + (s - low) + mass * width / total);
}

// ---- encoding, backwards

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
    Track& track = tracks_[lane[i]];
    for (size_t at = (i + 1) * channels; at-- > i * channels;) {
      const uint32_t size = static_cast<uint32_t>(r[at] < 0 ? -r[at] : r[at]), escape = view.y_escape[p.k[at]];
      const uint32_t m = std::min(size, escape);
      if (m == escape) put_escape(track, size - escape);
      const Code code = view.y_codes[size_t{p.k[at]} * kYCodes + m];
      const uint32_t f = frequency(code);
      // Slots of +m and -m take turns: +m owns the even ones of the interval.
      while (track.x >= uint64_t{kTrackLow >> kTableBits << 8} * f) {
        track.bytes.push_back(static_cast<uint8_t>(track.x));
        track.x >>= 8;
      }
      const uint32_t rest = track.x % f;
      track.x = (track.x / f << kTableBits) + first_slot(code) + (m == 0 ? rest : 2 * rest + (r[at] < 0));
      bits_ += kTableBits - std::log2(f);
    }
  }
}

void TrackEncoder::mixture(const uint16_t* lane, size_t sites, size_t channels, const Mixtures& p, const int16_t* y) {
  for (size_t i = sites; i-- > 0;) {
    Track& track = tracks_[lane[i]];
    for (size_t c = channels; c-- > 0;) {
      const size_t at = i * static_cast<size_t>(p.count) * channels + c;
      const auto e = mixtures_.element(p.mean + at, p.k + at, p.share + at, p.count, channels);
      const int s = y[i * channels + c];
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
    const int low = view.by_channel.low[c], escape = view.by_channel.escape[c], t = z[i] - low;
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

// ---- decoding, of payloads that may come from anyone

TrackDecoder::TrackDecoder(const Tables& tables, const MixtureTables& mixtures, const uint8_t* payload, size_t size,
                           size_t tracks)
    : tables_(tables), mixtures_(mixtures), payload_(payload), tracks_(tracks) {
  std::vector<size_t> sizes(tracks);
  size_t at = 0, sum = 0;
  for (size_t i = 0; i + 1 < tracks; ++i) {
    const size_t begin = at;
    for (int shift = 0;; shift += 7) {
      if (at == size) throw StreamError("tracks", begin, "the payload ends inside a length");
      if (shift > 28) throw StreamError("tracks", begin, "a length is longer than 5 bytes");
      const uint8_t byte = payload[at++];
      sizes[i] |= static_cast<size_t>(byte & 127) << shift;
      if (byte >= 128) continue;
      if (byte == 0 && shift > 0) throw StreamError("tracks", begin, "a length is longer than it needs to be");
      break;
    }
    sum += sizes[i];
    if (sizes[i] > size || sum > size) throw StreamError("tracks", begin, "a track goes beyond the payload");
  }
  if (sum > size - at) throw StreamError("tracks", at, "the tracks go beyond the payload");
  sizes[tracks - 1] = size - at - sum;
  for (size_t i = 0; i < tracks; ++i) {
    if (sizes[i] < 4) throw StreamError("tracks", at, "a track is shorter than its state");
    uint32_t x = 0;
    for (size_t b = 0; b < 4; ++b) x |= static_cast<uint32_t>(payload[at + b]) << 8 * b;
    if (x < kTrackLow || x >> 31) {
      throw StreamError("tracks", at, "a state is " + std::to_string(x) + ", not in 2^23 .. 2^31 - 1");
    }
    tracks_[i] = {x, payload + at + 4, payload + at + sizes[i]};
    at += sizes[i];
  }
}

void TrackDecoder::refill(Track& track) {
  while (track.x < kTrackLow) {
    if (track.next == track.end) {
      throw StreamError("symbols", static_cast<size_t>(track.end - payload_), "a track ends before its symbols");
    }
    track.x = track.x << 8 | *track.next++;
  }
}

uint32_t TrackDecoder::bits(Track& track, uint32_t count) {
  const uint32_t value = track.x & ((1u << count) - 1);
  track.x >>= count;
  refill(track);
  return value;
}

uint32_t TrackDecoder::escape(Track& track) {
  const uint32_t width = bits(track, kEscapeBits);
  return (1u << width) + bits(track, width) - 1;
}

int16_t TrackDecoder::fit(const Track& track, int64_t value) const {
  if (value < -kSymbolMax || value > kSymbolMax) {
    throw StreamError("symbols", static_cast<size_t>(track.next - payload_),
                      "a symbol of " + std::to_string(value) + " is beyond 1023 in size");
  }
  return static_cast<int16_t>(value);
}

void TrackDecoder::residuals(const uint16_t* lane, size_t sites, size_t channels, const Residuals& p, int16_t* r) {
  const TableView& view = tables_.view();
  for (size_t i = 0; i < sites; ++i) {
    Track& track = tracks_[lane[i]];
    for (size_t at = i * channels; at < (i + 1) * channels; ++at) {
      const uint32_t slot = track.x & (kSlots - 1);
      const Slot entry = view.y_slots[size_t{p.k[at]} * kYSlots + slot / 2];
      const uint32_t f = frequency(entry), d = slot - first_slot(entry), size = entry >> 24;
      track.x = f * (track.x >> kTableBits) + (size == 0 ? d : d >> 1);
      refill(track);
      const bool negative = size != 0 && d % 2 != 0;
      int64_t value = size;
      if (size == kEscapeSize) value = int64_t{view.y_escape[p.k[at]]} + escape(track);
      r[at] = fit(track, negative ? -value : value);
    }
  }
}

void TrackDecoder::mixture(const uint16_t* lane, size_t sites, size_t channels, const Mixtures& p, int16_t* y) {
  for (size_t i = 0; i < sites; ++i) {
    Track& track = tracks_[lane[i]];
    for (size_t c = 0; c < channels; ++c) {
      const size_t at = i * static_cast<size_t>(p.count) * channels + c;
      const auto e = mixtures_.element(p.mean + at, p.k + at, p.share + at, p.count, channels);
      const uint32_t slot = track.x & ((1u << kMixtureBits) - 1);
      // start(low) <= slot < start(high) bracket the symbol; the first guess is the first part's mean.
      int low = e.low, high = e.high + 1;
      uint32_t at_low = e.start(low), at_high = e.start(high);
      const uint32_t first = at_low, last = at_high;
      int64_t value;
      if (slot < first || slot >= last) {
        const uint32_t begin = slot < first ? 0 : last;
        const uint32_t f = (slot < first ? first : 1u << kMixtureBits) - begin;
        track.x = f * (track.x >> kMixtureBits) + slot - begin;
        refill(track);
        const int64_t u = escape(track);
        value = slot < first ? e.low - 1 - u : e.high + 1 + u;
      } else {
        int guess = (e.mean[0] + 8) >> 4;
        for (int step = 1; high - low > 1; step *= 2) {
          if (guess <= low || guess >= high) guess = low + (high - low) / 2;
          const uint32_t start = e.start(guess);
          if (start <= slot) {
            low = guess;
            at_low = start;
            guess += step;
          } else {
            high = guess;
            at_high = start;
            guess -= step;
          }
        }
        value = low;
        track.x = (at_high - at_low) * (track.x >> kMixtureBits) + slot - at_low;
        refill(track);
      }
      y[i * channels + c] = fit(track, value);
    }
  }
}

void TrackDecoder::z(int16_t* z, size_t n) {
  const TableView& view = tables_.view();
  Track& track = tracks_[0];
  for (size_t i = 0; i < n; ++i) {
    const size_t c = i % view.channels;
    const uint32_t slot = track.x & (kSlots - 1);
    const Slot entry = view.z_slots[c * kSlots + slot];
    track.x = frequency(entry) * (track.x >> kTableBits) + slot - first_slot(entry);
    refill(track);
    int64_t value = view.by_channel.low[c] + static_cast<int>(entry >> 24);
    if (entry >> 24 == kEscapeSize) {
      const int64_t u = escape(track), low = view.by_channel.low[c];
      value = u % 2 ? low - 1 - u / 2 : low + view.by_channel.escape[c] + u / 2;
    }
    z[i] = fit(track, value);
  }
}

void TrackDecoder::finish() const {
  for (const Track& track : tracks_) {
    const size_t at = static_cast<size_t>(track.next - payload_);
    if (track.next != track.end) {
      throw StreamError("tracks", at, std::to_string(track.end - track.next) + " bytes of a track are left over");
    }
    if (track.x != kTrackLow) {
      throw StreamError("end state", at, "a track ends at " + std::to_string(track.x) + ", not at 2^23");
    }
  }
}

}  // namespace ckbd
