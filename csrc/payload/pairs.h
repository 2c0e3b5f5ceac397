// Many items on threads, two to a thread.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

#include "common/pool.h"

namespace ckbd {

// Calls work(first, second) for all items, largest first, each with the next in size so that they end together.
// second is SIZE_MAX where there is none. While there are threads for all, nobody shares one.
template <class Size, class Work>
void in_pairs(size_t n, size_t threads, Size size, Work work) {
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return size(a) > size(b); });
  if (n <= threads) {
    run_tasks(n, threads, [&](size_t t) { work(order[t], SIZE_MAX); });
  } else {
    run_tasks((n + 1) / 2, threads,
              [&](size_t t) { work(order[2 * t], 2 * t + 1 < n ? order[2 * t + 1] : SIZE_MAX); });
  }
}

}  // namespace ckbd
