// Eight lanes to a vector, one vector after the other.
//
// Needs AVX2, BMI1 and POPCNT (Haswell, Zen). As in avx512.cpp, members of a group are compressed into a buffer
// first, in which element i stands at a multiple of L plus i mod L; here by a shuffle of eight bytes at a time. With
// fewer than eight lanes the scalar coder does the work.
#include "rans/isa.h"

#if CKBD_X86

#include "rans/avx2.h"

namespace ckbd::avx2 {
namespace {

// ---- decoding

struct Found {
  __m256i f, bias, symbol, escapes;
};

class BySlot {
 public:
  using Index = uint8_t;
  explicit BySlot(const TableView& tables) : slots_(reinterpret_cast<const int*>(tables.y_slots)) {}
  Found find(const uint8_t* k, __m256i active, __m256i x) const {
    const __m256i s = _mm256_and_si256(x, set1(kSlots - 1));
    const __m256i table = _mm256_and_si256(_mm256_cvtepu8_epi32(load8(k)), active);
    const __m256i at = _mm256_or_si256(_mm256_slli_epi32(table, kTableBits - 1), _mm256_srli_epi32(s, 1));
    const __m256i slot = _mm256_i32gather_epi32(slots_, at, 4);
    const __m256i size = _mm256_srli_epi32(slot, 24);
    const __m256i d = _mm256_sub_epi32(s, _mm256_and_si256(_mm256_srli_epi32(slot, kTableBits), set1(kSlots - 1)));
    const __m256i paired = _mm256_cmpgt_epi32(size, _mm256_setzero_si256());
    // 1 where two symbols share the interval and d is odd; then -size = (size ^ -1) + 1.
    const __m256i negative = _mm256_and_si256(_mm256_and_si256(paired, d), set1(1));
    const __m256i sign = _mm256_sub_epi32(_mm256_setzero_si256(), negative);
    return {_mm256_and_si256(slot, set1(kSlots - 1)), _mm256_srlv_epi32(d, _mm256_srli_epi32(paired, 31)),
            _mm256_sub_epi32(_mm256_xor_si256(size, sign), sign), _mm256_cmpeq_epi32(size, set1(kEscapeSize))};
  }

 private:
  const int* slots_;
};

// Lane i has channel c + i; see avx512.cpp.
class ByChannel {
 public:
  using Index = uint16_t;  // `channel` points into ChannelRows::channel
  explicit ByChannel(const TableView& tables)
      : rows_(tables.by_channel), codes_(reinterpret_cast<const int*>(tables.z_codes)) {}
  Found find(const uint16_t* channel, __m256i, __m256i x) const {
    const size_t c = static_cast<size_t>(channel - rows_.channel);
    const __m256i s = _mm256_and_si256(x, set1(kSlots - 1));
    const __m128i s16 = _mm_packus_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
    __m128i m16 = _mm_setzero_si128();
    const uint16_t* above = rows_.above + c;
    for (size_t row = rows_.rows[channel[0]]; row > 0; --row, above += rows_.stride) {
      const __m128i threshold = load(above);
      m16 = _mm_sub_epi16(m16, _mm_cmpeq_epi16(_mm_min_epu16(threshold, s16), threshold));
    }
    const __m256i m = _mm256_cvtepu16_epi32(m16);
    const __m256i at = _mm256_or_si256(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load(channel)), 8), m);
    const __m256i code = _mm256_i32gather_epi32(codes_, at, 4);
    const __m256i first = _mm256_and_si256(_mm256_srli_epi32(code, kTableBits), set1(kSlots - 1));
    const __m256i escape = _mm256_cvtepu16_epi32(load(rows_.escape + c));
    return {_mm256_and_si256(code, set1(kSlots - 1)), _mm256_sub_epi32(s, first),
            _mm256_add_epi32(m, _mm256_cvtepi16_epi32(load(rows_.low + c))), _mm256_cmpeq_epi32(m, escape)};
  }

 private:
  static __m128i load(const void* from) { return _mm_loadu_si128(static_cast<const __m128i*>(from)); }

  const ChannelRows rows_;
  const int* codes_;
};

// x = f (x >> 12) + bias, then a word for those below 2^16. Returns the lanes that took one.
inline unsigned advance(__m256i& x, const uint8_t*& next, const Found& found, __m256i active) {
  const __m256i y = _mm256_add_epi32(_mm256_mullo_epi32(found.f, _mm256_srli_epi32(x, kTableBits)), found.bias);
  const __m256i take = _mm256_and_si256(_mm256_cmpeq_epi32(_mm256_srli_epi32(y, 16), _mm256_setzero_si256()), active);
  const unsigned taken = mask_of(take);
  const __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(next)));
  const __m256i places = _mm256_cvtepu8_epi32(load8(kShuffles.expand[taken]));
  const __m256i filled = _mm256_or_si256(_mm256_slli_epi32(y, 16), _mm256_permutevar8x32_epi32(words, places));
  x = _mm256_blendv_epi8(x, _mm256_blendv_epi8(y, filled, take), active);
  next += 2 * static_cast<unsigned>(__builtin_popcount(taken));
  return taken;
}

// The rare end of a step, as in avx512.cpp.
template <class Index>
__attribute__((noinline, cold)) const uint8_t* finish(DecoderState& state, const TableView& tables,
                                                      const Index* table, size_t first, const uint8_t* before,
                                                      const uint8_t* next, const __m256i* x_before, size_t vectors,
                                                      uint32_t escapes, uint32_t taken) {
  Step step{};
  step.first = first;
  step.escapes = escapes;
  step.taken = taken;
  step.before = before;
  for (size_t v = 0; v < vectors; ++v) {
    uint32_t x[kVector];
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(x), x_before[v]);
    for (size_t lane = 0; lane < kVector; ++lane) {
      step.slot[v * kVector + lane] = static_cast<uint16_t>(x[lane] & (kSlots - 1));
      if (escapes >> (v * kVector + lane) & 1) step.table[v * kVector + lane] = table[v * kVector + lane];
    }
  }
  state.words.next = next;
  return finish_step(state, tables, sizeof(Index) == 2, step) ? state.words.next : nullptr;
}

// Decodes symbols `first` to before `last` of a group, which stand in the buffer from index first mod L on. The
// states of all N vectors stay in registers. False if the stream has failed.
template <class Finder, size_t N>
bool run(DecoderState& state, const TableView& tables, const typename Finder::Index* table, int8_t* out, size_t first,
         size_t last) {
  constexpr size_t kLanes = N * kVector;
  const Finder finder(tables);
  __m256i x[N];
  for (size_t v = 0; v < N; ++v) x[v] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(state.x + v * kVector));
  const uint8_t *next = state.words.next, *safe = state.words.safe;
  for (size_t begin = first % kLanes, at = first - begin; at < last; at += kLanes, begin = 0) {
    const size_t end = last - at < kLanes ? last - at : kLanes;
    const bool whole = begin == 0 && end == kLanes;
    const uint8_t* const before = next;
    __m256i x_before[N], symbols[N];
    uint32_t escapes = 0, taken = 0;
    for (size_t v = 0; v < N; ++v) {
      const __m256i active = whole ? _mm256_set1_epi32(-1) : lanes_between(begin, end, v * kVector);
      const Found found = finder.find(table + v * kVector, active, x[v]);
      x_before[v] = x[v];
      symbols[v] = found.symbol;
      escapes |= mask_of(_mm256_and_si256(found.escapes, active)) << v * kVector;
      taken |= advance(x[v], next, found, active) << v * kVector;
    }
    for (size_t v = 0; v < N; ++v) {
      const __m128i low = _mm256_castsi256_si128(symbols[v]), high = _mm256_extracti128_si256(symbols[v], 1);
      const __m128i bytes = _mm_packs_epi16(_mm_packs_epi32(low, high), _mm_setzero_si128());
      _mm_storel_epi64(reinterpret_cast<__m128i*>(out + v * kVector), bytes);
    }
    if (__builtin_expect((escapes != 0) | (next > safe), 0)) {
      next = finish(state, tables, table, at, before, next, x_before, N, escapes, taken);
      if (next == nullptr) return false;
      safe = state.words.safe;
    }
    table += kLanes;
    out += kLanes;
  }
  for (size_t v = 0; v < N; ++v) _mm256_storeu_si256(reinterpret_cast<__m256i*>(state.x + v * kVector), x[v]);
  state.words.next = next;
  return true;
}

template <class Finder>
bool run_lanes(DecoderState& state, const TableView& tables, const typename Finder::Index* table, int8_t* out,
               size_t first, size_t last) {
  if (first == last) return true;
  switch (state.lane_mask) {
    case 31:
      return run<Finder, 4>(state, tables, table, out, first, last);
    case 15:
      return run<Finder, 2>(state, tables, table, out, first, last);
    default:
      return run<Finder, 1>(state, tables, table, out, first, last);
  }
}

void store8(int8_t* to, __m128i bytes) { _mm_storel_epi64(reinterpret_cast<__m128i*>(to), bytes); }
void store8(int16_t* to, __m128i bytes) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm_cvtepi8_epi16(bytes));
}

// Expands the symbols of a chunk into their places; with `clear` all else there becomes 0.
template <class R>
void expand(const uint64_t* members, const int8_t* symbols, R* r, size_t size, bool clear) {
  for (size_t b = 0; b < blocks_of(size); ++b) {
    R* const block = r + b * kBlock;
    const size_t left = size - b * kBlock;
    if (!clear || popcount(members[b]) <= kFew || left < kBlock) {
      if (clear) __builtin_memset(block, 0, sizeof(R) * (left < kBlock ? left : kBlock));
      for (uint64_t in = members[b]; in != 0; in &= in - 1) block[_tzcnt_u64(in)] = *symbols++;
      continue;
    }
    for (size_t j = 0; j < kBlock; j += kVector) {
      const unsigned in = members[b] >> j & 255;
      store8(block + j, _mm_shuffle_epi8(load8(symbols), load8(kShuffles.expand[in])));
      symbols += popcount(in);
    }
  }
}

template <class R>
void place(const Escaped* escaped, const uint64_t* members, size_t blocks, size_t number, R* r) {
  for (size_t b = 0; b < blocks; ++b) {
    uint64_t in = members[b];
    const size_t end = number + popcount(in);
    for (; escaped->number < end; ++escaped) {
      for (; number < escaped->number; ++number) in &= in - 1;
      r[b * kBlock + _tzcnt_u64(in)] = static_cast<R>(escaped->symbol);
    }
    number = end;
  }
}

template <class R>
void decode_y(DecoderState& state, const TableView& tables, const YGroup<R>& y, bool clear) {
  if (state.lane_mask + 1 < kVector) return scalar_y<R>().decode(state, tables, y, clear);
  uint8_t k[kMaxLanes + kChunk + kMaxLanes];
  int8_t symbols[kMaxLanes + kChunk + kMaxLanes];
  size_t taken = 0;
  for (size_t begin = 0; begin < y.n && (clear || taken < y.count); begin += kChunk) {
    const size_t size = y.n - begin < kChunk ? y.n - begin : kChunk;
    const uint64_t* const members = y.members + begin / kBlock;
    const size_t ahead = taken & state.lane_mask;
    const size_t found = compress(members, y.k + begin, size, k + ahead);
    if (!run_lanes<BySlot>(state, tables, k, symbols, taken, taken + found)) return;
    expand(members, symbols + ahead, y.r + begin, size, clear);
    const Escaped* escaped = take_escapes(state);
    if (escaped != nullptr) place(escaped, members, blocks_of(size), taken, y.r + begin);
    taken += found;
  }
}

template <class R>
void decode_two(DecoderState* const state[2], const TableView& tables, const YGroup<R> y[2], bool clear) {
  for (int i = 0; i < 2; ++i) decode_y(*state[i], tables, y[i], clear);
}

void decode_z(DecoderState& state, const TableView& tables, int16_t* z, size_t n) {
  const size_t lanes = state.lane_mask + 1;
  if (lanes < kVector) return scalar::coder.decode_z(state, tables, z, n);
  size_t channel = 0;
  for (size_t at = 0; at < n; at += lanes) {
    int8_t symbols[kMaxLanes];
    const size_t here = n - at < lanes ? n - at : lanes;
    if (!run_lanes<ByChannel>(state, tables, tables.by_channel.channel + channel, symbols, at, at + here)) return;
    for (size_t i = 0; i < here; ++i) z[at + i] = symbols[i];
    const Escaped* escaped = take_escapes(state);
    for (; escaped != nullptr && escaped->number < n; ++escaped) {
      z[escaped->number] = static_cast<int16_t>(escaped->symbol);
    }
    channel = (channel + lanes) % tables.channels;
  }
}

// ---- what else goes over every element

Count classify(const uint8_t* k, size_t n, uint8_t skip_max, uint64_t* narrow, uint64_t* wide) {
  Count total{};
  __m256i used = _mm256_setzero_si256();
  // Signed comparisons do: indices of 128 and more are refused anyway.
  const __m256i skip = _mm256_set1_epi8(static_cast<char>(skip_max)), last_narrow = _mm256_set1_epi8(kLastNarrow);
  const auto above = [](__m256i v, __m256i limit) {
    return uint64_t{static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpgt_epi8(v, limit)))};
  };
  for (size_t begin = 0; begin < n; begin += kBlock) {
    const uint8_t* from = k + begin;
    uint8_t last[kBlock] = {};
    if (n - begin < kBlock) {
      for (size_t i = 0; i < n - begin; ++i) last[i] = from[i];
      from = last;
    }
    const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + 32));
    const uint64_t in_wide = above(a, last_narrow) | above(b, last_narrow) << 32;
    const uint64_t in_narrow = (above(a, skip) | above(b, skip) << 32) & ~in_wide;
    *narrow++ = in_narrow;
    *wide++ = in_wide;
    total.narrow += popcount(in_narrow);
    total.wide += popcount(in_wide);
    used = _mm256_or_si256(used, _mm256_or_si256(a, b));
  }
  total.in_range = _mm256_testz_si256(used, _mm256_set1_epi8(static_cast<char>(~(kScales - 1))));
  return total;
}

}  // namespace

extern const Coder coder = {
    "avx2",
    decode_z,
    encode_z,
    classify,
    find_skipped,
    crc32c,
    {decode_y<int8_t>, decode_two<int8_t>, encode_y8, next_exception8},
    {decode_y<int16_t>, decode_two<int16_t>, encode_y16, next_exception16},
};

}  // namespace ckbd::avx2

#endif
