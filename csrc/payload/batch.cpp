#include "payload/batch.h"

#include <algorithm>
#include <memory>

#include "common/attempt.h"
#include "payload/pairs.h"

namespace ckbd {
namespace {

// Two tasks that may go together are copied side by side, and back.
template <class R>
void decode_pair(PhaseTask<R>* a, PhaseTask<R>* b) {
  if (b == nullptr) return decode_phases(a, 1);
  PhaseTask<R> both[2] = {*a, *b};
  decode_phases(both, 2);
  a->error = both[0].error;
  b->error = both[1].error;
}

void decode_some(const Coder& coder, const Tables& tables, ImageTask* const* images, size_t count) {
  std::unique_ptr<PayloadDecoder> decoders[2];
  size_t phases = 0;
  for (size_t i = 0; i < count; ++i) {
    ImageTask& image = *images[i];
    const size_t own = std::visit([](const auto& all) { return all.size(); }, image.phases);
    phases = std::max(phases, own);
    attempt(image.error, [&] {
      decoders[i] = std::make_unique<PayloadDecoder>(coder, tables, image.payload, image.size, image.lanes_log2,
                                                     image.skip_max, image.tail, static_cast<int>(own));
      decoders[i]->z(image.z, image.n_z);
    });
  }
  for (size_t p = 0; p < phases; ++p) {
    const auto run = [&](auto type) {
      using R = decltype(type);
      PhaseTask<R> tasks[2];
      ImageTask* owners[2];
      size_t n = 0;
      for (size_t i = 0; i < count; ++i) {
        const auto* all = std::get_if<std::vector<PhaseOut<R>>>(&images[i]->phases);
        if (all == nullptr || p >= all->size() || images[i]->error) continue;
        owners[n] = images[i];
        tasks[n++] = {decoders[i].get(), (*all)[p].k, (*all)[p].r, (*all)[p].n};
      }
      if (n > 0) decode_phases(tasks, n);
      for (size_t t = 0; t < n; ++t) owners[t]->error = tasks[t].error;
    };
    run(int8_t{});
    run(int16_t{});
  }
  for (size_t i = 0; i < count; ++i) attempt(images[i]->error, [&] { decoders[i]->finish(); });
}

}  // namespace

template <class R>
void decode_phases(std::vector<PhaseTask<R>>& tasks, size_t threads) {
  in_pairs(
      tasks.size(), threads, [&](size_t i) { return tasks[i].n; },
      [&](size_t a, size_t b) { decode_pair(&tasks[a], b == SIZE_MAX ? nullptr : &tasks[b]); });
}

template void decode_phases(std::vector<PhaseTask<int8_t>>& tasks, size_t threads);
template void decode_phases(std::vector<PhaseTask<int16_t>>& tasks, size_t threads);

void decode_images(const Coder& coder, const Tables& tables, std::vector<ImageTask>& images, size_t threads) {
  in_pairs(
      images.size(), threads, [&](size_t i) { return images[i].size; },
      [&](size_t a, size_t b) {
        ImageTask* const both[2] = {&images[a], b == SIZE_MAX ? nullptr : &images[b]};
        decode_some(coder, tables, both, b == SIZE_MAX ? 1 : 2);
      });
}

}  // namespace ckbd
