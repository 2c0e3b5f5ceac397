// The module ckbd._passes, which ckbd/_passes.pyi describes.
#include "passes/passes.h"

#include "bind/arguments.h"
#include "common/cpu.h"

namespace {

using namespace ckbd_python;
using ckbd::passes::Into;
using ckbd::passes::Map;
using ckbd::passes::Part;
using ckbd::passes::Passes;
using ckbd::passes::Tap;

constexpr int kMost = 1 << 24;  // of a side, of channels

// Slowest first.
const std::vector<const Passes*>& all_passes() {
  static const std::vector<const Passes*> found = [] {
    std::vector<const Passes*> usable = {&ckbd::passes::scalar_passes};
#if CKBD_X86
    if (ckbd::has_avx2()) usable.push_back(&ckbd::passes::avx2_passes);
    if (ckbd::has_avx512()) usable.push_back(&ckbd::passes::avx512_passes);
#endif
    return usable;
  }();
  return found;
}

const Passes& passes_for(const py::object& isa) { return named_isa(all_passes(), isa); }

size_t size_at(const Array<const uint8_t>& array, int d) { return static_cast<size_t>(array.view->shape[d]); }

struct Rows {
  size_t first, last;
};

// The rows of a map that a call is about.
Rows rows_of(const py::object& rows, size_t most) {
  const std::vector<py::object> pair = items_of("rows", rows, [](size_t n) {
    if (n != 2) refuse("rows", "(first, last)", std::to_string(n) + " numbers");
  });
  const py::ssize_t first = integer("rows", pair[0]), last = integer("rows", pair[1]);
  if (first < 0 || last < first || static_cast<size_t>(last) > most) {
    refuse("rows", "0 <= first <= last <= " + std::to_string(most),
           std::to_string(first) + " to " + std::to_string(last));
  }
  return {static_cast<size_t>(first), static_cast<size_t>(last)};
}

size_t height_of(const py::object& height, size_t rows) {
  const int h = in_range("height", integer("height", height), 1, kMost);
  if (rows % static_cast<size_t>(h)) refuse("height", "one that divides " + std::to_string(rows), std::to_string(h));
  return static_cast<size_t>(h);
}

template <class... Read>
void check_apart(const std::string& name, const Read&... arrays) {
  Memory memory;
  (memory.add(arrays), ...);
  memory.check(name);
}

struct Shifts {
  Array<const int32_t> given;
  std::vector<int32_t> own;  // checked
};

Shifts shifts(const py::object& shift, py::ssize_t n) {
  auto given = array<const int32_t>("shift", shift, {n});
  auto own = copy_of(given);
  for (const int32_t one : own) in_range("shift", one, 0, 31);
  return {std::move(given), std::move(own)};
}

void gather(const py::object& x, const py::object& height, const py::object& taps, const py::object& outside,
            const py::object& rows, const py::object& out, const py::object& at, const py::object& isa) {
  const auto from = array<const uint8_t>("x", x, {-1, -1, -1});
  const size_t all = size_at(from, 0), width = size_at(from, 1), channels = size_at(from, 2);
  const auto t = array<const int32_t>("taps", taps, {-1, 3});
  const auto border = array<const uint8_t>("outside", outside, {from.view->shape[2]});
  const Rows r = rows_of(rows, all);
  const auto o = array<uint8_t>("out", out, {static_cast<py::ssize_t>((r.last - r.first) * width), -1}, true);
  const size_t count = t.size / 3, stride = static_cast<size_t>(o.view->shape[1]);
  const size_t begin = static_cast<size_t>(in_range("at", integer("at", at), 0, kMost));
  if (begin + count * channels > stride) {
    refuse("out", "room for " + std::to_string(begin + count * channels) + " channels", std::to_string(stride));
  }
  const auto steps = copy_of(t);
  for (const int32_t step : steps) in_range("taps", step, -kMost, kMost);
  check_apart("out", o, from, t, border);
  const Passes& passes = passes_for(isa);
  const Map map{height_of(height, all), width, channels};
  static_assert(sizeof(Tap) == 3 * sizeof(int32_t));
  const WithoutGil released;
  passes.gather(from.data, map, reinterpret_cast<const Tap*>(steps.data()), count, border.data, r.first, r.last,
                o.data + begin, stride);
}

// sums: of the sites in `rows` of a map; out is the rows (sites, n), the whole map (2 rows, 2 width, n / 4), or its two
// halves (2, 2 rows, width, n / 4).
void requantise(const py::object& sums, const py::object& bias, const py::object& shift, const py::object& out,
                const py::object& rows, const py::object& isa) {
  const auto s = array<const int32_t>("sums", sums, {-1, -1});
  const py::ssize_t sites = s.view->shape[0], n = s.view->shape[1];
  const auto b = array<const int32_t>("bias", bias, {n});
  const auto by = shifts(shift, n);
  const Passes& passes = passes_for(isa);
  const auto view = view_of("out", [] { return std::string("an array"); }, out);
  const auto channels = static_cast<size_t>(n);
  if (view->ndim == 2) {
    if (!rows.is_none()) refuse("rows", "none where out has two dimensions", "some");
    const auto o = array<uint8_t>("out", out, {sites, n}, true);
    check_apart("out", o, s, b, by.given);
    const WithoutGil released;
    passes.requantise(s.data, {1, 1, channels}, b.data, by.own.data(), 0, static_cast<size_t>(sites), Into::kRows, 0,
                      o.data);
    return;
  }
  const bool halves = view->ndim == 4;
  if (n % 4) refuse("sums", "a multiple of 4 channels", std::to_string(n));
  const auto o = halves ? array<uint8_t>("out", out, {2, -1, -1, n / 4}, true)
                        : array<uint8_t>("out", out, {-1, -1, n / 4}, true);
  const auto all = static_cast<size_t>(o.view->shape[halves ? 1 : 0]);
  auto width = static_cast<size_t>(o.view->shape[halves ? 2 : 1]);
  if (all % 2 || (!halves && width % 2)) refuse("out", "even sides", shape_text(shape_of(*o.view)));
  if (!halves) width /= 2;
  const Rows r = rows_of(rows, all / 2);
  if ((r.last - r.first) * width != static_cast<size_t>(sites)) {
    refuse("sums", std::to_string((r.last - r.first) * width) + " sites", std::to_string(sites));
  }
  check_apart("out", o, s, b, by.given);
  const WithoutGil released;
  passes.requantise(s.data, {1, width, channels}, b.data, by.own.data(), r.first, r.last,
                    halves ? Into::kHalves : Into::kMap, o.size / 2, o.data);
}

void output(const py::object& sums, const py::object& bias, const py::object& shift, const py::object& mean,
            const py::object& k, const py::object& isa) {
  const auto s = array<const int32_t>("sums", sums, {-1, -1});
  const py::ssize_t sites = s.view->shape[0], n = s.view->shape[1];
  if (n % 2) refuse("sums", "an even number of channels", std::to_string(n));
  const auto b = array<const int32_t>("bias", bias, {n});
  const auto by = shifts(shift, n);
  const auto m = array<int16_t>("mean", mean, {sites, n / 2}, true);
  const auto index = array<uint8_t>("k", k, {sites, n / 2}, true);
  check_apart("mean, k", m, index, s, b, by.given);
  const Passes& passes = passes_for(isa);
  const WithoutGil released;
  passes.output(s.data, static_cast<size_t>(sites), static_cast<size_t>(n / 2), b.data, by.own.data(), m.data,
                index.data);
}

void assemble(const py::object& r, const py::object& mean, const py::object& near, const py::object& far,
              const py::object& any, const py::object& isa) {
  const auto residuals = array<const int16_t>("r", r, {-1, -1});
  const py::ssize_t sites = residuals.view->shape[0], channels = residuals.view->shape[1];
  const auto m = array<const int16_t>("mean", mean, {sites, channels});
  auto n = array<uint8_t>("near", near, {sites, channels}, true);
  const Passes& passes = passes_for(isa);
  const auto count = static_cast<size_t>(sites), width = static_cast<size_t>(channels);
  if (far.is_none()) {
    if (!any.is_none()) refuse("any", "none without far", "one");
    check_apart("near", n, residuals, m);
    const WithoutGil released;
    passes.assemble(residuals.data, m.data, count, width, 127, n.data, nullptr, nullptr);
    return;
  }
  const auto f = array<uint8_t>("far", far, {sites, channels}, true);
  const auto a = array<uint8_t>("any", any, {channels}, true);
  check_apart("near, far, any", n, f, a, residuals, m);
  const WithoutGil released;
  passes.assemble(residuals.data, m.data, count, width, 64, n.data, f.data, a.data);
}

void merge(const py::object& r, const py::object& mean, const py::object& height, const py::object& rows,
           const py::object& out, const py::object& isa) {
  const auto residuals = array<const int16_t>("r", r, {2, -1, -1, -1});
  const auto shape = shape_of(*residuals.view);
  const auto m = array<const int16_t>("mean", mean, shape);
  const auto o = array<float>("out", out, {shape[1], 2 * shape[2], shape[3]}, true);
  const auto all = static_cast<size_t>(shape[1]), width = static_cast<size_t>(shape[2]);
  const auto channels = static_cast<size_t>(shape[3]);
  const Rows some = rows_of(rows, all);
  check_apart("out", o, residuals, m);
  const Passes& passes = passes_for(isa);
  const Map map{height_of(height, all), width, channels};
  const WithoutGil released;
  passes.merge(residuals.data, m.data, residuals.size / 2, map, some.first, some.last,
               o.data + some.first * 2 * width * channels);
}

// out: float32, or int16 for bfloat16.
void depthwise(const py::object& x, const py::object& weight, const py::object& bias, const py::object& part,
               const py::object& out, const py::object& isa) {
  const auto from = array<const float>("x", x, {-1, -1, -1});
  const py::ssize_t height = from.view->shape[0], width = from.view->shape[1], channels = from.view->shape[2];
  const auto w = array<const float>("weight", weight, {9, channels});
  const auto b = array<const float>("bias", bias, {channels});
  const std::vector<py::object> numbers = items_of("part", part, [](size_t n) {
    if (n != 4) refuse("part", "(first, last, left, right)", std::to_string(n) + " numbers");
  });
  py::ssize_t at[4];
  for (size_t i = 0; i < 4; ++i) at[i] = integer("part", numbers[i]);
  if (at[0] < 0 || at[1] < at[0] || at[1] > height || at[2] < 0 || at[3] < at[2] || at[3] > width) {
    refuse("part", "rows and columns of " + shape_text({height, width}), shape_text({at, at + 4}));
  }
  const std::vector<py::ssize_t> shape = {at[1] - at[0], at[3] - at[2], channels};
  const Passes& passes = passes_for(isa);
  const Map map{static_cast<size_t>(height), static_cast<size_t>(width), static_cast<size_t>(channels)};
  const Part some{static_cast<size_t>(at[0]), static_cast<size_t>(at[1]), static_cast<size_t>(at[2]),
                  static_cast<size_t>(at[3])};
  const std::vector<float> zeros(map.channels);
  const auto run = [&](const auto& o, bool narrow) {
    check_apart("out", o, from, w, b);
    const WithoutGil released;
    passes.depthwise(from.data, map, w.data, b.data, zeros.data(), some, narrow, o.data);
  };
  if (view_of("out", [] { return std::string("an array"); }, out)->itemsize == 2) {
    run(array<int16_t>("out", out, shape, true), true);
  } else {
    run(array<float>("out", out, shape, true), false);
  }
}

void add(const py::object& x, const py::object& more, const py::object& out, const py::object& isa) {
  const auto from = array<const float>("x", x, {-1});
  const auto by = array<const int16_t>("more", more, {from.view->shape[0]});
  const auto o = array<float>("out", out, {from.view->shape[0]}, true);
  check_apart("out", o, from, by);
  const Passes& passes = passes_for(isa);
  const WithoutGil released;
  passes.add(from.data, reinterpret_cast<const uint16_t*>(by.data), o.size, o.data);
}

void paint(const py::object& squares, const py::object& out, const py::object& gray, const py::object& isa) {
  const auto o = array<uint8_t>("out", out, {-1, -1, 3}, true);
  const py::ssize_t height = o.view->shape[0], width = o.view->shape[1];
  const auto from = array<const float>("squares", squares, {-1, -1});
  const py::ssize_t values = from.view->shape[1], side = values == 3 ? 1 : values == 12 ? 2 : values == 48 ? 4 : 8;
  if (values != 3 * side * side) {
    refuse("squares", "3, 12, 48 or 192 values each", shape_text({from.view->shape[0], values}));
  }
  if (height % side || width % side) {
    refuse("out", "sides that are multiples of a square's, " + std::to_string(side), shape_text({height, width}));
  }
  const py::ssize_t down = height / side, across = width / side;
  if (from.view->shape[0] != down * across) {
    refuse("squares", "as many as out has, " + std::to_string(down * across), std::to_string(from.view->shape[0]));
  }
  check_apart("out", o, from);
  const Passes& passes = passes_for(isa);
  const int one = asking_for_gil([&] { return PyObject_IsTrue(gray.ptr()); });
  if (one < 0) throw py::error_already_set();
  const WithoutGil released;
  passes.paint(from.data, static_cast<size_t>(side), static_cast<size_t>(down), static_cast<size_t>(across), one != 0,
               o.data);
}

}  // namespace

PYBIND11_MODULE(_passes, m) {
  m.doc() = "What lies between the matrix products of a CPU; ckbd/_passes.pyi describes it.";
  m.def("gather", &gather, py::arg("x"), py::arg("height"), py::arg("taps"), py::arg("outside"), py::arg("rows"),
        py::arg("out"), py::kw_only(), py::arg("at") = 0, py::arg("isa") = py::none());
  m.def("requantise", &requantise, py::arg("sums"), py::arg("bias"), py::arg("shift"), py::arg("out"), py::kw_only(),
        py::arg("rows") = py::none(), py::arg("isa") = py::none());
  m.def("output", &output, py::arg("sums"), py::arg("bias"), py::arg("shift"), py::arg("mean"), py::arg("k"),
        py::kw_only(), py::arg("isa") = py::none());
  m.def("assemble", &assemble, py::arg("r"), py::arg("mean"), py::arg("near"), py::arg("far") = py::none(),
        py::arg("any") = py::none(), py::kw_only(), py::arg("isa") = py::none());
  m.def("merge", &merge, py::arg("r"), py::arg("mean"), py::arg("height"), py::arg("rows"), py::arg("out"),
        py::kw_only(), py::arg("isa") = py::none());
  m.def("depthwise", &depthwise, py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("part"), py::arg("out"),
        py::kw_only(), py::arg("isa") = py::none());
  m.def("add", &add, py::arg("x"), py::arg("more"), py::arg("out"), py::kw_only(), py::arg("isa") = py::none());
  m.def("paint", &paint, py::arg("squares"), py::arg("out"), py::kw_only(), py::arg("gray") = false,
        py::arg("isa") = py::none());
  m.def("isas", [] { return isa_names(all_passes()); });
}
