// The caller's threads may come late, or not at all: whoever is called takes the next index, whatever index it was called
// with, and the thread that waits takes what nobody took. So no result depends on an executor's diligence, only speed does.
#include "cpu/executor.hpp"

#include <atomic>
#include <exception>
#include <string>
#include <thread>

#include "core/error.hpp"

namespace flashmla::cpu {

namespace {

struct Job {
  flashmla_task call;
  void* context;
  int32_t count;
  std::atomic<int32_t> next{0};  // index to be taken
  std::atomic<int32_t> done{0};  // indices whose call has returned

  /// Runs one index; false when all are taken.
  bool run_one() {
    if (next.load(std::memory_order_relaxed) >= count) return false;  // next can't run away, however often it is asked
    int32_t const i = next.fetch_add(1, std::memory_order_relaxed);
    if (i >= count) return false;
    call(context, i);
    done.fetch_add(1, std::memory_order_release);
    return true;
  }
};

void run_next(void* job, int32_t /*index*/) { static_cast<Job*>(job)->run_one(); }

}  // namespace

void Executor::run_on_callers(flashmla_task call, void* context, int32_t count) const {
  if (count <= 0) return;
  if (count == 1) return call(context, 0);
  Job job{call, context, count};
  std::string thrown;  // empty and without memory of its own unless parallel_for throws
  try {
    callers_.parallel_for(callers_.context, count, run_next, &job);
  } catch (std::exception const& error) {
    thrown = std::string("an exception (") + error.what() + ")";
  } catch (...) {
    thrown = "an exception";
  }
  while (job.run_one()) {
  }
  while (job.done.load(std::memory_order_acquire) < count) std::this_thread::yield();
  if (!thrown.empty()) core::fail_invalid("decode", "executor.parallel_for", thrown, "a return (outputs are undefined)");
}

}  // namespace flashmla::cpu
