// Decoder, decode() and the batches of both.
#include "rans/batch.h"
#include "bind/rans.h"

namespace ckbd_python {
namespace {

// ---- decoding, step by step

uint32_t checked_tail(const std::string& name, py::ssize_t tail) {
  if (tail < 0 || static_cast<size_t>(tail) > UINT32_MAX) refuse(name, "0..2^32 - 1", std::to_string(tail));
  return static_cast<uint32_t>(tail);
}

// Holds tables and payload, and the order of calls. While a step runs, and for good after one that failed,
// `steps_` is kOver: a second thread and a second try are refused alike.
class Decoder {
 public:
  Decoder(std::shared_ptr<ckbd::Tables> tables, const py::object& payload, py::ssize_t lanes_log2,
          py::ssize_t skip_max, py::ssize_t tail, py::ssize_t phases, const py::object& isa)
      : tables_(std::move(tables)),
        payload_(bytes("payload", payload)),
        phases_(in_range("phases", phases, 1, kMaxPhases)) {
    const ckbd::Coder& coder = coder_for(isa);
    const int lanes = in_range("lanes_log2", lanes_log2, 0, ckbd::kMaxLanesLog2);
    const int skip = in_range("skip_max", skip_max, 0, ckbd::kMaxSkip);
    const uint32_t tail_size = checked_tail("tail", tail);
    // Walks the lists before the words, which may be long.
    const py::gil_scoped_release release;
    decoder_ = std::make_unique<ckbd::PayloadDecoder>(coder, *tables_, payload_.data, payload_.size, lanes, skip,
                                                      tail_size, phases_);
  }

  void z(const py::object& out) {
    const auto view = z_view("out", out);
    begin_z();
    {
      const py::gil_scoped_release release;
      decoder_->z(view.data, view.size);
    }
    done();
  }

  void phase(const py::object& k, const py::object& out) {
    PhasesOut views;
    views.emplace<1>();
    add_phase(views, true, "k", "out", k, out, true);
    begin_phase();
    const std::exception_ptr error = std::visit(
        [&](const auto& all) {
          using R = std::remove_pointer_t<decltype(all[0].r.data)>;
          ckbd::PhaseTask<R> task{decoder_.get(), all[0].k.data, all[0].r.data, all[0].k.size};
          const py::gil_scoped_release release;
          ckbd::decode_phases(&task, 1);
          return task.error;
        },
        views);
    end_phase(error);
    try {
      if (error) std::rethrow_exception(error);
    } catch (const ckbd::BadIndex& bad) {
      refuse_index("k", bad);
    }
  }

  void finish() {
    begin("finish", steps_ == phases_ + 1);
    decoder_->finish();
    done();
  }

  // The parts of a call, for batches: begin, run without the GIL, and done or undo.
  Array<int16_t> z_view(const std::string& name, const py::handle& out) const {
    auto view = array<int16_t>(name, out, {-1}, true);
    check_sites(name, view.size, *tables_);
    return view;
  }
  void begin_z() { begin("z", steps_ == 0); }
  void begin_phase() { begin("phase", 1 <= steps_ && steps_ <= phases_); }
  void done() { steps_ = before_ + 1; }
  void undo() { steps_ = before_; }
  ckbd::PayloadDecoder& payload_decoder() { return *decoder_; }

  // After a phase: on to the next step, back if an index was wrong, over if the stream is.
  void end_phase(const std::exception_ptr& error) {
    if (!error) return done();
    try {
      std::rethrow_exception(error);
    } catch (const ckbd::BadIndex&) {
      undo();
    } catch (...) {
    }
  }

 private:
  static constexpr int kOver = -1;

  void begin(const char* name, bool in_turn) {
    if (!in_turn) {
      throw std::runtime_error(
          std::string(name) + ": expected z, " + std::to_string(phases_) +
          " times phase and finish, once each in this order and never after an error, got " +
          (steps_ == kOver ? "a call during or after a failed one" : "this as call " + std::to_string(steps_ + 1)));
    }
    before_ = steps_;
    steps_ = kOver;
  }

  const std::shared_ptr<ckbd::Tables> tables_;
  const Array<const uint8_t> payload_;
  const int phases_;
  std::unique_ptr<ckbd::PayloadDecoder> decoder_;
  int steps_ = 0, before_ = 0;
};

// ---- whole images, and batches

struct ToDecode {
  Array<const uint8_t> payload;
  Array<int16_t> z;
  PhasesOut phases;
};

ckbd::ImageTask to_decode(const std::string& prefix, const ckbd::Tables& tables, const py::handle& payload,
                          const py::handle& z, const py::handle& phases, py::ssize_t lanes_log2, py::ssize_t skip_max,
                          py::ssize_t tail, ToDecode& held, Memory& memory) {
  held.payload = bytes(prefix + "payload", payload);
  held.z = array<int16_t>(prefix + "z", z, {-1}, true);
  check_sites(prefix + "z", held.z.size, tables);
  held.phases = phases_of<PhasesOut>(prefix + "phases", phases, true);
  ckbd::ImageTask task{held.payload.data,
                       held.payload.size,
                       in_range(prefix + "lanes_log2", lanes_log2, 0, ckbd::kMaxLanesLog2),
                       in_range(prefix + "skip_max", skip_max, 0, ckbd::kMaxSkip),
                       checked_tail(prefix + "tail", tail),
                       held.z.data,
                       held.z.size,
                       {}};
  memory.add(held.payload);
  memory.add(held.z);
  std::visit(
      [&](const auto& views) {
        for (const auto& view : views) {
          memory.add(view.k);
          memory.add(view.r);
        }
        using R = std::remove_pointer_t<decltype(views[0].r.data)>;
        auto& out = task.phases.emplace<std::vector<ckbd::PhaseOut<R>>>();
        for (const auto& view : views) out.push_back({view.k.data, view.r.data, view.k.size});
      },
      held.phases);
  return task;
}

void decode(const ckbd::Tables& tables, const py::object& payload, const py::object& z, const py::object& phases,
            py::ssize_t lanes_log2, py::ssize_t skip_max, py::ssize_t tail, const py::object& isa) {
  ToDecode held;
  std::vector<ckbd::ImageTask> tasks;
  Memory memory;
  tasks.push_back(to_decode("", tables, payload, z, phases, lanes_log2, skip_max, tail, held, memory));
  memory.check("z and phases");
  const ckbd::Coder& coder = coder_for(isa);
  try {
    const py::gil_scoped_release release;
    ckbd::decode_images(coder, tables, tasks, 1);
    if (tasks[0].error) std::rethrow_exception(tasks[0].error);
  } catch (const ckbd::BadIndex& bad) {
    refuse_index(phase_name("phases", bad), bad);
  }
}

// A list with None for what went well and the StreamError for what did not; anything else is raised. name_of gives
// the name of a task's indices.
template <class Tasks, class NameOf>
py::list outcomes(const Tasks& tasks, NameOf name_of) {
  py::list out;
  for (size_t i = 0; i < tasks.size(); ++i) {
    try {
      if (tasks[i].error) std::rethrow_exception(tasks[i].error);
      out.append(py::none());
    } catch (const ckbd::StreamError& error) {
      out.append(stream_error_of(error));
    } catch (const ckbd::BadIndex& bad) {
      refuse_index(name_of(i, bad), bad);
    }
  }
  return out;
}

py::list decode_batch(const ckbd::Tables& tables, const py::object& images, const py::object& threads,
                      const py::object& isa) {
  const py::sequence all = sequence_of("images", images);
  std::vector<ToDecode> held(all.size());
  std::vector<ckbd::ImageTask> tasks;
  Memory memory;
  size_t elements = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    const std::string name = "images[" + std::to_string(i) + "]";
    const py::sequence image = sequence_of(name, all[i]);
    if (image.size() != 6) {
      refuse(name, "(payload, lanes_log2, skip_max, tail, z, phases)", std::to_string(image.size()) + " items");
    }
    const auto number = [&](size_t at, const char* what) {
      return integer(name + " " + what, py::object(image[at]));
    };
    tasks.push_back(to_decode(name + " ", tables, py::object(image[0]), py::object(image[4]), py::object(image[5]),
                              number(1, "lanes_log2"), number(2, "skip_max"), number(3, "tail"), held[i], memory));
    elements += held[i].z.size;
    std::visit(
        [&](const auto& views) {
          for (const auto& view : views) elements += view.k.size;
        },
        held[i].phases);
  }
  memory.check("images");
  const ckbd::Coder& coder = coder_for(isa);
  const size_t count = threads_for(threads, elements);
  {
    const py::gil_scoped_release release;
    ckbd::decode_images(coder, tables, tasks, count);
  }
  return outcomes(tasks, [](size_t i, const ckbd::BadIndex& bad) {
    return phase_name("images[" + std::to_string(i) + "] phases", bad);
  });
}

// The decoders of a batch, each once, and as many arrays. They live on until the batch is done, whoever lets go of
// them.
struct Held {
  std::vector<py::object> objects;
  std::vector<Decoder*> decoders;
};

Held decoders_of(const py::object& decoders, const char* name, const py::sequence& arrays) {
  Held held;
  for (const py::handle& one : sequence_of("decoders", decoders)) {
    if (!py::isinstance<Decoder>(one)) refuse("decoders", "Decoders", type_name(one));
    held.objects.push_back(py::reinterpret_borrow<py::object>(one));
    held.decoders.push_back(one.cast<Decoder*>());
  }
  const size_t count = held.decoders.size();
  if (arrays.size() != count) {
    refuse(name, std::to_string(count) + " arrays, one for each decoder", std::to_string(arrays.size()));
  }
  std::vector<Decoder*> sorted = held.decoders;
  std::sort(sorted.begin(), sorted.end());
  if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) {
    refuse("decoders", "each once", "one twice");
  }
  return held;
}

// Begins a step of every decoder, or of none.
template <class Begin>
void begin_all(const std::vector<Decoder*>& decoders, Begin begin) {
  size_t begun = 0;
  try {
    for (; begun < decoders.size(); ++begun) begin(*decoders[begun]);
  } catch (...) {
    while (begun > 0) decoders[--begun]->undo();
    throw;
  }
}

struct ZTask {
  Decoder* decoder;
  Array<int16_t> z;
  std::exception_ptr error = nullptr;
};

py::list z_batch(const py::object& decoders, const py::object& outs, const py::object& threads) {
  const py::sequence arrays = sequence_of("outs", outs);
  const Held held = decoders_of(decoders, "outs", arrays);
  const std::vector<Decoder*>& all = held.decoders;
  std::vector<ZTask> tasks;
  Memory memory;
  size_t elements = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    tasks.push_back({all[i], all[i]->z_view("outs[" + std::to_string(i) + "]", arrays[i])});
    memory.add(tasks.back().z);
    elements += tasks.back().z.size;
  }
  memory.check("outs");
  const size_t count = threads_for(threads, elements);
  begin_all(all, [](Decoder& decoder) { decoder.begin_z(); });
  {
    const py::gil_scoped_release release;
    ckbd::run_tasks(tasks.size(), count, [&](size_t i) {
      try {
        tasks[i].decoder->payload_decoder().z(tasks[i].z.data, tasks[i].z.size);
      } catch (...) {
        tasks[i].error = std::current_exception();
      }
    });
  }
  for (const ZTask& task : tasks) {
    if (!task.error) task.decoder->done();
  }
  return outcomes(tasks, [](size_t, const ckbd::BadIndex&) { return "outs"; });
}

py::list phase_batch(const py::object& decoders, const py::object& ks, const py::object& outs,
                     const py::object& threads) {
  const py::sequence k_arrays = sequence_of("ks", ks), out_arrays = sequence_of("outs", outs);
  const Held held = decoders_of(decoders, "outs", out_arrays);
  const std::vector<Decoder*>& all = held.decoders;
  if (k_arrays.size() != all.size()) {
    refuse("ks", std::to_string(all.size()) + " arrays, one for each decoder", std::to_string(k_arrays.size()));
  }
  PhasesOut views;
  views.emplace<1>();
  for (size_t i = 0; i < all.size(); ++i) {
    const std::string index = "[" + std::to_string(i) + "]";
    add_phase(views, i == 0, "ks" + index, "outs" + index, py::object(k_arrays[i]), py::object(out_arrays[i]), true);
  }
  return std::visit(
      [&](const auto& each) {
        using R = std::remove_pointer_t<decltype(each[0].r.data)>;
        std::vector<ckbd::PhaseTask<R>> tasks;
        Memory memory;
        size_t elements = 0;
        for (size_t i = 0; i < all.size(); ++i) {
          tasks.push_back({&all[i]->payload_decoder(), each[i].k.data, each[i].r.data, each[i].k.size});
          elements += each[i].k.size;
          memory.add(each[i].k);
          memory.add(each[i].r);
        }
        memory.check("outs");
        const size_t count = threads_for(threads, elements);
        begin_all(all, [](Decoder& decoder) { decoder.begin_phase(); });
        {
          const py::gil_scoped_release release;
          ckbd::decode_phases(tasks, count);
        }
        for (size_t i = 0; i < all.size(); ++i) all[i]->end_phase(tasks[i].error);
        return outcomes(tasks, [](size_t i, const ckbd::BadIndex&) { return "ks[" + std::to_string(i) + "]"; });
      },
      views);
}

}  // namespace

void bind_decode(py::module_& m) {
  py::class_<Decoder>(m, "Decoder")
      .def(py::init<std::shared_ptr<ckbd::Tables>, const py::object&, py::ssize_t, py::ssize_t, py::ssize_t,
                    py::ssize_t, const py::object&>(),
           py::arg("tables").none(false), py::arg("payload"), py::kw_only(), py::arg("lanes_log2"),
           py::arg("skip_max"), py::arg("tail"), py::arg("phases") = 2, py::arg("isa") = py::none())
      .def("z", &Decoder::z, py::arg("out"))
      .def("phase", &Decoder::phase, py::arg("k"), py::arg("out"))
      .def("finish", &Decoder::finish);
  m.def("z_batch", &z_batch, py::arg("decoders"), py::arg("outs"), py::kw_only(), py::arg("threads") = py::none());
  m.def("phase_batch", &phase_batch, py::arg("decoders"), py::arg("ks"), py::arg("outs"), py::kw_only(),
        py::arg("threads") = py::none());
  m.def("decode", &decode, py::arg("tables"), py::arg("payload"), py::arg("z"), py::arg("phases"), py::kw_only(),
        py::arg("lanes_log2"), py::arg("skip_max"), py::arg("tail"), py::arg("isa") = py::none());
  m.def("decode_batch", &decode_batch, py::arg("tables"), py::arg("images"), py::kw_only(),
        py::arg("threads") = py::none(), py::arg("isa") = py::none());
}

}  // namespace ckbd_python
