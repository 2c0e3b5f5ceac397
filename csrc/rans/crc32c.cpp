#include "rans/crc32c.h"

#include <array>

namespace ckbd {
namespace {

using ByteTable = std::array<uint32_t, 256>;

// Table t gives what a byte does to the remainder once t more bytes have followed it. Remainders are linear
// (xor), so eight bytes are eight look-ups that do not wait for one another, instead of a chain of eight.
constexpr std::array<ByteTable, 8> make_tables() {
  std::array<ByteTable, 8> tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t r = byte;
    for (int bit = 0; bit < 8; ++bit) r = r >> 1 ^ (r & 1 ? 0x82F63B78u : 0u);  // 0x1EDC6F41, bits reversed
    tables[0][byte] = r;
  }
  for (size_t t = 1; t < 8; ++t) {
    for (size_t byte = 0; byte < 256; ++byte) {
      const uint32_t r = tables[t - 1][byte];
      tables[t][byte] = r >> 8 ^ tables[0][r & 255];
    }
  }
  return tables;
}

constexpr std::array<ByteTable, 8> kTables = make_tables();

}  // namespace

uint32_t crc32c(const uint8_t* data, size_t size, uint32_t before) {
  uint32_t r = ~before;
  for (; size >= 8; size -= 8, data += 8) {
    // The remainder is four bytes wide, so it meets only the first four.
    r = kTables[7][data[0] ^ (r & 255)] ^ kTables[6][data[1] ^ (r >> 8 & 255)] ^
        kTables[5][data[2] ^ (r >> 16 & 255)] ^ kTables[4][data[3] ^ r >> 24] ^  //
        kTables[3][data[4]] ^ kTables[2][data[5]] ^ kTables[1][data[6]] ^ kTables[0][data[7]];
  }
  for (; size > 0; --size, ++data) r = r >> 8 ^ kTables[0][(r ^ *data) & 255];
  return ~r;
}

}  // namespace ckbd
