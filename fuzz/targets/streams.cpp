// Coverage-guided fuzzing of whole streams of version 1, as a batch opens them: whatever the bytes, each stream comes
// to the same by every coder, alone or in company, and by a reader that is written from docs/format.md.
//
// An input is a Header, which says how many streams there are, what is asked of them and what each is made of: bytes
// as they are, or fields with the right checksums around a payload. The bytes of raw streams and of payloads that are
// not encoded follow. Input that is too short goes on with zeros.
#include "streams/decoding.h"

using namespace ckbd::fuzz;

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  all_tables = make_all_tables();
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input in(data, size);
  const Header header(in);
  const Tables& tables = *all_tables[header.tables];
  std::vector<Exact<uint8_t>> files;
  for (const auto& one : make_streams(header, tables, in)) files.emplace_back(one, header.lead);
  const ckbd::Expected expected{kModel, header.max_pixels, header.channels};
  Batch all{header, tables, expected, {}, {}};
  for (size_t i = 0; i < header.count; ++i) {
    all.fields.push_back(&header.streams[i]);
    all.files.push_back(&files[i]);
  }
  const auto& coders = ckbd::coders();
  const ckbd::Coder& coder = *coders[header.coder % coders.size()];
  int8_t fill = 11;
  const std::vector<Result> results = decode_batch(all, coder, header.threads, fill++, header.bad_index);
  for (const ckbd::Coder* other : coders) {
    const std::vector<Result> others = decode_batch(all, *other, 1, fill++, false);
    for (size_t i = 0; i < header.count; ++i) check_same(other->name, others[i], results[i]);
  }
  for (size_t i = 0; i < header.count; ++i) {
    // What is too large together may not be alone.
    const Batch one{header, tables, expected, {all.fields[i]}, {all.files[i]}};
    const Result alone = decode_batch(one, coder, 1, fill++, false)[0];
    check_same("by hand", decode_by_hand(header, tables, *all.fields[i], files[i]), alone);
    check_same("alone", alone, results[i]);
  }
  return 0;
}
