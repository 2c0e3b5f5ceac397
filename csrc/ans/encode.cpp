#include <algorithm>
#include <cmath>
#include <cstring>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "ans/ans.h"

namespace ckbd::ans {
namespace {

constexpr size_t kReserved = 1024;  // symbols between two looks at the room that is left

std::string at_symbol(size_t at) { return " at " + std::to_string(at); }

// Wraps around, as what it was made from did.
int32_t minus(int32_t a, int32_t b) { return static_cast<int32_t>(static_cast<uint32_t>(a) - static_cast<uint32_t>(b)); }

void put_slot(Writer& writer, uint32_t start, uint32_t freq) {
  uint64_t x = writer.state;
  if (x >= uint64_t{freq} << 47) {
    *--writer.at = static_cast<uint32_t>(x);
    x >>= 32;
  }
  writer.state = (x / freq << kBits) + x % freq + start;
}

void put_digit(Writer& writer, uint32_t digit) {
  uint64_t x = writer.state;
  if (x >= uint64_t{1} << (63 - kDigitBits)) {
    *--writer.at = static_cast<uint32_t>(x);
    x >>= 32;
  }
  writer.state = x << kDigitBits | digit;
}

inline uint64_t high_product(uint64_t a, uint64_t b) {
#ifdef __SIZEOF_INT128__
  __extension__ using Wide = unsigned __int128;
  return static_cast<uint64_t>(static_cast<Wide>(a) * b >> 64);
#else
  const uint64_t a0 = a & 0xffffffff, a1 = a >> 32, b0 = b & 0xffffffff, b1 = b >> 32;
  const uint64_t middle = a1 * b0 + (a0 * b0 >> 32), other = a0 * b1 + (middle & 0xffffffff);
  return a1 * b1 + (middle >> 32) + (other >> 32);
#endif
}

}  // namespace

void refuse_index(size_t rows, int32_t index, size_t at) {
  const std::string range = rows == 0 ? "none, as there are no tables" : "0.." + std::to_string(rows - 1);
  throw Refused("indexes", "expected " + range + ", got " + std::to_string(index) + at_symbol(at));
}

// ---- words

Writer::Writer(size_t symbols)
    : capacity_(symbols / 8 + kMostWords * std::min(symbols, kReserved) + kHead / 4), words_(new uint32_t[capacity_]) {
  at = words_.get() + capacity_;
}

void Writer::reserve(size_t words) {
  const size_t left = static_cast<size_t>(at - words_.get()), held = capacity_ - left;
  if (left >= words) return;
  const size_t capacity = 2 * capacity_ + words;
  std::unique_ptr<uint32_t[]> larger(new uint32_t[capacity]);
  std::copy_n(at, held, larger.get() + capacity - held);
  words_ = std::move(larger);
  capacity_ = capacity;
  at = words_.get() + capacity - held;
}

std::string Writer::finish() {
  reserve(2);
  *--at = static_cast<uint32_t>(state >> 32);
  *--at = static_cast<uint32_t>(state);
  uint32_t* const end = words_.get() + capacity_;
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  std::transform(at, end, at, [](uint32_t word) { return __builtin_bswap32(word); });
#endif
  std::string bytes(reinterpret_cast<const char*>(at), static_cast<size_t>(end - at) * sizeof(uint32_t));
  state = kLow;
  at = end;
  return bytes;
}

// ---- any row

Parts parts_of(const Row& row, int32_t symbol, size_t at) {
  if (!row.usable()) {
    throw Refused("sizes", "expected 2.." + std::to_string(row.held) + " for the row of symbol" + at_symbol(at) +
                               ", got " + std::to_string(row.size));
  }
  const int32_t escape = row.escape();
  const int32_t value = minus(symbol, row.offset);
  Parts parts{0, 0, 0, -1};
  int32_t s = value;
  if (value < 0 || value >= escape) {
    s = escape;
    // Upstream's int, wrapping; below 2^28 it is not.
    parts.raw = value < 0 ? ~(static_cast<uint32_t>(value) << 1) : static_cast<uint32_t>(value - escape) << 1;
    if (parts.raw >> kDigitBits * kMostEncoded) {
      throw Refused("symbols", "expected less than 2^27 below or above what the row has, got " +
                                   std::to_string(symbol) + at_symbol(at));
    }
    parts.digits = 0;
    while (parts.raw >> kDigitBits * parts.digits) ++parts.digits;
  }
  const int64_t start = row.cdf[s], freq = row.cdf[s + 1] - start;
  // Upstream cuts both to 16 bits.
  parts.start = static_cast<uint16_t>(start);
  parts.freq = static_cast<uint16_t>(freq);
  if (freq <= 0 || parts.freq == 0) {
    throw Refused("cdfs", "expected a frequency of 1..65535 for symbol" + at_symbol(at) + ", got " +
                              std::to_string(freq) + " in slot " + std::to_string(s));
  }
  return parts;
}

void put(Writer& writer, const Parts& parts) {
  for (int digit = parts.digits; digit-- > 0;) put_digit(writer, parts.raw >> kDigitBits * digit & kDigitMask);
  if (parts.digits >= 0) put_digit(writer, static_cast<uint32_t>(parts.digits));
  put_slot(writer, parts.start, parts.freq);
}

// ---- tables

namespace {

struct Integers {
  const int32_t* symbols;
  int32_t operator[](size_t i) const { return once(symbols + i); }
};

// Waiting for the state leaves time to round.
struct Latents {
  const float *x, *means;
  int32_t operator[](size_t i) const {
    const float value = means == nullptr ? x[i] : x[i] - means[i];
#ifdef __SSE2__
    return _mm_cvtss_si32(_mm_set_ss(value));
#else
    const float rounded = std::nearbyint(value);
    return rounded >= -2147483648.0f && rounded < 2147483648.0f ? static_cast<int32_t>(rounded) : INT32_MIN;
#endif
  }
};

template <class Symbols>
void check_all(const Tables& tables, Symbols symbols, const int32_t* indexes, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    const size_t index = index_of(indexes, i, tables.count());
    const EncodeRow& row = tables.encode_rows()[index];
    const int32_t number = symbols[i];
    if (static_cast<uint32_t>(minus(number, row.offset)) >= row.fast) parts_of(tables.rows()[index], number, i);
  }
}

template <class Symbols>
void encode_all(const Tables& tables, Symbols symbols, const int32_t* indexes, size_t n, Writer& writer) try {
  const EncodeRow* const rows = tables.encode_rows();
  const size_t count = tables.count();
  for (size_t end = n; end > 0;) {
    const size_t begin = end - std::min(end, kReserved);
    writer.reserve(kMostWords * (end - begin));
    uint64_t x = writer.state;
    uint32_t* at = writer.at;
    for (size_t i = end; i-- > begin;) {
      const size_t index = index_of(indexes, i, count);
      const EncodeRow& row = rows[index];
      const int32_t number = symbols[i];
      const uint32_t value = static_cast<uint32_t>(minus(number, row.offset));
      if (value >= row.fast) {
        writer.state = x;
        writer.at = at;
        put(writer, parts_of(tables.rows()[index], number, i));
        x = writer.state;
        at = writer.at;
        continue;
      }
      const Symbol& symbol = row.symbols[value];
      if (x >= uint64_t{symbol.freq} << 47) {
        *--at = static_cast<uint32_t>(x);
        x >>= 32;
      }
      // (x / f) 2^16 + x % f + start, and x % f is x - (x / f) f.
      const uint64_t quotient = high_product(x, symbol.reciprocal) >> symbol.shift;
      x = x + symbol.bias + quotient * (kTotal - symbol.freq);
    }
    writer.state = x;
    writer.at = at;
    end = begin;
  }
} catch (const Refused&) {
  // It came from the end. The first one is what to tell.
  check_all(tables, symbols, indexes, n);
  throw;
}

}  // namespace

void check(const Tables& tables, const int32_t* symbols, const int32_t* indexes, size_t n) {
  check_all(tables, Integers{symbols}, indexes, n);
}

void encode(const Tables& tables, const int32_t* symbols, const int32_t* indexes, size_t n, Writer& writer) {
  encode_all(tables, Integers{symbols}, indexes, n, writer);
}

void encode(const Tables& tables, const float* x, const float* means, const int32_t* indexes, size_t n,
            Writer& writer) {
  encode_all(tables, Latents{x, means}, indexes, n, writer);
}

}  // namespace ckbd::ans
