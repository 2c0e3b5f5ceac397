// The classes and the function of CompressAI's own modules: same names, arguments and results, and what they take is
// what pybind11 turns into vectors. What upstream would read or write out of bounds is refused.
#include <pybind11/stl.h>

#include "bind_ans.h"

namespace ckbd_python {
namespace {

using ckbd::ans::Parts;
using ckbd::ans::Reader;
using ckbd::ans::Refused;
using ckbd::ans::Row;
using ckbd::ans::Tables;
using ckbd::ans::Writer;
using Ints = std::vector<int32_t>;
using Rows = std::vector<Ints>;

// Rows without a size or an offset cannot be used, so nobody is told unless he does.
std::vector<Row> rows_of(const Rows& cdfs, const Ints& sizes, const Ints& offsets) {
  std::vector<Row> rows;
  const size_t n = std::min({cdfs.size(), sizes.size(), offsets.size()});
  rows.reserve(n);
  for (size_t i = 0; i < n; ++i) rows.push_back({cdfs[i].data(), cdfs[i].size(), sizes[i], offsets[i]});
  return rows;
}

// Upstream looks at as many indexes as there are symbols.
void check_lengths(const Ints& symbols, const Ints& indexes) {
  if (indexes.size() < symbols.size()) {
    throw Refused("indexes", "expected " + std::to_string(symbols.size()) + ", one for each symbol, got " +
                                 std::to_string(indexes.size()));
  }
}

// Fast tables take their time to make, as much as some slow symbols.
bool many(size_t symbols, const std::vector<Row>& rows) {
  size_t entries = 0;
  for (const Row& row : rows) entries += row.usable() ? static_cast<size_t>(row.size) : 0;
  return entries <= symbols;
}

// push() of one call, in the order of reading.
void add_parts(std::vector<Parts>& parts, const Ints& symbols, const Ints& indexes, const std::vector<Row>& rows) {
  check_lengths(symbols, indexes);
  const size_t before = parts.size();
  try {
    for (size_t i = 0; i < symbols.size(); ++i) {
      ckbd::ans::check_index(rows.size(), indexes[i], i);
      parts.push_back(ckbd::ans::parts_of(rows[indexes[i]], symbols[i], i));
    }
  } catch (...) {
    parts.resize(before);
    throw;
  }
}

std::string written(const std::vector<Parts>& parts) {
  Writer writer(parts.size());
  for (size_t i = parts.size(); i-- > 0;) {
    writer.reserve(ckbd::ans::kMostWords);
    put(writer, parts[i]);
  }
  return writer.finish();
}

Ints read(Reader& reader, const Ints& indexes, const std::vector<Row>& rows) {
  Ints out(indexes.size());
  if (many(indexes.size(), rows)) {
    ckbd::ans::decode(Tables(rows), reader, indexes.data(), indexes.size(), out.data());
    return out;
  }
  Reader now = reader;
  for (size_t i = 0; i < indexes.size(); ++i) {
    ckbd::ans::check_index(rows.size(), indexes[i], i);
    out[i] = ckbd::ans::get(now, rows[indexes[i]], i);
  }
  reader = now;
  return out;
}

const uint8_t* data_of(const std::string& stream) { return reinterpret_cast<const uint8_t*>(stream.data()); }

// The GIL is kept, as upstream keeps it: it is what makes calls from several threads come one after another.
class BufferedRansEncoder {
 public:
  void encode_with_indexes(const Ints& symbols, const Ints& indexes, const Rows& cdfs, const Ints& sizes,
                           const Ints& offsets) {
    add_parts(parts_, symbols, indexes, rows_of(cdfs, sizes, offsets));
  }
  py::bytes flush() {
    const py::bytes stream = as_bytes(written(parts_));
    parts_.clear();
    return stream;
  }

 private:
  std::vector<Parts> parts_;
};

class RansEncoder {
 public:
  py::bytes encode_with_indexes(const Ints& symbols, const Ints& indexes, const Rows& cdfs, const Ints& sizes,
                                const Ints& offsets) const {
    const std::vector<Row> rows = rows_of(cdfs, sizes, offsets);
    if (many(symbols.size(), rows)) {
      check_lengths(symbols, indexes);
      Writer writer(symbols.size());
      ckbd::ans::encode(Tables(rows), symbols.data(), indexes.data(), symbols.size(), writer);
      return as_bytes(writer.finish());
    }
    std::vector<Parts> parts;
    add_parts(parts, symbols, indexes, rows);
    return as_bytes(written(parts));
  }
};

class RansDecoder {
 public:
  Ints decode_with_indexes(const std::string& encoded, const Ints& indexes, const Rows& cdfs, const Ints& sizes,
                           const Ints& offsets) const {
    Reader reader(data_of(encoded), encoded.size());
    return read(reader, indexes, rows_of(cdfs, sizes, offsets));
  }
  void set_stream(const std::string& encoded) {
    // Refused before anything changes.
    Reader(data_of(encoded), encoded.size());
    stream_ = encoded;
    reader_ = Reader(data_of(stream_), stream_.size());
  }
  Ints decode_stream(const Ints& indexes, const Rows& cdfs, const Ints& sizes, const Ints& offsets) {
    if (reader_.begin == nullptr) throw Refused("stream", "expected set_stream() before, got none");
    return read(reader_, indexes, rows_of(cdfs, sizes, offsets));
  }

 private:
  std::string stream_;
  Reader reader_;
};

}  // namespace

void bind_ans_compat(py::module_& m) {
  // Its text alone has no field's name.
  py::register_local_exception_translator([](std::exception_ptr thrown) {
    try {
      std::rethrow_exception(thrown);
    } catch (const Refused& refused) {
      PyErr_SetString(PyExc_ValueError, (std::string(refused.field) + ": " + refused.text).c_str());
    }
  });
  // Arguments have no names, as upstream's have none.
  py::class_<BufferedRansEncoder>(m, "BufferedRansEncoder")
      .def(py::init<>())
      .def("encode_with_indexes", &BufferedRansEncoder::encode_with_indexes)
      .def("flush", &BufferedRansEncoder::flush);
  py::class_<RansEncoder>(m, "RansEncoder")
      .def(py::init<>())
      .def("encode_with_indexes", &RansEncoder::encode_with_indexes);
  py::class_<RansDecoder>(m, "RansDecoder")
      .def(py::init<>())
      .def("set_stream", &RansDecoder::set_stream)
      .def("decode_stream", &RansDecoder::decode_stream)
      .def("decode_with_indexes", &RansDecoder::decode_with_indexes);
  m.def("pmf_to_quantized_cdf", &ckbd::ans::quantized_cdf);
}

}  // namespace ckbd_python
