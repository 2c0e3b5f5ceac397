// Calls of csrc/ from several threads at once, while another thread writes to the callers' arrays.
//
//     build/fuzz/threads/threads SECONDS SEED [KIND]        under ThreadSanitizer
//     build/fuzz/threads/asan/threads SECONDS SEED [KIND]   under AddressSanitizer and UndefinedBehaviorSanitizer
//
// KIND is one of kCalls, without it there are all.
//
// Who writes to arrays during a call may get wrong numbers or an error, never memory that is not theirs. So in two
// calls of three all arrays that the bindings (csrc/bind) do not copy are written to from begin to end, outputs too,
// after all that the bindings check. Then
// - any report of a sanitizer is a finding: ThreadSanitizer does not look into rewrite_the_callers_arrays();
// - so is an exception that is none of the kinds that say what is wrong with an argument or a stream.
// In the third call of three nobody writes: results must be those of one thread and the plain coder.
//
// The same seed makes the same calls; how threads take turns is another matter each time. A call that does not end is
// ended by SIGALRM.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <thread>

#include "threads/ans.h"
#include "threads/passes.h"
#include "threads/pool.h"
#include "threads/rans.h"
#include "threads/streams.h"
#include "threads/tracks.h"

using namespace ckbd::fuzz;

// The first report is enough.
extern "C" const char* __tsan_default_options() { return "halt_on_error=1"; }

namespace {

constexpr size_t kCallers = 3;
constexpr unsigned kGrace = 120;  // seconds for the calls that run at the end

struct Call {
  const char* kind;
  void (*run)(Caller&);
};
constexpr Call kCalls[] = {
    {"rans encode", encode_images},
    {"rans decode_images", decode_images},
    {"rans decode_phases", decode_steps_of_either},
    {"rans OpenStreams", decode_streams},
    {"tracks", code_tracks},
    {"ans encode", encode_ans},
    {"ans decode", decode_ans},
    {"ans rows", code_rows},
    {"ans Tables", make_ans_tables_again},
    {"ans quantize", quantize},
    {"passes", run_passes},
    {"pool", use_pool},
};

void print(const std::vector<Caller>& callers) {
  std::map<std::string, Counts> all;
  for (const Caller& caller : callers) {
    for (const auto& [kind, counts] : caller.counts) {
      Counts& sum = all[kind];
      sum.calls += counts.calls;
      sum.rewritten += counts.rewritten;
      sum.spoiled += counts.spoiled;
      for (const auto& [type, n] : counts.refused) sum.refused[type] += n;
    }
  }
  for (const auto& [kind, counts] : all) {
    std::printf("%-20s %8zu calls, %8zu rewritten: %zu with other results", kind.c_str(), counts.calls,
                counts.rewritten, counts.spoiled);
    for (const auto& [type, n] : counts.refused) std::printf(", %zu %s", n, type.c_str());
    std::printf("\n");
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<Call> calls;
  for (const Call& call : kCalls) {
    if (argc < 4 || std::strcmp(call.kind, argv[3]) == 0) calls.push_back(call);
  }
  if (argc < 3 || argc > 4 || calls.empty()) {
    std::fprintf(stderr, "usage: %s SECONDS SEED [KIND]\n", argv[0]);
    return 2;
  }
  const auto seconds = static_cast<unsigned>(std::strtoul(argv[1], nullptr, 10));
  Random seeds(std::strtoull(argv[2], nullptr, 10));
  alarm(seconds + kGrace);
  all_tables = make_all_tables();
  mixture_tables = make_mixture_tables();
  std::vector<Slot> slots(kCallers);
  std::vector<Caller> callers;
  for (Slot& slot : slots) callers.emplace_back(seeds.next(), slot);
  make_ans_tables(callers[0]);

  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  std::atomic<bool> over{false};
  std::thread rewriting(keep_rewriting, std::ref(slots), std::cref(over), seeds.next());
  std::vector<std::thread> threads;
  for (Caller& caller : callers) {
    threads.emplace_back([&, end] {
      while (std::chrono::steady_clock::now() < end) {
        const Call& call = calls[caller.random.below(calls.size())];
        caller.start(call.kind);
        call.run(caller);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  over = true;
  rewriting.join();
  print(callers);
}
