// Encoding, backwards: avx512.cpp undone. States are whole here, 16 to a register, since they are divided.
#include "rans/isa.h"

#if CKBD_X86

#include "rans/avx512.h"

namespace ckbd::avx512 {
namespace {

// What a symbol's size means, for all lanes.
struct Meaning {
  __m512i f, first;
};

// Two zmm registers make a table of 64 entries; three of those hold the codes of 23 tables and 8 sizes.
class NarrowCodes {
 public:
  explicit NarrowCodes(const TableView& tables) {
    uint16_t f[192], first[192];
    for (size_t i = 0; i < 192; ++i) {
      const Code code = i / 8 <= kLastNarrow ? tables.y_codes[i / 8 * kYCodes + i % 8] : 1;
      f[i] = static_cast<uint16_t>(frequency(code));
      first[i] = static_cast<uint16_t>(first_slot(code));
    }
    for (int i = 0; i < 6; ++i) {
      f_[i] = _mm512_loadu_si512(f + 32 * i);
      first_[i] = _mm512_loadu_si512(first + 32 * i);
    }
  }
  Meaning find(__m512i table, __m512i size) const {
    const __m512i m = _mm512_min_epu16(size, _mm512_set1_epi16(7));
    const __m512i i = _mm512_or_si512(_mm512_slli_epi16(table, 3), m);
    const Mask second = _mm512_test_epi16_mask(i, _mm512_set1_epi16(64));
    const Mask third = _mm512_test_epi16_mask(i, _mm512_set1_epi16(128));
    const auto look_up = [&](const __m512i* t) {
      const __m512i low = _mm512_mask_mov_epi16(_mm512_permutex2var_epi16(t[0], i, t[1]), second,
                                                _mm512_permutex2var_epi16(t[2], i, t[3]));
      return _mm512_mask_mov_epi16(low, third, _mm512_permutex2var_epi16(t[4], i, t[5]));
    };
    return {look_up(f_), look_up(first_)};
  }

 private:
  __m512i f_[6], first_[6];
};

Meaning look_up(const Code* codes, unsigned row_bits, __m512i table, __m512i size) {
  __m512i code[2];
  for (int half = 0; half < 2; ++half) {
    const __m512i row = _mm512_slli_epi32(widen(table, half), row_bits);
    code[half] = _mm512_i32gather_epi32(_mm512_or_si512(row, widen(size, half)), codes, 4);
  }
  const __m512i lower = every_other(code[0], code[1], 0), upper = every_other(code[0], code[1], 1);
  const __m512i twelve = _mm512_set1_epi16(kSlots - 1);
  return {_mm512_and_si512(lower, twelve), _mm512_and_si512(_mm512_shrdi_epi16(lower, upper, 12), twelve)};
}

class WideCodes {
 public:
  explicit WideCodes(const TableView& tables) : codes_(tables.y_codes) {}
  Meaning find(__m512i table, __m512i size) const {
    return look_up(codes_, 7, table, _mm512_min_epu16(size, _mm512_set1_epi16(kYCodes - 1)));
  }

 private:
  const Code* codes_;
};

struct States {
  __m512i half[2];  // lanes 0-15, 16-31
};

// x / f, f < 2^12, for x < 2^20 f: a quotient below 2^20. In floats x is off by at most 2^-24 of itself, 1 / f by
// little more than 2^-23 after one step of Newton, their product by 2^-24 more; scaled down by 2^-21 it is never too
// large, and too small by less than 2^20 (2^-21 + 2^-22) < 1. So the integer below it is the quotient or one less.
struct Reciprocal {
  __m512 of[2];
  __m512i f[2];
  explicit Reciprocal(__m512i f16) {
    for (int h = 0; h < 2; ++h) {
      f[h] = widen(f16, h);
      const __m512 exact = _mm512_cvtepi32_ps(f[h]);
      const __m512 guess = _mm512_rcp14_ps(exact);
      const __m512 error = _mm512_fnmadd_ps(exact, guess, _mm512_set1_ps(2.0f - 0x1p-21f));
      of[h] = _mm512_mul_ps(guess, error);
    }
  }
};

// All lanes in `active` put out what they must and take a symbol.
inline uint8_t* encode_step(States& x, const Meaning& meaning, __m512i sign, Mask paired, Mask active,
                            uint8_t* words) {
  const Reciprocal reciprocal(meaning.f);
  Mask give = 0;
  for (int h = 0; h < 2; ++h) {
    const __mmask16 here = static_cast<__mmask16>(active >> 16 * h);
    const __mmask16 out = _mm512_mask_cmpge_epu32_mask(here, x.half[h], _mm512_slli_epi32(reciprocal.f[h], 20));
    give |= Mask{out} << 16 * h;
  }
  // The words go below those already there, lowest lane first: compressed to the front of a vector, then turned so
  // that they end at its end. What stands before them is free space.
  const __m512i low = join(_mm512_cvtepi32_epi16(x.half[0]), _mm512_cvtepi32_epi16(x.half[1]));
  const int count = _mm_popcnt_u32(give);
  const __m512i lane = _mm512_set_epi16(31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14, 13,
                                        12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512i turned = _mm512_add_epi16(lane, _mm512_set1_epi16(static_cast<short>(count)));
  _mm512_storeu_si512(words - kStepBytes, _mm512_permutexvar_epi16(turned, _mm512_maskz_compress_epi16(give, low)));
  const __m512i first = _mm512_add_epi16(meaning.first, sign);
  for (int h = 0; h < 2; ++h) {
    const __mmask16 here = static_cast<__mmask16>(active >> 16 * h);
    const __m512i f = reciprocal.f[h];
    const __m512i y = _mm512_mask_srli_epi32(x.half[h], static_cast<__mmask16>(give >> 16 * h), x.half[h], 16);
    const __m512i below = _mm512_cvttps_epu32(_mm512_mul_ps(_mm512_cvtepu32_ps(y), reciprocal.of[h]));
    __m512i rest = _mm512_sub_epi32(y, _mm512_mullo_epi32(below, f));
    const __mmask16 short_by_one = _mm512_cmpge_epu32_mask(rest, f);
    rest = _mm512_mask_sub_epi32(rest, short_by_one, rest, f);
    const __m512i quotient = _mm512_mask_sub_epi32(below, short_by_one, below, _mm512_set1_epi32(-1));
    const __mmask16 two = static_cast<__mmask16>(paired >> 16 * h);
    const __m512i bias = _mm512_mask_slli_epi32(rest, two, rest, 1);
    const __m512i next =
        _mm512_add_epi32(_mm512_slli_epi32(quotient, kTableBits), _mm512_add_epi32(widen(first, h), bias));
    x.half[h] = _mm512_mask_mov_epi32(x.half[h], here, next);
  }
  return words - 2 * count;
}

// Escapes of a step, highest lane first.
__attribute__((noinline, cold)) void push_escapes(EncoderState& state, Mask escapes, __m512i values) {
  uint32_t value[kMaxLanes];
  _mm512_storeu_si512(value, widen(values, 0));
  _mm512_storeu_si512(value + 16, widen(values, 1));
  for (int lane = kMaxLanes; lane-- > 0;) {
    if (escapes >> lane & 1) push_escape(state, value[lane]);
  }
}

inline __m512i load_values(Mask active, const int8_t* r) {
  return _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(active, r));
}

inline __m512i load_values(Mask active, const int16_t* r) { return _mm512_maskz_loadu_epi16(active, r); }

// Each symbol that stands in the buffers, last first. Number i of the group is at index i mod L, plus a multiple of
// L.
template <class Codes, class R>
void encode_buffer(EncoderState& state, const TableView& tables, const Codes& codes, const uint8_t* k, const R* r,
                   size_t first, size_t last) {
  const size_t lanes = state.lane_mask + 1, ahead = first & state.lane_mask;
  const size_t base = first - ahead;
  States x = {{_mm512_loadu_si512(state.x), _mm512_loadu_si512(state.x + 16)}};
  const __m512i escape_of[2] = {_mm512_loadu_si512(tables.y_escape), _mm512_loadu_si512(tables.y_escape + 32)};
  for (size_t at = (last - 1 - base) / lanes * lanes + lanes; at > 0;) {
    at -= lanes;
    const size_t begin = at == 0 ? ahead : 0, end = last - base - at < lanes ? last - base - at : lanes;
    const Mask active = lane_range(begin, end);
    const __m512i table = _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(active, k + at));
    const __m512i value = load_values(active, r + at);
    const __m512i size = _mm512_abs_epi16(value);  // 2^15 of -2^15, as an unsigned number
    const __m512i escape = _mm512_permutex2var_epi16(escape_of[0], table, escape_of[1]);
    const Mask escapes = _mm512_mask_cmpge_epu16_mask(active, size, escape);
    if (__builtin_expect(escapes != 0, 0)) push_escapes(state, escapes, _mm512_sub_epi16(size, escape));
    const Mask paired = _mm512_test_epi16_mask(size, size);
    state.words = encode_step(x, codes.find(table, size), _mm512_srli_epi16(value, 15), paired, active, state.words);
  }
  _mm512_storeu_si512(state.x, x.half[0]);
  _mm512_storeu_si512(state.x + 16, x.half[1]);
}

inline void compress(int8_t* out, const int8_t* r, uint64_t valid, uint64_t in) {
  _mm512_storeu_si512(out, _mm512_maskz_compress_epi8(in, _mm512_maskz_loadu_epi8(valid, r)));
}

inline void compress(int16_t* out, const int16_t* r, uint64_t valid, uint64_t in) {
  const auto half = [&](int16_t* to, const int16_t* from, Mask there, Mask these) {
    _mm512_storeu_si512(to, _mm512_maskz_compress_epi16(these, _mm512_maskz_loadu_epi16(there, from)));
  };
  half(out, r, static_cast<Mask>(valid), static_cast<Mask>(in));
  half(out + _mm_popcnt_u32(static_cast<Mask>(in)), r + 32, static_cast<Mask>(valid >> 32),
       static_cast<Mask>(in >> 32));
}

template <class R>
void encode_y(EncoderState& state, const TableView& tables, const YGroup<const R>& y) {
  alignas(64) uint8_t k[kMaxLanes + kChunk + kBlock];
  alignas(64) R r[kMaxLanes + kChunk + kBlock];
  const NarrowCodes narrow_codes(tables);
  const WideCodes wide_codes(tables);
  size_t last = y.count, end = blocks_of(y.n);
  while (last > 0) {
    // The blocks before `end`, as many as the buffers are sure to hold.
    size_t begin = end, found = 0;
    while (begin > 0 && found <= kChunk - kBlock) found += popcount(y.members[--begin]);
    const size_t first = last - found;
    size_t next = first & state.lane_mask;
    for (size_t b = begin; b < end; ++b) {
      const uint64_t in = y.members[b];
      // Wide ones are rare. Whether there are narrow ones is as good as random.
      if (!y.narrow && in == 0) continue;
      const Block block = load_block(y.k + b * kBlock, y.n - b * kBlock);
      _mm512_storeu_si512(k + next, _mm512_maskz_compress_epi8(in, rows_of(block.k)));
      compress(r + next, y.r + b * kBlock, block.valid, in);
      next += popcount(in);
    }
    if (y.narrow) {
      encode_buffer(state, tables, narrow_codes, k, r, first, last);
    } else {
      encode_buffer(state, tables, wide_codes, k, r, first, last);
    }
    last = first;
    end = begin;
  }
}

// Escapes of a step of z, highest lane first.
__attribute__((noinline, cold)) void push_z_escapes(EncoderState& state, Mask escapes, const int16_t* z,
                                                    const int16_t* low, const uint16_t* escape) {
  for (int lane = kMaxLanes; lane-- > 0;) {
    if (escapes >> lane & 1) push_z_escape(state, z[lane] - low[lane], escape[lane]);
  }
}

inline uint64_t nonzero(const int8_t* r, uint64_t valid) {
  const __m512i v = _mm512_maskz_loadu_epi8(valid, r);
  return _mm512_test_epi8_mask(v, v);
}

inline uint64_t nonzero(const int16_t* r, uint64_t valid) {
  const __m512i a = _mm512_maskz_loadu_epi16(static_cast<Mask>(valid), r);
  const __m512i b = _mm512_maskz_loadu_epi16(static_cast<Mask>(valid >> 32), r + 32);
  return _mm512_test_epi16_mask(a, a) | uint64_t{_mm512_test_epi16_mask(b, b)} << 32;
}

template <class R>
size_t next_exception(const uint64_t* coded, const R* r, size_t at, size_t n, size_t& zeros) {
  for (; at < n; at = (at / kBlock + 1) * kBlock) {
    const uint64_t in = skipped_from(coded, at, n);
    const size_t begin = at / kBlock * kBlock;
    const uint64_t found = nonzero(r + begin, in);
    if (found != 0) {
      const uint64_t place = _tzcnt_u64(found);
      zeros += popcount(in & ((uint64_t{1} << place) - 1));
      return begin + place;
    }
    zeros += popcount(in);
  }
  return n;
}

}  // namespace

void encode_z(EncoderState& state, const TableView& tables, const int16_t* z, size_t n) {
  const size_t lanes = state.lane_mask + 1;
  const ChannelRows& rows = tables.by_channel;
  States x = {{_mm512_loadu_si512(state.x), _mm512_loadu_si512(state.x + 16)}};
  size_t at = (n + lanes - 1) / lanes * lanes;
  size_t channel = at % tables.channels;
  const size_t back = lanes % tables.channels;
  while (at > 0) {
    at -= lanes;
    channel = channel >= back ? channel - back : channel + tables.channels - back;
    const Mask active = lane_range(0, n - at < lanes ? n - at : lanes);
    const __m512i low = _mm512_loadu_si512(rows.low + channel), escape = _mm512_loadu_si512(rows.escape + channel);
    // t wraps for z near the ends of int16, to the far side of 2^15: outside the table in any case.
    const __m512i t = _mm512_sub_epi16(_mm512_maskz_loadu_epi16(active, z + at), low);
    const Mask outside = _mm512_mask_cmpge_epu16_mask(active, t, escape);
    if (__builtin_expect(outside != 0, 0)) {
      push_z_escapes(state, outside, z + at, rows.low + channel, rows.escape + channel);
    }
    const __m512i size = _mm512_min_epu16(t, escape);
    const Meaning meaning = look_up(tables.z_codes, 8, _mm512_loadu_si512(rows.channel + channel), size);
    state.words = encode_step(x, meaning, _mm512_setzero_si512(), 0, active, state.words);
  }
  _mm512_storeu_si512(state.x, x.half[0]);
  _mm512_storeu_si512(state.x + 16, x.half[1]);
}

void encode_y8(EncoderState& state, const TableView& tables, const YGroup<const int8_t>& y) {
  encode_y(state, tables, y);
}

void encode_y16(EncoderState& state, const TableView& tables, const YGroup<const int16_t>& y) {
  encode_y(state, tables, y);
}

size_t next_exception8(const uint64_t* coded, const int8_t* r, size_t at, size_t n, size_t& zeros) {
  return next_exception(coded, r, at, n, zeros);
}

size_t next_exception16(const uint64_t* coded, const int16_t* r, size_t at, size_t n, size_t& zeros) {
  return next_exception(coded, r, at, n, zeros);
}

}  // namespace ckbd::avx512

#endif
