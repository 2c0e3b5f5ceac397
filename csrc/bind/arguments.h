// What both modules ask of their arguments beyond single arrays. For bind*.cpp alone.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "bind/arrays.h"
#include "bind/classes.h"
#include "bind/gil.h"
#include "common/pool.h"

namespace ckbd_python {

// What a call reads and writes. What it writes must be apart from all else: images are decoded side by side.
class Memory {
 public:
  template <class T>
  void add(const Array<T>& array) {
    const auto begin = reinterpret_cast<uintptr_t>(array.data);
    if (array.size > 0) parts_.push_back({begin, begin + sizeof(T) * array.size, !std::is_const_v<T>});
  }
  void check(const std::string& name) {
    std::sort(parts_.begin(), parts_.end(), [](const Part& a, const Part& b) { return a.begin < b.begin; });
    uintptr_t end = 0, end_of_written = 0;
    for (const Part& part : parts_) {
      if (part.begin < end_of_written || (part.written && part.begin < end)) {
        refuse(name, "outputs apart from one another and from all inputs", "some memory in common");
      }
      end = std::max(end, part.end);
      if (part.written) end_of_written = std::max(end_of_written, part.end);
    }
  }

 private:
  struct Part {
    uintptr_t begin, end;
    bool written;
  };
  std::vector<Part> parts_;
};

// The one of `all`, slowest first, that `isa` names; the last if it is None.
template <class Kind>
const Kind& named_isa(const std::vector<const Kind*>& all, const py::object& isa) {
  if (isa.is_none()) return *all.back();
  PyObject* const text = asking_for_gil([&] { return PyObject_Str(isa.ptr()); });
  if (text == nullptr) throw py::error_already_set();
  const std::string name = py::reinterpret_steal<py::str>(text);
  std::string names;
  for (const Kind* one : all) {
    if (name == one->name) return *one;
    names += (names.empty() ? "" : ", ") + std::string(one->name);
  }
  refuse("isa", "one that this machine has (" + names + ")", "'" + name + "'");
}

template <class Kind>
py::tuple isa_names(const std::vector<const Kind*>& all) {
  py::tuple names(all.size());
  for (size_t i = 0; i < names.size(); ++i) names[i] = all[i]->name;
  return names;
}

// What is too little to be worth waking threads for: some 10 us.
constexpr size_t kSmall = size_t{1} << 16;

inline size_t threads_for(const py::object& threads, size_t elements) {
  const size_t asked = threads.is_none()
                           ? ckbd::usable_cpus()
                           : static_cast<size_t>(in_range("threads", integer("threads", threads), 1, 256));
  return elements < kSmall ? 1 : asked;
}

// The items of a sequence, as each_of() has them.
template <class Check>
std::vector<py::object> items_of(const std::string& name, const py::handle& object, Check check) {
  if (!py::isinstance<py::sequence>(object)) refuse(name, "a sequence", type_name(object));
  std::vector<py::object> items;
  each_of(object, check, [&](py::object item) { items.push_back(std::move(item)); });
  return items;
}

inline std::vector<py::object> items_of(const std::string& name, const py::handle& object) {
  return items_of(name, object, [](size_t) {});
}

}  // namespace ckbd_python
