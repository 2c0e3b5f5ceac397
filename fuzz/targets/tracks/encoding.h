// Symbols made of an input's bytes, and the payload that they are encoded to.
#pragma once

#include "tracks/decoding.h"

namespace ckbd::fuzz {

// A symbol from low to high, one of those next to the ends, or another; near the middle most of all.
inline int16_t make_symbol(const Header& header, Bytes& source, int middle, int low, int high) {
  const int kind = source.next();
  constexpr int kBeyond[] = {INT16_MIN, INT16_MAX, -1024, 1024};
  int symbol = middle;
  if (kind >= 96) symbol = middle + kind % 5 - 2;
  if (kind >= 160) symbol = low + (source.word() & 0x7FFF) % std::max(1, high - low + 1);
  if (kind >= 192) symbol = (kind & 1 ? low : high) + kind / 2 % 5 - 2;
  if (kind >= 224) symbol = source.word() % 1024;
  if (kind >= 248) symbol = kind & 1 ? -1023 : 1023;
  if (header.beyond && kind >= 252) symbol = kind == 255 ? source.word() : kBeyond[source.next() % 4];
  if (header.beyond) return static_cast<int16_t>(symbol);
  return static_cast<int16_t>(std::clamp(symbol, -1023, 1023));
}

inline std::vector<Exact<int16_t>> make_symbols(const Header& header, const Job& job, Bytes& source) {
  const ckbd::TableView& view = job.models.tables->view();
  std::vector<Exact<int16_t>> all;
  all.emplace_back(job.n_z, job.lead, 0);
  for (size_t i = 0; i < job.n_z; ++i) {
    const size_t c = i % view.channels;
    const int low = view.by_channel.low[c], high = low + view.by_channel.escape[c] - 1;
    all[0][i] = make_symbol(header, source, (low + high) / 2, low, high);
  }
  for (const Arguments& a : job.all) {
    const Shape& shape = a.shape;
    Exact<int16_t>& to = all.emplace_back(shape.elements(), job.lead, 0);
    for (size_t at = 0; at < shape.elements(); ++at) {
      if (shape.parts == 0) {
        const int escape = view.y_escape[ckbd::row_of(a.k[at])];
        to[at] = make_symbol(header, source, 0, -escape, escape);
        continue;
      }
      const size_t site = at / shape.channels, parts = static_cast<size_t>(shape.parts);
      const size_t first = site * parts * shape.channels + at % shape.channels;
      const auto e = job.models.mixtures->element(a.mean.data() + first, a.k.data() + first, a.share.data() + first,
                                                  shape.parts, shape.channels);
      to[at] = make_symbol(header, source, (e.mean[0] + 8) >> 4, e.low, e.high);
    }
  }
  return all;
}

// What bits() says is what the payload holds: log2 of each last state above 2^23, and its bytes. A symbol of f slots
// may cost 2^-7 / f of a bit more or less, and is up to three.
inline void check_bits(const Job& job, const std::vector<uint8_t>& payload, double bits) {
  size_t at = 0, symbols = job.n_z;
  for (size_t t = 0; t + 1 < job.tracks; ++t, ++at) {
    while (payload[at] >= 128) ++at;
  }
  double held = 8.0 * static_cast<double>(payload.size() - at - 4 * job.tracks);
  if (job.tracks == 1) {
    uint32_t x = 0;
    for (size_t i = 0; i < 4; ++i) x |= uint32_t{payload[i]} << 8 * i;
    held += std::log2(x) - 23;
  }
  for (const Arguments& a : job.all) symbols += a.shape.elements();
  const double uncertain = job.tracks == 1 ? 0 : 8.0 * static_cast<double>(job.tracks);
  if (bits < held - 0.03 * static_cast<double>(symbols) - 0.01 ||
      bits > held + uncertain + 0.03 * static_cast<double>(symbols) + 0.01) {
    fail("bits() says ", std::to_string(bits), ", the payload has ", std::to_string(held));
  }
}

// Parts last first, and z at the end. Empty: a track that there is not.
inline std::vector<uint8_t> encode(const Job& job, const std::vector<Exact<int16_t>>& symbols, Calls calls) {
  ckbd::TrackEncoder encoder(*job.models.tables, *job.models.mixtures, job.tracks);
  const auto put = [&](const Arguments& a, size_t first, size_t last, const int16_t* from) {
    const size_t channels = a.shape.channels, at = first * channels * static_cast<size_t>(std::max(a.shape.parts, 1));
    const uint16_t* const track = a.track.data() + first;
    if (a.shape.parts == 0) {
      encoder.residuals(track, last - first, channels, {a.k.data() + at}, from + first * channels);
    } else {
      const ckbd::Mixtures p{a.mean.data() + at, a.k.data() + at, a.share.data() + at, a.shape.parts};
      encoder.mixture(track, last - first, channels, p, from + first * channels);
    }
  };
  try {
    for (size_t p = job.all.size(); p-- > 0;) {
      const Arguments& a = job.all[p];
      const size_t half = calls == Calls::kTwo ? job.split % (a.shape.sites + 1) : a.shape.sites;
      if (half < a.shape.sites) put(a, half, a.shape.sites, symbols[p + 1].data());
      put(a, 0, half, symbols[p + 1].data());
    }
  } catch (const std::runtime_error& error) {
    if (error.what() != std::string("track: changed during the call")) fail("thrown: ", error.what());
    return {};
  }
  encoder.z(symbols[0].data(), job.n_z);
  std::vector<uint8_t> payload = encoder.finish();
  check_bits(job, payload, encoder.bits());
  return payload;
}

}  // namespace ckbd::fuzz
