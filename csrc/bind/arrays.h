// Python's arrays as pointers, checked. For bind*.cpp alone.
#pragma once

// Each module keeps pybind11's records to itself. In shared ones a class is known by its C++ name, and ours have some in
// common; and where each module has a C++ library of its own, an exception's type is another in each.
#ifdef PYBIND11_VERSION_MAJOR
#error "arrays.h comes before pybind11"
#endif
#ifndef CKBD_MODULE
#error "CKBD_MODULE is to be the extension's name, as setup.py has it"
#endif
#define CKBD_TEXT_OF(name) #name
#define CKBD_TEXT(name) CKBD_TEXT_OF(name)
#define PYBIND11_BUILD_ABI "_ckbd" CKBD_TEXT(CKBD_MODULE)
#include <pybind11/pybind11.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "bind/gil.h"

namespace ckbd_python {

namespace py = pybind11;

// As Python writes it; -1 stands for any size.
inline std::string shape_text(const std::vector<py::ssize_t>& shape) {
  std::string text;
  for (const py::ssize_t size : shape) {
    text += (text.empty() ? "" : ", ") + (size < 0 ? "any" : std::to_string(size));
  }
  return "(" + text + (shape.size() == 1 ? ",)" : ")");
}

[[noreturn]] inline void refuse(const std::string& name, const std::string& expected, const std::string& got) {
  throw py::value_error(name + ": expected " + expected + ", got " + got);
}

// What an object shows through the buffer protocol. It stays where it is, as it may point into itself.
struct Release {
  void operator()(Py_buffer* view) const {
    PyBuffer_Release(view);
    delete view;
  }
};
using View = std::unique_ptr<Py_buffer, Release>;

inline View buffer_of(const py::handle& object) {
  auto view = std::make_unique<Py_buffer>();
  const auto get = [&] { return PyObject_GetBuffer(object.ptr(), view.get(), PyBUF_STRIDES | PyBUF_FORMAT); };
  if (asking_for_gil(get)) throw py::error_already_set();
  return View(view.release());
}

inline const char* format_of(const Py_buffer& view) { return view.format == nullptr ? "B" : view.format; }

inline std::vector<py::ssize_t> shape_of(const Py_buffer& view) { return {view.shape, view.shape + view.ndim}; }

// The formats of T in native order; that of them whose items have its size, which is another on other systems, is it.
template <class T>
constexpr const char* kFormats = std::is_floating_point_v<T> ? "f" : std::is_signed_v<T> ? "bhilq" : "BHILQ";

template <class T>
bool has_type(const Py_buffer& view) {
  const char* const format = format_of(view);
  return view.itemsize == sizeof(T) && std::strlen(format) == 1 && std::strchr(kFormats<T>, format[0]) != nullptr;
}

// A contiguous array that Python owns. The view keeps it alive and in place.
template <class T>
struct Array {
  View view;
  T* data = nullptr;
  size_t size = 0;  // elements
};

inline std::string type_name(const py::handle& object) { return py::str(py::type::of(object).attr("__name__")); }

// In what follows expected() says what was, when it is needed: making the words takes longer than the checks.

// What has the buffer protocol, as it is; a torch tensor, which has not, as the array that shares its memory. Tensors
// of another device or with a gradient refuse that themselves.
template <class Expected>
View view_of(const std::string& name, const Expected& expected, const py::handle& object) {
  if (PyObject_CheckBuffer(object.ptr())) {
    try {
      return buffer_of(object);
    } catch (py::error_already_set& error) {
      if (!error.matches(PyExc_ValueError) && !error.matches(PyExc_BufferError)) throw;
      refuse(name, expected(), "one without a buffer (" + std::string(py::str(error.value())) + ")");
    }
  }
  const auto has = [&](const char* what) {
    return asking_for_gil([&] { return PyObject_HasAttrString(object.ptr(), what); });
  };
  if (!has("numpy") || !has("data_ptr")) refuse(name, expected(), type_name(object));
  try {
    PyObject* const made = asking_for_gil([&] { return PyObject_CallMethod(object.ptr(), "numpy", nullptr); });
    if (made == nullptr) throw py::error_already_set();
    return buffer_of(py::reinterpret_steal<py::object>(made));
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_TypeError) && !error.matches(PyExc_RuntimeError)) throw;
    refuse(name, expected(), "a tensor that is none (" + std::string(py::str(error.value())) + ")");
  }
}

// A copy, of what is checked before it is used: another thread may write to the caller's.
template <class T>
std::vector<std::remove_const_t<T>> copy_of(const Array<T>& array) {
  return {array.data, array.data + array.size};
}

template <class T>
constexpr const char* kTypeName = std::is_floating_point_v<T> ? "float32"
                                  : sizeof(T) == 8            ? "int64"
                                  : sizeof(T) == 4            ? "int32"
                                  : sizeof(T) == 2            ? (std::is_signed_v<T> ? "int16" : "uint16")
                                  : std::is_signed_v<T>       ? "int8"
                                                              : "uint8";

template <class T>
std::string expected_array(const std::vector<py::ssize_t>& shape) {
  return std::string("a contiguous ") + kTypeName<T> + " array of shape " + shape_text(shape);
}

template <class T, class Expected>
Array<T> as_array(const std::string& name, const Expected& expected, View view, const std::vector<py::ssize_t>& shape,
                  bool writable) {
  if (!has_type<std::remove_const_t<T>>(*view)) {
    refuse(name, expected(), "items of format '" + std::string(format_of(*view)) + "'");
  }
  const size_t size = static_cast<size_t>(view->len) / sizeof(T);
  bool fits = static_cast<size_t>(view->ndim) == shape.size();
  for (size_t d = 0; fits && d < shape.size(); ++d) fits = shape[d] < 0 || view->shape[d] == shape[d];
  if (!fits) refuse(name, expected(), "shape " + shape_text(shape_of(*view)));
  // Some have no strides, whatever they are asked: no gaps then.
  py::ssize_t stride = sizeof(T);
  for (size_t d = shape.size(); d-- > 0 && size > 0 && view->strides != nullptr; stride *= view->shape[d]) {
    if (view->shape[d] > 1 && view->strides[d] != stride) refuse(name, expected(), "one with gaps");
  }
  if (reinterpret_cast<uintptr_t>(view->buf) % alignof(T)) refuse(name, expected(), "one at an odd address");
  if (writable && view->readonly) refuse(name, "a writable array", "a read-only one");
  T* const data = static_cast<T*>(view->buf);
  return {std::move(view), data, size};
}

template <class T>
Array<T> array(const std::string& name, const py::handle& object, const std::vector<py::ssize_t>& shape,
               bool writable = false) {
  const auto expected = [&] { return expected_array<std::remove_const_t<T>>(shape); };
  return as_array<T>(name, expected, view_of(name, expected, object), shape, writable);
}

inline Array<const uint8_t> bytes(const std::string& name, const py::handle& object) {
  return array<const uint8_t>(name, object, {-1});
}

// Any integer, numpy's too.
inline py::ssize_t integer(const std::string& name, const py::handle& object) {
  if (!PyIndex_Check(object.ptr())) refuse(name, "an integer", type_name(object));
  const py::ssize_t value = asking_for_gil([&] { return PyNumber_AsSsize_t(object.ptr(), PyExc_OverflowError); });
  if (value == -1 && PyErr_Occurred()) {
    if (!PyErr_ExceptionMatches(PyExc_OverflowError)) throw py::error_already_set();
    PyErr_Clear();
    refuse(name, "an integer of 64 bits", py::str(object));
  }
  return value;
}

// Of a sequence, whose length check(n) may refuse. Length and items are asked for once each: it may be Python's code
// that answers, and otherwise the next time.
template <class Check, class Add>
void each_of(const py::handle& sequence, Check check, Add add) {
  const py::ssize_t n = asking_for_gil([&] { return PySequence_Size(sequence.ptr()); });
  if (n < 0) throw py::error_already_set();
  check(static_cast<size_t>(n));
  for (py::ssize_t i = 0; i < n; ++i) {
    PyObject* const item = asking_for_gil([&] { return PySequence_GetItem(sequence.ptr(), i); });
    if (item == nullptr) throw py::error_already_set();
    add(py::reinterpret_steal<py::object>(item));
  }
}

inline int in_range(const std::string& name, py::ssize_t value, int low, int high) {
  if (value < low || value > high) {
    refuse(name, std::to_string(low) + ".." + std::to_string(high), std::to_string(value));
  }
  return static_cast<int>(value);
}

}  // namespace ckbd_python
