// What csrc/bind/rans_tracks.cpp calls, after its checks. Tables are copied there, all else is read where it lies.
#pragma once

#include "rans.h"
#include "tracks/tracks.h"

namespace ckbd::fuzz {

inline std::unique_ptr<ckbd::MixtureTables> make_mixture_tables() {
  std::vector<int32_t> cdf, inverse, share;
  std::vector<int16_t> radius;
  for (int32_t u = 0; u < static_cast<int32_t>(ckbd::kCdf); ++u) cdf.push_back((1 << 23) + u * 1024);
  for (int32_t k = 0; k < ckbd::kScales; ++k) {
    inverse.push_back(1 << (30 - k % 31));
    share.push_back(1 + 1040 * k);
    radius.push_back(static_cast<int16_t>(1 + 16 * k));
  }
  return std::make_unique<ckbd::MixtureTables>(cdf.data(), inverse.data(), share.data(), radius.data());
}

inline std::unique_ptr<ckbd::MixtureTables> mixture_tables;

struct Part {
  size_t sites, channels;
  int count;  // 0: residuals
  Exact<uint16_t> track;
  Exact<uint8_t> k, share;
  Exact<int16_t> mean, y, out;

  template <class Coder, class Symbols>
  void run(Coder& coder, Symbols* symbols) const {
    if (count == 0) {
      coder.residuals(track.data(), sites, channels, {k.data()}, symbols);
    } else {
      coder.mixture(track.data(), sites, channels, {mean.data(), k.data(), share.data(), count}, symbols);
    }
  }
};

inline Part any_part(Caller& caller, size_t tracks) {
  const size_t sites = caller.between(0, 60), channels = caller.between(1, 9), parts = caller.random.below(4);
  const size_t all = sites * channels, elements = all * std::max<size_t>(parts, 1);
  Part part{sites, channels, static_cast<int>(parts), {sites, 1, 0}, {elements, 1, 0}, {elements, 1, 0},
            {elements, 1, 0}, {all, 1, 0}, {all, 1, 5}};
  for (size_t i = 0; i < sites; ++i) part.track[i] = static_cast<uint16_t>(caller.random.below(tracks));
  const bool wild = caller.one_in(3);
  for (size_t i = 0; i < elements; ++i) {
    part.k[i] = static_cast<uint8_t>(caller.random.below(ckbd::kScales));
    part.share[i] = static_cast<uint8_t>(caller.random.below(ckbd::kScales));
    const int most = wild ? 16383 : 200;
    part.mean[i] = static_cast<int16_t>(static_cast<int>(caller.random.below(2 * static_cast<size_t>(most))) - most);
  }
  for (size_t i = 0; i < all; ++i) {
    const int most = caller.one_in(10) ? ckbd::kSymbolMax : 12;
    part.y[i] = static_cast<int16_t>(static_cast<int>(caller.random.below(2 * static_cast<size_t>(most) + 1)) - most);
  }
  return part;
}

inline std::vector<uint8_t> encode_parts(const Tables& tables, size_t tracks, const std::vector<Part>& parts,
                                         const Exact<int16_t>& z) {
  ckbd::TrackEncoder encoder(tables, *mixture_tables, tracks);
  for (size_t p = parts.size(); p-- > 0;) parts[p].run(encoder, parts[p].y.data());
  encoder.z(z.data(), z.size());
  return encoder.finish();
}

inline void code_tracks(Caller& caller) {
  const Tables& tables = any_tables(caller);
  const size_t tracks = caller.one_in(4) ? caller.between(1, 300) : caller.between(1, 4);
  std::vector<Part> parts;
  for (size_t left = caller.between(1, 3); left > 0; --left) parts.push_back(any_part(caller, tracks));
  Exact<int16_t> z(caller.random.below(5) * tables.channels(), 1, 0), z_out(z.size(), 1, 5);
  for (size_t i = 0; i < z.size(); ++i) {
    const size_t most = caller.one_in(10) ? ckbd::kSymbolMax : 12;
    z[i] = static_cast<int16_t>(caller.random.below(2 * most + 1)) - static_cast<int16_t>(most);
  }
  const Exact<uint8_t> payload(encode_parts(tables, tracks, parts, z), 1);

  const bool encoding = caller.one_in(2);
  caller.share(encoding ? z : z_out);
  if (!encoding) caller.share(payload);
  for (const Part& part : parts) {
    caller.share(part.track);
    caller.share(part.k);
    caller.share(part.share);
    caller.share(part.mean);
    caller.share(encoding ? part.y : part.out);
  }
  if (encoding) {
    std::vector<uint8_t> made;
    caller.begin();
    const bool done = caller.attempt([&] { made = encode_parts(tables, tracks, parts, z); });
    caller.end();
    if (done) caller.result(std::equal(made.begin(), made.end(), payload.data(), payload.data() + payload.size()));
    return;
  }
  caller.begin();
  caller.attempt([&] {
    ckbd::TrackDecoder decoder(tables, *mixture_tables, payload.data(), payload.size(), tracks);
    decoder.z(z_out.data(), z_out.size());
    for (const Part& part : parts) part.run(decoder, part.out.data());
    decoder.finish();
  });
  caller.end();
  caller.result(z_out, z);
  for (const Part& part : parts) caller.result(part.out, part.y);
}

}  // namespace ckbd::fuzz
