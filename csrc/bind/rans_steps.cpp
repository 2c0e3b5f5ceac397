// z_batch() and phase_batch(): a step of many Decoders.
#include <algorithm>
#include <vector>

#include "bind/batches.h"
#include "bind/rans_decoder.h"

namespace ckbd_python {
namespace {

// The decoders of a batch, each once, and as many arrays. They live on until the batch is done, whoever lets go of
// them.
struct Held {
  std::vector<py::object> objects;
  std::vector<Decoder*> decoders;
};

Held decoders_of(const py::object& decoders, const char* name, const std::vector<py::object>& arrays) {
  Held held;
  for (const py::object& one : items_of("decoders", decoders)) {
    py::detail::make_caster<Decoder*> caster;
    if (one.is_none() || !caster.load(one, false)) refuse("decoders", "Decoders", type_name(one));
    held.objects.push_back(one);
    held.decoders.push_back(py::detail::cast_op<Decoder*>(caster));
  }
  const size_t count = held.decoders.size();
  if (arrays.size() != count) {
    refuse(name, std::to_string(count) + " arrays, one for each decoder", std::to_string(arrays.size()));
  }
  std::vector<Decoder*> sorted = held.decoders;
  std::sort(sorted.begin(), sorted.end());
  if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) {
    refuse("decoders", "each once", "one twice");
  }
  return held;
}

// Begins a step of every decoder, or of none.
template <class Begin>
void begin_all(const std::vector<Decoder*>& decoders, Begin begin) {
  size_t begun = 0;
  try {
    for (; begun < decoders.size(); ++begun) begin(*decoders[begun]);
  } catch (...) {
    while (begun > 0) decoders[--begun]->undo();
    throw;
  }
}

}  // namespace

py::list z_batch(const py::object& decoders, const py::object& outs, const py::object& threads) {
  const std::vector<py::object> arrays = items_of("outs", outs);
  const Held held = decoders_of(decoders, "outs", arrays);
  const std::vector<Decoder*>& all = held.decoders;
  std::vector<Array<int16_t>> views;
  Memory memory;
  size_t elements = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    views.push_back(all[i]->z_view("outs[" + std::to_string(i) + "]", arrays[i]));
    memory.add(views.back());
    elements += views.back().size;
  }
  memory.check("outs");
  const size_t count = threads_for(threads, elements);
  begin_all(all, [](Decoder& decoder) { decoder.begin_z(); });
  const std::vector<std::exception_ptr> errors = run_each(
      views.size(), count, [&](size_t i) { all[i]->payload_decoder().z(views[i].data, views[i].size); });
  for (size_t i = 0; i < errors.size(); ++i) {
    if (!errors[i]) all[i]->done();
  }
  return outcomes(errors, [](size_t, const ckbd::BadIndex&) { return "outs"; });
}

py::list phase_batch(const py::object& decoders, const py::object& ks, const py::object& outs,
                     const py::object& threads) {
  const std::vector<py::object> k_arrays = items_of("ks", ks), out_arrays = items_of("outs", outs);
  const Held held = decoders_of(decoders, "outs", out_arrays);
  const std::vector<Decoder*>& all = held.decoders;
  if (k_arrays.size() != all.size()) {
    refuse("ks", std::to_string(all.size()) + " arrays, one for each decoder", std::to_string(k_arrays.size()));
  }
  PhasesOut views;
  views.emplace<1>();
  for (size_t i = 0; i < all.size(); ++i) {
    const std::string index = "[" + std::to_string(i) + "]";
    add_phase(views, i == 0, "ks" + index, "outs" + index, k_arrays[i], out_arrays[i], true);
  }
  return std::visit(
      [&](const auto& each) {
        using R = std::remove_pointer_t<decltype(each[0].r.data)>;
        std::vector<ckbd::PhaseTask<R>> tasks;
        Memory memory;
        size_t elements = 0;
        for (size_t i = 0; i < all.size(); ++i) {
          tasks.push_back({&all[i]->payload_decoder(), each[i].k.data, each[i].r.data, each[i].k.size});
          elements += each[i].k.size;
          memory.add(each[i].k);
          memory.add(each[i].r);
        }
        memory.check("outs");
        const size_t count = threads_for(threads, elements);
        begin_all(all, [](Decoder& decoder) { decoder.begin_phase(); });
        {
          const WithoutGil released;
          ckbd::decode_phases(tasks, count);
        }
        for (size_t i = 0; i < all.size(); ++i) all[i]->end_phase(tasks[i].error);
        return outcomes(errors_of(tasks),
                        [](size_t i, const ckbd::BadIndex&) { return "ks[" + std::to_string(i) + "]"; });
      },
      views);
}

}  // namespace ckbd_python
