// What csrc/bind/rans_encode.cpp, rans_decode.cpp, rans_steps.cpp and rans_open.cpp call. All their arrays are read
// where they lie.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <variant>

#include "callers.h"
#include "common/pool.h"
#include "payload/batch.h"
#include "payload/encoding.h"
#include "streams/streams.h"
#include "tables.h"

namespace ckbd::fuzz {

inline const ckbd::Coder& any_coder(Caller& caller) {
  const auto& coders = ckbd::coders();
  return *coders[caller.random.below(coders.size())];
}

// An image, its payload, and room for what is decoded.
template <class R>
struct Image {
  Indices k;
  Symbols<R> symbols;
  Exact<int16_t> z_out;
  std::vector<Exact<R>> r_out;
  ckbd::Choice choice;
  ckbd::Encoded made;
  Exact<uint8_t> payload;
};

// Indices of one kind, and some among them of another: a last phase with too few to code is begun again.
inline Exact<uint8_t> any_indices(Caller& caller, size_t n) {
  Exact<uint8_t> k(n, caller.random.below(4), 0);
  const size_t most = caller.one_in(3) ? 4 : caller.one_in(2) ? 23 : 64;
  const size_t others = caller.one_in(2) ? 10 : caller.one_in(2) ? 200 : 1000;
  for (size_t i = 0; i < n; ++i) {
    k[i] = static_cast<uint8_t>(caller.random.below(caller.one_in(others) ? ckbd::kScales : most));
  }
  return k;
}

inline Source any_source(Caller& caller) {
  std::vector<uint8_t> bytes;
  bytes.resize(caller.between(1, 60));
  for (uint8_t& one : bytes) one = static_cast<uint8_t>(caller.random.next());
  return Source(std::move(bytes));
}

// symbols' phases have these sizes; limit: no symbol is larger.
template <class R>
Image<R> make_image(Caller& caller, const Tables& tables, size_t sites, const std::vector<size_t>& sizes, int z_limit,
                    int limit) {
  Indices k;
  for (const size_t n : sizes) k.push_back(any_indices(caller, n));
  const auto chosen = [&](int most) {
    return caller.one_in(3) ? -1 : caller.one_in(2) ? most : static_cast<int>(caller.random.below(16)) % (most + 1);
  };
  const int lanes_log2 = chosen(ckbd::kMaxLanesLog2);
  const ckbd::Choice choice{lanes_log2, chosen(caller.one_in(2) ? 4 : ckbd::kMaxSkip)};
  Source source = any_source(caller);
  auto symbols = make_symbols<R>(tables, sites * tables.channels(), k, std::max(choice.skip_max, 0),
                                 caller.random.below(4), source);
  for (size_t i = 0; i < symbols.z.size(); ++i) {
    symbols.z[i] = static_cast<int16_t>(std::clamp<int>(symbols.z[i], -z_limit, z_limit));
  }
  std::vector<Exact<R>> out;
  for (const auto& r : symbols.r) {
    for (size_t i = 0; i < r.size(); ++i) r[i] = static_cast<R>(std::clamp<int>(r[i], -limit, limit));
    out.emplace_back(r.size(), caller.random.below(4), R{5});
  }
  ckbd::Encoded made = encode_with(*ckbd::coders()[0], tables, symbols, k, choice);
  Exact<uint8_t> payload(made.payload, caller.random.below(4));
  Exact<int16_t> z_out(symbols.z.size(), caller.random.below(4), 5);
  return {std::move(k), std::move(symbols), std::move(z_out), std::move(out), choice, std::move(made),
          std::move(payload)};
}

template <class R>
Image<R> any_image(Caller& caller, const Tables& tables, size_t phases) {
  std::vector<size_t> sizes;
  while (sizes.size() < phases) sizes.push_back(caller.random.below(caller.one_in(6) ? 5000 : 400));
  return make_image<R>(caller, tables, caller.random.below(5), sizes, INT16_MAX, INT16_MAX);
}

using AnyImage = std::variant<Image<int8_t>, Image<int16_t>>;

inline std::vector<AnyImage> any_images(Caller& caller, const Tables& tables) {
  std::vector<AnyImage> images;
  for (size_t left = caller.between(1, 5); left > 0; --left) {
    const size_t phases = caller.between(1, 3);
    if (caller.one_in(2)) {
      images.emplace_back(any_image<int8_t>(caller, tables, phases));
    } else {
      images.emplace_back(any_image<int16_t>(caller, tables, phases));
    }
  }
  return images;
}

inline const Tables& any_tables(Caller& caller) { return *all_tables[caller.random.below(all_tables.size())]; }

template <class R>
void share_input(Caller& caller, const Image<R>& image) {
  caller.share(image.symbols.z);
  for (const auto& k : image.k) caller.share(k);
  for (const auto& r : image.symbols.r) caller.share(r);
}

// Without the payload, which may be part of something else.
template <class R>
void share_output(Caller& caller, const Image<R>& image) {
  caller.share(image.z_out);
  for (const auto& k : image.k) caller.share(k);
  for (const auto& r : image.r_out) caller.share(r);
}

template <class R>
void check_output(Caller& caller, const Image<R>& image) {
  caller.result(image.z_out, image.symbols.z);
  for (size_t p = 0; p < image.r_out.size(); ++p) caller.result(image.r_out[p], image.symbols.r[p]);
}

inline void encode_images(Caller& caller) {
  const Tables& tables = any_tables(caller);
  const std::vector<AnyImage> images = any_images(caller, tables);
  const ckbd::Coder& coder = any_coder(caller);
  for (const auto& image : images) std::visit([&](const auto& one) { share_input(caller, one); }, image);
  std::vector<std::optional<ckbd::Encoded>> made(images.size());
  std::vector<std::exception_ptr> errors(images.size());
  caller.begin();
  ckbd::run_tasks(images.size(), caller.threads(), [&](size_t i) {
    try {
      made[i] = std::visit(
          [&](const auto& one) { return encode_with(coder, tables, one.symbols, one.k, one.choice); }, images[i]);
    } catch (...) {
      errors[i] = std::current_exception();
    }
  });
  caller.end();
  for (size_t i = 0; i < images.size(); ++i) {
    if (errors[i]) {
      caller.refused(errors[i]);
      continue;
    }
    const auto& expected = std::visit([](const auto& one) -> const ckbd::Encoded& { return one.made; }, images[i]);
    caller.result(made[i]->payload == expected.payload && made[i]->lanes_log2 == expected.lanes_log2 &&
                  made[i]->skip_max == expected.skip_max && made[i]->tail == expected.tail);
  }
}

inline void decode_images(Caller& caller) {
  const Tables& tables = any_tables(caller);
  const std::vector<AnyImage> images = any_images(caller, tables);
  std::vector<ckbd::ImageTask> tasks;
  for (const auto& image : images) {
    std::visit(
        [&](const auto& one) {
          caller.share(one.payload);
          share_output(caller, one);
          tasks.push_back({one.payload.data(), one.payload.size(), one.made.lanes_log2, one.made.skip_max,
                           static_cast<uint32_t>(one.made.tail), one.z_out.data(), one.z_out.size(), {}});
          using R = std::remove_pointer_t<decltype(one.r_out[0].data())>;
          auto& phases = tasks.back().phases.template emplace<std::vector<ckbd::PhaseOut<R>>>();
          for (size_t p = 0; p < one.k.size(); ++p) {
            phases.push_back({one.k[p].data(), one.r_out[p].data(), one.k[p].size()});
          }
        },
        image);
  }
  const ckbd::Coder& coder = any_coder(caller);
  caller.begin();
  ckbd::decode_images(coder, tables, tasks, caller.threads());
  caller.end();
  for (const auto& task : tasks) {
    if (task.error) caller.refused(task.error);
  }
  for (const auto& image : images) std::visit([&](const auto& one) { check_output(caller, one); }, image);
}

// Decoders that are asked for a step at a time. One that has failed is not asked again.
template <class R>
void decode_steps(Caller& caller) {
  const size_t phases = caller.between(1, 3);
  std::vector<Image<R>> images;
  std::vector<const Tables*> tables;
  for (size_t left = caller.between(1, 5); left > 0; --left) {
    tables.push_back(&any_tables(caller));
    images.push_back(any_image<R>(caller, *tables.back(), phases));
    caller.share(images.back().payload);
    share_output(caller, images.back());
  }
  std::vector<std::unique_ptr<ckbd::PayloadDecoder>> decoders(images.size());
  std::vector<std::exception_ptr> errors(images.size());
  caller.begin();
  for (size_t i = 0; i < images.size(); ++i) {
    const Image<R>& one = images[i];
    caller.attempt([&] {
      decoders[i] = std::make_unique<ckbd::PayloadDecoder>(
          any_coder(caller), *tables[i], one.payload.data(), one.payload.size(), one.made.lanes_log2,
          one.made.skip_max, static_cast<uint32_t>(one.made.tail), static_cast<int>(phases));
    });
  }
  const auto drop_failed = [&] {
    for (size_t i = 0; i < images.size(); ++i) {
      if (!errors[i]) continue;
      caller.refused(std::exchange(errors[i], nullptr));
      decoders[i].reset();
    }
  };
  ckbd::run_tasks(images.size(), caller.threads(), [&](size_t i) {
    try {
      if (decoders[i]) decoders[i]->z(images[i].z_out.data(), images[i].z_out.size());
    } catch (...) {
      errors[i] = std::current_exception();
    }
  });
  drop_failed();
  for (size_t p = 0; p < phases; ++p) {
    std::vector<ckbd::PhaseTask<R>> tasks;
    std::vector<size_t> owners;
    for (size_t i = 0; i < images.size(); ++i) {
      const Image<R>& one = images[i];
      if (!decoders[i]) continue;
      tasks.push_back({decoders[i].get(), one.k[p].data(), one.r_out[p].data(), one.k[p].size()});
      owners.push_back(i);
    }
    ckbd::decode_phases(tasks, caller.threads());
    for (size_t t = 0; t < tasks.size(); ++t) errors[owners[t]] = tasks[t].error;
    drop_failed();
  }
  for (const auto& decoder : decoders) {
    if (decoder) caller.attempt([&] { decoder->finish(); });
  }
  caller.end();
  for (const auto& image : images) check_output(caller, image);
}

inline void decode_steps_of_either(Caller& caller) {
  if (caller.one_in(2)) {
    decode_steps<int8_t>(caller);
  } else {
    decode_steps<int16_t>(caller);
  }
}

}  // namespace ckbd::fuzz
