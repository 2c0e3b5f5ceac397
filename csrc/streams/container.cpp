#include "streams/container.h"

#include <algorithm>
#include <bitset>
#include <string_view>
#include <utility>

namespace ckbd {
namespace {

constexpr uint8_t kMagic[3] = {0xCB, 'k', 'b'};
constexpr int kVersion = 1;
constexpr uint32_t kMostSections = 256;
constexpr uint64_t kLeastSide = 64;
constexpr int kOptional = 128;  // section types from here on may be unknown

std::string number(uint64_t value) { return std::to_string(value); }

std::string hex_byte(uint8_t byte) { return "0x" + hex(&byte, 1, ""); }

std::string hex_crc(uint32_t crc) {
  const uint8_t bytes[4] = {static_cast<uint8_t>(crc >> 24), static_cast<uint8_t>(crc >> 16),
                            static_cast<uint8_t>(crc >> 8), static_cast<uint8_t>(crc)};
  return hex(bytes, 4, "");
}

[[noreturn]] void fail(std::string_view field, size_t offset, std::string reason) {
  throw FormatError{std::string(field), offset, std::move(reason)};
}

// Walks over the bytes once; every read is checked.
class Reader {
 public:
  Reader(const Coder& coder, const uint8_t* data, size_t size) : coder_(coder), data_(data), size_(size) {}

  size_t at() const { return at_; }
  size_t left() const { return size_ - at_; }

  const uint8_t* take(std::string_view name, size_t count) {
    if (count > left()) {
      fail(name, at_, "expected " + number(count) + " bytes, only " + number(left()) + " are left");
    }
    at_ += count;
    return data_ + (at_ - count);
  }

  uint8_t byte(std::string_view name) { return *take(name, 1); }

  uint32_t varint(std::string_view name) {
    const size_t start = at_;
    uint64_t value = 0;  // five groups of 7 bits: at most 35
    for (int i = 0; i < 5; ++i) {
      const uint8_t b = byte(name);
      value |= uint64_t{b & 127u} << 7 * i;
      if (b >= 128) continue;
      if (i > 0 && b == 0) fail(name, start, "not the shortest form of the number");
      if (value > UINT32_MAX) fail(name, start, "expected less than 2^32, got " + number(value));
      return static_cast<uint32_t>(value);
    }
    fail(name, start, "more than 5 bytes");
  }

  // The CRC32C of everything from start up to here.
  void crc(std::string_view name, size_t start) {
    const uint32_t want = coder_.crc32c(data_ + start, at_ - start, 0);
    const size_t at = at_;
    const uint8_t* const b = take(name, 4);
    const uint32_t got = b[0] | uint32_t{b[1]} << 8 | uint32_t{b[2]} << 16 | uint32_t{b[3]} << 24;
    if (got != want) {
      fail(name, at, "the bytes give " + hex_crc(want) + ", the stream says " + hex_crc(got) + ": damaged");
    }
  }

 private:
  const Coder& coder_;
  const uint8_t* const data_;
  const size_t size_;
  size_t at_ = 0;
};

std::string section_name(int kind) {
  if (kind == 1) return "icc";
  if (kind == 2) return "alpha";
  if (kind == 128) return "exif";
  if (kind == 129) return "xmp";
  return "section " + std::to_string(kind);
}

void check_sections(Reader& r, uint32_t count) {
  std::bitset<256> seen;
  for (uint32_t i = 0; i < count; ++i) {
    const size_t start = r.at();
    const uint8_t kind = r.byte("section type");
    if (kind != 1 && kind != 2 && kind < kOptional) {
      fail("section type", start, "unknown and not optional: " + number(kind));
    }
    if (seen[kind]) fail("section type", start, "type " + number(kind) + " occurs twice");
    seen[kind] = true;
    const std::string name = section_name(kind);
    r.take(name, r.varint(name + " length"));
    r.crc(name + " crc", start);
  }
}

}  // namespace

std::string hex(const uint8_t* bytes, size_t count, const char* between) {
  constexpr char digits[] = "0123456789abcdef";
  std::string text;
  for (size_t i = 0; i < count; ++i) {
    if (i > 0) text += between;
    text += digits[bytes[i] >> 4];
    text += digits[bytes[i] & 15];
  }
  return text;
}

Container parse_container(const Coder& coder, const uint8_t* data, size_t size, uint64_t max_pixels) {
  Reader r(coder, data, size);
  Container c;
  const uint8_t* const magic = r.take("magic", sizeof kMagic);
  if (!std::equal(kMagic, kMagic + sizeof kMagic, magic)) {
    fail("magic", 0, "expected " + hex(kMagic, 3, " ") + ", got " + hex(magic, 3, " ") + ": not a .ckbd stream");
  }
  const uint8_t version = r.byte("version");
  if (version != kVersion) {
    fail("version", 3, "this reader knows version " + number(kVersion) + ", the stream says " + number(version));
  }
  c.model = r.take("model", kModelBytes);
  // Each field and where it begins, for what is said of it below.
  const size_t flags_at = r.at();
  const uint8_t flags = r.byte("flags");
  const size_t quality_at = r.at();
  c.quality2 = r.byte("quality");
  const size_t coder_at = r.at();
  const uint8_t lanes_and_skip = r.byte("coder");
  const size_t width_at = r.at();
  c.width = r.varint("width");
  const size_t height_at = r.at();
  c.height = r.varint("height");
  const size_t tail_at = r.at();
  c.tail = r.varint("tail");
  c.payload_size = r.varint("payload_length");
  const size_t count_at = r.at();
  c.sections = flags & 2 ? r.varint("section_count") : 0;
  // The checksum first: after it, a rule that is broken was broken by whoever wrote the stream.
  r.crc("header_crc", 0);

  c.gray = flags & 1;
  c.lanes_log2 = lanes_and_skip & 7;
  c.skip_max = lanes_and_skip >> 3 & 15;
  if (flags >= 4) fail("flags", flags_at, "reserved bits are set: " + hex_byte(flags));
  if (c.quality2 < 2 || c.quality2 > 200) {
    fail("quality", quality_at, "expected 2..200, got " + std::to_string(c.quality2));
  }
  if (c.lanes_log2 > kMaxLanesLog2 || lanes_and_skip >= 0x80) {
    fail("coder", coder_at, "expected a lane count up to 32, got " + hex_byte(lanes_and_skip));
  }
  if (c.width == 0) fail("width", width_at, "expected at least 1, got 0");
  if (c.height == 0) fail("height", height_at, "expected at least 1, got 0");
  // A side counts as a whole patch at least, as what follows sees it.
  const bool large = uint64_t{c.width} * c.height > max_pixels;
  const uint64_t counted = std::max<uint64_t>(c.width, kLeastSide) * std::max<uint64_t>(c.height, kLeastSide);
  if (large || counted > std::max(max_pixels, kLeastSide * kLeastSide)) {
    fail("height", height_at,
         number(c.width) + " x " + number(c.height) + " pixels are more than the limit of " + number(max_pixels) +
             " (max_pixels)" + (large ? "" : ", a side counting as " + number(kLeastSide) + " at least"));
  }
  if ((c.tail == 0) != (c.lanes_log2 == 0)) {
    fail("tail", tail_at, "expected 0 with one lane and more with several, got " + number(c.tail));
  }
  if (flags & 2 && (c.sections == 0 || c.sections > kMostSections)) {
    fail("section_count", count_at, "expected 1..256, got " + number(c.sections));
  }

  c.payload_offset = r.at();
  c.payload = r.take("payload", c.payload_size);
  r.crc("payload_crc", c.payload_offset);
  check_sections(r, c.sections);
  if (r.left() > 0) fail("end", r.at(), number(r.left()) + " bytes follow the last field");
  return c;
}

}  // namespace ckbd
