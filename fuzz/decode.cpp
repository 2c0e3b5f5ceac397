// Coverage-guided fuzzing of the entropy coder: whatever the bytes, all coders must do the same with them.
//
// An input is a Header, the table indices that it says are written out, and what its mode asks for:
//   raw     the payload as it is.
//   parts   numbers of which a payload is put together. Bytes as they come nearly always end in the lists, this way
//           the lists can be read and the symbols are reached.
//   encode  what symbols are made of. All encoders must agree, all decoders must give the symbols back, and then the
//           payload is damaged as the header says.
// Input that is too short goes on with zeros.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "payload/batch.h"
#include "rans/dispatch.h"
#include "payload/payload.h"

namespace {

using ckbd::Coder;
using ckbd::Tables;

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::string text;
  ((text += parts), ...);
  std::fprintf(stderr, "fuzz: %s\n", text.c_str());
  std::abort();
}

// splitmix64
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t x = state_ += 0x9E3779B97F4A7C15;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9;
    x = (x ^ x >> 27) * 0x94D049BB133111EB;
    return x ^ x >> 31;
  }
  size_t below(size_t n) { return static_cast<size_t>(next() % n); }

 private:
  uint64_t state_;
};

// n elements that end where their memory ends, so that ASan sees it if one more is touched. The `lead` elements
// before them, which nobody may change, move them off the alignment of an allocation.
template <class T>
class Exact {
 public:
  Exact(size_t n, size_t lead, T fill) : n_(n), lead_(lead), block_(new T[n + lead]) {
    std::fill_n(block_.get(), lead, T{99});
    std::fill_n(data(), n, fill);
  }
  Exact(const std::vector<T>& from, size_t lead) : Exact(from.size(), lead, 0) {
    std::copy(from.begin(), from.end(), data());
  }
  T* data() const { return block_.get() + lead_; }
  size_t size() const { return n_; }
  T& operator[](size_t i) const { return data()[i]; }
  void check_lead() const {
    for (size_t i = 0; i < lead_; ++i) {
      if (block_[i] != 99) fail("an array is written before its beginning");
    }
  }
  bool operator==(const Exact& other) const {
    return n_ == other.n_ && std::equal(data(), data() + n_, other.data());
  }

 private:
  size_t n_, lead_;
  std::unique_ptr<T[]> block_;
};

// ---- the input

class Input {
 public:
  Input(const uint8_t* data, size_t size) : next_(data), end_(data + size) {}
  uint32_t number(int bytes) {
    uint32_t value = 0;
    for (int i = 0; i < bytes && next_ < end_; ++i) value |= uint32_t{*next_++} << 8 * i;
    return value;
  }
  size_t left() const { return static_cast<size_t>(end_ - next_); }
  std::vector<uint8_t> rest() { return {std::exchange(next_, end_), end_}; }

 private:
  const uint8_t* next_;
  const uint8_t* const end_;
};

constexpr int kMostPhases = 3;
constexpr int kDamages = 4;
constexpr size_t kMostZ = 200;

enum Mode { kRaw, kParts, kEncode };

// Every bit means something, so that no mutation is in vain. fuzz/make_corpus.py writes these.
struct Header {
  Mode mode;
  bool narrow_type;  // int8 residuals
  int phases;
  size_t tables;
  bool bad_index;  // ask with a table index too large first
  int lanes_log2;
  int skip_max;
  bool own_lanes, own_skip;  // the encoder's choice
  uint32_t tail;
  size_t sites;
  size_t lead;
  size_t partner;
  size_t batch;  // which coder decodes in batches, and of how many
  bool other_type;  // decode damaged symbols into the other type than they were encoded from
  struct Phase {
    size_t n;
    int pattern;
    uint8_t seed;
  } phase[kMostPhases];
  struct Damage {
    uint8_t how;
    size_t where;
  } damage[kDamages];

  explicit Header(Input& in) {
    const uint32_t kinds = in.number(1);
    mode = kinds % 4 < 2 ? static_cast<Mode>(kinds % 4) : kEncode;
    narrow_type = kinds >> 2 & 1;
    phases = 1 + static_cast<int>((kinds >> 3 & 3) % kMostPhases);
    tables = kinds >> 5 & 3;
    bad_index = kinds >> 7;
    const uint32_t coder = in.number(1);
    lanes_log2 = static_cast<int>((coder & 7) % 6);
    own_lanes = (coder & 7) == 7;
    skip_max = static_cast<int>(coder >> 3 & 15);
    own_skip = coder >> 7;
    tail = in.number(2);
    if (tail == UINT16_MAX) tail = UINT32_MAX;
    sites = in.number(1);
    const uint32_t arrays = in.number(1);
    lead = arrays & 3;
    partner = arrays >> 2 & 3;
    other_type = arrays >> 4 & 1;
    batch = arrays >> 5;
    bool large = false;
    for (Phase& one : phase) {
      one.n = elements(in.number(2), large);
      one.pattern = static_cast<int>(in.number(1) % 8);
      one.seed = static_cast<uint8_t>(in.number(1));
    }
    if (partner == 2 && !large) partner = 0;  // the large one takes long
    for (Damage& one : damage) {
      one.how = static_cast<uint8_t>(in.number(1));
      one.where = in.number(2);
    }
  }

 private:
  // How many elements a phase has: few, near the end of a block, or, in one phase at most, a little more than the
  // coders take at a time.
  static size_t elements(uint32_t number, bool& large) {
    const size_t low = number & 0xFFF;
    switch (number >> 12) {
      case 14:
        return std::max<size_t>(1, 64 * (low % 9) + low / 9 % 3) - 1;
      case 15:
        if (!std::exchange(large, true)) return 8192 - 80 + low % 480;
        [[fallthrough]];
      default:
        return number % 201;
    }
  }
};

Exact<uint8_t> make_k(const Header& header, const Header::Phase& phase, Input& in) {
  Exact<uint8_t> k(phase.n, header.lead, 0);
  Random random(phase.seed);
  const auto between = [&](int low, int high) {
    return static_cast<uint8_t>(low + static_cast<int>(random.below(static_cast<size_t>(high - low + 1))));
  };
  const auto of_class = [&](size_t which) {
    return which == 0   ? between(0, header.skip_max)
           : which == 1 ? between(header.skip_max + 1, ckbd::kLastNarrow)
                        : between(ckbd::kLastNarrow + 1, ckbd::kScales - 1);
  };
  // Large phases take long, so most have their symbols near the ends.
  const bool thin = phase.n > 8000 && phase.seed % 4 != 0;
  size_t run = 0, which = 0;
  for (size_t i = 0; i < phase.n; ++i) {
    if (thin && 200 < i && i < 8000) {
      if (i % 500 == 0) k[i] = of_class(i / 500 % 3);
      continue;
    }
    switch (phase.pattern) {
      case 0:  // written out
        k[i] = static_cast<uint8_t>(in.number(1) % ckbd::kScales);
        break;
      case 1:
        k[i] = between(0, ckbd::kScales - 1);
        break;
      case 2:
      case 3:
      case 4:  // one class
        k[i] = of_class(static_cast<size_t>(phase.pattern - 2));
        break;
      case 5:  // runs
        if (run == 0) {
          run = 1 + random.below(1 + random.below(300));
          which = random.below(3);
        }
        --run;
        k[i] = of_class(which);
        break;
      case 6:  // one class, but for a few
        k[i] = of_class(random.below(90) == 0 ? random.below(3) : phase.seed % 3);
        break;
      default:  // all the same
        k[i] = phase.seed % ckbd::kScales;
    }
  }
  return k;
}

// ---- tables, by integers alone

// `count` numbers of at least 1 that add to `total` and fall by step / 16 from each to the next; without a step they
// differ by any power of two.
std::vector<int16_t> spread(int64_t total, size_t count, int64_t step) {
  static Random random(1);
  std::vector<int64_t> weights = {int64_t{1} << 24};
  while (weights.size() < count) {
    weights.push_back(step == 0 ? int64_t{1} << random.below(30) : weights.back() * step / 16);
  }
  int64_t sum = 0, left = total;
  for (const int64_t weight : weights) sum += weight;
  std::vector<int16_t> parts;
  for (const int64_t weight : weights) {
    parts.push_back(static_cast<int16_t>(1 + (total - static_cast<int64_t>(count)) * weight / sum));
    left -= parts.back();
  }
  parts[0] = static_cast<int16_t>(parts[0] + left);
  return parts;
}

struct Channel {
  int low, size, step;
};

struct TableSpec {
  std::vector<Channel> channels;
  int first_step, last_step;  // of y tables 0, and from 42 on; 0: any frequencies
  bool largest_sizes;         // y tables of the largest size there may be, instead of one that grows with k
};

std::unique_ptr<Tables> make_tables(const TableSpec& spec) {
  constexpr size_t kColumns = ckbd::kMaxSize + 2, kZColumns = ckbd::kMaxZSize + 1;
  std::vector<int16_t> y_freq(ckbd::kScales * kColumns), z_freq(spec.channels.size() * kZColumns), z_low, z_size;
  std::vector<uint8_t> y_max;
  for (int k = 0; k < ckbd::kScales; ++k) {
    const bool narrow = k <= ckbd::kLastNarrow;
    const int largest = narrow ? ckbd::kNarrowMax : ckbd::kMaxSize;
    const int growing = narrow ? std::max(1, k / 2) : 3 * (k - 20);
    y_max.push_back(static_cast<uint8_t>(spec.largest_sizes ? largest : std::min(largest, growing)));
    const int step = spec.first_step + (spec.last_step - spec.first_step) * std::min(k, 42) / 42;
    std::vector<int16_t> row = spread(ckbd::kYSlots, size_t{y_max.back()} + 2, step);
    row[0] = static_cast<int16_t>(2 * row[0]);
    std::copy(row.begin(), row.end(), y_freq.begin() + k * static_cast<ptrdiff_t>(kColumns));
  }
  for (const Channel& channel : spec.channels) {
    const std::vector<int16_t> row = spread(ckbd::kSlots, static_cast<size_t>(channel.size) + 1, channel.step);
    std::copy(row.begin(), row.end(), z_freq.begin() + static_cast<ptrdiff_t>(z_low.size() * kZColumns));
    z_low.push_back(static_cast<int16_t>(channel.low));
    z_size.push_back(static_cast<int16_t>(channel.size));
  }
  return std::make_unique<Tables>(ckbd::TableIntegers{y_freq.data(), kColumns, y_max.data(), z_freq.data(), kZColumns,
                                                      z_low.data(), z_size.data(), z_low.size()});
}

std::vector<std::unique_ptr<Tables>> make_all_tables() {
  std::vector<std::unique_ptr<Tables>> all;
  // As in tests/cases/rans_cases.py; fuzz/make_corpus.py counts on it.
  all.push_back(make_tables({{{0, 1, 1}, {-127, 255, 15}, {-2, 4, 8}, {-3, 9, 12}}, 1, 15, false}));
  // One channel, flat tables.
  all.push_back(make_tables({{{-127, 255, 16}}, 16, 16, true}));
  // More channels than lanes; tables that fall so fast that most f are 1.
  TableSpec many{{}, 1, 2, true};
  for (int c = 0; c < 37; ++c) many.channels.push_back({-c, 1 + 7 * c % 64, 1 + c % 3});
  all.push_back(make_tables(many));
  // Anything, among it escapes that are the commonest.
  all.push_back(make_tables({{{5, 1, 0}, {-9, 70, 0}, {127, 1, 0}}, 0, 0, false}));
  return all;
}

std::vector<std::unique_ptr<Tables>> all_tables;

// ---- decoding, in every way there is

// The table indices of each phase.
using Indices = std::vector<Exact<uint8_t>>;

// A payload and what its decoder must know.
struct Stream {
  const Tables& tables;
  std::shared_ptr<const Indices> k;
  Exact<uint8_t> payload;
  int lanes_log2, skip_max;
  uint32_t tail;
  size_t n_z;
  size_t lead;
};

// What came of it. Of the arrays the first `good` are to be trusted, z being the first.
template <class R>
struct Outcome {
  Exact<int16_t> z;
  std::vector<Exact<R>> r;
  size_t good = 0;
  std::string error;
  // Different fill each time, so that what was not written is not the same by chance.
  Outcome(const Stream& stream, int8_t fill) : z(stream.n_z, stream.lead, fill) {
    for (const auto& k : *stream.k) r.emplace_back(k.size(), stream.lead, fill);
  }
};

std::string text_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const ckbd::StreamError& e) {
    return std::string(e.field) + " at " + std::to_string(e.offset) + ": " + e.what();
  } catch (const ckbd::BadIndex& bad) {
    fail("table index ", std::to_string(bad.k), " at ", std::to_string(bad.at));
  }
}

template <class R>
void check_same(const std::string& what, const Outcome<R>& got, const Outcome<R>& expected) {
  got.z.check_lead();
  for (const auto& r : got.r) r.check_lead();
  if (got.error != expected.error) fail(what, ": '", got.error, "', expected '", expected.error, "'");
  const auto check_array = [&](size_t number, const auto& a, const auto& b) {
    if (number >= expected.good || a == b) return;
    size_t at = 0;
    while (a[at] == b[at]) ++at;
    fail(what, ": ", number == 0 ? "z" : "phase " + std::to_string(number - 1), "[", std::to_string(at), "] is ",
         std::to_string(a[at]), ", expected ", std::to_string(b[at]));
  };
  check_array(0, got.z, expected.z);
  for (size_t p = 0; p < got.r.size(); ++p) check_array(p + 1, got.r[p], expected.r[p]);
}

// Runs a step of a decoder and takes down what happened; true if it went well.
template <class R, class Step>
bool attempt(Outcome<R>& outcome, Step step) {
  try {
    step();
    ++outcome.good;
    return true;
  } catch (const ckbd::StreamError&) {
    outcome.error = text_of(std::current_exception());
    return false;
  }
}

// Table indices of which one is too large. Who refuses them must be able to go on with the right ones.
class WrongIndices {
 public:
  explicit WrongIndices(const Exact<uint8_t>& right) : k_(right.size(), 0, 0), at_(right[0] % right.size()) {
    std::copy_n(right.data(), right.size(), k_.data());
    k_[at_] = static_cast<uint8_t>(ckbd::kScales + right[at_] * 3);
  }
  const uint8_t* data() const { return k_.data(); }
  template <class Call>
  void check_refused(Call call) const {
    try {
      call();
    } catch (const ckbd::BadIndex& bad) {
      if (bad.at == at_ && bad.k == k_[at_]) return;
      fail("another table index is refused than the wrong one");
    }
    fail("a table index of 64 or more is taken");
  }
  void check_refused(const std::exception_ptr& error) const {
    check_refused([&] {
      if (error) std::rethrow_exception(error);
    });
  }

 private:
  Exact<uint8_t> k_;
  size_t at_;
};

std::unique_ptr<ckbd::PayloadDecoder> decoder_of(const Coder& coder, const Stream& stream) {
  return std::make_unique<ckbd::PayloadDecoder>(coder, stream.tables, stream.payload.data(), stream.payload.size(),
                                                stream.lanes_log2, stream.skip_max, stream.tail,
                                                static_cast<int>(stream.k->size()));
}

template <class R>
Outcome<R> decode_alone(const Coder& coder, const Stream& stream, int8_t fill, bool bad_index) {
  Outcome<R> out(stream, fill);
  std::unique_ptr<ckbd::PayloadDecoder> decoder;
  bool fine = attempt(out, [&] {
    decoder = decoder_of(coder, stream);
    decoder->z(out.z.data(), out.z.size());
  });
  for (size_t p = 0; fine && p < out.r.size(); ++p) {
    const Exact<uint8_t>& k = (*stream.k)[p];
    ckbd::PhaseTask<R> task{decoder.get(), k.data(), out.r[p].data(), k.size()};
    if (bad_index && k.size() > 0) {
      const WrongIndices wrong(k);
      ckbd::PhaseTask<R> refused{decoder.get(), wrong.data(), out.r[p].data(), k.size()};
      ckbd::decode_phases(&refused, 1);
      wrong.check_refused(refused.error);
    }
    fine = attempt(out, [&] {
      ckbd::decode_phases(&task, 1);
      if (task.error) std::rethrow_exception(task.error);
    });
  }
  if (fine) attempt(out, [&] { decoder->finish(); });
  return out;
}

// Two streams, phase by phase in pairs for as long as both have one. With `bad_index` the first has one in each pair,
// and then gets the right ones alone.
template <class R>
std::pair<Outcome<R>, Outcome<R>> decode_pair(const Coder& a_coder, const Stream& a, const Coder& b_coder,
                                              const Stream& b, int8_t fill, bool bad_index) {
  std::pair<Outcome<R>, Outcome<R>> out{Outcome<R>(a, fill), Outcome<R>(b, fill)};
  const Stream* const streams[2] = {&a, &b};
  Outcome<R>* const outs[2] = {&out.first, &out.second};
  std::unique_ptr<ckbd::PayloadDecoder> decoders[2];
  bool fine[2];
  for (int i = 0; i < 2; ++i) {
    fine[i] = attempt(*outs[i], [&] {
      decoders[i] = decoder_of(i == 0 ? a_coder : b_coder, *streams[i]);
      decoders[i]->z(outs[i]->z.data(), outs[i]->z.size());
    });
  }
  for (size_t p = 0; p < kMostPhases; ++p) {
    std::vector<ckbd::PhaseTask<R>> tasks;
    std::vector<int> owners;
    for (int i = 0; i < 2; ++i) {
      if (!fine[i] || p >= outs[i]->r.size()) continue;
      const Exact<R>& r = outs[i]->r[p];
      tasks.push_back({decoders[i].get(), (*streams[i]->k)[p].data(), r.data(), r.size()});
      owners.push_back(i);
    }
    if (bad_index && tasks.size() == 2 && tasks[0].n > 0) {
      const WrongIndices wrong((*a.k)[p]);
      const uint8_t* const right = std::exchange(tasks[0].k, wrong.data());
      ckbd::decode_phases(tasks, 1);
      wrong.check_refused(tasks[0].error);
      tasks[0].error = nullptr;
      tasks[0].k = right;
      ckbd::decode_phases(&tasks[0], 1);
    } else {
      ckbd::decode_phases(tasks, 1);
    }
    for (size_t t = 0; t < tasks.size(); ++t) {
      fine[owners[t]] = attempt(*outs[owners[t]], [&] {
        if (tasks[t].error) std::rethrow_exception(tasks[t].error);
      });
    }
  }
  for (int i = 0; i < 2; ++i) {
    if (fine[i]) attempt(*outs[i], [&] { decoders[i]->finish(); });
  }
  return out;
}

template <class R>
ckbd::ImageTask image_task(const Stream& stream, Outcome<R>& out) {
  std::vector<ckbd::PhaseOut<R>> phases;
  for (size_t p = 0; p < out.r.size(); ++p) {
    phases.push_back({(*stream.k)[p].data(), out.r[p].data(), out.r[p].size()});
  }
  return {stream.payload.data(), stream.payload.size(), stream.lanes_log2, stream.skip_max, stream.tail,
          out.z.data(),          out.z.size(),          std::move(phases)};
}

template <class... R>
void decode_batch(const Coder& coder, const Tables& tables, std::pair<const Stream*, Outcome<R>*>... all) {
  std::vector<ckbd::ImageTask> images;
  (images.push_back(image_task(*all.first, *all.second)), ...);
  ckbd::decode_images(coder, tables, images, 1);
  size_t i = 0;
  const auto keep = [&](std::string& text) {
    if (images[i].error) text = text_of(images[i].error);
    ++i;
  };
  (keep(all.second->error), ...);
}

// A stream and what comes of it, which is known for both types.
struct Known {
  Stream stream;
  Outcome<int8_t> as8;
  Outcome<int16_t> as16;
  template <class R>
  const Outcome<R>& as() const {
    if constexpr (sizeof(R) == 1) {
      return as8;
    } else {
      return as16;
    }
  }
};

// Streams that are as they should be: a row for each of the tables.
std::vector<std::vector<Known>> partners;

// Every coder, alone and beside another stream; returns what they agree on.
template <class R>
Outcome<R> decode_everywhere(const Header& header, const Stream& stream, const Known& known, bool bad_index) {
  using Other = std::conditional_t<sizeof(R) == 1, int16_t, int8_t>;
  const auto& coders = ckbd::coders();
  const Exact<uint8_t>& payload = stream.payload;
  const uint32_t crc = coders[0]->crc32c(payload.data(), payload.size(), 0);
  Outcome<R> expected = decode_alone<R>(*coders[0], stream, 11, bad_index);
  int8_t fill = 12;
  for (size_t i = 1; i < coders.size(); ++i) {
    const Coder& coder = *coders[i];
    const std::string name = coder.name;
    if (coder.crc32c(payload.data(), payload.size(), 0) != crc) fail(name, ": another checksum");
    check_same(name, decode_alone<R>(coder, stream, fill++, bad_index), expected);
    const auto [a, b] = decode_pair<R>(coder, stream, coder, known.stream, fill++, bad_index);
    check_same(name + " in a pair", a, expected);
    check_same(name + " in a pair, the partner", b, known.as<R>());
  }
  if (header.lead == 3) {
    // Nothing says that a pair has its tables or its coder in common.
    const Known& stranger = partners[(header.tables + header.sites % 2) % partners.size()][1];
    const Coder& its = *coders[header.sites % coders.size()];
    const auto [a, b] = decode_pair<R>(*coders.back(), stream, its, stranger.stream, fill++, bad_index);
    check_same("beside a stranger", a, expected);
    check_same("the stranger", b, stranger.as<R>());
  }
  // What a batch does around the coders is the same for all.
  const Coder& coder = *coders[header.batch / 2 % coders.size()];
  const std::string name = coder.name;
  Outcome<R> first(stream, fill), second(stream, fill), beside(stream, fill++);
  Outcome<R> same_type(known.stream, fill++);
  Outcome<Other> other_type(known.stream, fill++);
  if (header.batch % 2 == 0) {
    decode_batch(coder, stream.tables, std::pair(&stream, &first));
  } else {
    decode_batch(coder, stream.tables, std::pair(&stream, &first), std::pair(&known.stream, &same_type),
                 std::pair(&stream, &second));
    check_same(name + " in a batch, again", second, expected);
    check_same(name + " in a batch, the partner", same_type, known.as<R>());
  }
  check_same(name + " in a batch", first, expected);
  decode_batch(coder, stream.tables, std::pair(&stream, &beside), std::pair(&known.stream, &other_type));
  check_same(name + " in a batch of two types", beside, expected);
  check_same(name + " in a batch of two types, the partner", other_type, known.as<Other>());
  return expected;
}

// ---- encoding

template <class R>
struct Symbols {
  Exact<int16_t> z;
  std::vector<Exact<R>> r;
};

// Bytes over and over, each time a little different: what kinds of symbols they make stays. Any, if there are none.
class Source {
 public:
  explicit Source(std::vector<uint8_t> bytes) : bytes_(std::move(bytes)) {}
  uint8_t next() {
    if (bytes_.empty()) return static_cast<uint8_t>(random_.next());
    const uint8_t byte = bytes_[at_] ^ change_;
    if (++at_ == bytes_.size()) {
      at_ = 0;
      change_ = static_cast<uint8_t>(random_.next() % 32);
    }
    return byte;
  }
  // A symbol where 0 is the commonest and those from `escape` on in size are escapes.
  int symbol(int escape) {
    const uint8_t kind = next();
    const int sign = kind & 1 ? -1 : 1;
    if (kind < 96) return 0;
    if (kind < 160) return sign;
    if (kind < 224) return sign * (next() % (escape + 1));
    if (kind < 246) return sign * (escape - 1 + next() % 3);
    if (kind < 252) return static_cast<int8_t>(next());
    if (kind < 254) {
      const int low = next();
      return static_cast<int16_t>(low | next() << 8);
    }
    constexpr int kEnds[] = {INT16_MIN, INT16_MAX, INT16_MIN + 1, INT8_MIN, INT8_MAX, INT8_MIN + 1};
    return kEnds[next() % std::size(kEnds)];
  }

 private:
  const std::vector<uint8_t> bytes_;
  size_t at_ = 0;
  uint8_t change_ = 0;
  Random random_{1};
};

// Of elements up to skip_max most are 0, as an exception costs more than a symbol.
template <class R>
Symbols<R> make_symbols(const Tables& tables, size_t n_z, const Indices& ks, int skip_max, size_t lead,
                        Source& source) {
  const ckbd::TableView& view = tables.view();
  Symbols<R> symbols{Exact<int16_t>(n_z, lead, 0), {}};
  for (size_t i = 0; i < n_z; ++i) {
    const size_t c = i % tables.channels();
    symbols.z[i] = static_cast<int16_t>(view.by_channel.low[c] + source.symbol(view.by_channel.escape[c]));
  }
  for (const auto& k : ks) {
    Exact<R>& r = symbols.r.emplace_back(k.size(), lead, 0);
    for (size_t i = 0; i < k.size(); ++i) {
      if (k[i] > skip_max || source.next() >= 224) r[i] = static_cast<R>(source.symbol(view.y_escape[k[i]]));
    }
  }
  return symbols;
}

template <class R>
ckbd::Encoded encode_with(const Coder& coder, const Tables& tables, const Symbols<R>& symbols, const Indices& ks,
                          ckbd::Choice choice) {
  std::vector<ckbd::Phase<R>> phases;
  for (size_t p = 0; p < ks.size(); ++p) phases.push_back({ks[p].data(), symbols.r[p].data(), ks[p].size()});
  return ckbd::encode(coder, tables, symbols.z.data(), symbols.z.size(), phases, choice);
}

// By every coder, and from the larger type too.
template <class R>
ckbd::Encoded encode_everywhere(const Tables& tables, const Symbols<R>& symbols, const Indices& ks,
                                ckbd::Choice choice) {
  const auto& coders = ckbd::coders();
  const ckbd::Encoded made = encode_with(*coders[0], tables, symbols, ks, choice);
  const auto check = [&](const std::string& name, const ckbd::Encoded& other) {
    if (other.lanes_log2 != made.lanes_log2) fail(name, " encodes with another number of lanes");
    if (other.skip_max != made.skip_max) fail(name, " encodes with another skip_max");
    if (other.tail != made.tail) fail(name, " encodes with another tail");
    if (other.payload != made.payload) fail(name, " encodes to other bytes");
  };
  for (size_t i = 1; i < coders.size(); ++i) {
    check(coders[i]->name, encode_with(*coders[i], tables, symbols, ks, choice));
  }
  if constexpr (sizeof(R) == 1) {
    Symbols<int16_t> wide{Exact<int16_t>(symbols.z.size(), 0, 0), {}};
    std::copy_n(symbols.z.data(), symbols.z.size(), wide.z.data());
    for (const auto& r : symbols.r) {
      std::copy_n(r.data(), r.size(), wide.r.emplace_back(r.size(), 0, 0).data());
    }
    for (const Coder* coder : coders) {
      check(std::string(coder->name) + " from int16", encode_with(*coder, tables, wide, ks, choice));
    }
  }
  return made;
}

template <class R>
void check_refused(const Tables& tables, const Symbols<R>& symbols, const Indices& ks, ckbd::Choice choice) {
  if (ks.back().size() == 0) return;
  const WrongIndices wrong(ks.back());
  std::vector<ckbd::Phase<R>> phases;
  for (size_t p = 0; p < ks.size(); ++p) phases.push_back({ks[p].data(), symbols.r[p].data(), ks[p].size()});
  phases.back().k = wrong.data();
  for (const Coder* coder : ckbd::coders()) {
    wrong.check_refused(
        [&] { ckbd::encode(*coder, tables, symbols.z.data(), symbols.z.size(), phases, choice); });
  }
}

template <class R>
void check_symbols(const Outcome<R>& outcome, const Symbols<R>& symbols) {
  if (!outcome.error.empty()) fail("what was encoded is refused: ", outcome.error);
  if (!(outcome.z == symbols.z) || !(outcome.r == symbols.r)) fail("what was encoded is decoded to something else");
}

void damage(const Header& header, std::vector<uint8_t>& payload, Stream& stream) {
  for (const Header::Damage& one : header.damage) {
    const int value = one.how >> 3;
    const size_t at = one.where % (payload.size() + 1);
    const auto place = payload.begin() + static_cast<ptrdiff_t>(at);
    switch (one.how & 7) {
      case 0:
        break;
      case 1:
        if (at < payload.size()) *place ^= static_cast<uint8_t>(1 << value % 8);
        break;
      case 2:
        if (at < payload.size()) *place = static_cast<uint8_t>(value < 16 ? value : 255 - (31 - value));
        break;
      case 3:
        payload.insert(place, static_cast<size_t>(1 + value % 2), static_cast<uint8_t>(value));
        break;
      case 4:
        if (at < payload.size()) payload.erase(place);
        break;
      case 5:
        payload.erase(place, payload.end());
        break;
      case 6:
        payload.resize(payload.size() + at % 100, static_cast<uint8_t>(value));
        break;
      default:  // the header of the file
        if (value < 16) {
          stream.skip_max = value;
        } else if (value < 22) {
          stream.lanes_log2 = value - 16;
        } else if (value < 30) {
          stream.tail += static_cast<uint32_t>(value - 26);
        } else {
          stream.tail = static_cast<uint32_t>(one.where);
        }
    }
  }
}

// Numbers of given width to bytes, least significant bit first.
class Bits {
 public:
  explicit Bits(std::vector<uint8_t>& out) : out_(out) {}
  void put(uint32_t value, int width) {
    for (int i = 0; i < width; ++i) {
      if (count_++ % 8 == 0) out_.push_back(0);
      out_.back() |= static_cast<uint8_t>((value >> i & 1) << (count_ - 1) % 8);
    }
  }
  void put_unary(uint32_t ones) {
    for (; ones > 0; --ones) put(1, 1);
    put(0, 1);
  }

 private:
  std::vector<uint8_t>& out_;
  size_t count_ = 0;
};

void put_varint(std::vector<uint8_t>& out, uint32_t value) {
  for (; value >= 128; value >>= 7) out.push_back(static_cast<uint8_t>(value | 128));
  out.push_back(static_cast<uint8_t>(value));
}

uint32_t low_bits(uint32_t value, int bits) { return value & ((1u << bits) - 1); }

// A payload whose lists can be read unless a number in them says otherwise.
std::vector<uint8_t> put_together(const Header& header, Input& in) {
  std::vector<uint8_t> out;
  const uint32_t widths = in.number(1);
  Random states(in.number(2));
  Bits lanes(out);
  for (int lane = 0; lane < 1 << header.lanes_log2; ++lane) {
    const int e = static_cast<int>(lane == 0 ? widths & 15 : widths >> 4);
    lanes.put(static_cast<uint32_t>(e), 4);
    lanes.put(low_bits(static_cast<uint32_t>(states.next()), 16 + e), 16 + e);
  }
  for (int p = 0; p < header.phases; ++p) {
    const uint32_t count = in.number(1);
    put_varint(out, count < 250 ? count % 50 : in.number(4));
    if (count % 50 == 0) continue;
    const uint32_t b = in.number(1) % 32;
    out.push_back(static_cast<uint8_t>(b));
    Bits exceptions(out);
    for (uint32_t i = 0; i < count % 50 && in.left() > 0; ++i) {
      const uint32_t kind = in.number(1), m = kind >> 3 & 15;
      exceptions.put_unary(kind & 7);
      exceptions.put(low_bits(b > 8 ? in.number(3) : in.number(1), static_cast<int>(b)), static_cast<int>(b));
      exceptions.put(kind >> 7, 1);
      exceptions.put_unary(m);
      exceptions.put(low_bits(m > 0 ? in.number(2) : 0, static_cast<int>(m)), static_cast<int>(m));
    }
  }
  const uint32_t escapes = in.number(1);
  put_varint(out, escapes);
  for (uint32_t i = 0; i < escapes; ++i) {
    const uint32_t value = in.number(1);
    put_varint(out, value < 250 ? value : in.number(value < 253 ? 2 : 4));
  }
  const std::vector<uint8_t> words = in.rest();
  out.insert(out.end(), words.begin(), words.end());
  return out;
}

// ---- partners

Stream stream_of(const Tables& tables, std::shared_ptr<const Indices> k, const ckbd::Encoded& made, size_t n_z,
                 size_t lead) {
  return {tables, std::move(k), Exact<uint8_t>(made.payload, lead), made.lanes_log2, made.skip_max,
          static_cast<uint32_t>(made.tail), n_z, lead};
}

Known make_partner(const Tables& tables, std::vector<size_t> sizes, size_t sites, ckbd::Choice choice) {
  Random random(sizes.size());
  auto k = std::make_shared<Indices>();
  for (const size_t n : sizes) {
    Exact<uint8_t>& one = k->emplace_back(n, 0, 0);
    for (size_t i = n > 8000 ? 8000 : 0; i < n; ++i) one[i] = static_cast<uint8_t>(random.below(ckbd::kScales));
  }
  std::vector<uint8_t> bytes;
  for (int i = 0; i < 1000; ++i) bytes.push_back(static_cast<uint8_t>(random.next()));
  Source source(std::move(bytes));
  const auto symbols = make_symbols<int8_t>(tables, sites * tables.channels(), *k, 4, 0, source);
  const Coder& plain = *ckbd::coders()[0];
  const ckbd::Encoded made = encode_with(plain, tables, symbols, *k, choice);
  Stream stream = stream_of(tables, k, made, symbols.z.size(), 0);
  auto as8 = decode_alone<int8_t>(plain, stream, 1, false);
  auto as16 = decode_alone<int16_t>(plain, stream, 2, false);
  check_symbols(as8, symbols);
  return {std::move(stream), std::move(as8), std::move(as16)};
}

// ---- one input

// Symbols that fit into the smaller type are the same in the larger.
void check_same_values(const Outcome<int16_t>& a, const Outcome<int8_t>& b) {
  bool same = a.error == b.error && a.z == b.z;
  for (size_t p = 0; p < a.r.size(); ++p) {
    same &= std::equal(a.r[p].data(), a.r[p].data() + a.r[p].size(), b.r[p].data());
  }
  if (!same) fail("what was encoded is decoded to something else as int16");
}

template <class R>
void code_and_damage(const Header& header, const Tables& tables, std::shared_ptr<const Indices> k, size_t n_z,
                     Input& in) {
  using Other = std::conditional_t<sizeof(R) == 1, int16_t, int8_t>;
  Source source(in.rest());
  const Symbols<R> symbols = make_symbols<R>(tables, n_z, *k, header.skip_max, header.lead, source);
  const ckbd::Choice choice{header.own_lanes ? -1 : header.lanes_log2, header.own_skip ? -1 : header.skip_max};
  if (header.bad_index) check_refused(tables, symbols, *k, choice);
  const ckbd::Encoded made = encode_everywhere(tables, symbols, *k, choice);
  Stream stream = stream_of(tables, k, made, n_z, header.lead);
  Outcome<R> found = decode_everywhere<R>(header, stream, partners[header.tables][header.partner], header.bad_index);
  check_symbols(found, symbols);

  std::vector<uint8_t> payload = made.payload;
  Stream damaged = stream_of(tables, k, made, n_z, header.lead);
  damage(header, payload, damaged);
  damaged.payload = Exact<uint8_t>(payload, header.lead);
  Outcome<Other> other = decode_alone<Other>(*ckbd::coders()[0], stream, 3, false);
  const auto decode_both = [&](const Known& known) {
    if (header.other_type) {
      decode_everywhere<Other>(header, damaged, known, false);
    } else {
      decode_everywhere<R>(header, damaged, known, false);
    }
  };
  if constexpr (sizeof(R) == 1) {
    check_same_values(other, found);
    decode_both({std::move(stream), std::move(found), std::move(other)});
  } else {
    decode_both({std::move(stream), std::move(other), std::move(found)});
  }
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  all_tables = make_all_tables();
  for (const auto& tables : all_tables) {
    std::vector<Known>& row = partners.emplace_back();
    const size_t sites = 1 + 40 / tables->channels();
    row.push_back(make_partner(*tables, {150, 140}, sites, {5, 1}));
    row.push_back(make_partner(*tables, {70, 130, 40}, sites, {2, 0}));
    row.push_back(make_partner(*tables, {8192 + 100}, sites, {5, 4}));
    row.push_back(make_partner(*tables, {0, 3}, 0, {0, 15}));
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input in(data, size);
  const Header header(in);
  const Tables& tables = *all_tables[header.tables];
  const size_t n_z = tables.channels() * (header.sites % (1 + kMostZ / tables.channels()));
  auto k = std::make_shared<Indices>();
  for (int p = 0; p < header.phases; ++p) k->push_back(make_k(header, header.phase[p], in));
  if (header.mode == kEncode) {
    if (header.narrow_type) {
      code_and_damage<int8_t>(header, tables, k, n_z, in);
    } else {
      code_and_damage<int16_t>(header, tables, k, n_z, in);
    }
    return 0;
  }
  const std::vector<uint8_t> payload = header.mode == kRaw ? in.rest() : put_together(header, in);
  const Stream stream = {tables, k, Exact<uint8_t>(payload, header.lead), header.lanes_log2, header.skip_max,
                         header.tail, n_z, header.lead};
  const Known& partner = partners[header.tables][header.partner];
  if (header.narrow_type) {
    decode_everywhere<int8_t>(header, stream, partner, header.bad_index);
  } else {
    decode_everywhere<int16_t>(header, stream, partner, header.bad_index);
  }
  return 0;
}
