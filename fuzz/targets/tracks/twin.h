// A decoder of payloads of version 2 from docs/format.md, section 9, alone: no table but the model's, and every
// search begins at the first there is.
#pragma once

#include "tracks/header.h"

namespace ckbd::fuzz {

// Why a payload is refused, and where; or "caller", if it is not the payload's fault.
struct Refusal {
  std::string field;
  size_t offset = 0;
};

class Twin {
 public:
  Twin(const Models& models, const Exact<uint8_t>& payload, size_t tracks)
      : tables_(*models.integers), mixtures_(*models.mixture_integers), payload_(payload), tracks_(tracks) {
    size_t at = 0, sum = 0;
    for (size_t t = 0; t + 1 < tracks; ++t) {
      const size_t begin = at;
      sum += tracks_[t].size = length(at);
      if (sum > payload.size()) throw Refusal{"tracks", begin};
    }
    if (at + sum > payload.size()) throw Refusal{"tracks", at};
    tracks_[tracks - 1].size = payload.size() - at - sum;
    for (Track& track : tracks_) {
      if (track.size < 4) throw Refusal{"tracks", at};
      for (size_t i = 0; i < 4; ++i) track.x += uint32_t{payload[at + i]} << 8 * i;
      if (track.x < kLow || track.x > INT32_MAX) throw Refusal{"tracks", at};
      track.at = at + 4;
      track.end = at += track.size;
    }
  }

  int16_t z(size_t channel) {
    const int16_t* const freq = &tables_.z_freq[channel * tables_.z_columns];
    const int64_t low = tables_.z_low[channel], size = tables_.z_size[channel];
    const int64_t number = take(0, 12, [&](uint32_t slot) {
      uint32_t first = 0, i = 0;
      while (slot >= first + static_cast<uint32_t>(freq[i])) first += static_cast<uint32_t>(freq[i++]);
      return Found{i, static_cast<uint32_t>(freq[i]), slot - first};
    });
    if (number < size) return within(0, low + number);
    const int64_t u = escape_value(0);
    return within(0, u % 2 == 0 ? low + size + u / 2 : low - 1 - (u - 1) / 2);
  }

  int16_t residual(size_t t, size_t k) {
    check(t);
    const int16_t* const freq = &tables_.y_freq[k * tables_.y_columns];
    const int64_t escape = tables_.y_max[k] + 1;
    const int64_t r = take(t, 12, [&](uint32_t slot) {
      uint32_t m = 0, first = 0;
      const auto width = [&] { return static_cast<uint32_t>(freq[m]) * (m == 0 ? 1 : 2); };
      while (slot >= first + width()) {
        first += width();
        ++m;
      }
      const uint32_t d = slot - first, f = static_cast<uint32_t>(freq[m]);
      if (m == 0) return Found{0, f, d};
      return Found{d % 2 == 1 ? -int64_t{m} : int64_t{m}, f, d >> 1};
    });
    if (r == escape) return within(t, escape + escape_value(t));
    if (r == -escape) return within(t, -escape - escape_value(t));
    return within(t, r);
  }

  // One element's part j is at j * stride. `e`, if there is one, is what the coder makes of the same element.
  int16_t mixture(size_t t, const int16_t* mean, const uint8_t* k, const uint8_t* share, int parts, size_t stride,
                  const ckbd::MixtureTables::Element* e) {
    check(t);
    std::vector<int64_t> means, ks, weights;
    int64_t low = INT64_MAX, high = INT64_MIN, total = 0;
    for (size_t at = 0; at < static_cast<size_t>(parts) * stride; at += stride) {
      means.push_back(mean[at]);
      ks.push_back(k[at] % 64);
      weights.push_back(mixtures_.share[share[at] % 64]);
      const int64_t centre = (means.back() + 8) >> 4, radius = mixtures_.radius[static_cast<size_t>(ks.back())];
      low = std::min(low, centre - radius);
      high = std::max(high, centre + radius);
      total += weights.back();
    }
    // Means beyond those that there may be would leave nothing between the two.
    low = std::clamp<int64_t>(low, -1023, 1023);
    high = std::clamp<int64_t>(high, -1023, 1023);
    const auto start = [&](int64_t s) {
      int64_t mass = 0;
      for (size_t j = 0; j < means.size(); ++j) {
        const int64_t d = 16 * s - 8 - means[j], size = d < 0 ? -d : d;
        const int64_t inverse = mixtures_.inverse[static_cast<size_t>(ks[j])];
        const int64_t u = std::min<int64_t>(8192, (size * inverse + 32768) >> 16);
        const int64_t up = mixtures_.cdf[static_cast<size_t>(u)];
        mass += weights[j] * (d >= 0 ? up : (1 << 24) - up);
      }
      return static_cast<uint32_t>(1 + (s - low) + mass * (65536 - (high - low + 3)) / ((int64_t{1} << 24) * total));
    };
    if (e != nullptr) check_element(*e, low, high, start);
    const int64_t s = take(t, 16, [&](uint32_t slot) {
      const uint32_t first = start(low), last = start(high + 1);
      if (slot < first) return Found{low - 1, first, slot};
      if (slot >= last) return Found{high + 1, 65536 - last, slot - last};
      uint32_t here = first, next = start(low + 1);
      int64_t symbol = low;
      while (slot >= next) {
        here = next;
        next = start(++symbol + 1);
      }
      return Found{symbol, next - here, slot - here};
    });
    if (s < low) return within(t, low - 1 - escape_value(t));
    if (s > high) return within(t, high + 1 + escape_value(t));
    return within(t, s);
  }

  void finish() const {
    for (const Track& track : tracks_) {
      if (track.at != track.end) throw Refusal{"tracks", track.at};
      if (track.x != kLow) throw Refusal{"end state", track.at};
    }
  }

 private:
  static constexpr uint32_t kLow = 1 << 23;
  struct Track {
    uint32_t x = 0;
    size_t size = 0, at = 0, end = 0;
  };
  struct Found {
    int64_t symbol;
    uint32_t f, bias;
  };

  size_t length(size_t& at) const {
    const size_t begin = at;
    size_t value = 0;
    for (int i = 0; i < 5; ++i) {
      if (at == payload_.size()) throw Refusal{"tracks", begin};
      const size_t byte = payload_[at++];
      value += (byte & 127) << 7 * i;
      if (byte >= 128) continue;
      if (byte == 0 && i > 0) throw Refusal{"tracks", begin};
      return value;
    }
    // The payload may end where the sixth byte would begin: either way it is this length.
    throw Refusal{"tracks", begin};
  }

  void check(size_t t) const {
    if (t >= tracks_.size()) throw Refusal{"caller"};
  }

  template <class Find>
  int64_t take(size_t t, int bits, Find find) {
    Track& track = tracks_[t];
    const Found found = find(track.x % (1u << bits));
    if (found.f == 0 || found.bias >= found.f) fail("a symbol owns no slots");
    track.x = found.f * (track.x >> bits) + found.bias;
    while (track.x < kLow) {
      if (track.at == track.end) throw Refusal{"symbols", track.at};
      track.x = track.x << 8 | payload_[track.at++];
    }
    return found.symbol;
  }

  int64_t escape_value(size_t t) {
    const auto itself = [](uint32_t slot) { return Found{slot, 1, 0}; };
    const int64_t n = take(t, 4, itself);
    return (int64_t{1} << n) + take(t, static_cast<int>(n), itself) - 1;
  }

  int16_t within(size_t t, int64_t symbol) const {
    if (symbol < -1023 || symbol > 1023) throw Refusal{"symbols", tracks_[t].at};
    return static_cast<int16_t>(symbol);
  }

  // That the coder has the same intervals, each of a slot at least, and one more on either side.
  template <class Start>
  void check_element(const ckbd::MixtureTables::Element& e, int64_t low, int64_t high, Start start) const {
    if (e.low != low || e.high != high) fail("an element has other ends");
    uint32_t before = 0;
    for (int s = e.low; s <= e.high + 1; ++s) {
      const uint32_t here = e.start(s);
      if (here <= before || here >= 65536) fail("symbol ", std::to_string(s - 1), " owns no slots");
      if (here != start(s)) fail("symbol ", std::to_string(s), " begins elsewhere");
      before = here;
    }
  }

  const Integers& tables_;
  const MixtureIntegers& mixtures_;
  const Exact<uint8_t>& payload_;
  std::vector<Track> tracks_;
};

}  // namespace ckbd::fuzz
