#pragma once

#include <cstddef>
#include <cstdint>

namespace ckbd {

// CRC32C (Castagnoli, reflected, initial value and final xor 0xFFFFFFFF) of `size` bytes that follow bytes
// whose CRC32C is `before`; 0 is that of no bytes.
uint32_t crc32c(const uint8_t* data, size_t size, uint32_t before);

}  // namespace ckbd
