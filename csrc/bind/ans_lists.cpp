#include "bind/ans_lists.h"

#include <algorithm>
#include <limits>

namespace ckbd_python {
namespace {

using ckbd::ans::Row;
using ckbd::ans::Tables;

bool is_plain(PyObject* list) { return PyList_CheckExact(list) || PyTuple_CheckExact(list); }

// False for another type and for what has no room.
bool plain_value(PyObject* item, int32_t& value) {
  if (!PyLong_CheckExact(item)) return false;
  int overflow = 0;
  const long wide = PyLong_AsLongAndOverflow(item, &overflow);
  value = static_cast<int32_t>(wide);
  return overflow == 0 && wide >= std::numeric_limits<int32_t>::min() && wide <= std::numeric_limits<int32_t>::max();
}

bool is_sequence(const py::handle& list) {
  return PySequence_Check(list.ptr()) && !PyUnicode_Check(list.ptr()) && !PyBytes_Check(list.ptr());
}

[[noreturn]] void raise_type(const char* name, const char* expected, const py::handle& got) {
  throw py::type_error(std::string(name) + ": expected " + expected + ", got " +
                       (PyLong_Check(got.ptr()) ? "one that has no room" : type_name(got)));
}

// Items may be objects whose methods change the list, so each is asked for anew.
template <class Add>
void each_of(const char* name, const char* expected, const py::handle& list, Add add) {
  if (!is_sequence(list)) raise_type(name, expected, list);
  ckbd_python::each_of(list, [](size_t) {}, add);
}

// What pybind11's caster takes, with conversions. Python's code is asked for a plain number first: the caster itself may
// not be in the middle of a call when the interpreter ends (see gil.h).
template <class T>
bool load(py::detail::make_caster<T>& caster, const py::handle& item) {
  PyObject* const object = item.ptr();
  if (PyLong_CheckExact(object) || PyFloat_CheckExact(object)) return caster.load(item, true);
  if (!PyNumber_Check(object) || (std::is_integral_v<T> && PyFloat_Check(object))) return false;
  const auto loaded = [&](PyObject* made) {
    if (made == nullptr) PyErr_Clear();
    return made != nullptr && caster.load(py::reinterpret_steal<py::object>(made), true);
  };
  if constexpr (std::is_integral_v<T>) {
    return loaded(asking_for_gil([&] { return PyNumber_Index(object); })) ||
           loaded(asking_for_gil([&] { return PyNumber_Long(object); }));
  } else {
    return loaded(asking_for_gil([&] { return PyNumber_Float(object); }));
  }
}

template <class T>
std::vector<T> values_of(const char* name, const char* expected, const py::handle& list) {
  std::vector<T> values;
  each_of(name, expected, list, [&](const py::object& item) {
    py::detail::make_caster<T> caster;
    if (!load<T>(caster, item)) raise_type(name, expected, item);
    values.push_back(py::detail::cast_op<T>(caster));
  });
  return values;
}

}  // namespace

Ints ints_of(const char* name, const py::handle& list) {
  if (is_plain(list.ptr())) {
    Ints values(static_cast<size_t>(PySequence_Fast_GET_SIZE(list.ptr())));
    PyObject* const* const items = PySequence_Fast_ITEMS(list.ptr());
    size_t i = 0;
    while (i < values.size() && plain_value(items[i], values[i])) ++i;
    if (i == values.size()) return values;
  }
  return values_of<int32_t>(name, "a sequence of integers of 32 bits", list);
}

std::vector<float> floats_of(const char* name, const py::handle& list) {
  return values_of<float>(name, "a sequence of numbers", list);
}

// ---- one list

void KeptInts::swap(KeptInts& other) noexcept {
  std::swap(taken_, other.taken_);
  values_.swap(other.values_);
  objects_.swap(other.objects_);
}

void KeptInts::release() {
  taken_ = false;
  values_.clear();
  for (PyObject* object : objects_) Py_DECREF(object);
  objects_.clear();
}

bool KeptInts::holds(PyObject* const* items, size_t n) const {
  if (!taken_ || n != values_.size()) return false;
  const size_t head = objects_.size();
  if (!std::equal(objects_.begin(), objects_.end(), items)) return false;
  // All the same if each is what the next one is; memcmp is as fast as memory.
  return n == head || std::memcmp(items + head - 1, items + head, (n - head) * sizeof(PyObject*)) == 0;
}

bool KeptInts::take(PyObject* list, bool& changed) {
  if (is_plain(list)) {
    const size_t n = static_cast<size_t>(PySequence_Fast_GET_SIZE(list));
    PyObject* const* const items = PySequence_Fast_ITEMS(list);
    if (holds(items, n)) return true;
    changed = true;
    release();
    values_.resize(n);
    size_t i = 0;
    while (i < n && plain_value(items[i], values_[i])) ++i;
    if (i == n) {
      size_t head = n;
      while (head > 1 && items[head - 2] == items[n - 1]) --head;
      objects_.assign(items, items + head);
      for (PyObject* object : objects_) Py_INCREF(object);
      taken_ = true;
      return true;
    }
  }
  changed = true;
  release();
  return false;
}

// ---- tables

bool KeptTables::take_plain(PyObject* cdfs, PyObject* sizes, PyObject* offsets) {
  if (!is_plain(cdfs)) return false;
  const size_t n = static_cast<size_t>(PySequence_Fast_GET_SIZE(cdfs));
  PyObject* const* const items = PySequence_Fast_ITEMS(cdfs);
  if (n != cdfs_.size()) {
    stale_ = true;
    cdfs_.resize(n);
  }
  for (size_t i = 0; i < n; ++i) {
    if (!cdfs_[i].take(items[i], stale_)) return false;
  }
  if (!sizes_.take(sizes, stale_) || !offsets_.take(offsets, stale_)) return false;
  if (!stale_) return true;
  std::vector<const Ints*> rows;
  for (const KeptInts& row : cdfs_) rows.push_back(&row.values());
  set_rows(rows, sizes_.values(), offsets_.values());
  stale_ = false;
  return true;
}

void KeptTables::convert(const py::handle& cdfs, const py::handle& sizes, const py::handle& offsets) {
  // Python code may run, and come here again, so nothing of this object is touched before all is there.
  Converted made;
  each_of("cdfs", "a sequence of sequences of integers of 32 bits", cdfs,
          [&](const py::object& row) { made.cdfs.push_back(ints_of("cdfs", row)); });
  made.sizes = ints_of("sizes", sizes);
  made.offsets = ints_of("offsets", offsets);
  stale_ = true;
  converted_ = std::move(made);
  std::vector<const Ints*> rows;
  for (const Ints& row : converted_.cdfs) rows.push_back(&row);
  set_rows(rows, converted_.sizes, converted_.offsets);
}

// Rows without a size or an offset cannot be used, so nobody is told unless he does.
void KeptTables::set_rows(const std::vector<const Ints*>& cdfs, const Ints& sizes, const Ints& offsets) {
  fast_.reset();
  rows_.clear();
  entries_ = symbols_ = 0;
  const size_t n = std::min({cdfs.size(), sizes.size(), offsets.size()});
  for (size_t i = 0; i < n; ++i) {
    rows_.push_back({cdfs[i]->data(), cdfs[i]->size(), sizes[i], offsets[i]});
    if (rows_.back().usable()) entries_ += static_cast<size_t>(sizes[i]);
  }
}

KeptTables::View KeptTables::take(const py::handle& cdfs, const py::handle& sizes, const py::handle& offsets,
                                  size_t symbols) {
  if (!take_plain(cdfs.ptr(), sizes.ptr(), offsets.ptr())) convert(cdfs, sizes, offsets);
  // Fast tables take as long to make as some slow symbols take, one for each entry.
  symbols_ += symbols;
  if (!fast_ && symbols_ >= entries_) fast_ = std::make_unique<Tables>(rows_);
  return {rows_, fast_.get()};
}

}  // namespace ckbd_python
