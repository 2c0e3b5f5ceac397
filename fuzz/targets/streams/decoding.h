// Streams decoded together, alone, and by hand.
#pragma once

#include "rans/dispatch.h"
#include "streams/making.h"

namespace ckbd::fuzz {

constexpr size_t kMostSymbols = size_t{1} << 20;  // of all streams; of more only what is said of them is compared

// What came of one stream.
struct Result {
  std::string place, reason;  // of the damage
  bool opened = false, complete = false;  // complete: it was not left for its size
  std::vector<int16_t> z;
  std::vector<std::vector<int16_t>> r;
};

struct Batch {
  const Header& header;
  const Tables& tables;
  ckbd::Expected expected;
  std::vector<const Fields*> fields;
  std::vector<const Exact<uint8_t>*> files;
};

inline std::string place_of(const std::string& field, size_t offset) {
  return field + " at " + std::to_string(offset);
}

inline void note_damage(const ckbd::OpenStreams& streams, std::vector<Result>& results) {
  for (size_t i = 0; i < results.size(); ++i) {
    const auto& damage = streams.all()[i].damage;
    if (!damage) continue;
    if (damage->reason.empty()) fail("a refusal without words");
    const std::string place = place_of(damage->field, damage->offset);
    if (!results[i].place.empty() && (results[i].place != place || results[i].reason != damage->reason)) {
      fail("damage that was another before");
    }
    results[i].place = place;
    results[i].reason = damage->reason;
  }
}

// One table index too large, of a stream that is still decoded: refused before anything is.
inline void check_refused(ckbd::OpenStreams& streams, Exact<uint8_t>& k, const Exact<int8_t>& r, size_t threads) {
  for (const ckbd::OpenStream& one : streams.all()) {
    if (one.decoder == nullptr || one.damage || one.r_size == 0) continue;
    const size_t at = one.r_at + one.r_size / 2;
    const uint8_t right = std::exchange(k[at], static_cast<uint8_t>(64 + 3 * k[at]));
    try {
      streams.phase(k.data(), r.data(), threads);
      fail("a table index of 64 or more is taken");
    } catch (const ckbd::BadIndex& bad) {
      if (bad.at != at || bad.k != k[at]) fail("another table index is refused than the wrong one");
    }
    k[at] = right;
    return;
  }
}

// int8, and those that it does not hold, in order.
inline void take_residuals(const ckbd::OpenStream& one, size_t r_at, size_t n, const Exact<int8_t>& r,
                           Result& result) {
  std::vector<int16_t>& all = result.r.emplace_back(r.data() + r_at, r.data() + r_at + n);
  if (one.wide_at.size() != one.wide_value.size()) fail("places of residuals, and others of them");
  int64_t before = -1;
  for (size_t i = 0; i < one.wide_at.size(); ++i) {
    const int64_t at = one.wide_at[i] - static_cast<int64_t>(r_at);
    const int16_t value = one.wide_value[i];
    if (at <= before || at >= static_cast<int64_t>(n)) fail("a place that is not of its stream, or twice");
    if (all[static_cast<size_t>(at)] != 0) fail("a residual that is in both lists");
    if (value >= INT8_MIN && value <= INT8_MAX) fail("a residual that int8 holds is on the list of the others");
    all[static_cast<size_t>(at)] = value;
    before = at;
  }
}

inline std::vector<Result> decode_batch(const Batch& batch, const ckbd::Coder& coder, size_t threads, int8_t fill,
                                        bool bad_index) {
  std::vector<Result> results(batch.files.size());
  std::vector<ckbd::Bytes> bytes;
  for (const Exact<uint8_t>* file : batch.files) bytes.push_back({file->data(), file->size()});
  ckbd::OpenStreams streams(coder, batch.tables, bytes, batch.expected, threads);
  streams.settle();
  note_damage(streams, results);
  for (size_t i = 0; i < results.size(); ++i) results[i].opened = streams.all()[i].decoder != nullptr;
  if (streams.z_size() > kMostSymbols) return results;
  const size_t lead = batch.header.lead;
  {
    const Exact<int16_t> z(streams.z_size(), lead, fill);
    streams.z(z.data(), threads);
    streams.settle();
    z.check_lead();
    note_damage(streams, results);
    for (size_t i = 0; i < results.size(); ++i) {
      const ckbd::OpenStream& one = streams.all()[i];
      if (one.decoder) results[i].z.assign(z.data() + one.z_at, z.data() + one.z_at + one.z_size);
    }
  }
  for (size_t p = 0; p < 2 * batch.expected.channels.size(); ++p) {
    if (streams.phase_size() > kMostSymbols) return results;
    Exact<uint8_t> k(streams.phase_size(), lead, 255);  // of damaged streams nobody asks
    const Exact<int8_t> r(streams.phase_size(), lead, fill);
    for (size_t i = 0; i < results.size(); ++i) {
      const ckbd::OpenStream& one = streams.all()[i];
      if (one.decoder && !one.damage) make_indices(*batch.fields[i], p, k.data() + one.r_at, one.r_size);
    }
    // Where its part lies is of this phase, not of the next.
    std::vector<std::pair<size_t, size_t>> parts;
    for (const ckbd::OpenStream& one : streams.all()) parts.emplace_back(one.r_at, one.r_size);
    if (bad_index) check_refused(streams, k, r, threads);
    streams.phase(k.data(), r.data(), threads);
    streams.settle();
    r.check_lead();
    note_damage(streams, results);
    for (size_t i = 0; i < results.size(); ++i) {
      const ckbd::OpenStream& one = streams.all()[i];
      if (one.decoder) take_residuals(one, parts[i].first, parts[i].second, r, results[i]);
    }
  }
  streams.finish();
  streams.settle();
  note_damage(streams, results);
  for (Result& one : results) one.complete = true;
  return results;
}

// The same of one file without any of that: the plain reader, and the decoder of its payload.
inline Result decode_by_hand(const Header& header, const Tables& tables, const Fields& fields,
                             const Exact<uint8_t>& bytes) {
  Result out;
  size_t payload_at = 0;
  out.complete = true;
  try {
    const PlainFile file(bytes, header.max_pixels);
    file.check_fits(tables);
    payload_at = file.payload_at;
    const size_t phases = 2 * header.channels.size();
    ckbd::PayloadDecoder decoder(*ckbd::coders()[0], tables, bytes.data() + payload_at, file.payload_size,
                                 file.coder % 8, file.coder / 8, static_cast<uint32_t>(file.tail),
                                 static_cast<int>(phases));
    out.opened = true;
    const auto require = [&](const auto& all, int largest) {
      for (const int one : all) {
        if (one < -largest || one > largest) throw Refusal{"payload", payload_at};
      }
    };
    const uint64_t sites = file.patches();
    const size_t widest = *std::max_element(header.channels.begin(), header.channels.end());
    if (sites * std::max(tables.channels(), 8 * widest) > kMostSymbols) {
      out.complete = false;
      return out;
    }
    // Zeros, for what is not decoded.
    std::vector<int16_t> z(sites * tables.channels());
    out.z = z;
    for (size_t p = 0; p < phases; ++p) out.r.emplace_back(sites * 8 * header.channels[p / 2]);
    decoder.z(z.data(), z.size());
    require(z, 127);
    out.z = z;
    for (size_t p = 0; p < phases; ++p) {
      const size_t n = out.r[p].size();
      const Exact<uint8_t> k(n, 0, 0);
      make_indices(fields, p, k.data(), n);
      std::vector<int16_t> r(n);
      ckbd::PhaseTask<int16_t> task{&decoder, k.data(), r.data(), n};
      ckbd::decode_phases(&task, 1);
      if (task.error) std::rethrow_exception(task.error);
      require(r, 1023);
      out.r[p] = r;
    }
    decoder.finish();
  } catch (const Refusal& refusal) {
    out.place = place_of(refusal.field, refusal.offset);
  } catch (const ckbd::StreamError& error) {
    out.place = place_of(error.field, payload_at + error.offset);
    out.reason = error.what();
  }
  return out;
}

inline void check_same(const std::string& what, const Result& got, const Result& expected) {
  if (got.opened != expected.opened) fail(what, ": opened, and not opened");
  if (got.opened && !(got.complete && expected.complete)) return;
  if (got.place != expected.place) fail(what, ": '", got.place, "', expected '", expected.place, "'");
  // The plain reader has no words.
  if (!got.reason.empty() && !expected.reason.empty() && got.reason != expected.reason) {
    fail(what, ": '", got.reason, "', expected '", expected.reason, "'");
  }
  if (got.z != expected.z) fail(what, ": another z");
  for (size_t p = 0; p < std::max(got.r.size(), expected.r.size()); ++p) {
    if (p >= got.r.size() || p >= expected.r.size()) fail(what, ": other phases");
    if (got.r[p] != expected.r[p]) fail(what, ": another phase ", std::to_string(p));
  }
}

}  // namespace ckbd::fuzz
