// What avx2.cpp and avx2_encode.cpp share. Static, as all that is compiled for an instruction set.
#pragma once

#include "rans/isa.h"
#include "rans/x86.h"

namespace ckbd::avx2 {

void encode_z(EncoderState& state, const TableView& tables, const int16_t* z, size_t n);
void encode_y8(EncoderState& state, const TableView& tables, const YGroup<const int8_t>& y);
void encode_y16(EncoderState& state, const TableView& tables, const YGroup<const int16_t>& y);
size_t next_exception8(const uint64_t* coded, const int8_t* r, size_t at, size_t n, size_t& zeros);
size_t next_exception16(const uint64_t* coded, const int16_t* r, size_t at, size_t n, size_t& zeros);

constexpr size_t kChunk = 8192;  // elements of a phase that are compressed at a time
constexpr size_t kVector = 8;

// For each set of eight: byte j is the place of j among the set's members (expand), or the j-th member (compress),
// or the same counted so that the last one is byte 7 (compress_up). Bytes that mean nothing make a shuffle give 0.
struct Shuffles {
  uint8_t expand[256][kVector];
  uint8_t compress[256][kVector];
  uint8_t compress_up[256][kVector];
};

static constexpr Shuffles make_shuffles() {
  Shuffles s{};
  for (unsigned set = 0; set < 256; ++set) {
    unsigned count = 0;
    for (unsigned j = 0; j < kVector; ++j) {
      s.expand[set][j] = s.compress[set][j] = s.compress_up[set][j] = 0x80;
      count += set >> j & 1;
    }
    for (unsigned j = 0, at = 0; j < kVector; ++j) {
      if (!(set >> j & 1)) continue;
      s.expand[set][j] = static_cast<uint8_t>(at);
      s.compress[set][at] = static_cast<uint8_t>(j);
      s.compress_up[set][kVector - count + at] = static_cast<uint8_t>(j);
      ++at;
    }
  }
  return s;
}

constexpr Shuffles kShuffles = make_shuffles();

static inline __m128i load8(const void* from) { return _mm_loadl_epi64(static_cast<const __m128i*>(from)); }

static inline __m256i set1(uint32_t value) { return _mm256_set1_epi32(static_cast<int>(value)); }

template <class R>
static const YCoder<R>& scalar_y() {
  if constexpr (sizeof(R) == 1) {
    return scalar::coder.y8;
  } else {
    return scalar::coder.y16;
  }
}

static inline unsigned mask_of(__m256i lanes) {
  return static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(lanes)));
}

// All bits of the lanes from `begin` to before `end`, of the eight from `first` on.
static inline __m256i lanes_between(size_t begin, size_t end, size_t first) {
  const __m256i lane =
      _mm256_add_epi32(set1(static_cast<uint32_t>(first)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  return _mm256_andnot_si256(_mm256_cmpgt_epi32(set1(static_cast<uint32_t>(begin)), lane),
                             _mm256_cmpgt_epi32(set1(static_cast<uint32_t>(end)), lane));
}

// With so few members in a block, one at a time is faster than eight.
constexpr size_t kFew = 4;

// Compresses the rows (row_of()) of a chunk's members, and writes up to kVector more.
static inline size_t compress(const uint64_t* members, const uint8_t* k, size_t size, uint8_t* to) {
  uint8_t* next = to;
  for (size_t b = 0; b < blocks_of(size); ++b) {
    const uint8_t* const block = k + b * kBlock;
    if (popcount(members[b]) <= kFew || size - b * kBlock < kBlock) {
      for (uint64_t in = members[b]; in != 0; in &= in - 1) {
        *next++ = static_cast<uint8_t>(row_of(block[_tzcnt_u64(in)]));
      }
      continue;
    }
    for (size_t j = 0; j < kBlock; j += kVector) {
      const unsigned in = members[b] >> j & 255;
      const __m128i rows = _mm_and_si128(load8(block + j), _mm_set1_epi8(kScales - 1));
      const __m128i packed = _mm_shuffle_epi8(rows, load8(kShuffles.compress[in]));
      _mm_storel_epi64(reinterpret_cast<__m128i*>(next), packed);
      next += popcount(in);
    }
  }
  return static_cast<size_t>(next - to);
}

}  // namespace ckbd::avx2
