#include "payload/survey.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace ckbd {
namespace {

constexpr int kSkipTried = 5;  // skip_max 0 .. 4: beyond them no picture was seen to gain
// Whole rows of kRow elements, so that every channel is in the sample; all of them up to kAll elements.
constexpr size_t kRow = 2048, kAll = size_t{1} << 14;
constexpr size_t kStride = 31;  // of the elements whose tables are counted; few numbers of channels share it
// What is worth paying for one symbol less to code, in bits, and for all of them, as a share of the payload.
constexpr double kBitsForOne = 0.001, kShareForAll = 1.0 / 1024;

// Estimates for the whole, by table index.
struct Sample {
  double elements[kSkipTried] = {};
  double nonzero[kSkipTried] = {};
  double nonzero_bits[kSkipTried] = {};  // of those, if they are coded
  double bits = 0;                       // of everything, if it is coded
};

// False if there is an index that no table has.
template <class R>
bool add_row(Sample& sample, const Coder& coder, const Tables& tables, const uint8_t* k, const R* r, size_t n,
             double weight) {
  static thread_local Scratch<uint64_t> scratch;
  const Members members = classify(coder, k, n, kSkipTried - 1, scratch);
  if (!members.count.in_range) return false;
  uint64_t others[2][kRow / kBlock];  // of which only the number is wanted
  double before = 0;
  for (int s = 0; s < kSkipTried; ++s) {
    const Count count =
        s + 1 < kSkipTried ? coder.classify(k, n, static_cast<uint8_t>(s), others[0], others[1]) : members.count;
    const double skipped = static_cast<double>(n - count.narrow - count.wide);
    sample.elements[s] += weight * (skipped - std::exchange(before, skipped));
  }
  size_t zeros = 0;
  const auto next = [&](size_t at) { return y_coder<R>(coder).next_exception(members.coded, r, at, n, zeros); };
  for (size_t at = next(0); at < n; at = next(at + 1)) {
    const size_t row = std::min<size_t>(once(k + at), kSkipTried - 1);
    sample.nonzero[row] += weight;
    sample.nonzero_bits[row] += weight * tables.ideal_bits(static_cast<uint8_t>(row), once(r + at));
  }
  double bits = 0;
  for (size_t j = 0; j < n; j += kStride) bits += tables.entropy(static_cast<uint8_t>(row_of(k[j])));
  sample.bits += weight * kStride * bits;
  return true;
}

// Bits of a list of `some` exceptions among `all` elements whose gaps are geometric: b + 1 / (1 - (1 - p)^(2^b)) for
// the gap, a sign and, nearly always, |r| = 1.
double list_bits(double some, double all) {
  if (some == 0) return 8;
  double longer = 1 - std::min(some / all, 0.5);  // the share of gaps of 2^b and more: (1 - p)^(2^b)
  double least = HUGE_VAL;
  for (int b = 0; b <= kMaxLowBits; ++b, longer *= longer) {
    const double bits = b + 1 / (1 - longer);
    if (bits > least) break;
    least = bits;
  }
  return 16 + some * (least + 2);
}

int best_skip(const Sample& sample, const Tables& tables) {
  const double all_tried = std::accumulate(sample.elements, sample.elements + kSkipTried, 1.0);
  const double price = std::min(kBitsForOne, kShareForAll * sample.bits / all_tried);
  int best = 0;
  double least = HUGE_VAL;
  for (int s = 0; s < kSkipTried; ++s) {
    double some = 0, all = 0, cost = 0;
    for (int c = 0; c < kSkipTried; ++c) {
      if (c <= s) {
        some += sample.nonzero[c];
        all += sample.elements[c];
      } else {
        const double zeros = sample.elements[c] - sample.nonzero[c];
        cost += sample.nonzero_bits[c] + zeros * tables.ideal_bits(static_cast<uint8_t>(c), 0);
        cost += price * sample.elements[c];
      }
    }
    cost += list_bits(some, all);
    if (cost >= least) continue;
    least = cost;
    best = s;
  }
  return best;
}

}  // namespace

template <class R>
int choose_skip_max(const Coder& coder, const Tables& tables, const std::vector<Phase<R>>& phases) {
  Sample sample;
  for (size_t p = 0; p < phases.size(); ++p) {
    const Phase<R>& phase = phases[p];
    const size_t rows = std::max<size_t>(1, phase.n / kAll);  // of which one is taken
    for (size_t begin = 0; begin < phase.n; begin += rows * kRow) {
      const size_t n = std::min(kRow, phase.n - begin);
      if (!add_row(sample, coder, tables, phase.k + begin, phase.r + begin, n, static_cast<double>(rows))) {
        throw_bad_index(p, phase.k, phase.n);
      }
    }
  }
  return best_skip(sample, tables);
}

template int choose_skip_max(const Coder&, const Tables&, const std::vector<Phase<int8_t>>&);
template int choose_skip_max(const Coder&, const Tables&, const std::vector<Phase<int16_t>>&);

}  // namespace ckbd
