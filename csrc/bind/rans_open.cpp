// Batch: many streams, from their bytes to their symbols.
#include <algorithm>
#include <cstring>
#include <vector>

#include "bind/rans_decoder.h"
#include "streams/streams.h"

namespace ckbd_python {
namespace {

constexpr size_t kMostGroups = 16;
constexpr py::ssize_t kHeaderFields = 8;

uint64_t unsigned_integer(const std::string& name, const py::object& object) {
  if (!PyIndex_Check(object.ptr())) refuse(name, "an integer", type_name(object));
  const auto index = py::reinterpret_steal<py::object>(asking_for_gil([&] { return PyNumber_Index(object.ptr()); }));
  if (!index) throw py::error_already_set();
  const unsigned long long value = PyLong_AsUnsignedLongLong(index.ptr());
  if (value == static_cast<unsigned long long>(-1) && PyErr_Occurred()) {
    if (!PyErr_ExceptionMatches(PyExc_OverflowError)) throw py::error_already_set();
    PyErr_Clear();
    refuse(name, "0..2^64 - 1", py::str(object));
  }
  return value;
}

template <class T>
py::bytes joined(const std::vector<ckbd::OpenStream>& all, std::vector<T> ckbd::OpenStream::*part) {
  size_t size = 0;
  for (const auto& one : all) size += (one.*part).size();
  py::bytes out(nullptr, sizeof(T) * size);
  char* next = PyBytes_AS_STRING(out.ptr());
  for (const auto& one : all) {
    const std::vector<T>& own = one.*part;
    if (own.empty()) continue;
    std::memcpy(next, own.data(), sizeof(T) * own.size());
    next += sizeof(T) * own.size();
  }
  return out;
}

// Widths of channel groups: a number, or several.
std::vector<size_t> widths(const py::object& channels) {
  std::vector<size_t> all;
  const auto add = [&](const std::string& name, const py::object& one) {
    all.push_back(static_cast<size_t>(in_range(name, integer(name, one), 1, 65535)));
  };
  if (!py::isinstance<py::sequence>(channels)) {
    add("channels", channels);
    return all;
  }
  const auto check = [](size_t n) {
    if (n < 1 || n > kMostGroups) {
      refuse("channels", "1 to " + std::to_string(kMostGroups) + " widths", std::to_string(n));
    }
  };
  for (const py::object& one : items_of("channels", channels, check)) {
    add("channels[" + std::to_string(all.size()) + "]", one);
  }
  return all;
}

// Holds streams, tables and the order of calls.
class Batch {
 public:
  Batch(const py::object& tables, const py::object& streams, const py::object& model,
        const py::object& channels, const py::object& max_pixels, const py::object& threads, const py::object& isa)
      : tables_(shared<ckbd::Tables>("tables", tables)) {
    std::vector<ckbd::Bytes> all;
    size_t total = 0;
    for (const py::object& one : items_of("streams", streams)) {
      held_.push_back(bytes("streams[" + std::to_string(all.size()) + "]", one));
      all.push_back({held_.back().data, held_.back().size});
      total += held_.back().size;
    }
    const auto identity = array<const uint8_t>("model", model, {ckbd::kModelBytes});
    const ckbd::Expected expected{identity.data, unsigned_integer("max_pixels", max_pixels), widths(channels)};
    turns_ = Turns(2 * static_cast<int>(expected.channels.size()));
    const ckbd::Coder& coder = coder_for(isa);
    const size_t count = threads_for(threads, total);
    {
      const WithoutGil released;
      streams_ = std::make_unique<ckbd::OpenStreams>(coder, *tables_, all, expected, count);
    }
    streams_->settle();
  }

  void headers(const py::object& out) const {
    const auto& all = streams_->all();
    const auto view = array<int64_t>("out", out, {static_cast<py::ssize_t>(all.size()), kHeaderFields}, true);
    for (size_t i = 0; i < all.size(); ++i) {
      int64_t* const row = view.data + i * kHeaderFields;
      if (all[i].decoder == nullptr) {
        std::fill_n(row, kHeaderFields, int64_t{0});
        continue;
      }
      const ckbd::Container& c = all[i].container;
      const int64_t fields[kHeaderFields] = {1,
                                             c.width,
                                             c.height,
                                             c.quality2,
                                             c.gray,
                                             static_cast<int64_t>(c.payload_offset),
                                             static_cast<int64_t>(c.payload_size),
                                             c.sections};
      std::copy_n(fields, kHeaderFields, row);
    }
  }

  py::list errors() const {
    py::list out;
    const auto& all = streams_->all();
    for (size_t i = 0; i < all.size(); ++i) {
      const auto& damage = all[i].damage;
      if (damage) out.append(py::make_tuple(i, damage->field, damage->offset, damage->reason));
    }
    return out;
  }

  void z(const py::object& out, const py::object& threads) {
    const auto view = array<int16_t>("out", out, {static_cast<py::ssize_t>(streams_->z_size())}, true);
    const size_t count = threads_for(threads, view.size);
    turns_.begin_z();
    {
      const WithoutGil released;
      streams_->z(view.data, count);
    }
    streams_->settle();
    turns_.done();
  }

  py::tuple phase(const py::object& k, const py::object& out, const py::object& threads) {
    const std::vector<py::ssize_t> shape = {static_cast<py::ssize_t>(streams_->phase_size())};
    const auto k_view = array<const uint8_t>("k", k, shape);
    const auto r_view = array<int8_t>("out", out, shape, true);
    check_apart("out", k_view, r_view.data, r_view.size);
    const size_t count = threads_for(threads, k_view.size);
    turns_.begin_phase();
    // What was asked of the arguments may have come here before.
    if (k_view.size != streams_->phase_size()) {
      turns_.undo();
      refuse("k", std::to_string(streams_->phase_size()) + " elements", std::to_string(k_view.size));
    }
    try {
      const WithoutGil released;
      streams_->phase(k_view.data, r_view.data, count);
    } catch (const ckbd::BadIndex& bad) {
      turns_.undo();
      refuse_index("k", bad);
    }
    streams_->settle();
    const auto& all = streams_->all();
    py::tuple wide =
        py::make_tuple(joined(all, &ckbd::OpenStream::wide_at), joined(all, &ckbd::OpenStream::wide_value));
    turns_.done();
    return wide;
  }

  void finish() {
    turns_.begin_finish();
    streams_->finish();
    streams_->settle();
    turns_.done();
  }

 private:
  const std::shared_ptr<ckbd::Tables> tables_;
  std::vector<Array<const uint8_t>> held_;
  std::unique_ptr<ckbd::OpenStreams> streams_;
  Turns turns_{0};
};

}  // namespace

void bind_open(py::module_& m) {
  Class<Batch>(m, "Batch")
      .init<const py::object&, const py::object&, const py::object&, const py::object&, const py::object&,
            const py::object&, const py::object&>(py::arg("tables"), py::arg("streams"), py::kw_only(),
                                                  py::arg("model"), py::arg("channels"), py::arg("max_pixels"),
                                                  py::arg("threads") = py::none(), py::arg("isa") = py::none())
      .def("headers", &Batch::headers, py::arg("out"))
      .def("errors", &Batch::errors)
      .def("z", &Batch::z, py::arg("out"), py::kw_only(), py::arg("threads") = py::none())
      .def("phase", &Batch::phase, py::arg("k"), py::arg("out"), py::kw_only(), py::arg("threads") = py::none())
      .def("finish", &Batch::finish);
}

}  // namespace ckbd_python
