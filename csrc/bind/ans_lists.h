// CompressAI's arguments: sequences of integers, and tables of them that come again and again.
#pragma once

#include "bind/ans.h"

namespace ckbd_python {

using Ints = std::vector<int32_t>;

// What pybind11 before version 3 makes a vector of: any sequence but text and bytes, of what has an integer's value
// and is no float. Others raise TypeError.
Ints ints_of(const char* name, const py::handle& list);
std::vector<float> floats_of(const char* name, const py::handle& list);

// An exact list or tuple of exact integers, as values, and the objects that they were read from. Those are held and
// do not change, so a list of the same objects has the same values.
class KeptInts {
 public:
  KeptInts() = default;
  KeptInts(KeptInts&& other) noexcept { swap(other); }
  KeptInts& operator=(KeptInts&& other) noexcept {
    swap(other);
    return *this;
  }
  KeptInts(const KeptInts&) = delete;
  KeptInts& operator=(const KeptInts&) = delete;
  ~KeptInts() { release(); }

  // Whether list has been taken, or is equal to what was. Else there is nothing here any more. Runs no Python code.
  bool take(PyObject* list, bool& changed);
  const Ints& values() const { return values_; }

 private:
  bool holds(PyObject* const* items, size_t n) const;
  void release();
  void swap(KeptInts& other) noexcept;

  bool taken_ = false;
  Ints values_;
  // One for each value; the last one stands for all after it, so that rows filled up with zeros are short.
  std::vector<PyObject*> objects_;
};

// Tables as they came, which serial models pass for each position of a picture. The references are good until the
// next call, or until Python code runs: other threads may come in then.
class KeptTables {
 public:
  struct View {
    const std::vector<ckbd::ans::Row>& rows;
    const ckbd::ans::Tables* fast;  // or null, if they are not worth making
  };
  // For so many symbols.
  View take(const py::handle& cdfs, const py::handle& sizes, const py::handle& offsets, size_t symbols);

 private:
  bool take_plain(PyObject* cdfs, PyObject* sizes, PyObject* offsets);
  void convert(const py::handle& cdfs, const py::handle& sizes, const py::handle& offsets);
  void set_rows(const std::vector<const Ints*>& cdfs, const Ints& sizes, const Ints& offsets);

  bool stale_ = true;  // rows_ are not those of the lists below
  std::vector<KeptInts> cdfs_;
  KeptInts sizes_, offsets_;
  struct Converted {
    std::vector<Ints> cdfs;
    Ints sizes, offsets;
  } converted_;  // of other kinds, not to be used again
  std::vector<ckbd::ans::Row> rows_;
  size_t entries_ = 0, symbols_ = 0;
  std::unique_ptr<ckbd::ans::Tables> fast_;
};

}  // namespace ckbd_python
