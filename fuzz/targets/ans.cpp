// Coverage-guided fuzzing of CompressAI's coder: every way in and out, and the twin of ans/plain.h, must do the same.
//
// An input is an AnsHeader, rows, table indexes, and what its mode asks for:
//   raw     a stream as it is.
//   steps   slots and digits of which a stream is put together, among them more digits than a number has.
//   ints    what symbols are made of. They are written and read, and then the stream is damaged as the header says.
//   floats  the same of latents, with means or without.
//   pmf     probabilities that become a row.
//   scales  a table and scales that become indexes.
// Input that is too short goes on with zeros in the header, and behind it with what its seed makes.
#include "ans/coding.h"
#include "ans/floats.h"
#include "ans/header.h"
#include "ans/rows.h"

using namespace ckbd::fuzz;

namespace {

int32_t make_symbol(const plain::Table* table, Source& in) {
  if (table == nullptr) return in.any();
  const int64_t escape = std::max(table->size, 2) - 2;
  const uint32_t code = in.kind();
  int64_t value;
  if (code < 150) {
    value = in.number(1) % (escape + 1);
  } else if (code < 190) {
    value = escape / 2 + static_cast<int64_t>(code) - 170;
  } else if (code < 215) {
    value = escape - 2 + code % 5;
  } else if (code < 250) {  // so far outside, either side, about 2^27 too
    const int64_t far = (int64_t{1} << code % 30) - 2 + in.number(1) % 4;
    value = code % 2 == 0 ? escape + far : -far;
  } else {
    return in.any();
  }
  return plain::int32(value + table->offset);
}

const plain::Table* table_of(const Rows& rows, int32_t index) {
  return static_cast<size_t>(static_cast<uint32_t>(index)) < rows.count() ? &rows.plain()[index] : nullptr;
}

bool all_give_back(const Rows& rows, const Exact<int32_t>& indexes) {
  for (size_t i = 0; i < indexes.size(); ++i) {
    if (!plain::gives_back(rows.plain()[indexes[i]])) return false;
  }
  return true;
}

// Slots, digits and how many of them as the input has them, whatever they mean.
std::vector<uint8_t> put_together(const Rows& rows, const Exact<int32_t>& indexes, Source& in) {
  std::vector<plain::Step> steps;
  for (size_t i = 0; i < indexes.size(); ++i) {
    const plain::Table* const table = table_of(rows, indexes[i]);
    if (table == nullptr || table->size < 2 || static_cast<size_t>(table->size) > table->entries.size()) continue;
    const auto escape = static_cast<size_t>(table->size) - 2;
    const uint32_t code = in.number(1);
    const size_t slot = code < 128 ? escape : in.below(escape + 1);
    const int64_t freq = int64_t{table->entries[slot + 1]} - table->entries[slot];
    if (freq <= 0 || freq % plain::kTwo16 == 0) continue;
    steps.push_back({plain::modulo(table->entries[slot], plain::kTwo16), freq % plain::kTwo16, 16});
    if (slot != escape) continue;
    const uint32_t count = code < 64 ? code % 16 : code % 9, raw = in.number(4);
    steps.push_back({count, 1, 4});
    for (uint32_t j = 0; j < count; ++j) steps.push_back({raw >> 4 * (j % 8) & 15, 1, 4});
  }
  return plain::write(steps);
}

struct Latents {
  Exact<float> x, means;
};

// Most are near a symbol, or between two.
Latents make_latents(const AnsHeader& header, const Rows& rows, const Exact<int32_t>& indexes, Source& in) {
  Latents made{Exact<float>(header.n, header.lead, 0), Exact<float>(header.n, header.lead, 0)};
  for (size_t i = 0; i < header.n; ++i) {
    const uint32_t code = in.kind();
    made.means[i] = code < 180 ? static_cast<float>(code % 30) / 8 : any_float(in);
    const auto symbol = static_cast<float>(make_symbol(table_of(rows, indexes[i]), in));
    made.x[i] = code >= 220 ? any_float(in) : symbol + static_cast<float>(code % 9) / 8 - 0.5f;
    if (header.means && code % 2 == 0) made.x[i] += made.means[i];
  }
  return made;
}

void code_and_damage(const AnsHeader& header, const Rows& rows, const Exact<int32_t>& indexes, Source& in) {
  const bool floats = header.mode == kFloats || header.mode == kMoreFloats;
  std::optional<Latents> latents;
  const float* means = nullptr;
  Exact<int32_t> symbols(header.n, header.lead, 0);
  if (floats) {
    latents = make_latents(header, rows, indexes, in);
    if (header.means) means = latents->means.data();
    symbols = quantize(latents->x, means, header.lead);
  } else {
    for (size_t i = 0; i < header.n; ++i) symbols[i] = make_symbol(table_of(rows, indexes[i]), in);
  }
  const Written made = write_everywhere(header, rows, symbols, indexes);
  if (floats) write_floats(rows, latents->x, means, indexes, made);
  std::vector<uint8_t> stream = made.stream;
  if (made.field.empty()) {
    const Read found = read_everywhere(header, rows, Exact<uint8_t>(stream, header.lead), indexes, means);
    if (all_give_back(rows, indexes)) {
      if (!found.field.empty()) fail("what was written is refused: ", told(found.field, found.text));
      if (!std::equal(found.symbols.begin(), found.symbols.end(), symbols.data())) {
        fail("what was written is read as something else");
      }
      const bool ended = found.reader.state == ckbd::ans::kLow && found.reader.at == found.reader.end;
      if (!ended) fail("something is left over");
    }
  } else {  // something to read all the same
    for (int i = 0; i < 40; ++i) stream.push_back(static_cast<uint8_t>(in.number(1)));
  }
  damage(header, stream);
  read_everywhere(header, rows, Exact<uint8_t>(stream, header.lead), indexes, means);
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) { return 0; }

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input(data, size);
  const AnsHeader header(input);
  Source in(input, header.seed);
  if (header.mode == kPmf) {
    pmf_to_row(header, in);
    return 0;
  }
  if (header.mode == kScales) {
    scales_to_indexes(header, in);
    return 0;
  }
  const Rows rows(header, in);
  const Exact<int32_t> indexes = make_indexes(header, rows.count(), in);
  if (header.mode != kRaw && header.mode != kSteps) {
    code_and_damage(header, rows, indexes, in);
    return 0;
  }
  Exact<float> means(header.n, header.lead, 0);
  if (header.means) {
    for (size_t i = 0; i < header.n; ++i) means[i] = any_float(in);
  }
  std::vector<uint8_t> stream = header.mode == kRaw ? input.rest() : put_together(rows, indexes, in);
  if (header.mode == kSteps) damage(header, stream);
  read_everywhere(header, rows, Exact<uint8_t>(stream, header.lead), indexes, header.means ? means.data() : nullptr);
  return 0;
}
