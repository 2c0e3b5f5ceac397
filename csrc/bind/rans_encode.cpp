// encode(), encode_batch() and ideal_bits() of the module.
#include "bind/batches.h"
#include "bind/rans.h"

namespace ckbd_python {
namespace {

struct ToEncode {
  Array<const int16_t> z;
  PhasesIn phases;
  size_t elements;
};

ToEncode to_encode(const std::string& prefix, const ckbd::Tables& tables, const py::handle& z,
                   const py::handle& phases) {
  ToEncode image{array<const int16_t>(prefix + "z", z, {-1}), phases_of<PhasesIn>(prefix + "phases", phases, false),
                 0};
  check_sites(prefix + "z", image.z.size, tables);
  image.elements = image.z.size;
  std::visit(
      [&](const auto& views) {
        for (const auto& view : views) image.elements += view.k.size;
      },
      image.phases);
  if (image.elements > UINT32_MAX) {
    refuse(prefix + "z and phases", "fewer than 2^32 elements", std::to_string(image.elements));
  }
  return image;
}

ckbd::Encoded encode_image(const ckbd::Coder& coder, const ckbd::Tables& tables, const ToEncode& image,
                           ckbd::Choice choice) {
  return std::visit(
      [&](const auto& views) {
        using R = std::remove_const_t<std::remove_pointer_t<decltype(views[0].r.data)>>;
        std::vector<ckbd::Phase<R>> phases;
        for (const auto& view : views) phases.push_back({view.k.data, view.r.data, view.k.size});
        return ckbd::encode(coder, tables, image.z.data, image.z.size, phases, choice);
      },
      image.phases);
}

py::tuple to_python(const ckbd::Encoded& made) {
  return py::make_tuple(py::bytes(reinterpret_cast<const char*>(made.payload.data()), made.payload.size()),
                        made.lanes_log2, made.skip_max, made.tail);
}

ckbd::Choice choice_of(const py::object& lanes, const py::object& skip_max) {
  ckbd::Choice choice;
  if (!lanes.is_none()) {
    const py::ssize_t asked = integer("lanes", lanes);
    choice.lanes_log2 = 0;
    while (choice.lanes_log2 < ckbd::kMaxLanesLog2 && 1 << choice.lanes_log2 != asked) ++choice.lanes_log2;
    if (1 << choice.lanes_log2 != asked) refuse("lanes", "1, 2, 4, 8, 16, 32 or None", std::to_string(asked));
  }
  if (!skip_max.is_none()) choice.skip_max = in_range("skip_max", integer("skip_max", skip_max), 0, ckbd::kMaxSkip);
  return choice;
}

py::tuple encode(const ckbd::Tables& tables, const py::object& z, const py::object& phases, const py::object& lanes,
                 const py::object& skip_max, const py::object& isa) {
  const ToEncode image = to_encode("", tables, z, phases);
  const ckbd::Choice choice = choice_of(lanes, skip_max);
  const ckbd::Coder& coder = coder_for(isa);
  ckbd::Encoded made;
  try {
    const WithoutGil released;
    made = encode_image(coder, tables, image, choice);
  } catch (const ckbd::BadIndex& bad) {
    refuse_index(phase_name("phases", bad), bad);
  }
  return to_python(made);
}

py::list encode_batch(const ckbd::Tables& tables, const py::object& images, const py::object& lanes,
                      const py::object& skip_max, const py::object& threads, const py::object& isa) {
  std::vector<ToEncode> held;
  size_t elements = 0;
  for (const py::object& one : items_of("images", images)) {
    const std::string name = "images[" + std::to_string(held.size()) + "]";
    const std::vector<py::object> image = items_of(name, one, [&](size_t n) {
      if (n != 2) refuse(name, "(z, phases)", std::to_string(n) + " items");
    });
    held.push_back(to_encode(name + " ", tables, image[0], image[1]));
    elements += held.back().elements;
  }
  const ckbd::Choice choice = choice_of(lanes, skip_max);
  const ckbd::Coder& coder = coder_for(isa);
  const size_t count = threads_for(threads, elements);
  std::vector<ckbd::Encoded> made(held.size());
  const std::vector<std::exception_ptr> errors =
      run_each(held.size(), count, [&](size_t i) { made[i] = encode_image(coder, tables, held[i], choice); });
  py::list out;
  for (size_t i = 0; i < held.size(); ++i) {
    try {
      if (errors[i]) std::rethrow_exception(errors[i]);
    } catch (const ckbd::BadIndex& bad) {
      refuse_index(phase_name("images[" + std::to_string(i) + "] phases", bad), bad);
    }
    out.append(to_python(made[i]));
  }
  return out;
}

double ideal_bits(const ckbd::Tables& tables, const py::object& phases) {
  double bits = 0;
  std::visit(
      [&](const auto& views) {
        for (size_t p = 0; p < views.size(); ++p) {
          const auto& view = views[p];
          for (size_t j = 0; j < view.k.size; ++j) {
            const ckbd::BadIndex here{view.k.data[j], p, j};
            if (here.k >= ckbd::kScales) refuse_index(phase_name("phases", here), here);
            bits += tables.ideal_bits(here.k, view.r.data[j]);
          }
        }
      },
      phases_of<PhasesIn>("phases", phases, false));
  return bits;
}

}  // namespace

void bind_encode(py::module_& m) {
  m.def("encode", &encode, py::arg("tables"), py::arg("z"), py::arg("phases"), py::kw_only(),
        py::arg("lanes") = py::none(), py::arg("skip_max") = py::none(), py::arg("isa") = py::none());
  m.def("encode_batch", &encode_batch, py::arg("tables"), py::arg("images"), py::kw_only(),
        py::arg("lanes") = py::none(), py::arg("skip_max") = py::none(), py::arg("threads") = py::none(),
        py::arg("isa") = py::none());
  m.def("ideal_bits", &ideal_bits, py::arg("tables"), py::arg("phases"));
}

}  // namespace ckbd_python
