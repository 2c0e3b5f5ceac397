// OpenStreams, as csrc/bind/rans_open.cpp has it: streams, model, z, k and residuals are the callers'.
#pragma once

#include "rans.h"
#include "streams/streams.h"

namespace ckbd::fuzz {

// A stream of version 1 (docs/format.md, section 1), maybe with sections.
inline Exact<uint8_t> stream_of(Caller& caller, const ckbd::Encoded& made, const Exact<uint8_t>& model, size_t down,
                                size_t across) {
  std::vector<uint8_t> out = {0xCB, 'k', 'b', 1};
  const auto varint = [&](size_t value) {
    for (; value >= 128; value >>= 7) out.push_back(static_cast<uint8_t>(value | 128));
    out.push_back(static_cast<uint8_t>(value));
  };
  const auto crc = [&](size_t from) {
    const uint32_t value = ckbd::coders()[0]->crc32c(out.data() + from, out.size() - from, 0);
    for (int shift = 0; shift < 32; shift += 8) out.push_back(static_cast<uint8_t>(value >> shift));
  };
  const size_t sections = caller.one_in(3) ? caller.between(1, 3) : 0;
  out.insert(out.end(), model.data(), model.data() + model.size());
  out.push_back(static_cast<uint8_t>(sections > 0 ? 2 : 0));
  out.push_back(100);
  out.push_back(static_cast<uint8_t>(made.lanes_log2 | made.skip_max << 3));
  varint(64 * across - caller.random.below(64));
  varint(64 * down - caller.random.below(64));
  varint(made.tail);
  varint(made.payload.size());
  if (sections > 0) varint(sections);
  crc(0);
  const size_t payload = out.size();
  out.insert(out.end(), made.payload.begin(), made.payload.end());
  crc(payload);
  for (size_t i = 0; i < sections; ++i) {
    const size_t section = out.size(), size = caller.random.below(200);
    out.push_back(static_cast<uint8_t>(i == 0 ? 1 : 127 + i));
    varint(size);
    out.insert(out.end(), size, static_cast<uint8_t>(i));
    crc(section);
  }
  return {out, caller.random.below(4)};
}

// The symbols of all streams, one after the other, of a step.
struct Steps {
  Exact<int16_t> z;
  std::vector<Exact<uint8_t>> k;
  std::vector<Exact<int16_t>> r;
};

inline Steps steps_of(const std::vector<Image<int16_t>>& images, size_t phases) {
  std::vector<int16_t> z;
  for (const auto& image : images) {
    z.insert(z.end(), image.symbols.z.data(), image.symbols.z.data() + image.symbols.z.size());
  }
  Steps steps{Exact<int16_t>(z, 0), {}, {}};
  for (size_t p = 0; p < phases; ++p) {
    std::vector<uint8_t> k;
    std::vector<int16_t> r;
    for (const auto& image : images) {
      k.insert(k.end(), image.k[p].data(), image.k[p].data() + image.k[p].size());
      r.insert(r.end(), image.symbols.r[p].data(), image.symbols.r[p].data() + image.symbols.r[p].size());
    }
    steps.k.emplace_back(k, p % 4);
    steps.r.emplace_back(r, 0);
  }
  return steps;
}

// Residuals as they came, together with those beyond int8, are those that were encoded.
inline bool same_residuals(const Exact<int8_t>& got, const ckbd::OpenStreams& streams,
                           const Exact<int16_t>& expected) {
  std::vector<int16_t> all(got.data(), got.data() + got.size());
  for (const auto& one : streams.all()) {
    for (size_t i = 0; i < one.wide_at.size(); ++i) {
      const auto at = static_cast<size_t>(one.wide_at[i]);
      if (at >= all.size()) fail("a residual beyond int8 lies outside of its phase");
      all[at] = one.wide_value[i];
    }
  }
  return std::equal(all.begin(), all.end(), expected.data());
}

// A table index that is refused changes nothing, so it is asked for again.
inline bool decode_phase(Caller& caller, ckbd::OpenStreams& streams, const Exact<uint8_t>& k, Exact<int8_t>& out) {
  for (int tries = 0; tries < 3; ++tries) {
    bool again = false;
    const bool done = caller.attempt([&] {
      try {
        streams.phase(k.data(), out.data(), caller.threads());
      } catch (const ckbd::BadIndex&) {
        again = true;
        throw;
      }
      streams.settle();
    });
    if (done || !again) return done;
  }
  return false;
}

inline void decode_streams(Caller& caller) {
  const Tables& tables = any_tables(caller);
  std::vector<size_t> widths;
  for (size_t left = caller.between(1, 3); left > 0; --left) widths.push_back(caller.between(1, 12));
  const Exact<uint8_t> model(ckbd::kModelBytes, 0, 7);
  std::vector<Image<int16_t>> images;
  std::vector<Exact<uint8_t>> files;
  std::vector<ckbd::Bytes> given;
  for (size_t left = caller.between(1, 5); left > 0; --left) {
    const size_t down = caller.between(1, 3), across = caller.between(1, 3);
    std::vector<size_t> sizes;
    for (const size_t width : widths) sizes.insert(sizes.end(), 2, 8 * down * across * width);
    images.push_back(make_image<int16_t>(caller, tables, down * across, sizes, ckbd::kLargestZ,
                                         ckbd::kLargestResidual));
    files.push_back(stream_of(caller, images.back().made, model, down, across));
    given.push_back({files.back().data(), files.back().size()});
  }
  const Steps steps = steps_of(images, 2 * widths.size());
  Exact<int16_t> z(steps.z.size(), 1, 5);
  std::vector<Exact<int8_t>> out;
  for (const auto& k : steps.k) out.emplace_back(k.size(), caller.random.below(4), int8_t{5});
  // Half of the streams are good when they are opened, so that there is something to decode.
  const bool open_first = caller.one_in(2);
  caller.share(z);
  for (const auto& file : files) caller.share(file);
  for (const auto& k : steps.k) caller.share(k);
  for (const auto& r : out) caller.share(r);
  if (!open_first) {
    caller.share(model);
    caller.begin();
  }
  std::unique_ptr<ckbd::OpenStreams> streams;
  const bool opened = caller.attempt([&] {
    const ckbd::Expected expected{model.data(), uint64_t{1} << 24, widths};
    streams = std::make_unique<ckbd::OpenStreams>(any_coder(caller), tables, given, expected, caller.threads());
    streams->settle();
  });
  if (open_first) caller.begin();
  // Of what was rewritten other sizes may have come, which the arrays must have: then this is over.
  if (opened && streams->z_size() == z.size() && streams->phase_size() == steps.k[0].size()) {
    bool going = caller.attempt([&] {
      streams->z(z.data(), caller.threads());
      streams->settle();
    });
    for (size_t p = 0; going && p < steps.k.size(); ++p) {
      going = decode_phase(caller, *streams, steps.k[p], out[p]);
      if (!caller.rewriting() && going) caller.result(same_residuals(out[p], *streams, steps.r[p]));
    }
    if (going) {
      caller.attempt([&] {
        streams->finish();
        streams->settle();
      });
    }
  }
  caller.end();
  if (opened) {
    for (const auto& one : streams->all()) {
      if (one.damage) caller.refused(std::make_exception_ptr(*one.damage));
    }
    caller.result(streams->z_size() == z.size());
  }
  caller.result(z, steps.z);
  for (const auto& r : out) r.check_lead();
}

}  // namespace ckbd::fuzz
