// Encoder and Decoder: streams in steps.
#include <mutex>

#include "bind/ans.h"

namespace ckbd_python {
namespace {

using ckbd::ans::Reader;
using ckbd::ans::Tables;
using ckbd::ans::Writer;

// Steps are kept until flush(), as what comes last is coded first.
class Encoder {
 public:
  void push(const py::object& given, const py::object& symbols, const py::object& indexes) {
    const AnsTables tables = shared<Tables>("tables", given);
    const auto s = array<const int32_t>("symbols", symbols, {-1});
    const auto i = array<const int32_t>("indexes", indexes, {s.view->shape[0]});
    without_gil([&] {
      ckbd::ans::check(*tables, s.data, i.data, s.size);
      const std::lock_guard lock(mutex_);
      if (steps_.empty() || steps_.back().tables != tables) steps_.push_back({tables, {}, {}});
      Step& step = steps_.back();
      // With room for both, neither can fail halfway.
      grow(step.symbols, s.size);
      grow(step.indexes, s.size);
      step.symbols.insert(step.symbols.end(), s.data, s.data + s.size);
      step.indexes.insert(step.indexes.end(), i.data, i.data + i.size);
    });
  }

  py::bytes flush() {
    return as_bytes(without_gil([&] {
      std::vector<Step> steps;
      {
        const std::lock_guard lock(mutex_);
        steps.swap(steps_);
      }
      size_t total = 0;
      for (const Step& step : steps) total += step.symbols.size();
      Writer writer(total);
      for (size_t k = steps.size(); k-- > 0;) {
        const Step& step = steps[k];
        ckbd::ans::encode(*step.tables, step.symbols.data(), step.indexes.data(), step.symbols.size(), writer);
      }
      return writer.finish();
    }));
  }

 private:
  struct Step {
    AnsTables tables;
    std::vector<int32_t> symbols, indexes;
  };
  static void grow(std::vector<int32_t>& list, size_t more) {
    if (list.capacity() - list.size() < more) list.reserve(std::max(2 * list.capacity(), list.size() + more));
  }

  std::mutex mutex_;
  std::vector<Step> steps_;
};

class Decoder {
 public:
  explicit Decoder(const py::object& stream) : stream_(bytes("stream", stream)) {
    try {
      reader_ = Reader(stream_.data, stream_.size);
    } catch (const ckbd::ans::Refused& refused) {
      raise_refused(refused);
    }
  }

  void decode(const Tables& tables, const py::object& indexes, const py::object& out) {
    const auto i = array<const int32_t>("indexes", indexes, {-1});
    const auto o = array<int32_t>("out", out, {i.view->shape[0]}, true);
    check_ans_apart("out", o, i);
    check_ans_apart("out", o, stream_);
    without_gil([&] {
      const std::lock_guard lock(mutex_);
      ckbd::ans::decode(tables, reader_, i.data, i.size, o.data);
    });
  }

 private:
  const Array<const uint8_t> stream_;
  std::mutex mutex_;
  Reader reader_;
};

}  // namespace

void bind_ans_stateful(py::module_& m) {
  Class<Encoder>(m, "Encoder")
      .init()
      .def("push", &Encoder::push, py::arg("tables"), py::arg("symbols"), py::arg("indexes"))
      .def("flush", &Encoder::flush);
  Class<Decoder>(m, "Decoder")
      .init<const py::object&>(py::arg("stream"))
      .def("decode", &Decoder::decode, py::arg("tables"), py::arg("indexes"), py::arg("out"));
}

}  // namespace ckbd_python
