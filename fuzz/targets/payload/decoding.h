// A payload decoded in every way there is, each time into memory that ends where it must.
#pragma once

#include <type_traits>

#include "input.h"
#include "payload/batch.h"
#include "payload/header.h"
#include "payload/payload.h"
#include "rans/dispatch.h"

namespace ckbd::fuzz {

// The table indices of each phase.
using Indices = std::vector<Exact<uint8_t>>;

// A payload and what its decoder must know.
struct Stream {
  const Tables& tables;
  std::shared_ptr<const Indices> k;
  Exact<uint8_t> payload;
  int lanes_log2, skip_max;
  uint32_t tail;
  size_t n_z;
  size_t lead;
};

// What came of it. Of the arrays the first `good` are to be trusted, z being the first.
template <class R>
struct Outcome {
  Exact<int16_t> z;
  std::vector<Exact<R>> r;
  size_t good = 0;
  std::string error;
  // Different fill each time, so that what was not written is not the same by chance.
  Outcome(const Stream& stream, int8_t fill) : z(stream.n_z, stream.lead, fill) {
    for (const auto& k : *stream.k) r.emplace_back(k.size(), stream.lead, fill);
  }
};

inline std::string text_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const ckbd::StreamError& e) {
    return std::string(e.field) + " at " + std::to_string(e.offset) + ": " + e.what();
  } catch (const ckbd::BadIndex& bad) {
    fail("table index ", std::to_string(bad.k), " at ", std::to_string(bad.at));
  }
}

template <class R>
void check_same(const std::string& what, const Outcome<R>& got, const Outcome<R>& expected) {
  got.z.check_lead();
  for (const auto& r : got.r) r.check_lead();
  if (got.error != expected.error) fail(what, ": '", got.error, "', expected '", expected.error, "'");
  const auto check_array = [&](size_t number, const auto& a, const auto& b) {
    if (number >= expected.good || a == b) return;
    size_t at = 0;
    while (a[at] == b[at]) ++at;
    fail(what, ": ", number == 0 ? "z" : "phase " + std::to_string(number - 1), "[", std::to_string(at), "] is ",
         std::to_string(a[at]), ", expected ", std::to_string(b[at]));
  };
  check_array(0, got.z, expected.z);
  for (size_t p = 0; p < got.r.size(); ++p) check_array(p + 1, got.r[p], expected.r[p]);
}

// Runs a step of a decoder and takes down what happened; true if it went well.
template <class R, class Step>
bool attempt(Outcome<R>& outcome, Step step) {
  try {
    step();
    ++outcome.good;
    return true;
  } catch (const ckbd::StreamError&) {
    outcome.error = text_of(std::current_exception());
    return false;
  }
}

// Table indices of which one is too large. Who refuses them must be able to go on with the right ones.
class WrongIndices {
 public:
  explicit WrongIndices(const Exact<uint8_t>& right) : k_(right.size(), 0, 0), at_(right[0] % right.size()) {
    std::copy_n(right.data(), right.size(), k_.data());
    k_[at_] = static_cast<uint8_t>(ckbd::kScales + right[at_] * 3);
  }
  const uint8_t* data() const { return k_.data(); }
  template <class Call>
  void check_refused(Call call) const {
    try {
      call();
    } catch (const ckbd::BadIndex& bad) {
      if (bad.at == at_ && bad.k == k_[at_]) return;
      fail("another table index is refused than the wrong one");
    }
    fail("a table index of 64 or more is taken");
  }
  void check_refused(const std::exception_ptr& error) const {
    check_refused([&] {
      if (error) std::rethrow_exception(error);
    });
  }

 private:
  Exact<uint8_t> k_;
  size_t at_;
};

inline std::unique_ptr<ckbd::PayloadDecoder> decoder_of(const Coder& coder, const Stream& stream) {
  return std::make_unique<ckbd::PayloadDecoder>(coder, stream.tables, stream.payload.data(), stream.payload.size(),
                                                stream.lanes_log2, stream.skip_max, stream.tail,
                                                static_cast<int>(stream.k->size()));
}

template <class R>
Outcome<R> decode_alone(const Coder& coder, const Stream& stream, int8_t fill, bool bad_index) {
  Outcome<R> out(stream, fill);
  std::unique_ptr<ckbd::PayloadDecoder> decoder;
  bool fine = attempt(out, [&] {
    decoder = decoder_of(coder, stream);
    decoder->z(out.z.data(), out.z.size());
  });
  for (size_t p = 0; fine && p < out.r.size(); ++p) {
    const Exact<uint8_t>& k = (*stream.k)[p];
    ckbd::PhaseTask<R> task{decoder.get(), k.data(), out.r[p].data(), k.size()};
    if (bad_index && k.size() > 0) {
      const WrongIndices wrong(k);
      ckbd::PhaseTask<R> refused{decoder.get(), wrong.data(), out.r[p].data(), k.size()};
      ckbd::decode_phases(&refused, 1);
      wrong.check_refused(refused.error);
    }
    fine = attempt(out, [&] {
      ckbd::decode_phases(&task, 1);
      if (task.error) std::rethrow_exception(task.error);
    });
  }
  if (fine) attempt(out, [&] { decoder->finish(); });
  return out;
}

// Two streams, phase by phase in pairs for as long as both have one. With `bad_index` the first has one in each pair,
// and then gets the right ones alone.
template <class R>
std::pair<Outcome<R>, Outcome<R>> decode_pair(const Coder& a_coder, const Stream& a, const Coder& b_coder,
                                              const Stream& b, int8_t fill, bool bad_index) {
  std::pair<Outcome<R>, Outcome<R>> out{Outcome<R>(a, fill), Outcome<R>(b, fill)};
  const Stream* const streams[2] = {&a, &b};
  Outcome<R>* const outs[2] = {&out.first, &out.second};
  std::unique_ptr<ckbd::PayloadDecoder> decoders[2];
  bool fine[2];
  for (int i = 0; i < 2; ++i) {
    fine[i] = attempt(*outs[i], [&] {
      decoders[i] = decoder_of(i == 0 ? a_coder : b_coder, *streams[i]);
      decoders[i]->z(outs[i]->z.data(), outs[i]->z.size());
    });
  }
  for (size_t p = 0; p < kMostPhases; ++p) {
    std::vector<ckbd::PhaseTask<R>> tasks;
    std::vector<int> owners;
    for (int i = 0; i < 2; ++i) {
      if (!fine[i] || p >= outs[i]->r.size()) continue;
      const Exact<R>& r = outs[i]->r[p];
      tasks.push_back({decoders[i].get(), (*streams[i]->k)[p].data(), r.data(), r.size()});
      owners.push_back(i);
    }
    if (bad_index && tasks.size() == 2 && tasks[0].n > 0) {
      const WrongIndices wrong((*a.k)[p]);
      const uint8_t* const right = std::exchange(tasks[0].k, wrong.data());
      ckbd::decode_phases(tasks, 1);
      wrong.check_refused(tasks[0].error);
      tasks[0].error = nullptr;
      tasks[0].k = right;
      ckbd::decode_phases(&tasks[0], 1);
    } else {
      ckbd::decode_phases(tasks, 1);
    }
    for (size_t t = 0; t < tasks.size(); ++t) {
      fine[owners[t]] = attempt(*outs[owners[t]], [&] {
        if (tasks[t].error) std::rethrow_exception(tasks[t].error);
      });
    }
  }
  for (int i = 0; i < 2; ++i) {
    if (fine[i]) attempt(*outs[i], [&] { decoders[i]->finish(); });
  }
  return out;
}

template <class R>
ckbd::ImageTask image_task(const Stream& stream, Outcome<R>& out) {
  std::vector<ckbd::PhaseOut<R>> phases;
  for (size_t p = 0; p < out.r.size(); ++p) {
    phases.push_back({(*stream.k)[p].data(), out.r[p].data(), out.r[p].size()});
  }
  return {stream.payload.data(), stream.payload.size(), stream.lanes_log2, stream.skip_max, stream.tail,
          out.z.data(),          out.z.size(),          std::move(phases)};
}

template <class... R>
void decode_batch(const Coder& coder, const Tables& tables, std::pair<const Stream*, Outcome<R>*>... all) {
  std::vector<ckbd::ImageTask> images;
  (images.push_back(image_task(*all.first, *all.second)), ...);
  ckbd::decode_images(coder, tables, images, 1);
  size_t i = 0;
  const auto keep = [&](std::string& text) {
    if (images[i].error) text = text_of(images[i].error);
    ++i;
  };
  (keep(all.second->error), ...);
}

// A stream and what comes of it, which is known for both types.
struct Known {
  Stream stream;
  Outcome<int8_t> as8;
  Outcome<int16_t> as16;
  template <class R>
  const Outcome<R>& as() const {
    if constexpr (sizeof(R) == 1) {
      return as8;
    } else {
      return as16;
    }
  }
};

// Streams that are as they should be: a row for each of the tables.
inline std::vector<std::vector<Known>> partners;

// Every coder, alone and beside another stream; returns what they agree on.
template <class R>
Outcome<R> decode_everywhere(const Header& header, const Stream& stream, const Known& known, bool bad_index) {
  using Other = std::conditional_t<sizeof(R) == 1, int16_t, int8_t>;
  const auto& coders = ckbd::coders();
  const Exact<uint8_t>& payload = stream.payload;
  const uint32_t crc = coders[0]->crc32c(payload.data(), payload.size(), 0);
  Outcome<R> expected = decode_alone<R>(*coders[0], stream, 11, bad_index);
  int8_t fill = 12;
  for (size_t i = 1; i < coders.size(); ++i) {
    const Coder& coder = *coders[i];
    const std::string name = coder.name;
    if (coder.crc32c(payload.data(), payload.size(), 0) != crc) fail(name, ": another checksum");
    check_same(name, decode_alone<R>(coder, stream, fill++, bad_index), expected);
    const auto [a, b] = decode_pair<R>(coder, stream, coder, known.stream, fill++, bad_index);
    check_same(name + " in a pair", a, expected);
    check_same(name + " in a pair, the partner", b, known.as<R>());
  }
  if (header.lead == 3) {
    // Nothing says that a pair has its tables or its coder in common.
    const Known& stranger = partners[(header.tables + header.sites % 2) % partners.size()][1];
    const Coder& its = *coders[header.sites % coders.size()];
    const auto [a, b] = decode_pair<R>(*coders.back(), stream, its, stranger.stream, fill++, bad_index);
    check_same("beside a stranger", a, expected);
    check_same("the stranger", b, stranger.as<R>());
  }
  // What a batch does around the coders is the same for all.
  const Coder& coder = *coders[header.batch / 2 % coders.size()];
  const std::string name = coder.name;
  Outcome<R> first(stream, fill), second(stream, fill), beside(stream, fill++);
  Outcome<R> same_type(known.stream, fill++);
  Outcome<Other> other_type(known.stream, fill++);
  if (header.batch % 2 == 0) {
    decode_batch(coder, stream.tables, std::pair(&stream, &first));
  } else {
    decode_batch(coder, stream.tables, std::pair(&stream, &first), std::pair(&known.stream, &same_type),
                 std::pair(&stream, &second));
    check_same(name + " in a batch, again", second, expected);
    check_same(name + " in a batch, the partner", same_type, known.as<R>());
  }
  check_same(name + " in a batch", first, expected);
  decode_batch(coder, stream.tables, std::pair(&stream, &beside), std::pair(&known.stream, &other_type));
  check_same(name + " in a batch of two types", beside, expected);
  check_same(name + " in a batch of two types, the partner", other_type, known.as<Other>());
  return expected;
}

}  // namespace ckbd::fuzz
