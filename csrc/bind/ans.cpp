// The module ckbd._ans, which ckbd/_ans.pyi describes: Tables, and one stream or a batch of them.
#include "bind/ans.h"

#include "bind/batches.h"

namespace {

using namespace ckbd_python;
using ckbd::ans::Reader;
using ckbd::ans::Refused;
using ckbd::ans::Tables;
using ckbd::ans::Writer;

struct TableArrays {
  Array<const int32_t> cdfs, sizes, offsets;
  size_t n, m;
};

TableArrays table_arrays(const py::object& cdfs, const py::object& sizes, const py::object& offsets) {
  auto c = array<const int32_t>("cdfs", cdfs, {-1, -1});
  const py::ssize_t n = c.view->shape[0], m = c.view->shape[1];
  return {std::move(c), array<const int32_t>("sizes", sizes, {n}), array<const int32_t>("offsets", offsets, {n}),
          static_cast<size_t>(n), static_cast<size_t>(m)};
}

AnsTables make_tables(const py::object& cdfs, const py::object& sizes, const py::object& offsets) {
  const TableArrays from = table_arrays(cdfs, sizes, offsets);
  const WithoutGil released;
  return std::make_shared<Tables>(from.cdfs.data, from.n, from.m, from.sizes.data, from.offsets.data);
}

bool matches(const Tables& tables, const py::object& cdfs, const py::object& sizes, const py::object& offsets) {
  // Other shapes than those before are no error: the answer is no.
  const auto c = array<const int32_t>("cdfs", cdfs, {-1, -1});
  const auto s = array<const int32_t>("sizes", sizes, {-1});
  const auto o = array<const int32_t>("offsets", offsets, {-1});
  const size_t n = static_cast<size_t>(c.view->shape[0]), m = static_cast<size_t>(c.view->shape[1]);
  if (s.size != n || o.size != n) return false;
  const WithoutGil released;
  return tables.matches(c.data, n, m, s.data, o.data);
}

// ---- one stream

py::bytes encode(const Tables& tables, const py::object& symbols, const py::object& indexes) {
  const auto s = array<const int32_t>("symbols", symbols, {-1});
  const auto i = array<const int32_t>("indexes", indexes, {s.view->shape[0]});
  return as_bytes(without_gil([&] {
    Writer writer(s.size);
    ckbd::ans::encode(tables, s.data, i.data, s.size, writer);
    return writer.finish();
  }));
}

void decode(const Tables& tables, const py::object& stream, const py::object& indexes, const py::object& out) {
  const auto from = bytes("stream", stream);
  const auto i = array<const int32_t>("indexes", indexes, {-1});
  const auto o = array<int32_t>("out", out, {i.view->shape[0]}, true);
  check_ans_apart("out", o, i);
  check_ans_apart("out", o, from);
  without_gil([&] {
    Reader reader(from.data, from.size);
    ckbd::ans::decode(tables, reader, i.data, i.size, o.data);
  });
}

// ---- batches

// Runs task(b) for all b on threads; the first one's refusal is raised, with its place behind the argument's name.
template <class Task>
void run_batch(size_t count, size_t threads, Task task) {
  const std::vector<std::exception_ptr> errors = run_each(count, threads, task);
  for (size_t b = 0; b < count; ++b) {
    try {
      if (errors[b]) std::rethrow_exception(errors[b]);
    } catch (const Refused& refused) {
      const bool of_stream = std::string("stream") == refused.field;
      const std::string name = of_stream ? "streams" : refused.field;
      throw py::value_error(name + "[" + std::to_string(b) + "]: " + refused.text);
    }
  }
}

// B streams, each of n symbols: encode(b, writer).
template <class Encode>
py::list written(size_t count, size_t n, const py::object& threads, Encode encode) {
  std::vector<std::string> made(count);
  run_batch(count, threads_for(threads, count * n), [&](size_t b) {
    Writer writer(n);
    encode(b, writer);
    made[b] = writer.finish();
  });
  py::list out;
  for (const std::string& one : made) out.append(as_bytes(one));
  return out;
}

// The reverse: decode(b, reader). memory: the arguments, the first of which is written to, without the streams.
template <class Decode>
void read(size_t count, size_t n, const py::object& streams, Memory memory, const py::object& threads,
          Decode decode) {
  std::vector<Array<const uint8_t>> held;
  for (const py::object& one : items_of("streams", streams)) {
    held.push_back(bytes("streams[" + std::to_string(held.size()) + "]", one));
    memory.add(held.back());
  }
  if (held.size() != count) {
    refuse("streams", std::to_string(count) + ", one for each row of indexes", std::to_string(held.size()));
  }
  memory.check("out");
  run_batch(count, threads_for(threads, count * n), [&](size_t b) {
    Reader reader(held[b].data, held[b].size);
    decode(b, reader);
  });
}

struct Rows {
  size_t count, n;
  explicit Rows(const Py_buffer& view)
      : count(static_cast<size_t>(view.shape[0])), n(static_cast<size_t>(view.shape[1])) {}
};

// Or null, for None.
Array<const float> means_of(const py::object& means, const std::vector<py::ssize_t>& shape) {
  return means.is_none() ? Array<const float>{} : array<const float>("means", means, shape);
}

const float* row_of(const Array<const float>& means, size_t at) {
  return means.data == nullptr ? nullptr : means.data + at;
}

py::list encode_batch(const Tables& tables, const py::object& symbols, const py::object& indexes,
                      const py::object& threads) {
  const auto s = array<const int32_t>("symbols", symbols, {-1, -1});
  const auto i = array<const int32_t>("indexes", indexes, shape_of(*s.view));
  const Rows rows(*s.view);
  return written(rows.count, rows.n, threads, [&](size_t b, Writer& writer) {
    const size_t at = b * rows.n;
    ckbd::ans::encode(tables, s.data + at, i.data + at, rows.n, writer);
  });
}

void decode_batch(const Tables& tables, const py::object& streams, const py::object& indexes, const py::object& out,
                  const py::object& threads) {
  const auto i = array<const int32_t>("indexes", indexes, {-1, -1});
  const auto o = array<int32_t>("out", out, shape_of(*i.view), true);
  const Rows rows(*i.view);
  Memory memory;
  memory.add(o);
  memory.add(i);
  read(rows.count, rows.n, streams, std::move(memory), threads, [&](size_t b, Reader& reader) {
    const size_t at = b * rows.n;
    ckbd::ans::decode(tables, reader, i.data + at, rows.n, o.data + at);
  });
}

py::list encode_latents(const Tables& tables, const py::object& x, const py::object& means,
                        const py::object& indexes, const py::object& threads) {
  const auto from = array<const float>("x", x, {-1, -1});
  const auto m = means_of(means, shape_of(*from.view));
  const auto i = array<const int32_t>("indexes", indexes, shape_of(*from.view));
  const Rows rows(*from.view);
  return written(rows.count, rows.n, threads, [&](size_t b, Writer& writer) {
    const size_t at = b * rows.n;
    ckbd::ans::encode(tables, from.data + at, row_of(m, at), i.data + at, rows.n, writer);
  });
}

void decode_latents(const Tables& tables, const py::object& streams, const py::object& indexes,
                    const py::object& means, const py::object& out, const py::object& threads) {
  const auto i = array<const int32_t>("indexes", indexes, {-1, -1});
  const auto m = means_of(means, shape_of(*i.view));
  const auto o = array<float>("out", out, shape_of(*i.view), true);
  const Rows rows(*i.view);
  Memory memory;
  memory.add(o);
  memory.add(i);
  if (m.data != nullptr) memory.add(m);
  read(rows.count, rows.n, streams, std::move(memory), threads, [&](size_t b, Reader& reader) {
    const size_t at = b * rows.n;
    ckbd::ans::decode(tables, reader, i.data + at, rows.n, row_of(m, at), o.data + at);
  });
}

// ---- a row for each symbol

py::bytes encode_rows(const py::object& cdfs, const py::object& symbols) {
  const auto s = array<const int32_t>("symbols", symbols, {-1});
  const auto c = array<const int32_t>("cdfs", cdfs, {s.view->shape[0], -1});
  const size_t m = static_cast<size_t>(c.view->shape[1]);
  const auto parts = [&](size_t i) {
    return ckbd::ans::parts_of({c.data + i * m, m, static_cast<int32_t>(m), 0}, s.data[i], i);
  };
  return as_bytes(without_gil([&] {
    Writer writer(s.size);
    try {
      for (size_t i = s.size; i-- > 0;) {
        writer.reserve(ckbd::ans::kMostWords);
        put(writer, parts(i));
      }
    } catch (const Refused&) {
      // It came from the end. The first one is what to tell.
      for (size_t i = 0; i < s.size; ++i) parts(i);
      throw;
    }
    return writer.finish();
  }));
}

void decode_rows(const py::object& cdfs, const py::object& stream, const py::object& out) {
  const auto from = bytes("stream", stream);
  const auto o = array<int32_t>("out", out, {-1}, true);
  const auto c = array<const int32_t>("cdfs", cdfs, {o.view->shape[0], -1});
  const size_t m = static_cast<size_t>(c.view->shape[1]);
  check_ans_apart("out", o, c);
  check_ans_apart("out", o, from);
  without_gil([&] {
    Reader reader(from.data, from.size);
    for (size_t i = 0; i < o.size; ++i) {
      o.data[i] = get(reader, {c.data + i * m, m, static_cast<int32_t>(m), 0}, i);
    }
  });
}

}  // namespace

PYBIND11_MODULE(_ans, m) {
  m.doc() = "The entropy coder of CompressAI's streams; ckbd/_ans.pyi describes it.";
  Class<Tables, AnsTables>(m, "Tables")
      .init_by(&make_tables, py::arg("cdfs"), py::arg("sizes"), py::arg("offsets"))
      .def("matches", &matches, py::arg("cdfs"), py::arg("sizes"), py::arg("offsets"));
  m.def("encode", &encode, py::arg("tables"), py::arg("symbols"), py::arg("indexes"));
  m.def("decode", &decode, py::arg("tables"), py::arg("stream"), py::arg("indexes"), py::arg("out"));
  m.def("encode_batch", &encode_batch, py::arg("tables"), py::arg("symbols"), py::arg("indexes"), py::kw_only(),
        py::arg("threads") = py::none());
  m.def("decode_batch", &decode_batch, py::arg("tables"), py::arg("streams"), py::arg("indexes"), py::arg("out"),
        py::kw_only(), py::arg("threads") = py::none());
  m.def("encode_latents", &encode_latents, py::arg("tables"), py::arg("x"), py::arg("means"), py::arg("indexes"),
        py::kw_only(), py::arg("threads") = py::none());
  m.def("decode_latents", &decode_latents, py::arg("tables"), py::arg("streams"), py::arg("indexes"),
        py::arg("means"), py::arg("out"), py::kw_only(), py::arg("threads") = py::none());
  m.def("encode_rows", &encode_rows, py::arg("cdfs"), py::arg("symbols"));
  m.def("decode_rows", &decode_rows, py::arg("cdfs"), py::arg("stream"), py::arg("out"));
  bind_ans_stateful(m);
  bind_ans_quantize(m);
  bind_ans_compat(m);
}
