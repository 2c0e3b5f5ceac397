// Decoding, of payloads that may come from anyone.
#include <string>

#include "tracks/tracks.h"

namespace ckbd {

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
    Track& track = tracks_[track_of(lane + i, tracks_.size())];
    for (size_t at = i * channels; at < (i + 1) * channels; ++at) {
      const uint32_t slot = track.x & (kSlots - 1);
      const Slot entry = view.y_slots[row_of(p.k[at]) * kYSlots + slot / 2];
      const uint32_t f = frequency(entry), d = slot - first_slot(entry), size = entry >> 24;
      track.x = f * (track.x >> kTableBits) + (size == 0 ? d : d >> 1);
      refill(track);
      const bool negative = size != 0 && d % 2 != 0;
      int64_t value = size;
      if (size == kEscapeSize) value = int64_t{view.y_escape[row_of(p.k[at])]} + escape(track);
      r[at] = fit(track, negative ? -value : value);
    }
  }
}

void TrackDecoder::mixture(const uint16_t* lane, size_t sites, size_t channels, const Mixtures& p, int16_t* y) {
  for (size_t i = 0; i < sites; ++i) {
    Track& track = tracks_[track_of(lane + i, tracks_.size())];
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
