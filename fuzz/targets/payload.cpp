// Coverage-guided fuzzing of the entropy coder: whatever the bytes, all coders must do the same with them.
//
// An input is a Header, the table indices that it says are written out, and what its mode asks for:
//   raw     the payload as it is.
//   parts   numbers of which a payload is put together. Bytes as they come nearly always end in the lists, this way
//           the lists can be read and the symbols are reached.
//   encode  what symbols are made of. All encoders must agree, all decoders must give the symbols back, and then the
//           payload is damaged as the header says.
// Input that is too short goes on with zeros.
#include <algorithm>
#include <type_traits>

#include "payload/damage.h"
#include "payload/decoding.h"
#include "payload/encoding.h"
#include "payload/header.h"
#include "tables.h"

using namespace ckbd::fuzz;

namespace {

using ckbd::Coder;
using ckbd::Tables;

Stream stream_of(const Tables& tables, std::shared_ptr<const Indices> k, const ckbd::Encoded& made, size_t n_z,
                 size_t lead) {
  return {tables, std::move(k), Exact<uint8_t>(made.payload, lead), made.lanes_log2, made.skip_max,
          static_cast<uint32_t>(made.tail), n_z, lead};
}

Known make_partner(const Tables& tables, std::vector<size_t> sizes, size_t sites, ckbd::Choice choice) {
  Random random(sizes.size());
  auto k = std::make_shared<Indices>();
  for (const size_t n : sizes) {
    Exact<uint8_t>& one = k->emplace_back(n, 0, 0);
    for (size_t i = n > 8000 ? 8000 : 0; i < n; ++i) one[i] = static_cast<uint8_t>(random.below(ckbd::kScales));
  }
  std::vector<uint8_t> bytes;
  for (int i = 0; i < 1000; ++i) bytes.push_back(static_cast<uint8_t>(random.next()));
  Source source(std::move(bytes));
  const auto symbols = make_symbols<int8_t>(tables, sites * tables.channels(), *k, 4, 0, source);
  const Coder& plain = *ckbd::coders()[0];
  const ckbd::Encoded made = encode_with(plain, tables, symbols, *k, choice);
  Stream stream = stream_of(tables, k, made, symbols.z.size(), 0);
  auto as8 = decode_alone<int8_t>(plain, stream, 1, false);
  auto as16 = decode_alone<int16_t>(plain, stream, 2, false);
  check_symbols(as8, symbols);
  return {std::move(stream), std::move(as8), std::move(as16)};
}

// Symbols that fit into the smaller type are the same in the larger.
void check_same_values(const Outcome<int16_t>& a, const Outcome<int8_t>& b) {
  bool same = a.error == b.error && a.z == b.z;
  for (size_t p = 0; p < a.r.size(); ++p) {
    same &= std::equal(a.r[p].data(), a.r[p].data() + a.r[p].size(), b.r[p].data());
  }
  if (!same) fail("what was encoded is decoded to something else as int16");
}

template <class R>
void code_and_damage(const Header& header, const Tables& tables, std::shared_ptr<const Indices> k, size_t n_z,
                     Input& in) {
  using Other = std::conditional_t<sizeof(R) == 1, int16_t, int8_t>;
  Source source(in.rest());
  const Symbols<R> symbols = make_symbols<R>(tables, n_z, *k, header.skip_max, header.lead, source);
  const ckbd::Choice choice{header.own_lanes ? -1 : header.lanes_log2, header.own_skip ? -1 : header.skip_max};
  if (header.bad_index) check_refused(tables, symbols, *k, choice);
  const ckbd::Encoded made = encode_everywhere(tables, symbols, *k, choice);
  Stream stream = stream_of(tables, k, made, n_z, header.lead);
  Outcome<R> found = decode_everywhere<R>(header, stream, partners[header.tables][header.partner], header.bad_index);
  check_symbols(found, symbols);

  std::vector<uint8_t> payload = made.payload;
  Stream damaged = stream_of(tables, k, made, n_z, header.lead);
  damage(header, payload, damaged);
  damaged.payload = Exact<uint8_t>(payload, header.lead);
  Outcome<Other> other = decode_alone<Other>(*ckbd::coders()[0], stream, 3, false);
  const auto decode_both = [&](const Known& known) {
    if (header.other_type) {
      decode_everywhere<Other>(header, damaged, known, false);
    } else {
      decode_everywhere<R>(header, damaged, known, false);
    }
  };
  if constexpr (sizeof(R) == 1) {
    check_same_values(other, found);
    decode_both({std::move(stream), std::move(found), std::move(other)});
  } else {
    decode_both({std::move(stream), std::move(other), std::move(found)});
  }
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  all_tables = make_all_tables();
  for (const auto& tables : all_tables) {
    std::vector<Known>& row = partners.emplace_back();
    const size_t sites = 1 + 40 / tables->channels();
    row.push_back(make_partner(*tables, {150, 140}, sites, {5, 1}));
    row.push_back(make_partner(*tables, {70, 130, 40}, sites, {2, 0}));
    row.push_back(make_partner(*tables, {8192 + 100}, sites, {5, 4}));
    row.push_back(make_partner(*tables, {0, 3}, 0, {0, 15}));
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input in(data, size);
  const Header header(in);
  const Tables& tables = *all_tables[header.tables];
  const size_t n_z = tables.channels() * (header.sites % (1 + kMostZ / tables.channels()));
  auto k = std::make_shared<Indices>();
  for (int p = 0; p < header.phases; ++p) k->push_back(make_k(header, header.phase[p], in));
  if (header.mode == kEncode) {
    if (header.narrow_type) {
      code_and_damage<int8_t>(header, tables, k, n_z, in);
    } else {
      code_and_damage<int16_t>(header, tables, k, n_z, in);
    }
    return 0;
  }
  const std::vector<uint8_t> payload = header.mode == kRaw ? in.rest() : put_together(header, in);
  const Stream stream = {tables, k, Exact<uint8_t>(payload, header.lead), header.lanes_log2, header.skip_max,
                         header.tail, n_z, header.lead};
  const Known& partner = partners[header.tables][header.partner];
  if (header.narrow_type) {
    decode_everywhere<int8_t>(header, stream, partner, header.bad_index);
  } else {
    decode_everywhere<int16_t>(header, stream, partner, header.bad_index);
  }
  return 0;
}
