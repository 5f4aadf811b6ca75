// A call of one function of the C ABI whose arguments can be changed by name, with memory of its own for all that it may touch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <flashmla/flashmla.hpp>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/errors/fields.hpp"
#include "api/errors/table.hpp"

namespace flashmla::errors {

/// Every argument, by its name in flashmla.h. Pointers lead to memory that this object owns until an assignment says otherwise.
///
/// A handle is made from what the table says of it: `plan.h_q` and the like are a flashmla_problem from which the plan is made
/// (on two threads of the CPU); `pool.num_pages` and `pool.held` are a pool of so many pages, the first of them in use.
class Call {
 public:
  /// The good call of a block with the changes of a row. Throws std::invalid_argument for what it cannot read.
  Call(CallBlock const& block, std::vector<Assignment> const& changes);
  Call(Call&&) = default;

  [[nodiscard]] std::string const& function() const { return function_; }

  /// An argument as the function takes it; null where a row says so.
  template <typename T>
  [[nodiscard]] T* pointer(std::string const& name) {
    return static_cast<T*>(argument(name).pointer);
  }
  template <typename T>
  [[nodiscard]] T value(std::string const& name) {
    return *static_cast<T*>(argument(name).memory.get());
  }
  [[nodiscard]] bool is_null(std::string const& name) { return argument(name).pointer == nullptr; }
  /// The C handle, or null where a row says so; the C++ object behind it.
  [[nodiscard]] flashmla_plan const* plan_handle() { return is_null("plan") ? nullptr : plan().handle(); }
  [[nodiscard]] flashmla_page_pool* pool_handle() { return is_null("pool") ? nullptr : pool_; }
  [[nodiscard]] DecodePlan& plan();

  /// Everything that the call may write: its arguments and all memory behind its views.
  [[nodiscard]] std::string bytes() const;
  /// Names of all arguments, `plan` and `pool` among them.
  [[nodiscard]] std::vector<std::string> arguments() const;
  [[nodiscard]] Place place(std::string const& path);
  /// The memory that views were given; the arguments themselves lie elsewhere.
  struct Block {
    char* data;
    size_t bytes;
  };
  [[nodiscard]] std::vector<Block> view_blocks() const;
  /// The problem that the plan was made from.
  [[nodiscard]] flashmla_problem const& plan_problem() { return *static_cast<flashmla_problem*>(argument("plan").memory.get()); }
  void assign(Assignment const& assignment);
  /// Passes null for an argument that is a pointer.
  void forget(std::string const& name);

 private:
  struct Argument {
    StructType const* type = nullptr;  // of what it points to
    Kind kind = Kind::kStruct;         // of a single value, or an entry of an array
    bool is_value = false;
    size_t bytes = 0;
    std::shared_ptr<void> memory;
    void* pointer = nullptr;
  };

  void declare(std::string const& function);
  void add(std::string const& name, StructType const& type, size_t entries);
  void add(std::string const& name, Kind kind, bool is_value, size_t entries);
  void make_pool();
  void prepare_buffers();
  Argument& argument(std::string const& name);
  void assign_view(flashmla_view* view, std::string const& value);
  void assign_pointer(void** pointer, std::string const& value);
  [[nodiscard]] int64_t number(std::string_view word);
  [[nodiscard]] void* allocate(size_t bytes, unsigned char fill);

  std::string function_;
  std::map<std::string, Argument> arguments_;
  struct Memory {
    std::shared_ptr<void> data;
    size_t bytes;
    bool is_of_view;
  };
  std::vector<Memory> blocks_;
  std::optional<DecodePlan> plan_;
  std::shared_ptr<flashmla_page_pool> pool_owner_;
  flashmla_page_pool* pool_ = nullptr;
};

/// What a function answered.
struct Answer {
  flashmla_status status = FLASHMLA_OK;
  std::string message;
};

/// Calls the C function that the call is of.
Answer call_c(Call& call);
/// The same through flashmla.hpp; nothing when C++ has no way to say it.
std::optional<Answer> call_cpp(Call& call);
/// Functions that `call_c` knows.
std::vector<std::string> callable_functions();

}  // namespace flashmla::errors
