#include <algorithm>

#include "ans/ans.h"

namespace ckbd::ans {
namespace {

inline uint32_t word_at(const uint8_t* at) {
  return static_cast<uint32_t>(at[0]) | static_cast<uint32_t>(at[1]) << 8 | static_cast<uint32_t>(at[2]) << 16 |
         static_cast<uint32_t>(at[3]) << 24;
}

[[noreturn]] void refuse_stream(const Reader& reader, const char* expected, const std::string& got, size_t at) {
  throw Refused("stream", std::string("expected ") + expected + " before byte " +
                              std::to_string(reader.at - reader.begin) + ", got " + got + " in symbol " +
                              std::to_string(at));
}

[[noreturn]] void refuse_end(const Reader& reader, size_t at) {
  throw Refused("stream", "expected a word at byte " + std::to_string(reader.at - reader.begin) + " for symbol " +
                              std::to_string(at) + ", got the end after " +
                              std::to_string(reader.end - reader.begin) + " bytes");
}

// States of damaged streams may stay below 2^31, and upstream reads one word all the same.
inline void refill(Reader& reader, size_t at) {
  if (reader.state >= kLow) return;
  if (reader.end - reader.at < 4) refuse_end(reader, at);
  reader.state = reader.state << 32 | word_at(reader.at);
  reader.at += 4;
}

uint32_t digit(Reader& reader, size_t at) {
  const uint32_t digit = static_cast<uint32_t>(reader.state) & kDigitMask;
  reader.state >>= kDigitBits;
  refill(reader, at);
  return digit;
}

// What follows the escape's slot, as the value that it stands for.
int32_t escaped(Reader& reader, int32_t escape, size_t at) {
  const uint32_t count = digit(reader, at);
  if (count > kMostDigits) refuse_stream(reader, "at most 8 digits", std::to_string(count), at);
  uint32_t raw = 0;
  for (uint32_t j = 0; j < count; ++j) raw |= digit(reader, at) << kDigitBits * j;
  // Upstream's int: the sign bit stays.
  const uint32_t half = static_cast<uint32_t>(static_cast<int32_t>(raw) >> 1);
  return static_cast<int32_t>(raw & 1 ? ~half : half + static_cast<uint32_t>(escape));
}

// The last slot from `value` down that begins at or before `slot`, or 0.
size_t before(const Row& row, size_t value, uint32_t slot) {
  while (value > 0 && row.cdf[value] > static_cast<int32_t>(slot)) --value;
  return value;
}

}  // namespace

Reader::Reader(const uint8_t* data, size_t size) : begin(data), end(data + size) {
  if (size < kHead) throw Refused("stream", "expected 8 bytes or more, got " + std::to_string(size));
  state = word_at(data) | static_cast<uint64_t>(word_at(data + 4)) << 32;
  at = data + kHead;
}

int32_t get(Reader& reader, const Row& row, size_t at, size_t from) {
  if (!row.usable()) {
    throw Refused("sizes", "expected 2.." + std::to_string(row.held) + " for the row of symbol " +
                               std::to_string(at) + ", got " + std::to_string(row.size));
  }
  const uint32_t slot = static_cast<uint32_t>(reader.state) & (kTotal - 1);
  // The first entry above. Upstream compares as unsigned, so that negative ones are.
  const int32_t* const last = row.cdf + row.size;
  const int32_t* const above =
      std::find_if(row.cdf + from, last, [=](int32_t entry) { return static_cast<uint32_t>(entry) > slot; });
  if (above == row.cdf || above == last) {
    refuse_stream(reader, "a slot that the row has", std::to_string(slot), at);
  }
  const int32_t start = once(above - 1), next = once(above);
  if (next <= start) {
    throw Refused("cdfs", "expected rising entries for symbol " + std::to_string(at) + ", got " +
                              std::to_string(next) + " after " + std::to_string(start));
  }
  const uint64_t freq = static_cast<uint32_t>(next) - static_cast<uint32_t>(start);
  reader.state = freq * (reader.state >> kBits) + slot - static_cast<uint32_t>(start);
  refill(reader, at);
  int32_t value = static_cast<int32_t>(above - row.cdf - 1);
  if (value == row.escape()) value = escaped(reader, value, at);
  return static_cast<int32_t>(static_cast<uint32_t>(value) + static_cast<uint32_t>(row.offset));
}

namespace {

constexpr size_t kGuessed = 512;  // symbols between two decisions whether to guess
constexpr size_t kStep = 16;      // of which one is looked at

// Whether likely rows are guessed: not where they and others come in no order, for that is guessed wrong.
bool in_runs(const DecodeRow* rows, size_t count, const int32_t* indexes, size_t n) {
  size_t likely = 0, changes = 0;
  for (size_t i = 1; i < n; i += kStep) {
    const uint32_t a = static_cast<uint32_t>(once(indexes + i - 1)), b = static_cast<uint32_t>(once(indexes + i));
    if (a >= count || b >= count) return false;
    likely += rows[a].likely;
    changes += rows[a].likely != rows[b].likely;
  }
  return likely > 4 * changes;
}

struct Integers {
  int32_t* out;
  void put(size_t i, int32_t symbol) const { out[i] = symbol; }
};

// Waiting for the state leaves time to convert.
struct Latents {
  const float* means;
  float* out;
  void put(size_t i, int32_t symbol) const {
    out[i] = means == nullptr ? static_cast<float>(symbol) : static_cast<float>(symbol) + means[i];
  }
};

// A reader in registers.
struct Cursor {
  uint64_t x;
  const uint8_t* at;
};

template <bool guess, class Out>
Cursor decode_block(const Tables& tables, const Reader& reader, Cursor c, const int32_t* indexes, size_t begin,
                    size_t end, Out out) {
  const DecodeRow* const rows = tables.decode_rows();
  const size_t count = tables.count();
  const auto here = [&] {
    Reader now = reader;
    now.state = c.x;
    now.at = c.at;
    return now;
  };
  for (size_t i = begin; i < end; ++i) {
    const size_t index = index_of(indexes, i, count);
    const DecodeRow& row = rows[index];
    const uint32_t slot = static_cast<uint32_t>(c.x) & (kTotal - 1);
    const uint64_t high = c.x >> kBits;
    if (guess && row.likely && slot - row.start < row.freq) {
      c.x = row.freq * high + (slot - row.start);
      out.put(i, row.symbol);
    } else {
      const Bucket& bucket = row.buckets[slot >> row.shift];
      // The state after either of the two, so that nothing waits for the choice between them.
      const uint32_t within = slot - bucket.start;
      if (within >= uint32_t{bucket.first} + bucket.second) {
        Reader now = here();
        const Row& slow = tables.rows()[index];
        out.put(i, get(now, slow, i, before(slow, bucket.value, slot)));
        c = {now.state, now.at};
        continue;
      }
      const uint64_t after_first = bucket.first * high + within;
      const uint64_t after_second = bucket.second * high + (within - bucket.first);
      c.x = choose_below(within, bucket.first, after_first, after_second);
      const uint32_t value = bucket.value + uint32_t{within >= bucket.first};
      out.put(i, static_cast<int32_t>(static_cast<uint32_t>(row.offset) + value));
    }
    if (c.x < kLow) {
      if (reader.end - c.at < 4) refuse_end(here(), i);
      c.x = c.x << 32 | word_at(c.at);
      c.at += 4;
    }
  }
  return c;
}

template <class Out>
void decode_all(const Tables& tables, Reader& reader, const int32_t* indexes, size_t n, Out out) {
  Cursor c{reader.state, reader.at};
  for (size_t begin = 0; begin < n; begin += kGuessed) {
    const size_t end = std::min(n, begin + kGuessed);
    const bool guess = in_runs(tables.decode_rows(), tables.count(), indexes + begin, end - begin);
    const auto block = guess ? decode_block<true, Out> : decode_block<false, Out>;
    c = block(tables, reader, c, indexes, begin, end, out);
  }
  reader.state = c.x;
  reader.at = c.at;
}

}  // namespace

void decode(const Tables& tables, Reader& reader, const int32_t* indexes, size_t n, int32_t* out) {
  decode_all(tables, reader, indexes, n, Integers{out});
}

void decode(const Tables& tables, Reader& reader, const int32_t* indexes, size_t n, const float* means, float* out) {
  decode_all(tables, reader, indexes, n, Latents{means, out});
}

}  // namespace ckbd::ans
