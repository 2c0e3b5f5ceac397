// The classes and the function of CompressAI's own modules: same names, arguments and results, and what they take is
// what its pybind11 turns into vectors. What upstream would read or write out of bounds is refused.
#include "bind/ans_lists.h"

#include <pybind11/stl.h>

namespace ckbd_python {
namespace {

using ckbd::ans::Parts;
using ckbd::ans::Reader;
using ckbd::ans::Refused;
using ckbd::ans::Row;
using ckbd::ans::Writer;

// Upstream looks at as many indexes as there are symbols.
void check_lengths(const Ints& symbols, const Ints& indexes) {
  if (indexes.size() < symbols.size()) {
    throw Refused("indexes", "expected " + std::to_string(symbols.size()) + ", one for each symbol, got " +
                                 std::to_string(indexes.size()));
  }
}

// push() of one call, in the order of reading.
void add_parts(std::vector<Parts>& parts, const Ints& symbols, const Ints& indexes, const std::vector<Row>& rows) {
  check_lengths(symbols, indexes);
  const size_t before = parts.size();
  try {
    for (size_t i = 0; i < symbols.size(); ++i) {
      const Row& row = rows[ckbd::ans::index_of(indexes.data(), i, rows.size())];
      parts.push_back(ckbd::ans::parts_of(row, symbols[i], i));
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

Ints read(Reader& reader, const Ints& indexes, const KeptTables::View& tables) {
  Ints out(indexes.size());
  if (tables.fast) {
    ckbd::ans::decode(*tables.fast, reader, indexes.data(), indexes.size(), out.data());
    return out;
  }
  Reader now = reader;
  for (size_t i = 0; i < indexes.size(); ++i) {
    out[i] = ckbd::ans::get(now, tables.rows[ckbd::ans::index_of(indexes.data(), i, tables.rows.size())], i);
  }
  reader = now;
  return out;
}

const uint8_t* data_of(const std::string& stream) { return reinterpret_cast<const uint8_t*>(stream.data()); }

// The GIL is kept, as upstream keeps it: it is what makes calls from several threads come one after another.
class BufferedRansEncoder {
 public:
  void encode_with_indexes(const py::object& symbols, const py::object& indexes, const py::object& cdfs,
                           const py::object& sizes, const py::object& offsets) {
    const Ints s = ints_of("symbols", symbols), i = ints_of("indexes", indexes);
    add_parts(parts_, s, i, tables_.take(cdfs, sizes, offsets, 0).rows);
  }
  py::bytes flush() {
    const py::bytes stream = as_bytes(written(parts_));
    parts_.clear();
    return stream;
  }

 private:
  std::vector<Parts> parts_;
  KeptTables tables_;
};

class RansEncoder {
 public:
  py::bytes encode_with_indexes(const py::object& symbols, const py::object& indexes, const py::object& cdfs,
                                const py::object& sizes, const py::object& offsets) {
    const Ints s = ints_of("symbols", symbols), i = ints_of("indexes", indexes);
    const KeptTables::View tables = tables_.take(cdfs, sizes, offsets, s.size());
    if (tables.fast) {
      check_lengths(s, i);
      Writer writer(s.size());
      ckbd::ans::encode(*tables.fast, s.data(), i.data(), s.size(), writer);
      return as_bytes(writer.finish());
    }
    std::vector<Parts> parts;
    add_parts(parts, s, i, tables.rows);
    return as_bytes(written(parts));
  }

 private:
  KeptTables tables_;
};

class RansDecoder {
 public:
  Ints decode_with_indexes(const std::string& encoded, const py::object& indexes, const py::object& cdfs,
                           const py::object& sizes, const py::object& offsets) {
    const Ints i = ints_of("indexes", indexes);
    const KeptTables::View tables = tables_.take(cdfs, sizes, offsets, i.size());
    Reader reader(data_of(encoded), encoded.size());
    return read(reader, i, tables);
  }
  void set_stream(const std::string& encoded) {
    // Refused before anything changes.
    Reader(data_of(encoded), encoded.size());
    stream_ = encoded;
    reader_ = Reader(data_of(stream_), stream_.size());
  }
  Ints decode_stream(const py::object& indexes, const py::object& cdfs, const py::object& sizes,
                     const py::object& offsets) {
    const Ints i = ints_of("indexes", indexes);
    const KeptTables::View tables = tables_.take(cdfs, sizes, offsets, i.size());
    if (reader_.begin == nullptr) throw Refused("stream", "expected set_stream() before, got none");
    return read(reader_, i, tables);
  }

 private:
  std::string stream_;
  Reader reader_;
  KeptTables tables_;
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
  Class<BufferedRansEncoder>(m, "BufferedRansEncoder")
      .init()
      .def("encode_with_indexes", &BufferedRansEncoder::encode_with_indexes)
      .def("flush", &BufferedRansEncoder::flush);
  Class<RansEncoder>(m, "RansEncoder")
      .init()
      .def("encode_with_indexes", &RansEncoder::encode_with_indexes);
  Class<RansDecoder>(m, "RansDecoder")
      .init()
      .def("set_stream", &RansDecoder::set_stream)
      .def("decode_stream", &RansDecoder::decode_stream)
      .def("decode_with_indexes", &RansDecoder::decode_with_indexes);
  m.def("pmf_to_quantized_cdf", [](const py::object& pmf, int precision) {
    const std::vector<float> floats = floats_of("pmf", pmf);
    const WithoutGil released;
    return ckbd::ans::quantized_cdf(floats, precision);
  });
}

}  // namespace ckbd_python
