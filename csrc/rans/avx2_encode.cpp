// Encoding, backwards: avx2.cpp undone.
#include "rans/isa.h"

#if CKBD_X86

#include "rans/avx2.h"

namespace ckbd::avx2 {
namespace {

// x / f by way of floats; avx512_encode.cpp says why the quotient is right or one too small. Here x comes in two
// exact halves, whose sum is rounded once, and 1 / f is divided.
inline void encode_step(__m256i& x, __m256i code, __m256i negative, __m256i paired, __m256i active, uint8_t*& words) {
  const __m256i f = _mm256_and_si256(code, set1(kSlots - 1));
  const __m256i limit = _mm256_slli_epi32(f, 20);
  const __m256i give = _mm256_and_si256(_mm256_cmpeq_epi32(_mm256_max_epu32(x, limit), x), active);
  const unsigned given = mask_of(give);
  const __m256i low = _mm256_and_si256(x, set1(65535));
  const __m256i up = _mm256_permutevar8x32_epi32(low, _mm256_cvtepu8_epi32(load8(kShuffles.compress_up[given])));
  const __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(up), _mm256_extracti128_si256(up, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(words - 16), packed);
  words -= 2 * popcount(given);

  const __m256i y = _mm256_blendv_epi8(x, _mm256_srli_epi32(x, 16), give);
  const __m256 high = _mm256_cvtepi32_ps(_mm256_srli_epi32(y, 16));
  const __m256 rest_of_y = _mm256_cvtepi32_ps(_mm256_and_si256(y, set1(65535)));
  const __m256 in_float = _mm256_add_ps(_mm256_mul_ps(high, _mm256_set1_ps(65536.0f)), rest_of_y);
  const __m256 reciprocal = _mm256_div_ps(_mm256_set1_ps(1 - 0x1p-21f), _mm256_cvtepi32_ps(f));
  const __m256i below = _mm256_cvttps_epi32(_mm256_mul_ps(in_float, reciprocal));
  const __m256i rest = _mm256_sub_epi32(y, _mm256_mullo_epi32(below, f));
  const __m256i short_by_one = _mm256_cmpgt_epi32(rest, _mm256_sub_epi32(f, set1(1)));
  const __m256i quotient = _mm256_sub_epi32(below, short_by_one);
  const __m256i bias = _mm256_sub_epi32(rest, _mm256_and_si256(short_by_one, f));
  const __m256i first = _mm256_and_si256(_mm256_srli_epi32(code, kTableBits), set1(kSlots - 1));
  const __m256i slot =
      _mm256_add_epi32(_mm256_add_epi32(first, negative), _mm256_sllv_epi32(bias, _mm256_srli_epi32(paired, 31)));
  const __m256i encoded = _mm256_add_epi32(_mm256_slli_epi32(quotient, kTableBits), slot);
  x = _mm256_blendv_epi8(x, encoded, active);
}

// Symbols `first` to before `last` of a group, last first, from buffers like those of the decoder.
void encode_buffer(EncoderState& state, const TableView& tables, const uint8_t* k, const int16_t* r, size_t first,
                   size_t last) {
  const size_t lanes = state.lane_mask + 1, base = first / lanes * lanes;
  for (size_t at = (last - 1) / lanes * lanes + lanes; at > base;) {
    at -= lanes;
    const size_t begin = at < first ? first - at : 0, end = last - at < lanes ? last - at : lanes;
    for (size_t v = lanes; v > 0;) {
      v -= kVector;
      const __m256i active = lanes_between(begin, end, v);
      const size_t here = at - base + v;
      const __m256i table = _mm256_and_si256(_mm256_cvtepu8_epi32(load8(k + here)), active);
      const __m128i r16 = _mm_loadu_si128(reinterpret_cast<const __m128i*>(r + here));
      const __m256i value = _mm256_and_si256(_mm256_cvtepi16_epi32(r16), active);
      const __m256i size = _mm256_abs_epi32(value);
      const __m256i m = _mm256_min_epi32(size, set1(kYCodes - 1));
      const __m256i code = _mm256_i32gather_epi32(reinterpret_cast<const int*>(tables.y_codes),
                                                  _mm256_or_si256(_mm256_slli_epi32(table, 7), m), 4);
      const unsigned escapes = mask_of(_mm256_and_si256(_mm256_slli_epi32(code, 31 - 24), active));
      for (unsigned lane = kVector; __builtin_expect(escapes != 0, 0) && lane-- > 0;) {
        if (!(escapes >> lane & 1)) continue;
        const int32_t one = r[here + lane];
        push_escape(state, static_cast<uint32_t>((one < 0 ? -one : one) - tables.y_escape[k[here + lane]]));
      }
      __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(state.x + v));
      encode_step(x, code, _mm256_srli_epi32(value, 31), _mm256_cmpgt_epi32(size, _mm256_setzero_si256()), active,
                  state.words);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(state.x + v), x);
    }
  }
}

template <class R>
void encode_y(EncoderState& state, const TableView& tables, const YGroup<const R>& y) {
  if (state.lane_mask + 1 < kVector) return scalar_y<R>().encode(state, tables, y);
  alignas(64) uint8_t k[kMaxLanes + kChunk + kMaxLanes];
  alignas(64) int16_t r[kMaxLanes + kChunk + kMaxLanes];
  size_t last = y.count;
  for (size_t begin = (y.n + kChunk - 1) / kChunk * kChunk; begin > 0 && last > 0;) {
    begin -= kChunk;
    const size_t size = y.n - begin < kChunk ? y.n - begin : kChunk;
    const uint64_t* const members = y.members + begin / kBlock;
    size_t found = 0;
    for (size_t b = 0; b < blocks_of(size); ++b) found += popcount(members[b]);
    if (found == 0) continue;
    const size_t first = last - found;
    size_t next = first & state.lane_mask;
    compress(members, y.k + begin, size, k + next);
    for (size_t b = 0; b < blocks_of(size); ++b) {
      for (uint64_t in = members[b]; in != 0; in &= in - 1) r[next++] = y.r[begin + b * kBlock + _tzcnt_u64(in)];
    }
    encode_buffer(state, tables, k, r, first, last);
    last = first;
  }
}

uint64_t nonzero(const int8_t* r) {
  const auto zeros = [](const int8_t* from) {
    const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return uint64_t{static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(v, _mm256_setzero_si256())))};
  };
  return ~(zeros(r) | zeros(r + 32) << 32);
}

uint64_t nonzero(const int16_t* r) {
  const auto zeros = [](const int16_t* from) {
    const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + 16));
    const __m256i zero = _mm256_setzero_si256();
    // Packing goes by halves of 128 bits: the middle quarters change places.
    const __m256i both = _mm256_permute4x64_epi64(
        _mm256_packs_epi16(_mm256_cmpeq_epi16(a, zero), _mm256_cmpeq_epi16(b, zero)), 0b11011000);
    return uint64_t{static_cast<uint32_t>(_mm256_movemask_epi8(both))};
  };
  return ~(zeros(r) | zeros(r + 32) << 32);
}

template <class R>
size_t next_exception(const uint64_t* coded, const R* r, size_t at, size_t n, size_t& zeros) {
  for (; at < n; at = (at / kBlock + 1) * kBlock) {
    const size_t begin = at / kBlock * kBlock;
    if (n - begin < kBlock) return scalar_y<R>().next_exception(coded, r, at, n, zeros);
    const uint64_t in = skipped_from(coded, at, n), found = in & nonzero(r + begin);
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
  if (lanes < kVector) return scalar::coder.encode_z(state, tables, z, n);
  const ChannelRows& rows = tables.by_channel;
  for (size_t at = (n + lanes - 1) / lanes * lanes; at > 0;) {
    at -= lanes;
    const size_t here = n - at < lanes ? n - at : lanes;
    Code codes[kMaxLanes] = {};
    for (size_t lane = here; lane-- > 0;) {
      const size_t c = (at + lane) % tables.channels;
      const int32_t t = once(z + at + lane) - rows.low[c], escape = rows.escape[c];
      const bool inside = 0 <= t && t < escape;
      if (!inside) push_z_escape(state, t, escape);
      codes[lane] = tables.z_codes[c * 256 + static_cast<size_t>(inside ? t : escape)];
    }
    for (size_t v = lanes; v > 0;) {
      v -= kVector;
      __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(state.x + v));
      const __m256i code = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + v));
      encode_step(x, code, _mm256_setzero_si256(), _mm256_setzero_si256(), lanes_between(0, here, v), state.words);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(state.x + v), x);
    }
  }
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

}  // namespace ckbd::avx2

#endif
