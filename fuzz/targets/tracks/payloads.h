// Payloads that are damaged as a header says, or put together of an input's numbers; and tables from anyone.
#pragma once

#include "tracks/encoding.h"

namespace ckbd::fuzz {

inline void damage(const Header& header, std::vector<uint8_t>& payload) {
  for (const Header::Damage& one : header.damage) {
    const int value = one.how >> 3;
    const size_t at = one.where % (payload.size() + 1);
    const auto place = payload.begin() + static_cast<ptrdiff_t>(at);
    switch (one.how & 7) {
      case 0:
        break;
      case 1:
      case 2:
        if (at < payload.size()) *place ^= static_cast<uint8_t>(1 << value % 8);
        break;
      case 3:
        if (at < payload.size()) *place = static_cast<uint8_t>(value < 16 ? value : 255 - (31 - value));
        break;
      case 4:
        payload.insert(place, static_cast<size_t>(1 + value % 2), static_cast<uint8_t>(value * 5));
        break;
      case 5:
        if (at < payload.size()) payload.erase(place);
        break;
      case 6:
        payload.erase(place, payload.end());
        break;
      default:
        payload.resize(payload.size() + 1 + at % 8, static_cast<uint8_t>(value));
    }
  }
}

inline void put_length(std::vector<uint8_t>& out, uint64_t value, bool longer) {
  for (; value >= 128; value >>= 7) out.push_back(static_cast<uint8_t>(value | 128));
  out.push_back(static_cast<uint8_t>(value | (longer ? 128 : 0)));
  if (longer) out.push_back(0);
}

// Lengths that fit, states within their bounds and any bytes, unless a number says otherwise.
inline std::vector<uint8_t> put_together(const Header& header, Input& in) {
  constexpr uint32_t kLow = ckbd::kTrackLow, kStates[] = {kLow, kLow + 1, INT32_MAX, kLow - 1, 1u << 31, 0};
  const uint32_t lie = in.number(1), where = in.number(1);
  const size_t tracks = std::min<size_t>(header.tracks, 600), liar = where % tracks;
  Random random(where);
  std::vector<uint8_t> lengths, bodies;
  std::vector<std::pair<uint32_t, size_t>> parts;
  for (size_t t = 0; t < tracks; ++t) {
    const uint32_t one = t < 16 ? in.number(1) : 0;
    uint32_t x = kLow + static_cast<uint32_t>(random.below((1u << 31) - kLow));
    if (one >> 5 == 7) x = in.number(4);
    if (one >> 5 == 6) x = kStates[in.number(1) % std::size(kStates)];
    if (one >> 5 == 5) x = kLow;
    parts.emplace_back(x, one % 32);
    uint64_t length = 4 + one % 32;
    if (t == liar && lie >= 192) length = lie < 240 ? length + lie - 216 : uint64_t{1} << (lie - 220);
    if (t + 1 < tracks) put_length(lengths, length, t == liar && lie >= 160 && lie < 192);
  }
  Bytes source(in.rest(), where);
  for (const auto& [x, n] : parts) {
    for (int shift = 0; shift < 32; shift += 8) bodies.push_back(static_cast<uint8_t>(x >> shift));
    for (size_t i = 0; i < n; ++i) bodies.push_back(source.next());
  }
  lengths.insert(lengths.end(), bodies.begin(), bodies.end());
  return lengths;
}

// Integers that were those of a table until some were changed: by anyone, or so that a row adds up again.
template <class T>
void change(std::vector<T>& all, size_t at, uint32_t how, int32_t value) {
  if (all.empty()) return;
  T& one = all[at % all.size()];
  if (how % 4 == 0) one = static_cast<T>(value);
  if (how % 4 == 1) one = static_cast<T>(int64_t{one} + static_cast<int8_t>(value));
  if (how % 4 == 2) std::swap(one, all[(at + 1) % all.size()]);
  if (how % 4 == 3) {
    T& next = all[(at + 1) % all.size()];
    const int64_t part = static_cast<int8_t>(value);
    one = static_cast<T>(one + part);
    next = static_cast<T>(next - part);
  }
}

template <class T>
void widen(std::vector<T>& all, size_t rows, size_t& columns, size_t other) {
  std::vector<T> out(rows * other);
  for (size_t r = 0; r < rows; ++r) {
    std::copy_n(&all[r * columns], std::min(columns, other), &out[r * other]);
  }
  all = std::move(out);
  columns = other;
}

// All ends of what the arrays may hold, and those next to them.
inline int32_t hostile_value(Input& in) {
  constexpr int32_t kEnds[] = {0, 1, -1, 1 << 23, (1 << 23) - 1, 1 << 24, (1 << 24) + 1, 1 << 30, (1 << 30) + 1,
                               INT32_MAX, INT32_MIN, 1 << 16, (1 << 16) + 1, 1023, 1024, 4095, 4096, 4094, 2048,
                               6, 7, 126, 127, 128, 255, 256, -127, -128, INT16_MAX, INT16_MIN, 2, 64};
  const uint32_t kind = in.number(1);
  return kind < 128 ? kEnds[kind % std::size(kEnds)] : static_cast<int32_t>(in.number(kind < 224 ? 2 : 4));
}

// Tables must take what the format allows and refuse all else. Null, if they refuse; those of which no integer was
// touched are the old ones.
inline Models make_hostile(const Models& base, Input& in) {
  auto integers = std::make_shared<Integers>(*base.integers);
  auto mixed = std::make_shared<MixtureIntegers>(*base.mixture_integers);
  constexpr size_t kYColumns[] = {128, 128, 129, 127, 3, 2, 1, 200};
  constexpr size_t kZColumns[] = {256, 256, 257, 255, 2, 1, 65, 300};
  const uint32_t columns = in.number(1);
  bool tables_touched = columns < 64, mixtures_touched = false;
  if (columns < 64) {
    widen(integers->y_freq, ckbd::kScales, integers->y_columns, kYColumns[columns % 8]);
    widen(integers->z_freq, integers->channels, integers->z_columns, kZColumns[columns / 8]);
  }
  for (uint32_t count = in.number(1) % 16; count > 0 && in.left() > 0; --count) {
    const uint32_t kind = in.number(1), how = kind >> 4;
    const size_t at = in.number(2);
    const int32_t value = hostile_value(in);
    const bool of_mixtures = (kind & 15) >= 5 && (kind & 15) < 10;
    (of_mixtures ? mixtures_touched : tables_touched) = true;
    switch (kind & 15) {
      case 0:
        change(integers->y_max, at, how, value);
        break;
      case 1:
        change(integers->z_low, at, how, value);
        break;
      case 2:
        change(integers->z_size, at, how, value);
        break;
      case 3:
      case 4:
        change(integers->z_freq, at, how, value);
        break;
      case 5:
      case 6:
        change(mixed->cdf, how >> 2 == 0 ? at : ckbd::kCdf - 1 - at % 2, how, value);
        break;
      case 7:
        change(mixed->inverse, at, how, value);
        break;
      case 8:
        change(mixed->share, at, how, value);
        break;
      case 9:
        change(mixed->radius, at, how, value);
        break;
      case 10:  // near the beginning of a row
        change(integers->y_freq, at % ckbd::kScales * integers->y_columns + at / 64 % 8, how, value);
        break;
      default:
        change(integers->y_freq, at, how, value);
    }
  }
  Models out{base.tables, base.mixtures, integers, mixed};
  const auto attempt = [](bool touched, bool allowed, const char* name, auto& made, auto make) {
    if (!touched) return;
    made = nullptr;
    try {
      made = make();
      if (!allowed) fail(name, " takes what the format forbids");
    } catch (const std::invalid_argument& refused) {
      if (allowed) fail(name, " refuses what the format allows: ", refused.what());
    }
  };
  attempt(tables_touched, allowed(*integers), "Tables", out.tables, [&] { return make_tables(*integers); });
  attempt(mixtures_touched, allowed(*mixed), "MixtureTables", out.mixtures, [&] { return make_mixtures(*mixed); });
  return out;
}

}  // namespace ckbd::fuzz
