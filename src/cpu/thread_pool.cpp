#include "cpu/thread_pool.hpp"

#include <chrono>
#include <map>

#include "cpu/isa/pause.hpp"
#include "cpu/system.hpp"

namespace flashmla::cpu {

namespace {

/// Polls `ready` for about as long as a sleep and a wake-up cost.
template <class Ready>
bool spin_until(Ready const& ready) {
  constexpr auto kSpin = std::chrono::microseconds(30);
  auto const deadline = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 32; ++i) {
      if (ready()) return true;
      pause();
    }
  } while (std::chrono::steady_clock::now() < deadline);
  return ready();
}

}  // namespace

ThreadPool::ThreadPool(int32_t num_threads) : num_threads_(num_threads), process_id_(process_id()) {
  try {
    for (int32_t i = 1; i < num_threads; ++i) threads_.emplace_back([this] { thread_main(); });
  } catch (...) {  // no more threads to be had: stop those that run, then tell
    stopping_ = true;
    {
      std::lock_guard const lock(mutex_);
      ++posted_;
    }
    job_posted_.notify_all();
    for (std::thread& thread : threads_) thread.join();
    throw;
  }
}

ThreadPool::~ThreadPool() {
  if (process_id() != process_id_) {  // a fork has the handles but not the threads
    for (std::thread& thread : threads_) thread.detach();
    return;
  }
  {
    std::lock_guard const lock(mutex_);
    stopping_ = true;
    ++posted_;
  }
  job_posted_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

std::shared_ptr<ThreadPool> ThreadPool::shared(int32_t num_threads) {
  static std::mutex mutex;
  static std::map<int32_t, std::weak_ptr<ThreadPool>> pools;
  std::lock_guard const lock(mutex);
  std::shared_ptr<ThreadPool> pool = pools[num_threads].lock();
  if (pool == nullptr) {
    pool = std::make_shared<ThreadPool>(num_threads);
    pools[num_threads] = pool;
  }
  return pool;
}

void ThreadPool::work() {
  for (int32_t i = next_.fetch_add(1, std::memory_order_relaxed); i < job_.count; i = next_.fetch_add(1, std::memory_order_relaxed))
    job_.call(job_.context, i);
}

bool ThreadPool::wait_for_job(uint64_t& seen) {
  auto const is_posted = [&] { return posted_.load(std::memory_order_acquire) != seen; };
  if (!spin_until(is_posted)) {
    std::unique_lock lock(mutex_);
    job_posted_.wait(lock, is_posted);
  }
  ++seen;
  return !stopping_.load(std::memory_order_relaxed);
}

void ThreadPool::thread_main() {
  for (uint64_t seen = 0; wait_for_job(seen);) {
    work();
    if (active_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      std::lock_guard const lock(mutex_);  // the caller is either before its check or asleep
      job_done_.notify_one();
    }
  }
}

void ThreadPool::run_job(Job const& job) {
  if (threads_.empty() || job.count <= 1 || process_id() != process_id_) {
    for (int32_t i = 0; i < job.count; ++i) job.call(job.context, i);
    return;
  }
  std::lock_guard const turn(turn_);
  job_ = job;
  next_.store(0, std::memory_order_relaxed);
  active_.store(static_cast<int32_t>(threads_.size()), std::memory_order_relaxed);
  {
    std::lock_guard const lock(mutex_);
    posted_.fetch_add(1, std::memory_order_release);
  }
  job_posted_.notify_all();
  work();
  auto const is_done = [&] { return active_.load(std::memory_order_acquire) == 0; };
  if (!spin_until(is_done)) {
    std::unique_lock lock(mutex_);
    job_done_.wait(lock, is_done);
  }
}

}  // namespace flashmla::cpu
