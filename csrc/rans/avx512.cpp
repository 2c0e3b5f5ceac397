// All lanes in one vector: 32 states, their low and high halves in one register each.
//
// Needs AVX-512 F, BW, VL, DQ and VBMI2, BMI1 and 2, POPCNT (Ice Lake, Zen 4). What the loops lean on:
//
// - A step is 16-bit arithmetic throughout, since f < 2^12 (advance()).
// - Members of a group are compressed into a buffer first, in which element i stands at a multiple of L plus
//   i mod L, so that a step is one load; the decoded symbols go to another, and are expanded from there.
// - A chunk of a phase that begins or ends within a step of lanes takes a masked step. So does every step if
//   L < 32: the other lanes of the vector idle.
#include "rans/isa.h"

#if CKBD_X86

#include "rans/avx512_step.h"

namespace ckbd::avx512 {
namespace {

// Symbols `first` to before `last` of a group, which stand in the buffer from index first mod L on.
template <class Index>
struct Job {
  DecoderState* state;
  const Index* at;
  int8_t* out;
  size_t first, last;
};

template <class Finder>
class Stepper {
 public:
  using Index = typename Finder::Index;
  Stepper(const TableView& tables, const Finder& finder, const Job<Index>& job)
      : tables_(tables), finder_(finder), state_(*job.state), lanes_(state_.lane_mask + 1), last_(job.last) {
    // An empty job counts as a finished one, wherever in a step it stands.
    const size_t ahead = job.first < job.last ? job.first & state_.lane_mask : 0;
    run_ = {load(state_.x), state_.words.next, state_.words.safe, job.at, job.out, job.first - ahead};
    if (ahead > 0) {
      const size_t end = job.last - run_.first < lanes_ ? job.last - run_.first : lanes_;
      fine_ = take_step(state_, tables_, finder_, run_, lane_range(ahead, end), lanes_);
    }
  }
  // Whole steps that are left.
  size_t left() const { return fine_ && run_.first < last_ ? (last_ - run_.first) / lanes_ : 0; }
  // Loops apart, so that the one for all lanes needs no masks.
  void step() { fine_ = take_step(state_, tables_, finder_, run_, ~Mask{0}, kMaxLanes); }
  void masked_step() { fine_ = take_step(state_, tables_, finder_, run_, lane_range(0, lanes_), lanes_); }
  bool fine() const { return fine_; }
  bool all_lanes() const { return lanes_ == kMaxLanes; }
  bool end() {
    if (all_lanes()) {
      for (size_t i = left(); fine_ && i > 0; --i) step();
    } else {
      for (size_t i = left(); fine_ && i > 0; --i) masked_step();
    }
    if (fine_ && run_.first < last_) {
      fine_ = take_step(state_, tables_, finder_, run_, lane_range(0, last_ - run_.first), lanes_);
    }
    store(state_.x, run_.x);
    state_.words.next = run_.next;
    return fine_;
  }

 private:
  const TableView& tables_;
  const Finder& finder_;
  DecoderState& state_;
  const size_t lanes_, last_;
  Run<Index> run_;
  bool fine_ = true;
};

template <class Finder>
bool run_one(const TableView& tables, const Job<typename Finder::Index>& job) {
  const Finder finder(tables);
  return Stepper<Finder>(tables, finder, job).end();
}

// Two streams in turn: while one waits for its words the other computes.
template <class Finder>
void run_two(const TableView& tables, const Job<typename Finder::Index> (&jobs)[2], bool (&fine)[2]) {
  const Finder finder(tables);
  Stepper<Finder> a(tables, finder, jobs[0]), b(tables, finder, jobs[1]);
  size_t both = a.left() < b.left() ? a.left() : b.left();
  if (a.all_lanes() && b.all_lanes()) {
    for (; both > 0 && a.fine() & b.fine(); --both) {
      a.step();
      b.step();
    }
  } else {
    for (; both > 0 && a.fine() & b.fine(); --both) {
      a.masked_step();
      b.masked_step();
    }
  }
  fine[0] = a.end();
  fine[1] = b.end();
}

// ---- a phase, chunk by chunk

// A group on its way: what has been taken, and the chunk at hand. With kClear what is not in the group becomes 0, and
// so blocks without members have to be written too.
template <class R, bool kClear>
class Walk {
 public:
  Walk(DecoderState& state, const YGroup<R>& y) : state_(state), y_(y) {}

  bool more() const { return begin_ < y_.n && (kClear || taken_ < y_.count); }

  // Compresses the members of the next blocks, as many as the buffer is sure to hold.
  Job<uint8_t> open() {
    members_ = y_.members + begin_ / kBlock;
    uint8_t* const start = tables_ + (taken_ & state_.lane_mask);
    uint8_t* const full = start + kChunk - kBlock;
    uint8_t* next = start;
    const uint8_t* const k = y_.k + begin_;
    const size_t left = y_.n - begin_;
    size_t b = 0;
    for (; b < left / kBlock && next <= full; ++b)
      next = compress(next, members_[b], _mm512_loadu_si512(k + b * kBlock));
    size_ = b * kBlock;
    if (left - size_ < kBlock && left > size_ && next <= full) {
      next = compress(next, members_[b], load_block(k + size_, left - size_).k);
      size_ = left;
    }
    first_ = taken_;
    taken_ += static_cast<size_t>(next - start);
    return {&state_, tables_, symbols_, first_, taken_};
  }

  // Expands the symbols into their places.
  void close() {
    const int8_t* next = symbols_ + (first_ & state_.lane_mask);
    R* const r = y_.r + begin_;
    const size_t whole = size_ / kBlock, rest = size_ % kBlock;
    for (size_t b = 0; b < whole; ++b) {
      const uint64_t in = members_[b];
      if (!kClear && in == 0) continue;
      put(r + b * kBlock, in, _mm512_maskz_expand_epi8(in, load_first(next)));
      next += popcount(in);
    }
    if (rest > 0) put_some(r + whole * kBlock, members_[whole], rest, next);
    const Escaped* escaped = take_escapes(state_);
    if (escaped != nullptr) place(escaped, first_, r);
    begin_ += size_;
  }

 private:
  // The symbols of escapes, which are in order and end with a number that is never reached.
  void place(const Escaped* escaped, size_t number, R* r) {
    for (size_t b = 0; b < blocks_of(size_); ++b) {
      const size_t here = popcount(members_[b]);
      for (; escaped->number < number + here; ++escaped) {
        const uint64_t bit = _pdep_u64(uint64_t{1} << (escaped->number - number), members_[b]);
        r[b * kBlock + _tzcnt_u64(bit)] = static_cast<R>(escaped->symbol);
      }
      number += here;
    }
  }

  static uint8_t* compress(uint8_t* next, uint64_t in, __m512i k) {
    if (!kClear && in == 0) return next;
    _mm512_storeu_si512(next, _mm512_maskz_compress_epi8(in, rows_of(k)));
    return next + popcount(in);
  }
  // The symbols of a whole block.
  static void put(int8_t* r, uint64_t in, __m512i symbols) {
    if (!kClear) symbols = _mm512_mask_mov_epi8(_mm512_loadu_si512(r), in, symbols);
    _mm512_storeu_si512(r, symbols);
  }
  static void put(int16_t* r, uint64_t in, __m512i symbols) {
    __m512i wide[2] = {_mm512_cvtepi8_epi16(_mm512_castsi512_si256(symbols)),
                       _mm512_cvtepi8_epi16(_mm512_extracti64x4_epi64(symbols, 1))};
    for (int half = 0; half < 2; ++half, r += 32, in >>= 32) {
      if (!kClear) wide[half] = _mm512_mask_mov_epi16(_mm512_loadu_si512(r), static_cast<Mask>(in), wide[half]);
      _mm512_storeu_si512(r, wide[half]);
    }
  }
  // Those of the last one, which is not whole.
  static void put_some(R* r, uint64_t in, size_t size, const int8_t* symbols) {
    for (size_t j = 0; j < size; ++j, in >>= 1) {
      if (in & 1) {
        r[j] = *symbols++;
      } else if (kClear) {
        r[j] = 0;
      }
    }
  }

  DecoderState& state_;
  const YGroup<R> y_;
  size_t begin_ = 0, taken_ = 0, first_ = 0, size_ = 0;
  const uint64_t* members_ = nullptr;
  alignas(64) uint8_t tables_[kMaxLanes + kChunk + kBlock];
  alignas(64) int8_t symbols_[kMaxLanes + kChunk + kBlock];
};

template <class Walk>
void finish_walk(Walk& walk, const TableView& tables, bool narrow) {
  while (walk.more()) {
    const Job<uint8_t> job = walk.open();
    if (!(narrow ? run_one<Narrow>(tables, job) : run_one<Wide>(tables, job))) return;
    walk.close();
  }
}

template <class Walk>
void walk_two(Walk& a, Walk& b, const TableView& tables, bool narrow) {
  bool fine[2] = {true, true};
  while (fine[0] && fine[1] && a.more() && b.more()) {
    const Job<uint8_t> jobs[2] = {a.open(), b.open()};
    if (narrow) {
      run_two<Narrow>(tables, jobs, fine);
    } else {
      run_two<Wide>(tables, jobs, fine);
    }
    if (fine[0]) a.close();
    if (fine[1]) b.close();
  }
  if (fine[0]) finish_walk(a, tables, narrow);
  if (fine[1]) finish_walk(b, tables, narrow);
}

template <class R>
void decode_y(DecoderState& state, const TableView& tables, const YGroup<R>& y, bool clear) {
  if (clear) {
    Walk<R, true> walk(state, y);
    finish_walk(walk, tables, y.narrow);
  } else {
    Walk<R, false> walk(state, y);
    finish_walk(walk, tables, y.narrow);
  }
}

template <class R>
void decode_two(DecoderState* const state[2], const TableView& tables, const YGroup<R> y[2], bool clear) {
  if (clear) {
    Walk<R, true> a(*state[0], y[0]), b(*state[1], y[1]);
    walk_two(a, b, tables, y[0].narrow);
  } else {
    Walk<R, false> a(*state[0], y[0]), b(*state[1], y[1]);
    walk_two(a, b, tables, y[0].narrow);
  }
}

void decode_z(DecoderState& state, const TableView& tables, int16_t* z, size_t n) {
  const ByChannel finder(tables);
  const size_t lanes = state.lane_mask + 1;
  Run<uint16_t> run = {load(state.x), state.words.next, state.words.safe, nullptr, nullptr, 0};
  int8_t symbols[kMaxLanes];
  size_t channel = 0;
  for (size_t at = 0; at < n; at += lanes) {
    const size_t here = n - at < lanes ? n - at : lanes;
    run.at = tables.by_channel.channel + channel;
    run.out = symbols;
    if (!take_step(state, tables, finder, run, lane_range(0, here), lanes)) return;
    const __m256i taken = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(symbols));
    _mm512_mask_storeu_epi16(z + at, lane_range(0, here), _mm512_cvtepi8_epi16(taken));
    const Escaped* escaped = take_escapes(state);
    for (; escaped != nullptr && escaped->number < n; ++escaped)
      z[escaped->number] = static_cast<int16_t>(escaped->symbol);
    channel = (channel + lanes) % tables.channels;
  }
  store(state.x, run.x);
  state.words.next = run.next;
}

// ---- what else goes over every element

Count classify(const uint8_t* k, size_t n, uint8_t skip_max, uint64_t* narrow, uint64_t* wide) {
  const __m512i skip = _mm512_set1_epi8(static_cast<char>(skip_max));
  const __m512i last_narrow = _mm512_set1_epi8(kLastNarrow);
  Count total{};
  __m512i used = _mm512_setzero_si512();
  for (size_t i = 0; i < n; i += kBlock) {
    // Elements beyond the end read as 0, which is in no group that is coded.
    const Block block = load_block(k + i, n - i);
    const uint64_t in_wide = _mm512_cmpgt_epu8_mask(block.k, last_narrow);
    const uint64_t in_narrow = _mm512_cmpgt_epu8_mask(block.k, skip) & ~in_wide;
    *narrow++ = in_narrow;
    *wide++ = in_wide;
    total.narrow += popcount(in_narrow);
    total.wide += popcount(in_wide);
    used = _mm512_or_si512(used, block.k);
  }
  total.in_range = _mm512_test_epi8_mask(used, _mm512_set1_epi8(static_cast<char>(~(kScales - 1)))) == 0;
  return total;
}

}  // namespace

extern const Coder coder = {
    "avx512",
    decode_z,
    encode_z,
    classify,
    find_skipped,
    crc32c,
    {decode_y<int8_t>, decode_two<int8_t>, encode_y8, next_exception8},
    {decode_y<int16_t>, decode_two<int16_t>, encode_y16, next_exception16},
};

}  // namespace ckbd::avx512

#endif
