// The only file that knows Python: checks arguments, releases the GIL, calls.
#include <pybind11/eval.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "crc32c.h"
#include "payload.h"
#include "tables.h"

namespace py = pybind11;

namespace {

constexpr int kMaxPhases = 255;

// As Python writes it; -1 stands for any size.
std::string shape_text(const std::vector<py::ssize_t>& shape) {
  std::string text;
  for (const py::ssize_t size : shape) {
    text += (text.empty() ? "" : ", ") + (size < 0 ? "any" : std::to_string(size));
  }
  return "(" + text + (shape.size() == 1 ? ",)" : ")");
}

[[noreturn]] void refuse(const std::string& name, const std::string& expected, const std::string& got) {
  throw py::value_error(name + ": expected " + expected + ", got " + got);
}

// A contiguous array that Python owns. The view keeps it alive and in place.
template <class T>
struct Array {
  py::buffer_info info;
  T* data;
  size_t size;  // elements
};

template <class T>
Array<T> array(const std::string& name, const py::handle& object, const std::vector<py::ssize_t>& shape,
               bool writable = false) {
  const std::string type = sizeof(T) == 1 ? "uint8" : "int16";
  const std::string expected = "a contiguous " + type + " array of shape " + shape_text(shape);
  if (!py::isinstance<py::buffer>(object)) {
    refuse(name, expected, py::str(py::type::of(object).attr("__name__")));
  }
  py::buffer_info info = py::reinterpret_borrow<py::buffer>(object).request();
  if (!info.item_type_is_equivalent_to<std::remove_const_t<T>>()) {
    refuse(name, expected, "items of format '" + info.format + "'");
  }
  bool fits = info.shape.size() == shape.size();
  for (size_t d = 0; fits && d < shape.size(); ++d) fits = shape[d] < 0 || info.shape[d] == shape[d];
  if (!fits) refuse(name, expected, "shape " + shape_text(info.shape));
  py::ssize_t stride = sizeof(T);
  for (size_t d = shape.size(); d-- > 0 && info.size > 0; stride *= info.shape[d]) {
    if (info.shape[d] > 1 && info.strides[d] != stride) refuse(name, expected, "one with gaps");
  }
  if (reinterpret_cast<uintptr_t>(info.ptr) % alignof(T)) refuse(name, expected, "one at an odd address");
  if (writable && info.readonly) refuse(name, "a writable array", "a read-only one");
  T* const data = static_cast<T*>(info.ptr);
  const size_t size = static_cast<size_t>(info.size);
  return {std::move(info), data, size};
}

Array<const uint8_t> bytes(const std::string& name, const py::handle& object) {
  return array<const uint8_t>(name, object, {-1});
}

int in_range(const std::string& name, py::ssize_t value, int low, int high) {
  if (value < low || value > high) {
    refuse(name, std::to_string(low) + ".." + std::to_string(high), std::to_string(value));
  }
  return static_cast<int>(value);
}

void check_indices(const std::string& name, const Array<const uint8_t>& k) {
  const uint8_t* const wrong =
      std::find_if(k.data, k.data + k.size, [](uint8_t one) { return one >= ckbd::kScales; });
  if (wrong != k.data + k.size) {
    refuse(name, "table indices 0..63", std::to_string(*wrong) + " at " + std::to_string(wrong - k.data));
  }
}

void check_sites(const std::string& name, size_t n, const ckbd::Tables& tables) {
  if (n % tables.z.size()) {
    refuse(name, "a multiple of the " + std::to_string(tables.z.size()) + " channels",
           std::to_string(n) + " elements");
  }
}

std::shared_ptr<ckbd::Tables> make_tables(const py::object& y_freq, const py::object& y_max,
                                          const py::object& z_freq, const py::object& z_low,
                                          const py::object& z_size) {
  const auto yf = array<const int16_t>("y_freq", y_freq, {ckbd::kScales, -1});
  const auto ym = array<const uint8_t>("y_max", y_max, {ckbd::kScales});
  const auto zf = array<const int16_t>("z_freq", z_freq, {-1, -1});
  if (yf.info.shape[1] < 3) refuse("y_freq", "3 columns or more", shape_text(yf.info.shape));
  if (zf.info.shape[0] < 1 || zf.info.shape[1] < 2) {
    refuse("z_freq", "a row or more of 2 columns or more", shape_text(zf.info.shape));
  }
  const auto zl = array<const int16_t>("z_low", z_low, {zf.info.shape[0]});
  const auto zs = array<const int16_t>("z_size", z_size, {zf.info.shape[0]});
  return std::make_shared<ckbd::Tables>(
      ckbd::build_tables({yf.data, static_cast<size_t>(yf.info.shape[1]), ym.data, zf.data,
                          static_cast<size_t>(zf.info.shape[1]), zl.data, zs.data, zl.size}));
}

// Phases as Python gives them, a sequence of (k, r), checked and held.
class Phases {
 public:
  explicit Phases(const py::sequence& phases) {
    for (size_t p = 0; p < phases.size(); ++p) {
      const std::string name = "phases[" + std::to_string(p) + "]";
      const py::object pair = phases[p];
      if (!py::isinstance<py::sequence>(pair) || py::len(pair) != 2) {
        refuse(name, "(k, r)", py::str(py::type::of(pair).attr("__name__")));
      }
      k_.push_back(bytes(name + " k", pair[py::int_(0)]));
      check_indices(name + " k", k_.back());
      const auto n = static_cast<py::ssize_t>(k_.back().size);
      r_.push_back(array<const int16_t>(name + " r", pair[py::int_(1)], {n}));
      views.push_back({k_.back().data, r_.back().data, k_.back().size});
    }
    if (views.empty() || views.size() > kMaxPhases) {
      refuse("phases", "1 to 255 of them", std::to_string(views.size()));
    }
  }
  std::vector<ckbd::Phase> views;

 private:
  std::vector<Array<const uint8_t>> k_;
  std::vector<Array<const int16_t>> r_;
};

py::tuple encode(const ckbd::Tables& tables, const py::object& z, const py::sequence& phases,
                 py::ssize_t lanes, py::ssize_t skip_max) {
  const auto z_view = array<const int16_t>("z", z, {-1});
  check_sites("z", z_view.size, tables);
  const Phases held(phases);
  size_t elements = z_view.size;
  for (const ckbd::Phase& phase : held.views) elements += phase.n;
  if (elements > UINT32_MAX) refuse("z and phases", "fewer than 2^32 elements", std::to_string(elements));
  int lanes_log2 = 0;
  while (lanes_log2 < ckbd::kMaxLanesLog2 && 1 << lanes_log2 != lanes) ++lanes_log2;
  if (1 << lanes_log2 != lanes) refuse("lanes", "1, 2, 4, 8, 16 or 32", std::to_string(lanes));
  const int skip = in_range("skip_max", skip_max, 0, ckbd::kMaxSkip);

  ckbd::Encoded encoded;
  {
    py::gil_scoped_release release;
    encoded = ckbd::encode(tables, z_view.data, z_view.size, held.views, lanes_log2, skip);
  }
  return py::make_tuple(
      py::bytes(reinterpret_cast<const char*>(encoded.payload.data()), encoded.payload.size()),
      encoded.lanes_log2, encoded.tail);
}

double ideal_bits(const ckbd::Tables& tables, const py::sequence& phases) {
  const Phases held(phases);
  double bits = 0;
  for (const ckbd::Phase& phase : held.views) bits += ckbd::ideal_bits(tables, phase.k, phase.r, phase.n);
  return bits;
}

// Holds tables and payload, and the order of calls. While a step runs, and for good after one that failed,
// `steps_` is kOver: a second thread and a second try are refused alike.
class Decoder {
 public:
  Decoder(std::shared_ptr<ckbd::Tables> tables, const py::object& payload, py::ssize_t lanes_log2,
          py::ssize_t skip_max, py::ssize_t tail, py::ssize_t phases)
      : tables_(std::move(tables)),
        payload_(bytes("payload", payload)),
        phases_(in_range("phases", phases, 1, kMaxPhases)) {
    if (tail < 0 || static_cast<size_t>(tail) > UINT32_MAX) {
      refuse("tail", "0..2^32 - 1", std::to_string(tail));
    }
    decoder_ = std::make_unique<ckbd::PayloadDecoder>(
        *tables_, payload_.data, payload_.size, in_range("lanes_log2", lanes_log2, 0, ckbd::kMaxLanesLog2),
        in_range("skip_max", skip_max, 0, ckbd::kMaxSkip), static_cast<uint32_t>(tail), phases_);
  }

  void z(const py::object& out) {
    const auto view = array<int16_t>("out", out, {-1}, true);
    check_sites("out", view.size, *tables_);
    run("z", steps_ == 0, [&] { decoder_->z(view.data, view.size); });
  }

  void phase(const py::object& k, const py::object& out) {
    const auto k_view = bytes("k", k);
    check_indices("k", k_view);
    const auto view = array<int16_t>("out", out, {static_cast<py::ssize_t>(k_view.size)}, true);
    const auto k_at = reinterpret_cast<uintptr_t>(k_view.data),
               out_at = reinterpret_cast<uintptr_t>(view.data);
    if (k_at < out_at + sizeof(int16_t) * view.size && out_at < k_at + k_view.size) {
      refuse("out", "memory apart from that of k", "some in common");
    }
    run("phase", 1 <= steps_ && steps_ <= phases_,
        [&] { decoder_->phase(k_view.data, view.data, view.size); });
  }

  void finish() {
    run("finish", steps_ == phases_ + 1, [&] { decoder_->finish(); });
  }

 private:
  static constexpr int kOver = -1;

  template <class Step>
  void run(const char* name, bool in_turn, Step step) {
    if (!in_turn) {
      throw std::runtime_error(
          std::string(name) + ": expected z, " + std::to_string(phases_) +
          " times phase and finish, once each in this order and never after an error, got " +
          (steps_ == kOver ? "a call during or after a failed one"
                           : "this as call " + std::to_string(steps_ + 1)));
    }
    const int done = steps_;
    steps_ = kOver;
    {
      py::gil_scoped_release release;
      step();
    }
    steps_ = done + 1;
  }

  const std::shared_ptr<ckbd::Tables> tables_;
  const Array<const uint8_t> payload_;
  const int phases_;
  std::unique_ptr<ckbd::PayloadDecoder> decoder_;
  int steps_ = 0;
};

uint32_t crc32c(const py::object& data, uint32_t value) {
  const auto view = bytes("data", data);
  py::gil_scoped_release release;
  return ckbd::crc32c(view.data, view.size, value);
}

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

}  // namespace

PYBIND11_MODULE(_rans, m) {
  m.doc() = "The rANS coder of docs/format.md; ckbd/_rans.pyi describes it.";

  py::dict scope;
  scope["__builtins__"] = py::module_::import("builtins");
  scope["__name__"] = m.attr("__name__");
  py::exec(kStreamError, scope);
  m.attr("StreamError") = scope["StreamError"];
  PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<py::object> stream_error;
  stream_error.call_once_and_store_result([&] { return py::object(scope["StreamError"]); });
  py::register_exception_translator([](std::exception_ptr thrown) {
    try {
      std::rethrow_exception(thrown);
    } catch (const ckbd::StreamError& error) {
      const py::object type = stream_error.get_stored();
      const py::object value = type(error.what(), error.field, error.offset);
      PyErr_SetObject(type.ptr(), value.ptr());
    }
  });

  py::class_<ckbd::Tables, std::shared_ptr<ckbd::Tables>>(m, "Tables")
      .def(py::init(&make_tables), py::arg("y_freq"), py::arg("y_max"), py::arg("z_freq"), py::arg("z_low"),
           py::arg("z_size"))
      .def_property_readonly("channels", [](const ckbd::Tables& tables) { return tables.z.size(); })
      .def_property_readonly("min_z_bits", &ckbd::min_z_bits);

  py::class_<Decoder>(m, "Decoder")
      .def(py::init<std::shared_ptr<ckbd::Tables>, const py::object&, py::ssize_t, py::ssize_t, py::ssize_t,
                    py::ssize_t>(),
           py::arg("tables"), py::arg("payload"), py::kw_only(), py::arg("lanes_log2"), py::arg("skip_max"),
           py::arg("tail"), py::arg("phases") = 2)
      .def("z", &Decoder::z, py::arg("out"))
      .def("phase", &Decoder::phase, py::arg("k"), py::arg("out"))
      .def("finish", &Decoder::finish);

  m.def("encode", &encode, py::arg("tables"), py::arg("z"), py::arg("phases"), py::kw_only(),
        py::arg("lanes") = 32, py::arg("skip_max") = 1);
  m.def("ideal_bits", &ideal_bits, py::arg("tables"), py::arg("phases"));
  m.def("crc32c", &crc32c, py::arg("data"), py::arg("value") = 0);
  m.def("isa", [] { return "scalar"; });
}
