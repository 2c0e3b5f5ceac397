// A reader of files of version 1 from docs/format.md, sections 1, 3 and 7, alone.
#pragma once

#include <cmath>

#include "streams/header.h"

namespace ckbd::fuzz {

// The rule that a stream breaks: its field and where that begins.
struct Refusal {
  std::string field;
  size_t offset = 0;
};

// A bit at a time.
inline uint32_t plain_crc32c(const uint8_t* data, size_t size) {
  uint32_t crc = 0xFFFFFFFF;
  for (size_t i = 0; i < size; ++i) {
    crc ^= data[i];
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78 : 0);  // 0x1EDC6F41, its bits reversed
  }
  return ~crc;
}

class PlainFile {
 public:
  int flags, quality2, coder;
  uint64_t width, height, tail, payload_size, sections = 0;
  size_t payload_at = 0;

  PlainFile(const Exact<uint8_t>& file, uint64_t max_pixels) : file_(file) {
    if (take("magic", 3) != std::vector<int>{0xCB, 0x6B, 0x62}) throw Refusal{"magic", 0};
    if (take("version", 1)[0] != 1) throw Refusal{"version", 3};
    model_ = take("model", 6);
    flags = take("flags", 1)[0];
    quality2 = take("quality", 1)[0];
    coder = take("coder", 1)[0];
    const size_t width_at = at_;
    width = varint("width");
    const size_t height_at = at_;
    height = varint("height");
    const size_t tail_at = at_;
    tail = varint("tail");
    payload_size = varint("payload_length");
    const size_t sections_at = at_;
    if (flags & 2) sections = varint("section_count");
    crc("header_crc", 0);

    const auto require = [](bool holds, const char* field, size_t offset) {
      if (!holds) throw Refusal{field, offset};
    };
    require(flags < 4, "flags", 10);
    require(2 <= quality2 && quality2 <= 200, "quality", 11);
    require(coder < 128 && coder % 8 <= 5, "coder", 12);
    require(width >= 1, "width", width_at);
    require(height >= 1, "height", height_at);
    // Each side as 64 at least; a limit below one patch is one for what there is.
    const bool one_patch = width <= 64 && height <= 64;
    require(width * height <= max_pixels, "height", height_at);
    require(one_patch || std::max<uint64_t>(width, 64) * std::max<uint64_t>(height, 64) <= max_pixels, "height",
            height_at);
    require((tail == 0) == (coder % 8 == 0), "tail", tail_at);
    // No type may occur twice, so there are 256 at most.
    require(!(flags & 2) || (1 <= sections && sections <= 256), "section_count", sections_at);

    payload_at = at_;
    take("payload", payload_size);
    crc("payload_crc", payload_at);
    std::vector<int> types;
    for (uint64_t i = 0; i < sections; ++i) {
      const size_t begin = at_;
      const int type = take("section type", 1)[0];
      const std::string name = name_of(type);
      require(type == 1 || type == 2 || type >= 128, "section type", begin);
      require(std::count(types.begin(), types.end(), type) == 0, "section type", begin);
      types.push_back(type);
      const uint64_t length = varint(name + " length");
      take(name, length);
      crc(name + " crc", begin);
    }
    require(at_ == file.size(), "end", at_);
  }

  uint64_t patches() const { return (width + 63) / 64 * ((height + 63) / 64); }

  // What a decoder with these tables and this model asks of it.
  void check_fits(const Tables& tables) const {
    if (!std::equal(model_.begin(), model_.end(), kModel)) throw Refusal{"model", 4};
    const ckbd::TableView& view = tables.view();
    double least = 0;
    for (size_t c = 0; c < view.channels; ++c) {
      uint32_t largest = 0;
      for (size_t i = 0; i <= view.by_channel.escape[c]; ++i) {
        largest = std::max(largest, ckbd::frequency(view.z_codes[c * 256 + i]));
      }
      least += 12 - std::log2(largest);
    }
    if (8.0 * static_cast<double>(payload_size) < 0.875 * (static_cast<double>(patches()) * least)) {
      throw Refusal{"payload", payload_at};
    }
  }

 private:
  std::vector<int> take(const std::string& field, uint64_t n) {
    if (n > file_.size() - at_) throw Refusal{field, at_};
    std::vector<int> bytes(file_.data() + at_, file_.data() + at_ + n);
    at_ += n;
    return bytes;
  }

  uint64_t varint(const std::string& field) {
    const size_t begin = at_;
    uint64_t value = 0;
    int byte = 128, i = 0;
    for (; i < 5 && byte >= 128; ++i) {
      byte = take(field, 1)[0];
      value += static_cast<uint64_t>(byte % 128) << 7 * i;
    }
    if (byte >= 128 || (byte == 0 && i > 1) || value >> 32) throw Refusal{field, begin};
    return value;
  }

  void crc(const std::string& field, size_t begin) {
    const uint32_t right = plain_crc32c(file_.data() + begin, at_ - begin);
    const size_t at = at_;
    const std::vector<int> bytes = take(field, 4);
    for (int i = 0; i < 4; ++i) {
      if (bytes[static_cast<size_t>(i)] != static_cast<int>(right >> 8 * i & 255)) throw Refusal{field, at};
    }
  }

  static std::string name_of(int type) {
    switch (type) {
      case 1:
        return "icc";
      case 2:
        return "alpha";
      case 128:
        return "exif";
      case 129:
        return "xmp";
      default:
        return "section " + std::to_string(type);
    }
  }

  const Exact<uint8_t>& file_;
  size_t at_ = 0;
  std::vector<int> model_;
};

}  // namespace ckbd::fuzz
