// decode() and decode_batch(), of whole images, and the module's side of Decoder.
#include "bind/rans_decoder.h"
#include "payload/batch.h"

namespace ckbd_python {
namespace {

struct ToDecode {
  Array<const uint8_t> payload;
  Array<int16_t> z;
  PhasesOut phases;
};

ckbd::ImageTask to_decode(const std::string& prefix, const ckbd::Tables& tables, const py::handle& payload,
                          const py::handle& z, const py::handle& phases, py::ssize_t lanes_log2, py::ssize_t skip_max,
                          py::ssize_t tail, ToDecode& held, Memory& memory) {
  held.payload = bytes(prefix + "payload", payload);
  held.z = array<int16_t>(prefix + "z", z, {-1}, true);
  check_sites(prefix + "z", held.z.size, tables);
  held.phases = phases_of<PhasesOut>(prefix + "phases", phases, true);
  ckbd::ImageTask task{held.payload.data,
                       held.payload.size,
                       in_range(prefix + "lanes_log2", lanes_log2, 0, ckbd::kMaxLanesLog2),
                       in_range(prefix + "skip_max", skip_max, 0, ckbd::kMaxSkip),
                       checked_tail(prefix + "tail", tail),
                       held.z.data,
                       held.z.size,
                       {}};
  memory.add(held.payload);
  memory.add(held.z);
  std::visit(
      [&](const auto& views) {
        for (const auto& view : views) {
          memory.add(view.k);
          memory.add(view.r);
        }
        using R = std::remove_pointer_t<decltype(views[0].r.data)>;
        auto& out = task.phases.emplace<std::vector<ckbd::PhaseOut<R>>>();
        for (const auto& view : views) out.push_back({view.k.data, view.r.data, view.k.size});
      },
      held.phases);
  return task;
}

void decode(const ckbd::Tables& tables, const py::object& payload, const py::object& z, const py::object& phases,
            py::ssize_t lanes_log2, py::ssize_t skip_max, py::ssize_t tail, const py::object& isa) {
  ToDecode held;
  std::vector<ckbd::ImageTask> tasks;
  Memory memory;
  tasks.push_back(to_decode("", tables, payload, z, phases, lanes_log2, skip_max, tail, held, memory));
  memory.check("z and phases");
  const ckbd::Coder& coder = coder_for(isa);
  try {
    const WithoutGil released;
    ckbd::decode_images(coder, tables, tasks, 1);
    if (tasks[0].error) std::rethrow_exception(tasks[0].error);
  } catch (const ckbd::BadIndex& bad) {
    refuse_index(phase_name("phases", bad), bad);
  }
}

py::list decode_batch(const ckbd::Tables& tables, const py::object& images, const py::object& threads,
                      const py::object& isa) {
  const std::vector<py::object> all = items_of("images", images);
  std::vector<ToDecode> held(all.size());
  std::vector<ckbd::ImageTask> tasks;
  Memory memory;
  size_t elements = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    const std::string name = "images[" + std::to_string(i) + "]";
    const std::vector<py::object> image = items_of(name, all[i], [&](size_t n) {
      if (n != 6) refuse(name, "(payload, lanes_log2, skip_max, tail, z, phases)", std::to_string(n) + " items");
    });
    const auto number = [&](size_t at, const char* what) { return integer(name + " " + what, image[at]); };
    tasks.push_back(to_decode(name + " ", tables, image[0], image[4], image[5], number(1, "lanes_log2"),
                              number(2, "skip_max"), number(3, "tail"), held[i], memory));
    elements += held[i].z.size;
    std::visit(
        [&](const auto& views) {
          for (const auto& view : views) elements += view.k.size;
        },
        held[i].phases);
  }
  memory.check("images");
  const ckbd::Coder& coder = coder_for(isa);
  const size_t count = threads_for(threads, elements);
  {
    const WithoutGil released;
    ckbd::decode_images(coder, tables, tasks, count);
  }
  return outcomes(errors_of(tasks), [](size_t i, const ckbd::BadIndex& bad) {
    return phase_name("images[" + std::to_string(i) + "] phases", bad);
  });
}

}  // namespace

void bind_decode(py::module_& m) {
  Class<Decoder>(m, "Decoder")
      .init<const py::object&, const py::object&, py::ssize_t, py::ssize_t, py::ssize_t, py::ssize_t,
            const py::object&>(py::arg("tables"), py::arg("payload"), py::kw_only(), py::arg("lanes_log2"),
                               py::arg("skip_max"), py::arg("tail"), py::arg("phases") = 2,
                               py::arg("isa") = py::none())
      .def("z", &Decoder::z, py::arg("out"))
      .def("phase", &Decoder::phase, py::arg("k"), py::arg("out"))
      .def("finish", &Decoder::finish);
  m.def("z_batch", &z_batch, py::arg("decoders"), py::arg("outs"), py::kw_only(), py::arg("threads") = py::none());
  m.def("phase_batch", &phase_batch, py::arg("decoders"), py::arg("ks"), py::arg("outs"), py::kw_only(),
        py::arg("threads") = py::none());
  m.def("decode", &decode, py::arg("tables"), py::arg("payload"), py::arg("z"), py::arg("phases"), py::kw_only(),
        py::arg("lanes_log2"), py::arg("skip_max"), py::arg("tail"), py::arg("isa") = py::none());
  m.def("decode_batch", &decode_batch, py::arg("tables"), py::arg("images"), py::kw_only(),
        py::arg("threads") = py::none(), py::arg("isa") = py::none());
}

}  // namespace ckbd_python
