// The module's Decoder, a payload step by step, and what its batches share.
#pragma once

#include <exception>
#include <memory>
#include <string>

#include "bind/rans.h"
#include "payload/batch.h"

namespace ckbd_python {

inline uint32_t checked_tail(const std::string& name, py::ssize_t tail) {
  if (tail < 0 || static_cast<size_t>(tail) > UINT32_MAX) refuse(name, "0..2^32 - 1", std::to_string(tail));
  return static_cast<uint32_t>(tail);
}

// The order of calls: z, each phase, finish. While a step runs, and for good after one that failed, `steps_` is
// kOver: a second thread and a second try are refused alike.
class Turns {
 public:
  explicit Turns(int phases) : phases_(phases) {}

  void begin_z() { begin("z", steps_ == 0); }
  void begin_phase() { begin("phase", 1 <= steps_ && steps_ <= phases_); }
  void begin_finish() { begin("finish", steps_ == phases_ + 1); }
  void done() { steps_ = before_ + 1; }
  void undo() { steps_ = before_; }

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

  int phases_;
  int steps_ = 0, before_ = 0;
};

// Holds tables and payload, and the order of calls.
class Decoder {
 public:
  Decoder(const py::object& tables, const py::object& payload, py::ssize_t lanes_log2, py::ssize_t skip_max,
          py::ssize_t tail, py::ssize_t phases, const py::object& isa)
      : tables_(shared<ckbd::Tables>("tables", tables)),
        payload_(bytes("payload", payload)),
        turns_(in_range("phases", phases, 1, kMaxPhases)) {
    const ckbd::Coder& coder = coder_for(isa);
    const int lanes = in_range("lanes_log2", lanes_log2, 0, ckbd::kMaxLanesLog2);
    const int skip = in_range("skip_max", skip_max, 0, ckbd::kMaxSkip);
    const uint32_t tail_size = checked_tail("tail", tail);
    // Walks the lists before the words, which may be long.
    const WithoutGil released;
    decoder_ = std::make_unique<ckbd::PayloadDecoder>(coder, *tables_, payload_.data, payload_.size, lanes, skip,
                                                      tail_size, static_cast<int>(phases));
  }

  void z(const py::object& out) {
    const auto view = z_view("out", out);
    begin_z();
    {
      const WithoutGil released;
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
          const WithoutGil released;
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
    turns_.begin_finish();
    decoder_->finish();
    done();
  }

  // The parts of a call, for batches: begin, run without the GIL, and done or undo.
  Array<int16_t> z_view(const std::string& name, const py::handle& out) const {
    auto view = array<int16_t>(name, out, {-1}, true);
    check_sites(name, view.size, *tables_);
    return view;
  }
  void begin_z() { turns_.begin_z(); }
  void begin_phase() { turns_.begin_phase(); }
  void done() { turns_.done(); }
  void undo() { turns_.undo(); }
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
  const std::shared_ptr<ckbd::Tables> tables_;
  const Array<const uint8_t> payload_;
  Turns turns_;
  std::unique_ptr<ckbd::PayloadDecoder> decoder_;
};

template <class Tasks>
std::vector<std::exception_ptr> errors_of(const Tasks& tasks) {
  std::vector<std::exception_ptr> errors;
  for (const auto& task : tasks) errors.push_back(task.error);
  return errors;
}

// A list with None for what went well and the StreamError for what did not; anything else is raised. name_of gives
// the name of a task's indices.
template <class NameOf>
py::list outcomes(const std::vector<std::exception_ptr>& errors, NameOf name_of) {
  py::list out;
  for (size_t i = 0; i < errors.size(); ++i) {
    try {
      if (errors[i]) std::rethrow_exception(errors[i]);
      out.append(py::none());
    } catch (const ckbd::StreamError& error) {
      out.append(stream_error_of(error));
    } catch (const ckbd::BadIndex& bad) {
      refuse_index(name_of(i, bad), bad);
    }
  }
  return out;
}

py::list z_batch(const py::object& decoders, const py::object& outs, const py::object& threads);
py::list phase_batch(const py::object& decoders, const py::object& ks, const py::object& outs,
                     const py::object& threads);

}  // namespace ckbd_python
