#include "common/pool.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <stdexcept>
#include <system_error>
#include <thread>

// macOS does not say that it is one.
#if defined(__unix__) || defined(__APPLE__)
#define CKBD_FORKS 1
#include <pthread.h>
#endif
#if defined(__linux__)
#include <sched.h>
#endif

namespace ckbd {
namespace {

// One call of run_tasks(). `helpers` is how many more threads may join; guarded by the pool's mutex, as is `inside`,
// the number of helpers at work on it.
struct Job {
  const std::function<void(size_t)>& task;
  const size_t n;
  size_t helpers;
  size_t inside = 0;
  std::atomic<size_t> next{0};

  void work() {
    for (size_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < n;) task(i);
  }
};

class Pool {
 public:
  void run(Job& job) {
    const size_t helpers = job.helpers;  // once the job is on the list this changes
    {
      const std::lock_guard lock(mutex_);
      // Threads are never given back: a caller that asks for many once will ask again. If the system has no more of
      // them, those that there are do the work, and the caller in any case.
      try {
        for (; threads_ < std::min(helpers, kMostThreads); ++threads_) std::thread([this] { serve(); }).detach();
      } catch (const std::system_error&) {
      }
      jobs_.push_back(&job);
    }
    // Not all: there may be many more, from a call that asked for them.
    for (size_t i = 0; i < helpers; ++i) wake_.notify_one();
    job.work();
    // Nothing is left to begin. Once the job is off the list no helper can come, and those inside are waited for.
    std::unique_lock lock(mutex_);
    const auto at = std::find(jobs_.begin(), jobs_.end(), &job);
    if (at != jobs_.end()) jobs_.erase(at);
    done_.wait(lock, [&] { return job.inside == 0; });
  }

 private:
  static constexpr size_t kMostThreads = 256;

  void serve() {
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return !jobs_.empty(); });
      Job& job = *jobs_.front();
      ++job.inside;
      if (--job.helpers == 0) jobs_.pop_front();
      lock.unlock();
      job.work();
      lock.lock();
      // A job without work left must not be taken again.
      const auto at = std::find(jobs_.begin(), jobs_.end(), &job);
      if (at != jobs_.end()) jobs_.erase(at);
      if (--job.inside == 0) done_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::deque<Job*> jobs_;
  size_t threads_ = 0;
};

std::atomic<Pool*> current{nullptr};

// Never destroyed, since its threads wait on it for as long as the process lives. A fork takes the memory along and
// the threads not, so the child forgets it and begins anew.
Pool& pool() {
#if CKBD_FORKS
  static const int at_fork = pthread_atfork(nullptr, nullptr, [] { current = nullptr; });
  if (at_fork != 0) throw std::runtime_error("pthread_atfork failed");
#endif
  Pool* found = current.load();
  if (found != nullptr) return *found;
  Pool* const fresh = new Pool;
  if (current.compare_exchange_strong(found, fresh)) return *fresh;
  delete fresh;
  return *found;
}

}  // namespace

void run_tasks(size_t n, size_t threads, const std::function<void(size_t)>& task) {
  const size_t helpers = std::min(threads, n) - (n > 0 ? 1 : 0);
  if (n == 0 || helpers == 0 || threads <= 1) {
    for (size_t i = 0; i < n; ++i) task(i);
    return;
  }
  Job job{task, n, helpers};
  pool().run(job);
}

size_t usable_cpus() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return static_cast<size_t>(CPU_COUNT(&set));
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

}  // namespace ckbd
