// What csrc/bind/passes.cpp calls without the GIL. Taps and shifts are copied there, all else is read where it lies.
#pragma once

#include "common/cpu.h"
#include "passes/passes.h"
#include "callers.h"

namespace ckbd::fuzz {

using ckbd::passes::Passes;

inline const std::vector<const Passes*>& all_passes() {
  static const std::vector<const Passes*> found = [] {
    std::vector<const Passes*> all = {&ckbd::passes::scalar_passes};
#if CKBD_X86
    if (ckbd::has_avx2()) all.push_back(&ckbd::passes::avx2_passes);
    if (ckbd::has_avx512()) all.push_back(&ckbd::passes::avx512_passes);
#endif
    return all;
  }();
  return found;
}

template <class T>
Exact<T> any_values(Caller& caller, size_t n) {
  Exact<T> all(n, caller.random.below(4), T{0});
  for (size_t i = 0; i < n; ++i) all[i] = static_cast<T>(static_cast<int64_t>(caller.random.below(40000)) - 20000);
  return all;
}

inline void run_passes(Caller& caller) {
  const size_t height = caller.between(1, 8), width = caller.between(1, 8), channels = 4 * caller.between(1, 9);
  const size_t sites = height * width, n = sites * channels;
  const ckbd::passes::Map map{height, width, channels};
  const Passes& passes = *all_passes()[caller.random.below(all_passes().size())];
  std::vector<ckbd::passes::Tap> taps;
  for (size_t left = caller.between(1, 9); left > 0; --left) {
    const auto step = [&] { return static_cast<int32_t>(caller.random.below(9)) - 4; };
    taps.push_back({step(), step(), step()});
  }
  std::vector<int32_t> shift;
  for (size_t i = 0; i < channels; ++i) shift.push_back(static_cast<int32_t>(caller.random.below(32)));
  const std::vector<float> zeros(channels);
  const bool flag = caller.one_in(2);
  const auto into = static_cast<ckbd::passes::Into>(caller.random.below(3));
  const ckbd::passes::Part part{caller.random.below(height), height, caller.random.below(width), width};

  const auto bytes = any_values<uint8_t>(caller, n), outside = any_values<uint8_t>(caller, channels);
  const auto sums = any_values<int32_t>(caller, n), bias = any_values<int32_t>(caller, channels);
  const auto r = any_values<int16_t>(caller, 2 * n), mean = any_values<int16_t>(caller, 2 * n);
  const auto x = any_values<float>(caller, std::max(n, 192 * sites));
  const auto weight = any_values<float>(caller, 9 * channels);
  const auto more = any_values<uint16_t>(caller, n);
  const auto float_bias = any_values<float>(caller, channels);

  // Each with room for what it writes, as whatever of it is not written is the same everywhere.
  const size_t gathered = n * taps.size();
  struct Out {
    Exact<uint8_t> bytes, near, far, any;
    Exact<int16_t> mean;
    Exact<float> floats;
    Exact<uint16_t> narrow;
  };
  const size_t which = caller.random.below(8);
  const size_t byte_room = which == 0 ? gathered : which == 7 ? 192 * sites : n;
  const auto room = [&] {
    return Out{{byte_room, 1, 3}, {n, 1, 3}, {n, 1, 3}, {channels, 1, 0}, {n, 1, 3}, {2 * n, 1, 3}, {n, 1, 3}};
  };
  const auto run = [&](const Passes& by, const Out& out) {
    switch (which) {
      case 0:
        return by.gather(bytes.data(), map, taps.data(), taps.size(), outside.data(), 0, height, out.bytes.data(),
                         taps.size() * channels);
      case 1:
        return by.requantise(sums.data(), map, bias.data(), shift.data(), 0, height, into, n / 2, out.bytes.data());
      case 2:
        return by.output(sums.data(), sites, channels / 2, bias.data(), shift.data(), out.mean.data(),
                         out.near.data());
      case 3:
        return by.assemble(r.data(), mean.data(), sites, channels, flag ? 64 : 127, out.near.data(),
                           flag ? out.far.data() : nullptr, flag ? out.any.data() : nullptr);
      case 4:
        return by.merge(r.data(), mean.data(), n, map, 0, height, out.floats.data());
      case 5:
        return by.depthwise(x.data(), map, weight.data(), float_bias.data(), zeros.data(), part, flag,
                            flag ? static_cast<void*>(out.narrow.data()) : out.floats.data());
      case 6:
        return by.add(x.data(), more.data(), n, out.floats.data());
      default:
        return by.paint(x.data(), 8, height, width, flag, out.bytes.data());
    }
  };
  const Out expected = room(), out = room();
  run(ckbd::passes::scalar_passes, expected);
  const auto share = [&](const auto&... arrays) { (caller.share(arrays), ...); };
  share(bytes, outside, sums, bias, r, mean, x, weight, more, float_bias);
  share(out.bytes, out.near, out.far, out.any, out.mean, out.floats, out.narrow);
  caller.begin();
  run(passes, out);
  caller.end();
  caller.result(out.bytes, expected.bytes);
  caller.result(out.near, expected.near);
  caller.result(out.far, expected.far);
  caller.result(out.any, expected.any);
  caller.result(out.mean, expected.mean);
  caller.result(out.narrow, expected.narrow);
  if (which != 6) caller.result(out.floats, expected.floats);
  // What is no number is not equal to itself.
  const auto same = [](float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0; };
  if (which == 6) {
    out.floats.check_lead();
    caller.result(std::equal(out.floats.data(), out.floats.data() + n, expected.floats.data(), same));
  }
}

}  // namespace ckbd::fuzz
