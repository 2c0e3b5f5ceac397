// Streams made of the numbers of a header: with checksums that are right, so that what lies behind them is reached.
#pragma once

#include "streams/twin.h"

namespace ckbd::fuzz {

// Of one phase of one stream; what encodes knows it as well as what decodes.
inline uint8_t next_index(const Fields& fields, Random& random) {
  const size_t any = random.below(ckbd::kScales), seed = fields.seed;
  switch (fields.pattern) {
    case 0:
      return static_cast<uint8_t>(any % 16);
    case 1:
      return static_cast<uint8_t>(any % 23);
    case 2:
      return static_cast<uint8_t>(23 + any % 41);
    case 3:
      return static_cast<uint8_t>(seed % ckbd::kScales);
    case 4:
      return static_cast<uint8_t>(random.below(20) == 0 ? any : seed % ckbd::kScales);
    case 5:
      return static_cast<uint8_t>(any % 2 == 0 ? 0 : 63);
    default:
      return static_cast<uint8_t>(any);
  }
}

inline void make_indices(const Fields& fields, size_t phase, uint8_t* k, size_t n) {
  Random random(fields.seed + 256 * phase);
  for (size_t i = 0; i < n; ++i) k[i] = next_index(fields, random);
}

// Mostly small; some need escapes, some more than int8 holds, and by one kind some more than the format allows.
inline int16_t next_symbol(const Fields& fields, Random& random, int largest) {
  const size_t one = random.below(256);
  const int sign = one & 1 ? -1 : 1;
  if (one < 200 && fields.kind < 6) return static_cast<int16_t>(one % 3 - 1);
  if (fields.kind == 0) return static_cast<int16_t>(sign * static_cast<int>(one % 8));
  if (fields.kind == 7 && one >= 254) return static_cast<int16_t>(sign * (largest + 1));
  if (fields.kind == 1 && random.below(64) == 0) return static_cast<int16_t>(random.next());
  if (fields.kind >= 4 && one % 8 == 0) return static_cast<int16_t>(sign * largest);
  return static_cast<int16_t>(sign * static_cast<int>(random.below(static_cast<size_t>(fields.kind) * 30 + 2)) %
                              (largest + 1));
}

inline uint64_t patches_of(uint32_t pixels) { return (uint64_t{pixels} + 63) / 64; }

// For a picture of the size that the fields give, or of one patch if that is large.
inline ckbd::Encoded encode_payload(const Header& header, const Fields& fields, const Tables& tables) {
  uint64_t sites = patches_of(fields.width) * patches_of(fields.height);
  if (sites == 0 || sites > 9) sites = 1;
  Random random(fields.seed);
  std::vector<int16_t> z(sites * tables.channels());
  for (int16_t& one : z) one = next_symbol(fields, random, ckbd::kLargestZ);
  std::vector<std::vector<uint8_t>> ks;
  std::vector<std::vector<int16_t>> rs;
  std::vector<ckbd::Phase<int16_t>> phases;
  for (size_t p = 0; p < 2 * header.channels.size(); ++p) {
    const size_t n = sites * 8 * header.channels[p / 2];
    make_indices(fields, p, ks.emplace_back(n).data(), n);
    for (int16_t& one : rs.emplace_back(n)) one = next_symbol(fields, random, ckbd::kLargestResidual);
  }
  for (size_t p = 0; p < ks.size(); ++p) phases.push_back({ks[p].data(), rs[p].data(), ks[p].size()});
  return ckbd::encode(*ckbd::coders()[0], tables, z.data(), z.size(), phases, {fields.lanes_log2, fields.skip_max});
}

inline void damage(const Fields& fields, bool file, std::vector<uint8_t>& bytes) {
  for (const Fields::Damage& one : fields.damage) {
    const int value = one.how >> 4;
    const size_t at = one.where % (bytes.size() + 1);
    const auto place = bytes.begin() + static_cast<ptrdiff_t>(at);
    if ((one.how >> 3 & 1) != file) continue;
    switch (one.how & 7) {
      case 0:
      case 1:
        break;
      case 2:
        if (at < bytes.size()) *place ^= static_cast<uint8_t>(1 << value % 8);
        break;
      case 3:
        if (at < bytes.size()) *place = static_cast<uint8_t>(value < 8 ? value : 240 + value);
        break;
      case 4:
        bytes.insert(place, static_cast<size_t>(1 + value % 2), static_cast<uint8_t>(value * 17));
        break;
      case 5:
        if (at < bytes.size()) bytes.erase(place);
        break;
      case 6:
        bytes.erase(place, bytes.end());
        break;
      default:
        bytes.resize(bytes.size() + 1 + at % 8, static_cast<uint8_t>(value));
    }
  }
}

class Writer {
 public:
  explicit Writer(size_t long_varint) : long_varint_(long_varint) {}
  void byte(size_t value) { out.push_back(static_cast<uint8_t>(value)); }
  // The longer form has a zero byte at its end, or more bytes than there may be.
  void varint(uint64_t value, bool longer) {
    for (; value >= 128; value >>= 7) byte(value | 128);
    byte(value | (longer ? 128 : 0));
    if (longer) byte(0);
  }
  void field(uint64_t value) { varint(value, number_++ == long_varint_); }
  void crc(size_t begin, bool wrong) {
    const uint32_t right = plain_crc32c(out.data() + begin, out.size() - begin) ^ uint32_t{wrong};
    for (int shift = 0; shift < 32; shift += 8) byte(right >> shift & 255);
  }
  std::vector<uint8_t> out;

 private:
  size_t number_ = 0;
  const size_t long_varint_;
};

// Options of a section: 32 lengths, a wrong checksum, a length too long, one that lies.
inline void put_section(Writer& to, const Fields& fields, const Fields::Section& section) {
  const size_t begin = to.out.size(), length = section.options % 32;
  to.byte(section.type);
  to.varint(length + (section.options >> 5 == 7 ? size_t{1} << fields.seed % 32 : 0), section.options >> 5 == 6);
  for (size_t i = 0; i < length; ++i) to.byte(fields.seed + i);
  to.crc(begin, section.options >> 5 == 5);
}

inline std::vector<uint8_t> put_together(const Header& header, const Fields& fields, const Tables& tables,
                                         Input& in) {
  ckbd::Encoded made{{}, std::max(fields.lanes_log2, 0), std::max(fields.skip_max, 0), 1};
  if (fields.form == Fields::kEncoded) {
    made = encode_payload(header, fields, tables);
  } else {
    for (size_t n = std::min<size_t>(in.number(1) * 4, in.left()); n > 0; --n) {
      made.payload.push_back(static_cast<uint8_t>(in.number(1)));
    }
  }
  if (made.lanes_log2 == 0) made.tail = 0;
  damage(fields, false, made.payload);
  constexpr uint64_t kCounts[] = {0, 1, 2, 3, 255, 256, 257, UINT32_MAX};
  Writer to(fields.long_varint);
  for (const int one : {0xCB, 0x6B, 0x62, 1}) to.byte(static_cast<size_t>(one));
  for (const uint8_t one : kModel) to.byte(one ^ uint8_t{fields.other_model});
  to.byte(fields.flags);
  to.byte(fields.quality2);
  const size_t coder = static_cast<size_t>(made.lanes_log2 | made.skip_max << 3);
  to.byte(fields.other_coder ? coder ^ (fields.seed % 2 == 0 ? 128 : fields.seed) : coder);
  to.field(fields.width);
  to.field(fields.height);
  to.field(made.tail + static_cast<uint32_t>(fields.tail_lie));
  const uint64_t said = made.payload.size() + static_cast<uint64_t>(fields.payload_lie);
  to.field(static_cast<uint32_t>(said) | (fields.payload_lie == -128 ? said & 0xF00000000 : 0));
  if (fields.flags & 2) to.field(fields.count_lie ? kCounts[fields.count_lie % 8] : fields.sections);
  to.crc(0, fields.bad_header_crc);
  const size_t payload = to.out.size();
  to.out.insert(to.out.end(), made.payload.begin(), made.payload.end());
  to.crc(payload, fields.bad_payload_crc);
  for (size_t i = 0; fields.flags & 2 && i < fields.sections; ++i) put_section(to, fields, fields.section[i]);
  if (fields.goes_on) to.byte(fields.seed);
  return std::move(to.out);
}

inline std::vector<std::vector<uint8_t>> make_streams(const Header& header, const Tables& tables, Input& in) {
  std::vector<std::vector<uint8_t>> all;
  for (const Fields& fields : header.streams) {
    std::vector<uint8_t> one;
    if (fields.form == Fields::kAgain && !all.empty()) {
      one = all.back();
    } else if (fields.form == Fields::kRaw) {
      const bool last = all.size() + 1 == header.count;
      for (size_t n = last ? in.left() : std::min<size_t>(in.number(2) % 2048, in.left()); n > 0; --n) {
        one.push_back(static_cast<uint8_t>(in.number(1)));
      }
    } else {
      one = put_together(header, fields, tables, in);
    }
    damage(fields, true, one);
    all.push_back(std::move(one));
  }
  return all;
}

}  // namespace ckbd::fuzz
