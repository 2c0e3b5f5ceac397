// A payload decoded in every way there is, and by the twin.
#pragma once

#include <cmath>
#include <numeric>

#include "tracks/twin.h"

namespace ckbd::fuzz {

struct Job {
  const Models& models;
  size_t tracks, n_z, split;
  std::vector<Arguments> all;
  size_t lead;
};

// What came of it: z and then the symbols of each part, of which so many were decoded. `place` is the beginning of
// what was said: the field and the offset.
struct Outcome {
  std::vector<Exact<int16_t>> symbols;
  size_t good = 0;
  std::string place, error;
  Outcome(const Job& job, int16_t fill) {
    symbols.emplace_back(job.n_z, job.lead, fill);
    for (const Arguments& one : job.all) symbols.emplace_back(one.shape.elements(), job.lead, fill);
  }
};

inline std::string place_of(const std::string& field, size_t offset) {
  return field == "caller" ? field : field + " at " + std::to_string(offset);
}

// Runs what decodes and takes down what it throws: of a stream, or of a track that there is not.
template <class Work>
void attempt(Outcome& out, Work work) {
  try {
    work();
  } catch (const Refusal& refusal) {
    out.place = place_of(refusal.field, refusal.offset);
  } catch (const ckbd::StreamError& error) {
    out.place = place_of(error.field, error.offset);
    out.error = error.what();
    if (out.error.empty()) fail("a refusal without words");
  } catch (const std::runtime_error& error) {
    out.place = "caller";
    out.error = error.what();
    if (out.error != "track: changed during the call") fail("thrown: ", out.error);
  }
}

inline Outcome decode_by_twin(const Job& job, const Exact<uint8_t>& payload) {
  Outcome out(job, 0);
  attempt(out, [&] {
    Twin twin(job.models, payload, job.tracks);
    const auto put = [&](size_t number, size_t at, int16_t symbol) {
      out.symbols[number][at] = symbol;
      ++out.good;
    };
    for (size_t i = 0; i < job.n_z; ++i) put(0, i, twin.z(i % job.models.integers->channels));
    bool looked = false;
    for (size_t p = 0; p < job.all.size(); ++p) {
      const Arguments& a = job.all[p];
      const size_t channels = a.shape.channels;
      for (size_t at = 0; at < a.shape.elements(); ++at) {
        const size_t site = at / channels;
        if (a.shape.parts == 0) {
          put(p + 1, at, twin.residual(a.track[site], a.k[at] % 64));
          continue;
        }
        const size_t first = site * channels * static_cast<size_t>(a.shape.parts) + at % channels;
        const auto *const mean = a.mean.data() + first;
        const auto *const k = a.k.data() + first, *const share = a.share.data() + first;
        const auto e = job.models.mixtures->element(mean, k, share, a.shape.parts, channels);
        put(p + 1, at,
            twin.mixture(a.track[site], mean, k, share, a.shape.parts, channels,
                         std::exchange(looked, true) ? nullptr : &e));
      }
    }
    twin.finish();
  });
  return out;
}

// How the sites of a part are handed over.
enum class Calls { kOne, kTwo, kSiteBySite, kTrackByTrack };

inline void decode_sites(ckbd::TrackDecoder& decoder, const Arguments& a, size_t first, size_t last, int16_t* out) {
  const size_t channels = a.shape.channels, at = first * channels * static_cast<size_t>(std::max(a.shape.parts, 1));
  const uint16_t* const track = a.track.data() + first;
  if (a.shape.parts == 0) {
    decoder.residuals(track, last - first, channels, {a.k.data() + at}, out + first * channels);
  } else {
    const ckbd::Mixtures p{a.mean.data() + at, a.k.data() + at, a.share.data() + at, a.shape.parts};
    decoder.mixture(track, last - first, channels, p, out + first * channels);
  }
}

// The sites of a part, those of track 0 first, and so on: within a track they stay in order.
inline std::vector<size_t> by_track(const Arguments& a) {
  std::vector<size_t> order(a.shape.sites);
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t i, size_t j) { return a.track[i] < a.track[j]; });
  return order;
}

inline Outcome decode(const Job& job, const Exact<uint8_t>& payload, Calls calls, int16_t fill) {
  Outcome out(job, fill);
  attempt(out, [&] {
    ckbd::TrackDecoder decoder(*job.models.tables, *job.models.mixtures, payload.data(), payload.size(), job.tracks);
    decoder.z(out.symbols[0].data(), job.n_z);
    for (size_t p = 0; p < job.all.size(); ++p) {
      const Arguments& a = job.all[p];
      int16_t* const to = out.symbols[p + 1].data();
      const size_t sites = a.shape.sites, half = calls == Calls::kTwo ? job.split % (sites + 1) : 0;
      if (calls == Calls::kSiteBySite) {
        for (size_t i = 0; i < sites; ++i) decode_sites(decoder, a, i, i + 1, to);
      } else if (calls == Calls::kTrackByTrack) {
        for (const size_t i : by_track(a)) decode_sites(decoder, a, i, i + 1, to);
      } else {
        if (half > 0) decode_sites(decoder, a, 0, half, to);
        decode_sites(decoder, a, half, sites, to);
      }
    }
    decoder.finish();
  });
  for (const auto& one : out.symbols) one.check_lead();
  return out;
}

// The first `good` symbols of both, counted through all arrays.
inline void check_symbols(const std::string& what, const Outcome& got, const Outcome& expected, size_t good) {
  for (size_t p = 0; p < got.symbols.size(); ++p) {
    const size_t n = std::min(good, got.symbols[p].size());
    good -= n;
    for (size_t i = 0; i < n; ++i) {
      const int16_t a = got.symbols[p][i], b = expected.symbols[p][i];
      if (a == b) continue;
      fail(what, ": ", p == 0 ? "z" : "part " + std::to_string(p - 1), "[", std::to_string(i), "] is ",
           std::to_string(a), ", expected ", std::to_string(b));
    }
  }
}

inline void check_same(const std::string& what, const Outcome& got, const Outcome& expected) {
  if (got.place != expected.place) {
    fail(what, ": '", got.place, "' (", got.error, "), expected '", expected.place, "'");
  }
  check_symbols(what, got, expected, expected.good);
}

// Returns what the twin found, with the decoder's words.
inline Outcome decode_everywhere(const Job& job, const Exact<uint8_t>& payload) {
  Outcome expected = decode_by_twin(job, payload);
  const Outcome one = decode(job, payload, Calls::kOne, 0x1111);
  check_same("in one call", one, expected);
  expected.error = one.error;
  const std::pair<Calls, const char*> others[] = {{Calls::kOne, "again"},
                                                  {Calls::kTwo, "in two calls"},
                                                  {Calls::kSiteBySite, "site by site"}};
  int16_t fill = 0x2222;
  for (const auto& [calls, name] : others) {
    const Outcome other = decode(job, payload, calls, fill++);
    check_same(name, other, expected);
    if (other.error != one.error) fail(name, ": '", other.error, "', expected '", one.error, "'");
  }
  // Another order of tracks finds other damage first, but the same symbols, and damage that remains to the end.
  const Outcome sorted = decode(job, payload, Calls::kTrackByTrack, fill);
  if (one.place.empty() != sorted.place.empty()) fail("track by track: '", sorted.place, "', not '", one.place, "'");
  if (one.place.empty()) check_symbols("track by track", sorted, expected, expected.good);
  return expected;
}

}  // namespace ckbd::fuzz
