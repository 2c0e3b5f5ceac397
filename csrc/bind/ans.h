// What the parts of the module ckbd._ans share.
#pragma once

#include "ans/ans.h"
#include "bind/arguments.h"

namespace ckbd_python {

void bind_ans_stateful(py::module_& m);  // Encoder and Decoder
void bind_ans_quantize(py::module_& m);
void bind_ans_compat(py::module_& m);  // CompressAI's own classes

using AnsTables = std::shared_ptr<ckbd::ans::Tables>;

[[noreturn]] inline void raise_refused(const ckbd::ans::Refused& refused) {
  throw py::value_error(std::string(refused.field) + ": " + refused.text);
}

inline py::bytes as_bytes(const std::string& bytes) { return py::bytes(bytes.data(), bytes.size()); }

// Runs without the GIL; what is refused becomes a ValueError.
template <class Run>
auto without_gil(Run run) {
  try {
    const WithoutGil released;
    return run();
  } catch (const ckbd::ans::Refused& refused) {
    raise_refused(refused);
  }
}

template <class A, class B>
void check_ans_apart(const std::string& name, const Array<A>& written, const Array<B>& read) {
  Memory memory;
  memory.add(written);
  memory.add(read);
  memory.check(name);
}

}  // namespace ckbd_python
