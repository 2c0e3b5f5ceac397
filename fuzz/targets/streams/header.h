// The first bytes of an input of the target `streams`: what is asked of all streams, and what each of them is made
// of. fuzz/seeds/streams.py writes these.
#pragma once

#include "input.h"
#include "streams/streams.h"
#include "tables.h"

namespace ckbd::fuzz {

constexpr size_t kMostStreams = 4;
constexpr size_t kSections = 4;
constexpr size_t kDamages = 3;
constexpr uint8_t kModel[ckbd::kModelBytes] = {1, 2, 3, 250, 251, 252};

// What a stream is. Only one that may be wrong has fields that say something else than what follows them.
struct Fields {
  enum Form { kRaw, kEncoded, kBytes, kAgain } form;  // as it is; with a payload that was encoded, or of any bytes
  bool bad_header_crc, bad_payload_crc, other_model, goes_on;
  size_t long_varint;  // which of them is a byte longer than it need be; none from 5 on
  uint8_t flags, quality2;
  int lanes_log2, skip_max;  // -1: the encoder's choice
  bool other_coder;          // the byte has something that was not chosen
  uint32_t width, height;
  int8_t tail_lie, payload_lie;
  uint32_t count_lie;
  int pattern, kind;  // of table indices; of symbols
  uint8_t seed;
  size_t sections;
  struct Section {
    uint8_t type, options;
  } section[kSections];
  struct Damage {
    uint8_t how;
    size_t where;
  } damage[kDamages];

  explicit Fields(Input& in) {
    const uint32_t forms = in.number(1);
    form = static_cast<Form>(forms & 3);
    const bool wrong = forms >> 7;
    const auto is_wrong = [&](int bit) { return wrong && (forms >> bit & 1); };
    bad_header_crc = is_wrong(2);
    bad_payload_crc = is_wrong(3);
    other_model = is_wrong(4);
    goes_on = is_wrong(6);
    const uint32_t bits = in.number(1), quality = in.number(1);
    flags = static_cast<uint8_t>(wrong && bits >= 128 ? bits : bits & 3);
    quality2 = static_cast<uint8_t>(wrong ? quality : 2 + quality % 199);
    const uint32_t coder = in.number(1);
    lanes_log2 = (coder & 7) > 5 ? -1 : static_cast<int>(coder & 7);
    skip_max = (coder & 7) == 7 ? -1 : static_cast<int>(coder >> 3 & 15);
    other_coder = wrong && coder >> 7;
    width = side(in.number(2), wrong);
    height = side(in.number(2), wrong);
    const uint32_t lies = in.number(2);
    tail_lie = wrong ? static_cast<int8_t>(lies) : 0;
    payload_lie = wrong ? static_cast<int8_t>(lies >> 8) : 0;
    const uint32_t look = in.number(1);
    pattern = look & 7;
    kind = look >> 3 & 7;
    seed = static_cast<uint8_t>(in.number(1));
    long_varint = is_wrong(5) ? seed % 5 : 5;
    const uint32_t count = in.number(1);
    sections = std::min<size_t>(count & 7, kSections);
    count_lie = wrong && count >> 7 ? count >> 3 : 0;
    for (Section& one : section) {
      one.type = type_of(in.number(1));
      one.options = static_cast<uint8_t>(in.number(1));
    }
    for (Damage& one : damage) {
      one.how = static_cast<uint8_t>(in.number(1));
      one.where = in.number(2);
    }
  }

 private:
  // Up to three patches, or anything, 0 and more than there may be among it.
  static uint32_t side(uint32_t number, bool wrong) {
    if (!wrong || number < 0xC000) return 1 + number % 160;
    return (number & 0x7FF) << 2 * (number >> 11 & 7);
  }
  static uint8_t type_of(uint32_t number) {
    constexpr uint8_t kKnown[] = {1, 2, 128, 129};
    return static_cast<uint8_t>(number < 64 ? kKnown[number % 4] : number + 64);  // 128 .. 255, then 0 .. 63
  }
};

struct Header {
  size_t count, threads, coder, tables;
  bool bad_index;  // ask with a table index too large first
  std::vector<size_t> channels;
  uint64_t max_pixels;
  size_t lead;
  std::vector<Fields> streams;

  explicit Header(Input& in) {
    static const std::vector<size_t> kChannels[] = {{3}, {1}, {2, 3}, {1, 2, 1, 5}, {130}, {8}, {5, 1, 1},
                                                    std::vector<size_t>(16, 1)};
    constexpr uint64_t kMostPixels[] = {1 << 15, 1 << 27, 4096, 1 << 16, 0, UINT64_MAX, 100 * 100, 4097};
    const uint32_t kinds = in.number(1);
    count = 1 + (kinds & 3);
    threads = 1 + (kinds >> 2 & 1);
    coder = kinds >> 3 & 3;
    tables = kinds >> 5 & 3;
    bad_index = kinds >> 7;
    const uint32_t asked = in.number(1);
    channels = kChannels[asked & 7];
    max_pixels = kMostPixels[asked >> 3 & 7];
    lead = asked >> 6;
    for (size_t i = 0; i < count; ++i) streams.emplace_back(in);
  }
};

}  // namespace ckbd::fuzz
