// Symbols made of an input's bytes, and what all encoders make of them.
#pragma once

#include "payload/decoding.h"

namespace ckbd::fuzz {

template <class R>
struct Symbols {
  Exact<int16_t> z;
  std::vector<Exact<R>> r;
};

class Source : public Bytes {
 public:
  explicit Source(std::vector<uint8_t> bytes) : Bytes(std::move(bytes), 1) {}
  // A symbol where 0 is the commonest and those from `escape` on in size are escapes.
  int symbol(int escape) {
    const uint8_t kind = next();
    const int sign = kind & 1 ? -1 : 1;
    if (kind < 96) return 0;
    if (kind < 160) return sign;
    if (kind < 224) return sign * (next() % (escape + 1));
    if (kind < 246) return sign * (escape - 1 + next() % 3);
    if (kind < 252) return static_cast<int8_t>(next());
    if (kind < 254) return word();
    constexpr int kEnds[] = {INT16_MIN, INT16_MAX, INT16_MIN + 1, INT8_MIN, INT8_MAX, INT8_MIN + 1};
    return kEnds[next() % std::size(kEnds)];
  }
};

// Of elements up to skip_max most are 0, as an exception costs more than a symbol.
template <class R>
Symbols<R> make_symbols(const Tables& tables, size_t n_z, const Indices& ks, int skip_max, size_t lead,
                        Source& source) {
  const ckbd::TableView& view = tables.view();
  Symbols<R> symbols{Exact<int16_t>(n_z, lead, 0), {}};
  for (size_t i = 0; i < n_z; ++i) {
    const size_t c = i % tables.channels();
    symbols.z[i] = static_cast<int16_t>(view.by_channel.low[c] + source.symbol(view.by_channel.escape[c]));
  }
  for (const auto& k : ks) {
    Exact<R>& r = symbols.r.emplace_back(k.size(), lead, 0);
    for (size_t i = 0; i < k.size(); ++i) {
      if (k[i] > skip_max || source.next() >= 224) r[i] = static_cast<R>(source.symbol(view.y_escape[k[i]]));
    }
  }
  return symbols;
}

template <class R>
ckbd::Encoded encode_with(const Coder& coder, const Tables& tables, const Symbols<R>& symbols, const Indices& ks,
                          ckbd::Choice choice) {
  std::vector<ckbd::Phase<R>> phases;
  for (size_t p = 0; p < ks.size(); ++p) phases.push_back({ks[p].data(), symbols.r[p].data(), ks[p].size()});
  return ckbd::encode(coder, tables, symbols.z.data(), symbols.z.size(), phases, choice);
}

// By every coder, and from the larger type too.
template <class R>
ckbd::Encoded encode_everywhere(const Tables& tables, const Symbols<R>& symbols, const Indices& ks,
                                ckbd::Choice choice) {
  const auto& coders = ckbd::coders();
  const ckbd::Encoded made = encode_with(*coders[0], tables, symbols, ks, choice);
  const auto check = [&](const std::string& name, const ckbd::Encoded& other) {
    if (other.lanes_log2 != made.lanes_log2) fail(name, " encodes with another number of lanes");
    if (other.skip_max != made.skip_max) fail(name, " encodes with another skip_max");
    if (other.tail != made.tail) fail(name, " encodes with another tail");
    if (other.payload != made.payload) fail(name, " encodes to other bytes");
  };
  for (size_t i = 1; i < coders.size(); ++i) {
    check(coders[i]->name, encode_with(*coders[i], tables, symbols, ks, choice));
  }
  if constexpr (sizeof(R) == 1) {
    Symbols<int16_t> wide{Exact<int16_t>(symbols.z.size(), 0, 0), {}};
    std::copy_n(symbols.z.data(), symbols.z.size(), wide.z.data());
    for (const auto& r : symbols.r) {
      std::copy_n(r.data(), r.size(), wide.r.emplace_back(r.size(), 0, 0).data());
    }
    for (const Coder* coder : coders) {
      check(std::string(coder->name) + " from int16", encode_with(*coder, tables, wide, ks, choice));
    }
  }
  return made;
}

template <class R>
void check_refused(const Tables& tables, const Symbols<R>& symbols, const Indices& ks, ckbd::Choice choice) {
  if (ks.back().size() == 0) return;
  const WrongIndices wrong(ks.back());
  std::vector<ckbd::Phase<R>> phases;
  for (size_t p = 0; p < ks.size(); ++p) phases.push_back({ks[p].data(), symbols.r[p].data(), ks[p].size()});
  phases.back().k = wrong.data();
  for (const Coder* coder : ckbd::coders()) {
    wrong.check_refused(
        [&] { ckbd::encode(*coder, tables, symbols.z.data(), symbols.z.size(), phases, choice); });
  }
}

template <class R>
void check_symbols(const Outcome<R>& outcome, const Symbols<R>& symbols) {
  if (!outcome.error.empty()) fail("what was encoded is refused: ", outcome.error);
  if (!(outcome.z == symbols.z) || !(outcome.r == symbols.r)) fail("what was encoded is decoded to something else");
}

}  // namespace ckbd::fuzz
