// What the bindings share: arguments from Python, checked. See arrays.h for single arrays.
#pragma once

#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "bind/arguments.h"
#include "payload/payload.h"
#include "rans/dispatch.h"
#include "rans/tables.h"

namespace ckbd_python {

// The parts of the module: rans_encode.cpp, rans_decode.cpp, rans_open.cpp, rans_tracks.cpp.
void bind_encode(py::module_& m);
void bind_decode(py::module_& m);
void bind_open(py::module_& m);
void bind_tracks(py::module_& m);

// The Python exception.
py::object stream_error_of(const ckbd::StreamError& error);

constexpr int kMaxPhases = 255;

[[noreturn]] inline void refuse_index(const std::string& name, const ckbd::BadIndex& bad) {
  refuse(name, "table indices 0..63", std::to_string(bad.k) + " at " + std::to_string(bad.at));
}

inline std::string phase_name(const std::string& phases, const ckbd::BadIndex& bad) {
  return phases + "[" + std::to_string(bad.phase) + "] k";
}

inline void check_sites(const std::string& name, size_t n, const ckbd::Tables& tables) {
  if (n % tables.channels()) {
    refuse(name, "a multiple of the " + std::to_string(tables.channels()) + " channels",
           std::to_string(n) + " elements");
  }
}

// One phase as Python gives it, k and r. T is the type of r, int8 or int16, const if it is only read.
template <class T>
struct PhaseView {
  Array<const uint8_t> k;
  Array<T> r;
};

// The symbols of one phase have one of two types; all phases of a call have the same.
template <class T8, class T16>
using Phases = std::variant<std::vector<PhaseView<T8>>, std::vector<PhaseView<T16>>>;
using PhasesIn = Phases<const int8_t, const int16_t>;
using PhasesOut = Phases<int8_t, int16_t>;

inline void check_apart(const std::string& name, const Array<const uint8_t>& k, const void* r, size_t size) {
  const auto k_at = reinterpret_cast<uintptr_t>(k.data), r_at = reinterpret_cast<uintptr_t>(r);
  if (k_at < r_at + size && r_at < k_at + k.size) refuse(name, "memory apart from that of k", "some in common");
}

// (k, r) or (k, out); `writable` for what is decoded into.
template <class All>
inline void add_phase(All& all, bool first, const std::string& k_name, const std::string& r_name, const py::handle& k,
                      const py::handle& r, bool writable) {
  Array<const uint8_t> k_view = bytes(k_name, k);
  const std::vector<py::ssize_t> shape = {static_cast<py::ssize_t>(k_view.size)};
  const auto expected = [&] { return "a contiguous int8 or int16 array of shape " + shape_text(shape); };
  View view = view_of(r_name, expected, r);
  if (first && has_type<int8_t>(*view)) all.template emplace<0>();
  std::visit(
      [&](auto& views) {
        using T = std::remove_pointer_t<decltype(views[0].r.data)>;
        const auto same = [&] {
          return first ? expected() : expected_array<std::remove_const_t<T>>(shape) + " as before";
        };
        Array<T> r_view = as_array<T>(r_name, same, std::move(view), shape, writable);
        if (writable) check_apart(r_name, k_view, r_view.data, sizeof(T) * r_view.size);
        views.push_back({std::move(k_view), std::move(r_view)});
      },
      all);
}

template <class All>
All phases_of(const std::string& name, const py::handle& given, bool writable) {
  All all;
  all.template emplace<1>();
  if (!py::isinstance<py::sequence>(given)) refuse(name, "a sequence of (k, r)", type_name(given));
  const std::vector<py::object> phases = items_of(name, given, [&](size_t n) {
    if (n < 1 || n > kMaxPhases) refuse(name, "1 to 255 of them", std::to_string(n));
  });
  for (size_t p = 0; p < phases.size(); ++p) {
    const std::string one = name + "[" + std::to_string(p) + "]";
    const auto refuse_pair = [&] { refuse(one, "(k, r)", type_name(phases[p])); };
    if (!py::isinstance<py::sequence>(phases[p])) refuse_pair();
    const std::vector<py::object> pair = items_of(one, phases[p], [&](size_t n) {
      if (n != 2) refuse_pair();
    });
    add_phase(all, p == 0, one + " k", one + " r", pair[0], pair[1], writable);
  }
  return all;
}

inline const ckbd::Coder& coder_for(const py::object& isa) {
  if (!isa.is_none() && !py::isinstance<py::str>(isa)) refuse("isa", "a str or None", type_name(isa));
  return named_isa(ckbd::coders(), isa);
}

}  // namespace ckbd_python
