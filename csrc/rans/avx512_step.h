// A step of all lanes, decoding: what slots mean, and the states' arithmetic. For avx512.cpp alone.
#pragma once

#include "rans/avx512.h"

namespace ckbd::avx512 {
namespace {

struct Lanes {
  __m512i low, high;
};

// A load that stays one: expanding straight from memory is slow on Zen 4.
static inline __m512i load_first(const void* from) {
  __m512i v = _mm512_loadu_si512(from);
  asm("" : "+v"(v));
  return v;
}

static inline Lanes load(const uint32_t* x) {
  const __m512i a = _mm512_loadu_si512(x), b = _mm512_loadu_si512(x + 16);
  return {join(_mm512_cvtepi32_epi16(a), _mm512_cvtepi32_epi16(b)),
          join(_mm512_cvtepi32_epi16(_mm512_srli_epi32(a, 16)), _mm512_cvtepi32_epi16(_mm512_srli_epi32(b, 16)))};
}

static inline void store(uint32_t* x, Lanes lanes) {
  for (int half = 0; half < 2; ++half) {
    const __m512i high = _mm512_slli_epi32(widen(lanes.high, half), 16);
    _mm512_storeu_si512(x + 16 * half, _mm512_or_si512(high, widen(lanes.low, half)));
  }
}

// ---- what a slot means, for all lanes at once

struct Found {
  __m512i f, bias, symbol;
  Mask escapes;
};

// Narrow tables, by search among N thresholds. With T_m = 8 S_m + 7 - m for sizes m = 0 .. N and t = 8 s + 7, slot s
// belongs to the largest m with T_m <= t. So look at all t - T_m, as unsigned 16-bit numbers: those that are not
// negative are below 2^15, the others from there on (t - T_m >= 7 - 2^15). Therefore
//   the least of them is      near = t - T_m = 8 (s - S_m) + m       the distance, and which m it was;
//   the greatest is           far = t - T_(m+1)  (mod 2^16)
//   near - far = T_(m+1) - T_m = 8 (S_(m+1) - S_m) - c,  0 <= c <= 7:  the size of the interval.
// Sizes that a table lacks have T_m = T_N, so that they are never the least, except as N; c is 1 from one size to the
// next and N - m from the last that there is to N. For N = 7 that is the escape, and T_8 = 2^15 ends it (c = 0). For
// N = 4 it is all from size 4 on, or the escape if it comes first: then there is no telling, and the search begins
// again with seven. That is rare but for the last tables: by table 17 (sigma 0.89) |r| >= 4 once in 12,000 symbols,
// by table 22 once in 29.
template <int N>
static inline Found search(const __m512i* above, __m512i table, __m512i low) {
  const __m512i seven = _mm512_set1_epi16(7), inside = _mm512_set1_epi16(0x7FF8);
  const __m512i shifted = _mm512_slli_epi16(low, 3);
  const __m512i t = _mm512_ternarylogic_epi64(shifted, inside, seven, 0xEA);  // (shifted & inside) | 7
  __m512i d[7];
  for (int j = 0; j < N; ++j) d[j] = _mm512_sub_epi16(t, _mm512_permutexvar_epi16(table, above[j]));
  const auto least = [](__m512i a, __m512i b) { return _mm512_min_epu16(a, b); };
  const auto most = [](__m512i a, __m512i b) { return _mm512_max_epu16(a, b); };
  __m512i near = least(least(_mm512_and_si512(shifted, inside), d[0]), least(d[1], d[2]));
  __m512i far = most(most(d[0], d[1]), most(d[2], d[3]));
  if constexpr (N == 7) {
    near = least(near, least(least(d[3], d[4]), least(d[5], d[6])));
    far = most(far, most(most(d[4], d[5]), most(d[6], _mm512_or_si512(t, _mm512_set1_epi16(-0x8000)))));
  } else {
    near = least(near, d[3]);
  }
  const __m512i slots = _mm512_srli_epi16(_mm512_add_epi16(_mm512_sub_epi16(near, far), seven), 3);
  const __m512i distance = _mm512_srli_epi16(near, 3), size = _mm512_and_si512(near, seven);
  // d[0] is not negative if m >= 1: then two symbols share the interval.
  const __m512i paired = _mm512_srli_epi16(_mm512_andnot_si512(d[0], _mm512_set1_epi16(-1)), 15);
  const __m512i negative = _mm512_and_si512(distance, paired);
  const __m512i sign = _mm512_sub_epi16(_mm512_setzero_si512(), negative);
  return {_mm512_srlv_epi16(slots, paired), _mm512_srlv_epi16(distance, paired),
          _mm512_sub_epi16(_mm512_xor_si512(size, sign), sign), _mm512_cmpeq_epi16_mask(size, _mm512_set1_epi16(N))};
}

__attribute__((noinline, cold)) static Found search_all(const NarrowTables& tables, __m512i table, __m512i low) {
  __m512i above[7];
  for (int j = 0; j < 7; ++j) above[j] = _mm512_loadu_si512(tables.above[j]);
  return search<7>(above, table, low);
}

class Narrow {
 public:
  using Index = uint8_t;
  explicit Narrow(const TableView& tables) : tables_(*tables.narrow) {
    for (int j = 0; j < 4; ++j) few_[j] = _mm512_loadu_si512(tables.narrow->few[j]);
  }
  Found find(const uint8_t* k, Mask active, __m512i low) const {
    const __m512i table = _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(active, k));
    Found found = search<4>(few_, table, low);
    if (__builtin_expect((found.escapes & active) != 0, 0)) found = search_all(tables_, table, low);
    return found;
  }

 private:
  const NarrowTables& tables_;
  __m512i few_[4];
};

// All other tables, by look-up.
class Wide {
 public:
  using Index = uint8_t;
  explicit Wide(const TableView& tables) : slots_(tables.y_slots) {}
  Found find(const uint8_t* k, Mask active, __m512i low) const {
    const __m512i s = _mm512_and_si512(low, _mm512_set1_epi16(kSlots - 1));
    const __m512i pair = _mm512_srli_epi16(s, 1);
    const __m512i table = _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(active, k));
    __m512i slot[2];
    for (int half = 0; half < 2; ++half) {
      const __m512i row = _mm512_slli_epi32(widen(table, half), kTableBits - 1);
      slot[half] = _mm512_i32gather_epi32(_mm512_or_si512(row, widen(pair, half)), slots_, 4);
    }
    const __m512i lower = every_other(slot[0], slot[1], 0), upper = every_other(slot[0], slot[1], 1);
    const __m512i twelve = _mm512_set1_epi16(kSlots - 1);
    const __m512i first = _mm512_and_si512(_mm512_shrdi_epi16(lower, upper, 12), twelve);
    const __m512i distance = _mm512_sub_epi16(s, first), size = _mm512_srli_epi16(upper, 8);
    const Mask paired = _mm512_test_epi16_mask(size, size);
    const Mask negative = _mm512_mask_test_epi16_mask(paired, distance, _mm512_set1_epi16(1));
    return {_mm512_and_si512(lower, twelve), _mm512_mask_srli_epi16(distance, paired, distance, 1),
            _mm512_mask_sub_epi16(size, negative, _mm512_setzero_si512(), size),
            _mm512_cmpeq_epi16_mask(size, _mm512_set1_epi16(kEscapeSize))};
  }

 private:
  const Slot* slots_;
};

// z tables: lane i has channel c + i, so a row of thresholds serves all lanes at once. The interval is as many as
// there are thresholds not above s.
class ByChannel {
 public:
  using Index = uint16_t;  // `at` points into ChannelRows::channel
  explicit ByChannel(const TableView& tables) : rows_(tables.by_channel), codes_(tables.z_codes) {}
  Found find(const uint16_t* channel, Mask, __m512i low) const {
    const size_t c = static_cast<size_t>(channel - rows_.channel);
    const __m512i s = _mm512_and_si512(low, _mm512_set1_epi16(kSlots - 1));
    __m512i m = _mm512_setzero_si512();
    const uint16_t* above = rows_.above + c;
    for (size_t row = rows_.rows[c]; row > 0; --row, above += rows_.stride) {
      const Mask reached = _mm512_cmple_epu16_mask(_mm512_loadu_si512(above), s);
      m = _mm512_mask_sub_epi16(m, reached, m, _mm512_set1_epi16(-1));
    }
    const __m512i table = _mm512_loadu_si512(channel);
    __m512i code[2];
    for (int half = 0; half < 2; ++half) {
      const __m512i row = _mm512_slli_epi32(widen(table, half), 8);
      code[half] = _mm512_i32gather_epi32(_mm512_or_si512(row, widen(m, half)), codes_, 4);
    }
    const __m512i lower = every_other(code[0], code[1], 0), upper = every_other(code[0], code[1], 1);
    const __m512i twelve = _mm512_set1_epi16(kSlots - 1);
    const __m512i first = _mm512_and_si512(_mm512_shrdi_epi16(lower, upper, 12), twelve);
    return {_mm512_and_si512(lower, twelve), _mm512_sub_epi16(s, first),
            _mm512_add_epi16(m, _mm512_loadu_si512(rows_.low + c)),
            _mm512_cmpeq_epi16_mask(m, _mm512_loadu_si512(rows_.escape + c))};
  }

 private:
  const ChannelRows rows_;
  const Code* codes_;
};

// ---- steps

// One stream in the loop: its states in registers.
template <class Index>
struct Run {
  Lanes x;
  const uint8_t* next;
  const uint8_t* safe;
  const Index* at;  // table indices in
  int8_t* out;      // symbols out
  size_t first;     // number in the group of the symbol in lane 0
};

// x' = f (x >> 12) + bias in halves of 16 bits. x >> 12 = 2^16 q1 + q0, so with f < 2^12
//   x' = 2^16 (f q1) + f q0 + bias,
// f q0 being a product of two halves. Adding bias < 2^15 to its lower half carries just if that half has its top bit
// set and the sum has not. As ever x' < 2^32, so nothing is lost above. Then lanes whose upper half is 0 take a word.
template <class Index>
static inline Mask advance(Run<Index>& run, const Found& found, Mask active) {
  const __m512i q1 = _mm512_srli_epi16(run.x.high, 12);
  const __m512i q0 = _mm512_or_si512(_mm512_slli_epi16(run.x.high, 4), _mm512_srli_epi16(run.x.low, 12));
  const __m512i product = _mm512_mullo_epi16(found.f, q0);
  const __m512i low = _mm512_add_epi16(product, found.bias);
  const __m512i high = _mm512_add_epi16(_mm512_mulhi_epu16(found.f, q0), _mm512_mullo_epi16(found.f, q1));
  const __m512i carry = _mm512_srli_epi16(_mm512_andnot_si512(low, product), 15);
  const __m512i upper = _mm512_add_epi16(high, carry);
  const Mask take = _mm512_mask_testn_epi16_mask(active, upper, upper);
  const __m512i words = load_first(run.next);
  run.x.high = _mm512_mask_mov_epi16(run.x.high, active, _mm512_mask_mov_epi16(upper, take, low));
  run.x.low = _mm512_mask_mov_epi16(run.x.low, active, _mm512_mask_expand_epi16(low, take, words));
  run.next += 2 * _mm_popcnt_u32(take);
  return take;
}

// The rare end of a step: escapes, or the words' last page. Returns where the words go on, or null if the stream has
// failed. It takes values, since what has an address would not stay in registers.
template <class Index>
__attribute__((noinline, cold)) static const uint8_t* finish(DecoderState& state, const TableView& tables,
                                                             const Index* table, size_t first, const uint8_t* before,
                                                             const uint8_t* next, __m512i low_before, Mask escapes,
                                                             Mask taken) {
  Step step;
  step.first = first;
  step.escapes = escapes;
  step.taken = taken;
  step.before = before;
  _mm512_storeu_si512(step.slot, _mm512_and_si512(low_before, _mm512_set1_epi16(kSlots - 1)));
  for (Mask left = escapes; left != 0; left &= left - 1) {
    const unsigned lane = _tzcnt_u32(left);
    step.table[lane] = table[lane];
  }
  state.words.next = next;
  return finish_step(state, tables, sizeof(Index) == 2, step) ? state.words.next : nullptr;
}

// One step; false if the stream has failed. Of the 32 symbols that it stores, those of lanes that there are not are
// overwritten by the next one.
template <class Finder, class Index = typename Finder::Index>
static inline bool take_step(DecoderState& state, const TableView& tables, const Finder& finder, Run<Index>& run,
                             Mask active, size_t stride) {
  const __m512i low_before = run.x.low;
  const uint8_t* const before = run.next;
  const Found found = finder.find(run.at, active, low_before);
  const Mask taken = advance(run, found, active);
  const Mask escapes = found.escapes & active;
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(run.out), _mm512_cvtepi16_epi8(found.symbol));
  if (__builtin_expect((escapes != 0) | (run.next > run.safe), 0)) {
    run.next = finish(state, tables, run.at, run.first, before, run.next, low_before, escapes, taken);
    if (run.next == nullptr) return false;
    run.safe = state.words.safe;
  }
  run.at += stride;
  run.out += stride;
  run.first += stride;
  return true;
}

}  // namespace
}  // namespace ckbd::avx512
