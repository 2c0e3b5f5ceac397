// What rans.h asks of a coder besides the coding, element by element and bit by bit.
#include "rans/plain.h"

#include "rans/isa.h"

namespace ckbd::plain {
namespace {

template <class R>
void decode_two(DecoderState* const state[2], const TableView& tables, const YGroup<R> y[2], bool clear) {
  for (int i = 0; i < 2; ++i) decode_y(*state[i], tables, y[i], clear);
}

Count classify(const uint8_t* k, size_t n, uint8_t skip_max, uint64_t* narrow, uint64_t* wide) {
  Count count{0, 0, true};
  for (size_t b = 0; b < blocks_of(n); ++b) narrow[b] = wide[b] = 0;
  for (size_t i = 0; i < n; ++i) {
    const uint8_t one = once(k + i);
    count.in_range &= one < kScales;
    if (one <= skip_max) continue;
    const bool is_narrow = one <= kLastNarrow;
    uint64_t* const group = is_narrow ? narrow : wide;
    group[i / kBlock] |= uint64_t{1} << i % kBlock;
    ++(is_narrow ? count.narrow : count.wide);
  }
  return count;
}

size_t find_skipped(const uint64_t* coded, size_t at, size_t n, uint64_t before) {
  while (at < n && (bit(coded, at) || before-- > 0)) ++at;
  return at;
}

template <class R>
size_t next_exception(const uint64_t* coded, const R* r, size_t at, size_t n, size_t& zeros) {
  for (; at < n && (bit(coded, at) || once(r + at) == 0); ++at) zeros += !bit(coded, at);
  return at;
}

uint32_t crc32c(const uint8_t* data, size_t size, uint32_t before) {
  uint32_t r = ~before;
  for (size_t i = 0; i < 8 * size; ++i) {
    const uint32_t in = data[i / 8] >> i % 8 & 1u;
    r = r >> 1 ^ ((r ^ in) & 1 ? 0x82F63B78u : 0u);
  }
  return ~r;
}

template <class R>
constexpr YCoder<R> kY = {decode_y<R>, decode_two<R>, encode_y<R>, next_exception<R>};

}  // namespace

extern const Coder coder = {
    "plain", decode_z, encode_z, classify, find_skipped, crc32c, kY<int8_t>, kY<int16_t>,
};

}  // namespace ckbd::plain
