// Whole streams, opened at once and decoded a step of all of them at a time: what ckbd/codec/decoder.py does from
// parse() to finish(), in its words, over flat arrays.
#pragma once

#include <exception>
#include <memory>
#include <optional>
#include <vector>

#include "payload/payload.h"
#include "streams/container.h"

namespace ckbd {

// The limits of docs/format.md, section 3.
constexpr int kLargestZ = 127, kLargestResidual = 1023;

struct Bytes {
  const uint8_t* data;
  size_t size;
};

// What is asked of every stream.
struct Expected {
  const uint8_t* model;  // kModelBytes
  uint64_t max_pixels;
  std::vector<size_t> channels;  // of each channel group, or M alone
};

struct OpenStream {
  Container container;
  std::unique_ptr<PayloadDecoder> decoder;  // null: it could not be opened
  // Its part of all z, and of the sites and the residuals of the phase that is next.
  size_t z_at = 0, z_size = 0, site_at = 0, sites = 0, r_at = 0, r_size = 0;
  std::optional<FormatError> damage;
  // Of the step that runs: its error, and the residuals beyond int8, with their places among all.
  std::exception_ptr error;
  std::vector<int64_t> wide_at;
  std::vector<int16_t> wide_value;
};

// Streams, tables and model must outlive it. z() comes first, then phase() twice for each channel group, then finish(),
// and settle() after each and after the constructor. A stream that fails stops no other; of what it should have
// decoded zeros remain.
class OpenStreams {
 public:
  OpenStreams(const Coder& coder, const Tables& tables, const std::vector<Bytes>& streams, const Expected& expected,
              size_t threads);

  const std::vector<OpenStream>& all() const { return all_; }
  // Of all that were opened, and of the phase that is next. Sizes that no memory has are cut to PTRDIFF_MAX.
  size_t z_size() const { return z_size_; }
  size_t phase_size() const { return phase_size_; }

  void z(int16_t* z, size_t threads);
  // Throws BadIndex before anything is decoded.
  void phase(const uint8_t* k, int8_t* r, size_t threads);
  void finish();
  // Makes the step's errors each stream's damage; throws those that are not of a stream.
  void settle();

 private:
  void open(OpenStream& one, const Bytes& stream, const Expected& expected);
  void begin_phase();
  void check_indices(const std::vector<OpenStream*>& live, const uint8_t* k, size_t threads) const;

  const Coder& coder_;
  const Tables& tables_;
  std::vector<OpenStream> all_;
  const std::vector<size_t> channels_;
  size_t z_size_ = 0, sites_ = 0, phase_size_ = 0, phase_ = 0;
};

}  // namespace ckbd
