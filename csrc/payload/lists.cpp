#include "payload/lists.h"

#include "payload/bits.h"

namespace ckbd {
namespace {

struct ListReader {
  const uint8_t* const payload;
  const uint8_t* const end;
  const uint8_t* next;

  size_t offset() const { return static_cast<size_t>(next - payload); }
  uint32_t varint(const char* field) { return read_varint(field, payload, next, end); }

  void states(size_t lanes, uint32_t* x) {
    BitReader bits("lane states", payload, next, end);
    for (size_t lane = 0; lane < lanes; ++lane) {
      const int e = static_cast<int>(bits.get(4));
      x[lane] = (kLow << e) + bits.get(16 + e);
    }
    bits.finish();
  }

  ExceptionList exceptions() {
    const uint32_t left = varint("exceptions");
    int low_bits = 0;
    if (left > 0) {
      if (next == end) throw StreamError("exceptions", offset(), "the payload ends before b");
      low_bits = *next++;
      if (low_bits > kMaxLowBits) {
        throw StreamError("exceptions", offset() - 1, "b is " + std::to_string(low_bits) + ", more than 24");
      }
    }
    const ExceptionList list{payload, end, next, left, low_bits};
    // Each takes three bits at least, so a false count soon meets the end of the payload.
    BitReader bits("exceptions", payload, next, end);
    for (uint32_t i = 0; i < left; ++i) read_exception(bits, low_bits);
    bits.finish();
    return list;
  }

  EscapeValues escapes() {
    const size_t at = offset();
    const uint32_t left = varint("escapes");
    if (left > static_cast<size_t>(end - next)) {
      throw StreamError("escapes", at, std::to_string(left) + " escape values do not fit into the payload");
    }
    const uint8_t* const begin = next;
    for (uint32_t i = 0; i < left; ++i) varint("escapes");
    return {payload, begin, next, left};
  }
};

}  // namespace

Lists read_lists(const uint8_t* payload, size_t size, size_t lanes, int phases) {
  ListReader reader{payload, payload + size, payload};
  Lists lists;
  reader.states(lanes, lists.states);
  for (int p = 0; p < phases; ++p) lists.exceptions.push_back(reader.exceptions());
  lists.escapes = reader.escapes();
  lists.words = reader.next;
  if ((size - reader.offset()) % 2) throw StreamError("words", size - 1, "half a word at the end");
  return lists;
}

template <class R>
void ExceptionList::apply(const Coder& coder, const uint64_t* coded, R* r, size_t n, int32_t largest) {
  BitReader bits("exceptions", payload, next, end);
  size_t at = 0;
  for (; left > 0; --left, ++at) {
    const size_t where = static_cast<size_t>(next - payload);
    const Exception exception = read_exception(bits, low_bits);
    at = coder.find_skipped(coded, at, n, exception.gap);
    if (at == n) {
      throw StreamError("exceptions", where, "an exception lies beyond the skipped elements of its phase");
    }
    r[at] = static_cast<R>(fit(exception.r, largest, "exceptions", where));
  }
}

template void ExceptionList::apply(const Coder&, const uint64_t*, int8_t*, size_t, int32_t);
template void ExceptionList::apply(const Coder&, const uint64_t*, int16_t*, size_t, int32_t);

uint32_t EscapeValues::take() {
  if (left == 0) {
    throw StreamError("escapes", static_cast<size_t>(end - payload),
                      "more symbols are escapes than there are escape values");
  }
  --left;
  return read_varint("escapes", payload, next, end);
}

}  // namespace ckbd
