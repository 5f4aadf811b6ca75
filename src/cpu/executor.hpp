// Who runs the tasks of a plan: a pool of the library, or the caller's own threads.
#pragma once

#include <flashmla/flashmla.h>

#include <cstdint>
#include <memory>
#include <type_traits>

#include "cpu/thread_pool.hpp"

namespace flashmla::cpu {

class Executor {
 public:
  explicit Executor(std::shared_ptr<ThreadPool> pool) : pool_(std::move(pool)), num_threads_(pool_->size()) {}
  /// `num_threads`: how many threads the work is cut for. What `callers.context` points to must outlive this object.
  Executor(flashmla_executor const& callers, int32_t num_threads) : callers_(callers), num_threads_(num_threads) {}

  [[nodiscard]] int32_t num_threads() const { return num_threads_; }
  [[nodiscard]] bool is_callers() const { return pool_ == nullptr; }

  /// Calls function(i) for every i in [0, count), in any order and on any thread; returns when all are done. The function
  /// must not throw. With the caller's threads: throws core::Error(FLASHMLA_INVALID_ARGUMENT) when parallel_for threw, and
  /// then too every call has been made and none is running.
  template <class Function>
  void run(int32_t count, Function&& function) const {
    if (pool_ != nullptr) return pool_->run(count, function);
    auto const call = [](void* context, int32_t index) { (*static_cast<std::remove_reference_t<Function>*>(context))(index); };
    run_on_callers(call, const_cast<void*>(static_cast<void const*>(std::addressof(function))), count);
  }

 private:
  void run_on_callers(flashmla_task call, void* context, int32_t count) const;

  std::shared_ptr<ThreadPool> pool_;
  flashmla_executor callers_{};
  int32_t num_threads_;
};

}  // namespace flashmla::cpu
