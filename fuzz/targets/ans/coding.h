// Streams written and read in every way that csrc/ans/ has, which must all be the twin's.
#pragma once

#include <cstring>
#include <optional>

#include "ans/rows.h"

namespace ckbd::fuzz {

using ckbd::ans::Reader;
using ckbd::ans::Refused;
using ckbd::ans::Writer;

// The bytes, or which argument was refused, and how.
struct Written {
  std::vector<uint8_t> stream;
  std::string field, text;
  bool operator==(const Written& other) const {
    return stream == other.stream && field == other.field && text == other.text;
  }
};

template <class Write>
Written written(Write write) {
  try {
    const std::string bytes = write();
    return {{bytes.begin(), bytes.end()}, "", ""};
  } catch (const Refused& refused) {
    return {{}, refused.field, refused.text};
  }
}

inline std::string told(const std::string& field, const std::string& text) {
  return field.empty() ? "nothing refused" : field + ": " + text;
}

inline void check_refusal(const std::string& twin, const std::string& field, const std::string& text) {
  if (twin == field) return;
  fail("the twin refuses ", twin.empty() ? "nothing" : twin, ", the product: ", told(field, text));
}

// Pieces of so many, from the first or from the last on: call(begin, size).
template <class Call>
void in_pieces(size_t n, size_t piece, bool backwards, Call call) {
  const size_t count = (n + piece - 1) / piece;
  for (size_t k = 0; k < count; ++k) {
    const size_t begin = piece * (backwards ? count - 1 - k : k);
    call(begin, std::min(piece, n - begin));
  }
}

// ---- writing

inline Written write_by_twin(const Rows& rows, const Exact<int32_t>& symbols, const Exact<int32_t>& indexes) {
  try {
    return {plain::encode(rows.plain(), {symbols.data(), symbols.data() + symbols.size()},
                          {indexes.data(), indexes.data() + indexes.size()}),
            "", ""};
  } catch (const plain::Refusal& refusal) {
    return {{}, refusal.field, ""};
  }
}

// In every way, of integers. What they make of it is what is right for floats too.
inline Written write_everywhere(const AnsHeader& header, const Rows& rows, const Exact<int32_t>& symbols,
                                const Exact<int32_t>& indexes) {
  const size_t n = symbols.size();
  const auto& tables = rows.tables();
  Writer again(header.seed % 2 == 0 ? n : 0);
  const auto whole = [&] {
    ckbd::ans::encode(tables, symbols.data(), indexes.data(), n, again);
    return again.finish();
  };
  const Written made = written(whole);
  const auto check = [&](const char* way, const Written& other) {
    if (other.field != made.field || other.text != made.text) {
      fail(way, ": ", told(other.field, other.text), "; in one call: ", told(made.field, made.text));
    }
    if (other.stream != made.stream) fail(way, " writes other bytes");
  };
  const Written twin = write_by_twin(rows, symbols, indexes);
  check_refusal(twin.field, made.field, made.text);
  if (twin.stream != made.stream) fail("the twin writes other bytes");
  if (made.field.empty()) check("a writer that begins anew", written(whole));

  const Written checked = written([&] {
    ckbd::ans::check(tables, symbols.data(), indexes.data(), n);
    return std::string();
  });
  if (checked.field != made.field || checked.text != made.text) {
    fail("check(): ", told(checked.field, checked.text), ", not ", told(made.field, made.text));
  }
  check("symbol by symbol", written([&] {
    std::vector<ckbd::ans::Parts> parts;
    for (size_t i = 0; i < n; ++i) {
      const auto& row = rows.rows()[ckbd::ans::index_of(indexes.data(), i, rows.count())];
      parts.push_back(ckbd::ans::parts_of(row, symbols[i], i));
    }
    Writer writer(header.seed % 3 == 0 ? 0 : n);
    for (size_t i = n; i-- > 0;) {
      writer.reserve(ckbd::ans::kMostWords);
      put(writer, parts[i]);
    }
    return writer.finish();
  }));
  // Numbers of symbols count from a piece's own beginning, so texts may differ.
  const Written pieces = written([&] {
    in_pieces(n, header.piece, false, [&](size_t begin, size_t size) {
      ckbd::ans::check(tables, symbols.data() + begin, indexes.data() + begin, size);
    });
    Writer writer(n);
    in_pieces(n, header.piece, true, [&](size_t begin, size_t size) {
      ckbd::ans::encode(tables, symbols.data() + begin, indexes.data() + begin, size, writer);
    });
    return writer.finish();
  });
  if (pieces.field != made.field) fail("in pieces: ", told(pieces.field, pieces.text));
  if (pieces.stream != made.stream) fail("in pieces other bytes are written");
  return made;
}

inline void write_floats(const Rows& rows, const Exact<float>& x, const float* means, const Exact<int32_t>& indexes,
                         const Written& expected) {
  const Written made = written([&] {
    Writer writer(x.size());
    ckbd::ans::encode(rows.tables(), x.data(), means, indexes.data(), x.size(), writer);
    return writer.finish();
  });
  if (!(made == expected)) {
    fail("floats: ", told(made.field, made.text), "; integers: ", told(expected.field, expected.text));
  }
}

// ---- reading

// The symbols, or which argument was refused, and how. Where the reader is then.
struct Read {
  std::vector<int32_t> symbols;
  std::string field, text;
  Reader reader;
};

template <class Call>
Read read(const Exact<uint8_t>& stream, Exact<int32_t>& out, Call call) {
  Read made;
  try {
    made.reader = Reader(stream.data(), stream.size());
    call(made.reader);
    made.symbols.assign(out.data(), out.data() + out.size());
  } catch (const Refused& refused) {
    made.field = refused.field;
    made.text = refused.text;
  }
  out.check_lead();
  return made;
}

inline void check_by_twin(const Rows& rows, const Exact<uint8_t>& stream, const Exact<int32_t>& indexes,
                          const Read& made) {
  std::vector<int32_t> symbols;
  std::string field;
  std::optional<plain::Decoder> decoder;
  try {
    decoder.emplace(std::vector<uint8_t>(stream.data(), stream.data() + stream.size()));
    for (size_t i = 0; i < indexes.size(); ++i) {
      symbols.push_back(decoder->symbol(plain::pick(rows.plain(), indexes[i])));
    }
  } catch (const plain::Refusal& refusal) {
    field = refusal.field;
    symbols.clear();
  }
  check_refusal(field, made.field, made.text);
  if (symbols != made.symbols) fail("the twin reads other symbols");
  if (!field.empty()) return;
  const auto at = static_cast<size_t>(made.reader.at - made.reader.begin);
  if (decoder->state != made.reader.state || decoder->at != at) fail("the twin is elsewhere after reading");
}

inline bool same_place(const Reader& a, const Reader& b) { return a.state == b.state && a.at == b.at; }

// As floats, which are the symbols that were read, and what is refused is the same.
inline void read_floats(const Rows& rows, const Exact<uint8_t>& stream, const Exact<int32_t>& indexes,
                        const float* means, size_t lead, const Read& expected) {
  const size_t n = indexes.size();
  const Exact<float> out(n, lead, 0);
  Exact<int32_t> none(0, 0, 0);
  const Read made = read(stream, none, [&](Reader& reader) {
    ckbd::ans::decode(rows.tables(), reader, indexes.data(), n, means, out.data());
  });
  out.check_lead();
  if (made.field != expected.field || made.text != expected.text) {
    fail("as floats: ", told(made.field, made.text), ", not ", told(expected.field, expected.text));
  }
  if (!same_place(made.reader, expected.reader)) fail("reading as floats ends elsewhere");
  if (!made.field.empty()) return;
  for (size_t i = 0; i < n; ++i) {
    const auto symbol = static_cast<float>(expected.symbols[i]);
    const float right = means == nullptr ? symbol : symbol + means[i];
    if (!(out[i] == right || (std::isnan(out[i]) && std::isnan(right)))) fail("as floats other symbols are read");
  }
}

inline Read read_everywhere(const AnsHeader& header, const Rows& rows, const Exact<uint8_t>& stream,
                            const Exact<int32_t>& indexes, const float* means) {
  const size_t n = indexes.size();
  const auto& tables = rows.tables();
  Exact<int32_t> out(n, header.lead, 0);
  const Read made = read(stream, out, [&](Reader& reader) {
    ckbd::ans::decode(tables, reader, indexes.data(), n, out.data());
  });
  if (!made.field.empty() && made.reader.begin != nullptr) {
    if (!same_place(made.reader, Reader(stream.data(), stream.size()))) fail("what is refused moves the reader");
  }
  check_by_twin(rows, stream, indexes, made);
  const auto check = [&](const char* way, const Read& other, bool texts) {
    if (other.field != made.field || (texts && other.text != made.text)) {
      fail(way, ": ", told(other.field, other.text), "; in one call: ", told(made.field, made.text));
    }
    if (other.symbols != made.symbols) fail(way, " other symbols are read");
    if (made.field.empty() && !same_place(other.reader, made.reader)) fail(way, ": the reader is elsewhere");
  };
  size_t before = 0;  // symbols that can be read
  Reader last;
  check("symbol by symbol", read(stream, out, [&](Reader& reader) {
    for (; before < n; ++before) {
      last = reader;
      const auto& row = rows.rows()[ckbd::ans::index_of(indexes.data(), before, rows.count())];
      out[before] = ckbd::ans::get(reader, row, before);
    }
  }), true);
  for (const size_t piece : {header.piece, size_t{1}}) {
    const Exact<int32_t> slow = std::exchange(out, Exact<int32_t>(n, header.lead, 0));
    const Read pieces = read(stream, out, [&](Reader& reader) {
      in_pieces(n, piece, false, [&](size_t begin, size_t size) {
        ckbd::ans::decode(tables, reader, indexes.data() + begin, size, out.data() + begin);
      });
    });
    check("in pieces", pieces, false);
    // All pieces before the one that is refused have been read, and the reader stands there.
    if (pieces.reader.begin == nullptr || pieces.field.empty()) continue;
    if (!std::equal(slow.data(), slow.data() + before / piece * piece, out.data())) {
      fail("in pieces other symbols are read before the one that is refused");
    }
    if (piece == 1 && !same_place(pieces.reader, last)) fail("a refused step moves the reader");
  }
  read_floats(rows, stream, indexes, nullptr, header.lead, made);
  if (means != nullptr) read_floats(rows, stream, indexes, means, header.lead, made);
  return made;
}

}  // namespace ckbd::fuzz
