// The module. bind*.cpp and arrays.h alone know Python: they check arguments, release the GIL and call.
#include "bind/rans.h"

#include <pybind11/eval.h>

namespace {

using namespace ckbd_python;

// An exception with three arguments that reads well is shorter in Python.
constexpr const char* kStreamError = R"(
class StreamError(ValueError):
    """A payload violates the format. args: (message, field, offset within the payload in bytes)."""

    def __init__(self, message, field, offset):
        super().__init__(message, field, offset)
        self.field = field
        self.offset = offset

    def __str__(self):
        return f"{self.field} at byte {self.offset} of the payload: {self.args[0]}"
)";

PYBIND11_CONSTINIT py::gil_safe_call_once_and_store<py::object> stream_error;

std::shared_ptr<ckbd::Tables> make_tables(const py::object& y_freq, const py::object& y_max, const py::object& z_freq,
                                          const py::object& z_low, const py::object& z_size) {
  const auto yf = array<const int16_t>("y_freq", y_freq, {ckbd::kScales, -1});
  const auto ym = array<const uint8_t>("y_max", y_max, {ckbd::kScales});
  const auto zf = array<const int16_t>("z_freq", z_freq, {-1, -1});
  if (yf.view->shape[1] < 3) refuse("y_freq", "3 columns or more", shape_text(shape_of(*yf.view)));
  if (zf.view->shape[0] < 1 || zf.view->shape[1] < 2) {
    refuse("z_freq", "a row or more of 2 columns or more", shape_text(shape_of(*zf.view)));
  }
  const auto zl = array<const int16_t>("z_low", z_low, {zf.view->shape[0]});
  const auto zs = array<const int16_t>("z_size", z_size, {zf.view->shape[0]});
  if (zf.view->shape[0] > 65535) refuse("z_freq", "at most 65535 rows", std::to_string(zf.view->shape[0]));
  const auto y_freqs = copy_of(yf), z_freqs = copy_of(zf), z_lows = copy_of(zl), z_sizes = copy_of(zs);
  const auto y_maxs = copy_of(ym);
  const ckbd::TableIntegers integers{y_freqs.data(),
                                     static_cast<size_t>(yf.view->shape[1]),
                                     y_maxs.data(),
                                     z_freqs.data(),
                                     static_cast<size_t>(zf.view->shape[1]),
                                     z_lows.data(),
                                     z_sizes.data(),
                                     z_lows.size()};
  return std::make_shared<ckbd::Tables>(integers);
}

uint32_t crc32c(const py::object& data, uint32_t value, const py::object& isa) {
  const auto view = bytes("data", data);
  const ckbd::Coder& coder = coder_for(isa);
  const WithoutGil released;
  return coder.crc32c(view.data, view.size, value);
}

}  // namespace

py::object ckbd_python::stream_error_of(const ckbd::StreamError& error) {
  return stream_error.get_stored()(error.what(), error.field, error.offset);
}

PYBIND11_MODULE(_rans, m) {
  m.doc() = "The rANS coder of docs/format.md; ckbd/_rans.pyi describes it.";

  py::dict scope;
  scope["__builtins__"] = py::module_::import("builtins");
  scope["__name__"] = m.attr("__name__");
  py::exec(kStreamError, scope);
  m.attr("StreamError") = scope["StreamError"];
  stream_error.call_once_and_store_result([&] { return py::object(scope["StreamError"]); });
  py::register_exception_translator([](std::exception_ptr thrown) {
    try {
      std::rethrow_exception(thrown);
    } catch (const ckbd::StreamError& error) {
      PyErr_SetObject(stream_error.get_stored().ptr(), stream_error_of(error).ptr());
    }
  });

  Class<ckbd::Tables, std::shared_ptr<ckbd::Tables>>(m, "Tables")
      .init_by(&make_tables, py::arg("y_freq"), py::arg("y_max"), py::arg("z_freq"), py::arg("z_low"),
               py::arg("z_size"))
      .def_property_readonly("channels", &ckbd::Tables::channels)
      .def_property_readonly("min_z_bits", &ckbd::Tables::min_z_bits);

  bind_encode(m);
  bind_decode(m);
  bind_open(m);
  bind_tracks(m);
  m.def("crc32c", &crc32c, py::arg("data"), py::arg("value") = 0, py::kw_only(), py::arg("isa") = py::none());
  m.def("isa", [] { return ckbd::coders().back()->name; });
  m.def("isas", [] { return isa_names(ckbd::coders()); });
}
