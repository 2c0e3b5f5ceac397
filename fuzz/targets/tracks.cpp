// Coverage-guided fuzzing of the coder of version 2: whatever the bytes, it must do as docs/format.md, section 9,
// says.
//
// An input is a Header, the arguments that it says are written out, and what its mode asks for:
//   raw           the payload as it is.
//   put together  numbers of which a payload is put together, whose lengths fit and whose states are in their bounds
//                 unless they say otherwise.
//   encode        what symbols are made of. They must be decoded to what they were, and then the payload is damaged
//                 as the header says.
//   hostile       changes to the integers of tables first, and then what symbols are made of.
// All that is decoded is decoded by the twin too, which knows the format and no table but the model's. Input that is
// too short goes on with zeros.
#include "tracks/payloads.h"

using namespace ckbd::fuzz;

namespace {

// By tables, and by mixtures.
std::vector<Models> all_models;

Job make_job(const Header& header, const Models& models, Input& in) {
  Job job{models, header.tracks, models.integers->channels * header.z_sites, header.split, {}, header.lead};
  job.n_z = std::min<size_t>(job.n_z, 200);
  for (const Shape& shape : header.shapes) job.all.push_back(make_arguments(header, shape, in));
  return job;
}

void code_and_damage(const Header& header, const Job& job, Input& in) {
  Bytes source(in.rest(), 1);
  const auto symbols = make_symbols(header, job, source);
  std::vector<uint8_t> payload = encode(job, symbols, Calls::kOne);
  if (payload != encode(job, symbols, Calls::kTwo)) fail("encoded in two calls to something else");
  if (payload.empty()) return;
  const Outcome found = decode_everywhere(job, Exact<uint8_t>(payload, job.lead));
  bool right = true;
  for (const auto& one : symbols) {
    right &= std::all_of(one.data(), one.data() + one.size(), [](int16_t s) { return -1023 <= s && s <= 1023; });
  }
  // What is beyond comes out as damage, or as something else: nobody may encode it.
  if (right) {
    if (!found.place.empty()) fail("what was encoded is refused: ", found.place, ": ", found.error);
    for (size_t p = 0; p < symbols.size(); ++p) {
      if (!(found.symbols[p] == symbols[p])) fail("what was encoded is decoded to something else");
    }
  }
  const std::vector<uint8_t> before = payload;
  damage(header, payload);
  if (payload != before) decode_everywhere(job, Exact<uint8_t>(payload, job.lead));
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  all_tables = make_all_tables();
  for (auto& tables : all_tables) {
    const auto integers = std::make_shared<Integers>(integers_of(*tables));
    if (!allowed(*integers)) fail("a table is not as the format says");
    const std::shared_ptr<const Tables> shared = std::move(tables);
    for (size_t spec = 0; spec < kMixtureSpecs; ++spec) {
      const auto mixed = std::make_shared<MixtureIntegers>(mixture_integers(spec));
      all_models.push_back({shared, make_mixtures(*mixed), integers, mixed});
    }
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input in(data, size);
  const Header header(in);
  const Models& given = all_models[header.tables * kMixtureSpecs + header.mixtures];
  if (header.mode == kHostileTables) {
    const Models made = make_hostile(given, in);
    if (made.tables && made.mixtures) code_and_damage(header, make_job(header, made, in), in);
    return 0;
  }
  const Job job = make_job(header, given, in);
  if (header.mode == kEncode) {
    code_and_damage(header, job, in);
  } else {
    const std::vector<uint8_t> payload = header.mode == kRaw ? in.rest() : put_together(header, in);
    decode_everywhere(job, Exact<uint8_t>(payload, job.lead));
  }
  return 0;
}
