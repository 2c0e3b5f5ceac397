// scale_indexes() and symbols_of(), for the instruction set that is asked for or there.
#include <algorithm>
#include <cmath>
#include <limits>

#include "ans/quantize.h"
#include "bind/ans.h"
#include "common/cpu.h"

namespace ckbd_python {
namespace {

using ckbd::ans::Borders;
using ckbd::ans::kGroup;
using ckbd::ans::kGroups;
using ckbd::ans::Quantizer;

// Slowest first.
const std::vector<const Quantizer*>& quantizers() {
  static const std::vector<const Quantizer*> found = [] {
    std::vector<const Quantizer*> usable = {&ckbd::ans::scalar_quantizer};
#if CKBD_X86
    if (ckbd::has_avx2()) usable.push_back(&ckbd::ans::avx2_quantizer);
#endif
    return usable;
  }();
  return found;
}

const Quantizer& quantizer_for(const py::object& isa) { return named_isa(quantizers(), isa); }

// `sorted`: the table but for its last entry, put in order. What is no number is no border that a scale could be at or
// below, so all are above it.
Borders borders_of(std::vector<float>& sorted, float bound) {
  const int32_t top = static_cast<int32_t>(sorted.size());
  const auto numbers = std::remove_if(sorted.begin(), sorted.end(), [](float s) { return std::isnan(s); });
  sorted.erase(numbers, sorted.end());
  std::sort(sorted.begin(), sorted.end());
  const int32_t count = static_cast<int32_t>(sorted.size());
  Borders borders{sorted.data(), count, top - count, top, bound, {}, {}};
  const auto border = [&](int at) { return at < count ? sorted[at] : std::numeric_limits<float>::infinity(); };
  for (int g = 0; g < kGroups; ++g) {
    borders.group[g] = border(g * kGroup + kGroup - 1);
    for (int j = 0; j < kGroup - 1; ++j) borders.within[j][g] = border(g * kGroup + j);
  }
  return borders;
}

void scale_indexes(const py::object& scales, const py::object& table, double bound, const py::object& out,
                   const py::object& isa) {
  const auto s = array<const float>("scales", scales, {-1});
  const auto t = array<const float>("table", table, {-1});
  const auto o = array<int32_t>("out", out, {s.view->shape[0]}, true);
  if (t.size < 1 || t.size > (1u << 24)) refuse("table", "1..2^24 entries", std::to_string(t.size));
  check_ans_apart("out", o, s);
  const Quantizer& quantizer = quantizer_for(isa);
  const WithoutGil released;
  const float least = static_cast<float>(bound);
  if (std::isnan(least)) {
    std::fill_n(o.data, o.size, static_cast<int32_t>(t.size - 1));
    return;
  }
  std::vector<float> sorted(t.data, t.data + t.size - 1);
  quantizer.scale_indexes(borders_of(sorted, least), s.data, s.size, o.data);
}

void symbols_of(const py::object& x, const py::object& means, const py::object& out, const py::object& isa) {
  const auto from = array<const float>("x", x, {-1});
  const auto o = array<int32_t>("out", out, {from.view->shape[0]}, true);
  check_ans_apart("out", o, from);
  const Quantizer& quantizer = quantizer_for(isa);
  Array<const float> m{};
  if (!means.is_none()) {
    m = array<const float>("means", means, {from.view->shape[0]});
    check_ans_apart("out", o, m);
  }
  const WithoutGil released;
  quantizer.symbols_of(from.data, m.data, from.size, o.data);
}

}  // namespace

void bind_ans_quantize(py::module_& m) {
  m.def("scale_indexes", &scale_indexes, py::arg("scales"), py::arg("table"), py::arg("bound"), py::arg("out"),
        py::kw_only(), py::arg("isa") = py::none());
  m.def("symbols_of", &symbols_of, py::arg("x"), py::arg("means"), py::arg("out"), py::kw_only(),
        py::arg("isa") = py::none());
  m.def("isas", [] { return isa_names(quantizers()); });
}

}  // namespace ckbd_python
