// The coder beneath ckbd.compat.compressai: one rANS stream, as CompressAI's `compressai.ans` writes it.
//
// What surprises first:
//
// - A state has 64 bits and lives in [2^31, 2^63); words of 32 bits go in and out one at a time. Every step waits for
//   the one before it, and nothing is interleaved: speed comes from what is known before the state is.
// - A row is cumulative frequencies, `size` of them, so size - 1 slots. The last slot is an escape, also where the
//   symbol would have it: a value of its own number comes as an escape of 0.
// - After an escape's slot come digits of 4 bits: how many there are, then they, least significant first. Upstream
//   writes them as symbols of frequency 2^12 out of 2^16 and reads them as 4 bits, which is the same.
// - Nobody says that a row is in order, begins at 0, or ends at 2^16. Upstream codes with such rows as far as it goes,
//   so rows are judged one by one, and by the symbols that use them. Those of a kind that upstream's own functions
//   make ("clean") have faster tables; all others are read as they came.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "common/cpu.h"
#include "common/once.h"

namespace ckbd::ans {

constexpr uint64_t kLow = uint64_t{1} << 31;
constexpr int kBits = 16;
constexpr uint32_t kTotal = 1u << kBits;
constexpr int kDigitBits = 4;
constexpr uint32_t kDigitMask = 15;  // as a count: there is more to come
constexpr int kMostDigits = 8;       // of a raw value, which has 32 bits; upstream's encoder hangs beyond 7
constexpr int kMostEncoded = 7;
constexpr size_t kMostWords = 2 + kMostEncoded;  // of a symbol: its slot, how many digits, the digits
constexpr size_t kHead = 8;  // bytes: the state

// An argument is not what it must be. `text` says what was expected and what came, and where.
struct Refused : std::exception {
  Refused(const char* field_, std::string text_) : field(field_), text(std::move(text_)) {}
  const char* what() const noexcept override { return text.c_str(); }
  const char* field;
  std::string text;
};

// A row as it came. Below size entries nothing may be read; a size below 2 or above `held` is wrong, once it is used.
struct Row {
  const int32_t* cdf;
  size_t held;
  int32_t size, offset;
  bool usable() const { return size >= 2 && static_cast<size_t>(size) <= held; }
  int32_t escape() const { return size - 2; }
};

// a < b ? below : otherwise, and no branch, which would be guessed wrong as often as the coder's symbols say something.
// Compilers make branches of all that can be written in C++.
inline uint64_t choose_below(uint64_t a, uint64_t b, uint64_t below, uint64_t otherwise) {
#if CKBD_X86
  asm("cmpq %2, %1\n\tcmovaeq %3, %0" : "+r"(below) : "r"(a), "r"(b), "r"(otherwise) : "cc");
  return below;
#else
  return a < b ? below : otherwise;
#endif
}

// ---- fast tables

// Encoding: dividing by freq is multiplying by reciprocal / 2^(64 + shift).
struct Symbol {
  uint64_t reciprocal;
  uint32_t bias;
  uint16_t freq;
  uint16_t shift;
};

// Values from 0 to below `fast` are in `symbols`; others escape, or the row is not clean and `fast` is 0.
struct EncodeRow {
  const Symbol* symbols;
  int32_t offset;
  uint32_t fast;
};

// Decoding: of the slots from a multiple of 2^shift to the next, nearly all belong to `value` or the one after it:
// `first` of them from `start` on to the former, then `second` to the latter. Slots of neither take the slow way.
struct Bucket {
  uint16_t start, first, second, value;
};

// A row is `likely` if its most frequent value has nearly all slots, `freq` of them from `start` on. Then a processor
// may guess right that it is this one, and the state need not wait for a table.
struct DecodeRow {
  const Bucket* buckets;
  int32_t offset, shift;
  uint32_t start, freq;
  int32_t symbol;
  bool likely;
};

// All rows, copied as far as they are used. Does not change once it is made.
class Tables {
 public:
  // `entries`: of each row, one after the other. sizes and offsets: n of them.
  Tables(const int32_t* cdfs, size_t n, size_t m, const int32_t* sizes, const int32_t* offsets);
  explicit Tables(const std::vector<Row>& rows);
  Tables(const Tables&) = delete;
  Tables& operator=(const Tables&) = delete;

  // Whether it was made from these, but for what is behind the size of a row, which nobody reads.
  bool matches(const int32_t* cdfs, size_t n, size_t m, const int32_t* sizes, const int32_t* offsets) const;

  size_t count() const { return rows_.size(); }
  const Row* rows() const { return rows_.data(); }
  const EncodeRow* encode_rows() const { return encode_.data(); }
  const DecodeRow* decode_rows() const { return decode_.data(); }

 private:
  void make();

  size_t columns_ = 0;
  std::vector<int32_t> entries_;
  std::vector<Row> rows_;
  std::vector<Symbol> symbols_;
  std::vector<Bucket> buckets_;
  std::vector<EncodeRow> encode_;
  std::vector<DecodeRow> decode_;
};

// ---- encoding. All raise Refused.

// Words, from the last to the first, and the state above them.
class Writer {
 public:
  explicit Writer(size_t symbols);
  std::string finish();  // begins anew

  // Room for so many words more.
  void reserve(size_t words);
  uint64_t state = kLow;
  uint32_t* at;

 private:
  size_t capacity_;
  std::unique_ptr<uint32_t[]> words_;
};

// One symbol of any row as what is put for it, in the order in which it is read: slots first, then digits.
struct Parts {
  uint32_t start, freq;
  uint32_t raw;
  int digits;  // -1: no escape
};
Parts parts_of(const Row& row, int32_t symbol, size_t at);
void put(Writer& writer, const Parts& parts);

void encode(const Tables& tables, const int32_t* symbols, const int32_t* indexes, size_t n, Writer& writer);
// Of latents: symbols are x - means (means may be null), rounded half to even, as Quantizer has them.
void encode(const Tables& tables, const float* x, const float* means, const int32_t* indexes, size_t n,
            Writer& writer);
// Raises what encode() would, for the first symbol that it would.
void check(const Tables& tables, const int32_t* symbols, const int32_t* indexes, size_t n);

[[noreturn]] void refuse_index(size_t rows, int32_t index, size_t at);
// Number `at` of indexes, one of so many rows.
inline size_t index_of(const int32_t* indexes, size_t at, size_t rows) {
  const int32_t index = once(indexes + at);
  if (static_cast<uint32_t>(index) >= rows) refuse_index(rows, index, at);
  return static_cast<size_t>(index);
}

// ---- decoding

// A place in a stream, which must stay where it is.
struct Reader {
  Reader() = default;
  Reader(const uint8_t* data, size_t size);  // raises Refused
  uint64_t state = 0;
  const uint8_t *at = nullptr, *begin = nullptr, *end = nullptr;
};

// One symbol by any row. Slots before number `from` are known to be before the state's.
int32_t get(Reader& reader, const Row& row, size_t at, size_t from = 0);
// After Refused the reader is where it was, and out has been written to.
void decode(const Tables& tables, Reader& reader, const int32_t* indexes, size_t n, int32_t* out);
// As floats, with means (may be null) added.
void decode(const Tables& tables, Reader& reader, const int32_t* indexes, size_t n, const float* means, float* out);

// ---- tables' making

std::vector<uint32_t> quantized_cdf(const std::vector<float>& pmf, int precision);  // raises std::domain_error

}  // namespace ckbd::ans
