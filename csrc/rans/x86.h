// What the files of x86 instruction sets share. Static, as all that they include.
#pragma once

#include <immintrin.h>

#include "rans/rans.h"

namespace ckbd {

static inline size_t popcount(uint64_t bits) { return static_cast<size_t>(_mm_popcnt_u64(bits)); }

// What is not coded of the block that `at` is in, from there to n.
static inline uint64_t skipped_from(const uint64_t* coded, size_t at, size_t n) {
  const size_t left = n - at / kBlock * kBlock;
  const uint64_t valid = left < kBlock ? (uint64_t{1} << left) - 1 : ~uint64_t{0};
  return ~coded[at / kBlock] & valid & ~uint64_t{0} << at % kBlock;
}

static inline size_t find_skipped(const uint64_t* coded, size_t at, size_t n, uint64_t before) {
  for (; at < n; at = (at / kBlock + 1) * kBlock) {
    uint64_t in = skipped_from(coded, at, n);
    const uint64_t here = popcount(in);
    if (before < here) {
      for (; before > 0; --before) in &= in - 1;
      return at / kBlock * kBlock + _tzcnt_u64(in);
    }
    before -= here;
  }
  return n;
}

// The processor has this polynomial.
static inline uint32_t crc32c(const uint8_t* data, size_t size, uint32_t before) {
  uint64_t r = ~before;
  for (; size >= 8; size -= 8, data += 8) {
    uint64_t word;
    __builtin_memcpy(&word, data, 8);
    r = _mm_crc32_u64(r, word);
  }
  uint32_t rest = static_cast<uint32_t>(r);
  for (; size > 0; --size, ++data) rest = _mm_crc32_u8(rest, *data);
  return ~rest;
}

}  // namespace ckbd
