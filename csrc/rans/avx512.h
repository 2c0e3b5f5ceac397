// What avx512.cpp and avx512_encode.cpp share. Static, as all that is compiled for an instruction set.
#pragma once

#include "rans/x86.h"

namespace ckbd::avx512 {

void encode_z(EncoderState& state, const TableView& tables, const int16_t* z, size_t n);
void encode_y8(EncoderState& state, const TableView& tables, const YGroup<const int8_t>& y);
void encode_y16(EncoderState& state, const TableView& tables, const YGroup<const int16_t>& y);
size_t next_exception8(const uint64_t* coded, const int8_t* r, size_t at, size_t n, size_t& zeros);
size_t next_exception16(const uint64_t* coded, const int16_t* r, size_t at, size_t n, size_t& zeros);

constexpr size_t kChunk = 8192;  // symbols that are compressed at a time, at most
using Mask = __mmask32;

static inline __m512i join(__m256i a, __m256i b) { return _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1); }

static inline __m512i widen(__m512i v, int half) {
  return _mm512_cvtepu16_epi32(half ? _mm512_extracti64x4_epi64(v, 1) : _mm512_castsi512_si256(v));
}

// The lower (0) or upper (1) halves of 32 numbers of 32 bits.
static inline __m512i every_other(__m512i a, __m512i b, int upper) {
  const __m512i even = _mm512_set_epi16(62, 60, 58, 56, 54, 52, 50, 48, 46, 44, 42, 40, 38, 36, 34, 32, 30, 28, 26,
                                        24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  return _mm512_permutex2var_epi16(a, upper ? _mm512_or_si512(even, _mm512_set1_epi16(1)) : even, b);
}

// The lanes from `begin` to before `end`.
static inline Mask lane_range(size_t begin, size_t end) {
  const auto below = [](size_t lane) { return static_cast<Mask>((uint64_t{1} << lane) - 1); };
  return below(end) & ~below(begin);
}

// row_of() of 64.
static inline __m512i rows_of(__m512i k) { return _mm512_and_si512(k, _mm512_set1_epi8(kScales - 1)); }

// Up to 64 elements; those beyond the end read as 0 and are not in `valid`.
struct Block {
  __m512i k;
  uint64_t valid;
};

static inline Block load_block(const uint8_t* k, size_t left) {
  if (left >= kBlock) return {_mm512_loadu_si512(k), ~uint64_t{0}};
  const uint64_t valid = (uint64_t{1} << left) - 1;
  return {_mm512_maskz_loadu_epi8(valid, k), valid};
}

}  // namespace ckbd::avx512
