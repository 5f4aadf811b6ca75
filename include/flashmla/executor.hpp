// The caller's own threads for the CPU backend.
#pragma once

#include <flashmla/flashmla.h>

#include <cstdint>

namespace flashmla {

/// One of the library's tasks, to be called once for each index. It never throws.
struct Task {
  flashmla_task call;
  void* context;
  void operator()(int32_t index) const { call(context, index); }
};

/// An executor over `parallel_for(int32_t count, Task task)`, any callable that calls task(i) for each i in [0, count), on
/// whatever threads, and returns when the calls have. It must outlive the plans that are made with it, and may be called
/// from every thread that calls run. See flashmla_executor for what it may leave undone.
///
///     auto parallel_for = [&pool](int32_t count, Task task) { pool.for_each_index(count, task); };
///     flashmla_executor const executor = executor_of(parallel_for);
///     DecodePlan plan = DecodePlan::make(problem, Target(kCpu).set_executor(executor, pool.size()));
template <class ParallelFor>
flashmla_executor executor_of(ParallelFor& parallel_for) noexcept {
  flashmla_executor executor{};
  executor.struct_size = sizeof(flashmla_executor);
  executor.context = const_cast<void*>(static_cast<void const*>(&parallel_for));
  executor.parallel_for = [](void* context, int32_t count, flashmla_task task, void* task_context) {
    (*static_cast<ParallelFor*>(context))(count, Task{task, task_context});
  };
  return executor;
}

}  // namespace flashmla
