// A persistent pool of threads: no thread is made, and nothing allocated, per call.
//
// The caller works too, so a pool of n has n - 1 threads of its own. Threads spin briefly after a job, because a decode
// step follows a decode step, and then sleep. Jobs of several callers take turns. A pool of one runs inline, without a
// lock. In the child of a fork, which has none of the threads, jobs run inline as well.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace flashmla::cpu {

class ThreadPool {
 public:
  explicit ThreadPool(int32_t num_threads);
  ~ThreadPool();
  ThreadPool(ThreadPool const&) = delete;
  ThreadPool& operator=(ThreadPool const&) = delete;

  /// The pool of this size, shared by all who hold one.
  static std::shared_ptr<ThreadPool> shared(int32_t num_threads);

  [[nodiscard]] int32_t size() const { return num_threads_; }

  /// Calls function(i) for every i in [0, count), in any order and on any thread; returns when all are done. The
  /// function must not throw, nor call run on this pool.
  template <class Function>
  void run(int32_t count, Function&& function) {
    auto const call = [](void* context, int32_t index) { (*static_cast<std::remove_reference_t<Function>*>(context))(index); };
    run_job({call, const_cast<void*>(static_cast<void const*>(std::addressof(function))), count});
  }

 private:
  struct Job {
    void (*call)(void* context, int32_t index);
    void* context;
    int32_t count;
  };

  void run_job(Job const& job);
  void thread_main();
  void work();
  bool wait_for_job(uint64_t& seen);

  int32_t const num_threads_;
  int64_t const process_id_;
  std::vector<std::thread> threads_;

  std::mutex turn_;  // held by the caller whose job runs

  std::mutex mutex_;  // guards sleeping on the two conditions
  std::condition_variable job_posted_, job_done_;
  std::atomic<uint64_t> posted_{0};  // number of jobs so far; writing it publishes job_
  std::atomic<bool> stopping_{false};
  Job job_{};
  std::atomic<int32_t> next_{0};    // index of job_ to be taken
  std::atomic<int32_t> active_{0};  // threads, without the caller, that are not done with job_
};

}  // namespace flashmla::cpu
