#include "streams/streams.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <utility>

#include "common/attempt.h"
#include "payload/pairs.h"

namespace ckbd {
namespace {

constexpr uint64_t kPatch = 64;    // pixels of a site of z, each way
constexpr size_t kPhaseSites = 8;  // sites of y in a phase for one of z
constexpr size_t kTile = 1024;     // residuals that are looked at together

// Sizes up to PTRDIFF_MAX; what would be more is that.
constexpr size_t kMost = std::numeric_limits<ptrdiff_t>::max();
size_t times(size_t a, size_t b) { return b > 0 && a > kMost / b ? kMost : a * b; }
size_t plus(size_t a, size_t b) { return a > kMost - b ? kMost : a + b; }

uint64_t patches(uint32_t pixels) { return (pixels + kPatch - 1) / kPatch; }

// That the stream is of this model and its payload can hold that many sites of z.
void check_fits(const Container& c, const uint8_t* model, uint64_t sites, double min_z_bits) {
  if (!std::equal(model, model + kModelBytes, c.model)) {
    throw FormatError{
        "model", 4,
        "made by model " + hex(c.model, kModelBytes, "") + ", this decoder has " + hex(model, kModelBytes, "")};
  }
  // Near the lower bound of the state a step may cost as little as 0.94 of a symbol's ideal bits.
  if (8.0 * static_cast<double>(c.payload_size) < 0.875 * static_cast<double>(sites) * min_z_bits) {
    throw FormatError{"payload", c.payload_offset,
                      std::to_string(c.payload_size) + " bytes cannot hold a picture of " + std::to_string(c.width) +
                          " x " + std::to_string(c.height) + " pixels"};
  }
}

[[noreturn]] void refuse_size(const OpenStream& one, const char* name, int limit) {
  throw FormatError{"payload", one.container.payload_offset,
                    std::string("a ") + name + " is beyond " + std::to_string(limit) + " in size"};
}

struct Range {
  int16_t low = 0, high = 0;
  bool within(int least, int most) const { return low >= least && high <= most; }
};

Range range_of(const int16_t* values, size_t n) {
  Range range;
  for (size_t i = 0; i < n; ++i) {
    range.low = std::min(range.low, values[i]);
    range.high = std::max(range.high, values[i]);
  }
  return range;
}

// Residuals as int8; those beyond it become 0 and go on the list.
void to_int8(OpenStream& one, const int16_t* r, int8_t* out) {
  for (size_t at = 0; at < one.r_size; at += kTile) {
    const size_t end = std::min(one.r_size, at + kTile);
    const Range range = range_of(r + at, end - at);
    for (size_t i = at; i < end; ++i) out[i] = static_cast<int8_t>(r[i]);
    if (range.within(INT8_MIN, INT8_MAX)) continue;
    if (!range.within(-kLargestResidual, kLargestResidual)) refuse_size(one, "residual", kLargestResidual);
    for (size_t i = at; i < end; ++i) {
      if (r[i] == out[i]) continue;
      out[i] = 0;
      one.wide_at.push_back(static_cast<int64_t>(one.r_at + i));
      one.wide_value.push_back(r[i]);
    }
  }
}

// A step of one stream, or of two at once.
void decode_some(OpenStream* const* some, size_t count, const uint8_t* k, int8_t* r) {
  static thread_local Scratch<int16_t> scratch[2];
  PhaseTask<int16_t> tasks[2];
  size_t ready = 0;
  for (; ready < count; ++ready) {
    OpenStream& one = *some[ready];
    attempt(one.error, [&] {
      tasks[ready] = {one.decoder.get(), k + one.r_at, scratch[ready].get(one.r_size), one.r_size};
    });
    if (one.error) break;
  }
  // Without memory for one of them nothing is decoded, and settle() throws.
  if (ready == count) decode_phases(tasks, count);
  for (size_t t = 0; t < count; ++t) {
    OpenStream& one = *some[t];
    if (ready == count) {
      one.error = tasks[t].error;
      attempt(one.error, [&] { to_int8(one, tasks[t].r, r + one.r_at); });
    }
    if (ready < count || one.error) {
      std::fill_n(r + one.r_at, one.r_size, int8_t{0});
      one.wide_at.clear();
      one.wide_value.clear();
    }
  }
  for (auto& one : scratch) one.trim();
}

}  // namespace

OpenStreams::OpenStreams(const Coder& coder, const Tables& tables, const std::vector<Bytes>& streams,
                         const Expected& expected, size_t threads)
    : coder_(coder), tables_(tables), all_(streams.size()), channels_(expected.channels) {
  run_tasks(all_.size(), threads, [&](size_t i) {
    attempt(all_[i].error, [&] { open(all_[i], streams[i], expected); });
  });
  for (OpenStream& one : all_) {
    if (one.decoder == nullptr) continue;
    one.z_at = z_size_;
    one.site_at = sites_;
    z_size_ = plus(z_size_, one.z_size);
    sites_ = plus(sites_, one.sites);
  }
  begin_phase();
}

// Whose residuals lie where, by the width of the phase that is next.
void OpenStreams::begin_phase() {
  const size_t width = channels_[std::min(phase_ / 2, channels_.size() - 1)];
  phase_size_ = times(sites_, width);
  for (OpenStream& one : all_) {
    one.r_at = times(one.site_at, width);
    one.r_size = times(one.sites, width);
  }
}

void OpenStreams::open(OpenStream& one, const Bytes& stream, const Expected& expected) {
  Container& c = one.container;
  c = parse_container(coder_, stream.data, stream.size, expected.max_pixels);
  const uint64_t down = patches(c.height), across = patches(c.width);
  check_fits(c, expected.model, down * across, tables_.min_z_bits());
  const size_t sites = times(static_cast<size_t>(down), static_cast<size_t>(across));
  one.z_size = times(sites, tables_.channels());
  one.sites = times(sites, kPhaseSites);
  one.decoder = std::make_unique<PayloadDecoder>(coder_, tables_, c.payload, c.payload_size, c.lanes_log2, c.skip_max,
                                                 c.tail, 2 * static_cast<int>(expected.channels.size()));
}

void OpenStreams::z(int16_t* z, size_t threads) {
  run_tasks(all_.size(), threads, [&](size_t i) {
    OpenStream& one = all_[i];
    if (one.decoder == nullptr) return;
    int16_t* const out = z + one.z_at;
    attempt(one.error, [&] {
      one.decoder->z(out, one.z_size);
      if (!range_of(out, one.z_size).within(-kLargestZ, kLargestZ)) refuse_size(one, "z symbol", kLargestZ);
    });
    if (one.error) std::fill_n(out, one.z_size, int16_t{0});
  });
}

void OpenStreams::check_indices(const std::vector<OpenStream*>& live, const uint8_t* k, size_t threads) const {
  std::vector<uint8_t> bits(live.size());  // of any index
  run_tasks(live.size(), threads, [&](size_t i) {
    const uint8_t* const own = k + live[i]->r_at;
    const size_t n = live[i]->r_size;
    uint8_t any = 0;
    for (size_t j = 0; j < n; ++j) any |= own[j];
    bits[i] = any;
  });
  static_assert((kScales & (kScales - 1)) == 0);
  for (size_t i = 0; i < live.size(); ++i) {
    if (bits[i] < kScales) continue;
    for (size_t at = live[i]->r_at, end = at + live[i]->r_size; at < end; ++at) {
      const uint8_t one = once(k + at);
      if (one >= kScales) throw BadIndex{one, 0, at};
    }
  }
}

void OpenStreams::phase(const uint8_t* k, int8_t* r, size_t threads) {
  std::vector<OpenStream*> live;
  for (OpenStream& one : all_) {
    if (one.decoder != nullptr && !one.damage) live.push_back(&one);
  }
  check_indices(live, k, threads);
  for (OpenStream& one : all_) {
    one.wide_at.clear();
    one.wide_value.clear();
    if (one.decoder != nullptr && one.damage) std::fill_n(r + one.r_at, one.r_size, int8_t{0});
  }
  in_pairs(
      live.size(), threads, [&](size_t i) { return live[i]->r_size; },
      [&](size_t a, size_t b) {
        OpenStream* const some[2] = {live[a], b == SIZE_MAX ? nullptr : live[b]};
        decode_some(some, b == SIZE_MAX ? 1 : 2, k, r);
      });
  ++phase_;
  begin_phase();
}

void OpenStreams::finish() {
  for (OpenStream& one : all_) {
    if (one.decoder != nullptr && !one.damage) attempt(one.error, [&] { one.decoder->finish(); });
  }
}

void OpenStreams::settle() {
  for (OpenStream& one : all_) {
    try {
      ckbd::settle(one.error);
    } catch (FormatError& error) {
      one.damage = std::move(error);
    } catch (const StreamError& error) {
      one.damage = FormatError{error.field, one.container.payload_offset + error.offset, error.what()};
    } catch (const BadIndex&) {
      throw std::runtime_error("k: changed during the call");
    }
  }
}

}  // namespace ckbd
