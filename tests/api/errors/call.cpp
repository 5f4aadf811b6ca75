#include "api/errors/call.hpp"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>

#include "core/names.hpp"

namespace flashmla::errors {
namespace {

constexpr std::align_val_t kAlign{256};
/// Zeros behind every struct: what a caller built against a later header may have there.
constexpr size_t kPastTheEnd = 64;

struct Word {
  char const* name;
  int64_t value;
};
constexpr Word kWords[] = {
    {"INT32_MAX", INT32_MAX},
    {"INT32_MIN", INT32_MIN},
    {"INT64_MAX", INT64_MAX},
    {"INT64_MIN", INT64_MIN},
    {"UINT32_MAX", UINT32_MAX},
    {"NONE", FLASHMLA_DTYPE_NONE},
    {"BF16", FLASHMLA_BF16},
    {"FP16", FLASHMLA_FP16},
    {"FP32", FLASHMLA_FP32},
    {"FP64", FLASHMLA_FP64},
    {"INT32", FLASHMLA_INT32},
    {"INT64", FLASHMLA_INT64},
    {"INT8", FLASHMLA_INT8},
    {"UINT8", FLASHMLA_UINT8},
    {"E4M3", FLASHMLA_E4M3},
    {"CPU", FLASHMLA_CPU},
    {"CUDA", FLASHMLA_CUDA},
    {"BF16_576", FLASHMLA_KV_BF16_576},
    {"FP16_576", FLASHMLA_KV_FP16_576},
    {"FP8_V32_656", FLASHMLA_KV_FP8_V32_656},
    {"TOKENS_HEADS", FLASHMLA_LSE_TOKENS_HEADS},
    {"HAS_SCALE", FLASHMLA_PROBLEM_HAS_SCALE},
    {"BATCH_INVARIANT", FLASHMLA_PROBLEM_BATCH_INVARIANT},
};

[[noreturn]] void fail(std::string const& text) { throw std::invalid_argument(text); }

int64_t parse_integer(std::string_view text) {
  int64_t value = 0;
  auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) fail("no number: " + std::string(text));
  return value;
}

template <typename T>
void put(void* address, T value) {
  std::memcpy(address, &value, sizeof value);
}
template <typename T>
T get(void const* address) {
  T value;
  std::memcpy(&value, address, sizeof value);
  return value;
}

void set_struct_sizes(StructType const& type, void* base) {
  for (Field const& field : type.fields) {
    void* const at = static_cast<char*>(base) + field.offset;
    if (std::string_view(field.name) == "struct_size") put(at, static_cast<uint32_t>(type.bytes));
    if (field.kind == Kind::kStruct) set_struct_sizes(*field.type, at);
  }
}

size_t bytes_of(Kind kind) {
  switch (kind) {
    case Kind::kInt64:
    case Kind::kPointer:
      return 8;
    case Kind::kText:
      return 1;
    default:
      return 4;
  }
}

/// The argument that a path begins with: "caches[1].size[0]" is entry 1 of `caches`, and then "size[0]".
struct Root {
  std::string name;
  std::optional<size_t> index;
  std::string rest;
};
Root split_root(std::string const& path) {
  size_t const dot = path.find('.');
  Root root{path.substr(0, dot), std::nullopt, dot == std::string::npos ? "" : path.substr(dot + 1)};
  size_t const open = root.name.find('[');
  if (open == std::string::npos) return root;
  root.index = static_cast<size_t>(parse_integer(std::string_view(root.name).substr(open + 1, root.name.size() - open - 2)));
  root.name.resize(open);
  return root;
}

bool is_about(Assignment const& assignment, char const* handle) { return split_root(assignment.path).name == handle; }

}  // namespace

void* Call::allocate(size_t bytes, unsigned char fill) {
  std::shared_ptr<void> const memory(::operator new(bytes, kAlign), [](void* p) { ::operator delete(p, kAlign); });
  std::memset(memory.get(), fill, bytes);
  blocks_.push_back({memory, bytes, true});
  return memory.get();
}

void Call::add(std::string const& name, StructType const& type, size_t entries) {
  Argument& made = arguments_[name];
  made.type = &type;
  made.bytes = type.bytes;
  size_t const bytes = type.bytes * entries + kPastTheEnd;
  made.memory = std::shared_ptr<void>(::operator new(bytes, kAlign), [](void* p) { ::operator delete(p, kAlign); });
  std::memset(made.memory.get(), 0, bytes);
  blocks_.push_back({made.memory, bytes, false});
  for (size_t i = 0; i < entries; ++i) set_struct_sizes(type, static_cast<char*>(made.memory.get()) + i * type.bytes);
  made.pointer = made.memory.get();
}

void Call::add(std::string const& name, Kind kind, bool is_value, size_t entries) {
  Argument& made = arguments_[name];
  made.kind = kind;
  made.is_value = is_value;
  made.bytes = bytes_of(kind);
  size_t const bytes = made.bytes * entries;
  made.memory = std::shared_ptr<void>(::operator new(bytes, kAlign), [](void* p) { ::operator delete(p, kAlign); });
  std::memset(made.memory.get(), is_value ? 0 : 0x5a, bytes);
  blocks_.push_back({made.memory, bytes, false});
  made.pointer = made.memory.get();
}

Call::Call(CallBlock const& block, std::vector<Assignment> const& changes) : function_(block.function) {
  declare(function_);
  // Handles first: the sizes of buffers follow from the plan.
  for (auto const* list : {&block.good, &changes})
    for (Assignment const& a : *list)
      if (is_about(a, "plan") || is_about(a, "pool")) assign(a);
  if (arguments_.contains("pool.num_pages")) make_pool();
  for (Assignment const& a : block.good)
    if (!is_about(a, "plan") && !is_about(a, "pool")) assign(a);
  prepare_buffers();
  for (Assignment const& a : changes)
    if (!is_about(a, "plan") && !is_about(a, "pool")) assign(a);
}

/// A cleared workspace, and a schedule unless the plan of a row has no place for the good lengths.
void Call::prepare_buffers() {
  bool const runs = function_ == "flashmla_plan_run";
  if (!runs && function_ != "flashmla_plan_fault") return;
  check(flashmla_plan_reset(plan().handle(), pointer<flashmla_view>("workspace"), nullptr));
  if (runs)
    (void)flashmla_plan_update(plan().handle(), &pointer<flashmla_decode_args>("args")->lengths, pointer<flashmla_view>("schedule"),
                               nullptr);
}

Call::Argument& Call::argument(std::string const& name) {
  auto const found = arguments_.find(name);
  if (found == arguments_.end()) fail(function_ + " has no argument " + name);
  return found->second;
}

DecodePlan& Call::plan() {
  if (!plan_) {
    Problem problem;
    static_cast<flashmla_problem&>(problem) = *static_cast<flashmla_problem*>(argument("plan").memory.get());
    Target target(kCpu);
    target.num_threads = 2;
    plan_ = DecodePlan::make(problem, target);
  }
  return *plan_;
}

void Call::make_pool() {
  flashmla_page_pool* pool = nullptr;
  int64_t const num_pages = number("pool.num_pages"), held = number("pool.held");
  check(flashmla_page_pool_create(num_pages, &pool));
  pool_owner_ = std::shared_ptr<flashmla_page_pool>(pool, flashmla_page_pool_destroy);
  std::vector<int32_t> ids(static_cast<size_t>(held));
  check(flashmla_page_pool_allocate(pool, held, ids.data()));
  pool_ = pool;
}

Place Call::place(std::string const& path) {
  if (path.rfind("pool.", 0) == 0 && arguments_.contains(path)) return {arguments_[path].memory.get(), Kind::kInt64, nullptr};
  Root const root = split_root(path);
  Argument& found = argument(root.name);
  char* const base = static_cast<char*>(found.memory.get());
  if (root.rest == "past_the_end") return {base + found.bytes, Kind::kUint32, nullptr};
  void* const entry = base + root.index.value_or(0) * found.bytes;
  if (found.type != nullptr) return find_place(*found.type, entry, root.rest);
  return {entry, found.kind, nullptr};
}

int64_t Call::number(std::string_view word) {
  for (Word const& known : kWords)
    if (word == known.name) return known.value;
  if (word == "schedule_bytes") return static_cast<int64_t>(plan().schedule_bytes());
  if (word == "workspace_bytes") return static_cast<int64_t>(plan().workspace_bytes());
  if (word.rfind("pool.", 0) == 0) return get<int64_t>(argument(std::string(word)).memory.get());
  return parse_integer(word);
}

/// "absent", or "BF16 [2, 4]": contiguous, with memory of its own. Numbers of integers are 0, so that lengths and pages are legal.
void Call::assign_view(flashmla_view* view, std::string const& value) {
  *view = flashmla_view{};
  if (value == "absent") return;
  size_t const open = value.find(" ["), close = value.find(']');
  if (open == std::string::npos || close == std::string::npos) fail("no view: " + value);
  view->dtype = static_cast<int32_t>(number(value.substr(0, open)));
  std::string sizes = value.substr(open + 2, close - open - 2) + ",";
  for (size_t comma = 0; (comma = sizes.find(',')) != std::string::npos; sizes.erase(0, comma + 1)) {
    std::string const word = sizes.substr(sizes.find_first_not_of(' '), comma - sizes.find_first_not_of(' '));
    view->size[view->rank++] = number(word);
  }
  int64_t step = 1;
  for (int i = view->rank - 1; i >= 0; step *= view->size[i--]) view->stride[i] = step;
  bool const is_integer = view->dtype == FLASHMLA_INT32 || view->dtype == FLASHMLA_INT64;
  view->data = allocate(static_cast<size_t>(step) * std::max<size_t>(1, core::dtype_bytes(view->dtype)), is_integer ? 0 : 0x5a);
}

/// "null", "+3" or "+-3" bytes away, or "@q.data" and perhaps "+3": where another pointer points.
void Call::assign_pointer(void** pointer, std::string const& value) {
  if (value == "null") {
    *pointer = nullptr;
    return;
  }
  size_t const plus = value.find('+');
  void* base = *pointer;
  if (value.front() == '@') base = get<void*>(place(value.substr(1, plus == std::string::npos ? plus : plus - 1)).address);
  else if (plus != 0) fail("no pointer: " + value);
  int64_t const offset = plus == std::string::npos ? 0 : parse_integer(std::string_view(value).substr(plus + 1));
  *pointer = reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(base) + static_cast<uintptr_t>(offset));
}

void Call::forget(std::string const& name) {
  if (!argument(name).is_value) argument(name).pointer = nullptr;
}

void Call::assign(Assignment const& a) {
  Root const root = split_root(a.path);
  if (root.rest.empty() && !root.index && a.value == "null") return forget(root.name);
  Place const at = place(a.path);
  bool const is_relative = a.value.front() == '+';
  std::string_view const word = std::string_view(a.value).substr(is_relative ? 1 : 0);
  switch (at.kind) {
    case Kind::kInt32:
    case Kind::kUint32:
      return put(at.address, static_cast<uint32_t>(number(word) + (is_relative ? get<int32_t>(at.address) : 0)));
    case Kind::kInt64:
      return put(at.address, number(word) + (is_relative ? get<int64_t>(at.address) : 0));
    case Kind::kFloat:
      return put(at.address, std::strtof(a.value.c_str(), nullptr));
    case Kind::kPointer:
      return assign_pointer(static_cast<void**>(at.address), a.value);
    case Kind::kStruct:
      return assign_view(static_cast<flashmla_view*>(at.address), a.value);
    case Kind::kText:
      fail("a text cannot be set: " + a.path);
  }
}

std::string Call::bytes() const {
  std::string all;
  for (Memory const& block : blocks_) all.append(static_cast<char const*>(block.data.get()), block.bytes);
  if (pool_ != nullptr) {
    int64_t const num_pages = flashmla_page_pool_num_pages(pool_);
    all += std::to_string(flashmla_page_pool_num_free(pool_));
    for (int64_t id = 0; id < num_pages; ++id) all += " " + std::to_string(flashmla_page_pool_references(pool_, static_cast<int32_t>(id)));
  }
  return all;
}

std::vector<std::string> Call::arguments() const {
  std::vector<std::string> names;
  for (auto const& [name, argument] : arguments_) names.push_back(name);
  return names;
}

std::vector<Call::Block> Call::view_blocks() const {
  std::vector<Block> all;
  for (Memory const& block : blocks_)
    if (block.is_of_view) all.push_back({static_cast<char*>(block.data.get()), block.bytes});
  return all;
}

void Call::declare(std::string const& function) {
  auto const type = [](char const* name) -> StructType const& { return *find_struct(name); };
  auto const is = [&](char const* name) { return function == std::string("flashmla_") + name; };
  bool const is_pool = function.rfind("flashmla_page_pool_", 0) == 0, is_plan = function.rfind("flashmla_plan_", 0) == 0;
  if (is("plan_create")) {
    add("problem", type("flashmla_problem"), 1);
    add("target", type("flashmla_target"), 1);
    add("plan", Kind::kPointer, false, 1);
  } else if (is_plan) {
    add("plan", type("flashmla_problem"), 1);
  }
  if (is("plan_update")) add("lengths", type("flashmla_lengths"), 1);
  if (is("plan_run")) add("args", type("flashmla_decode_args"), 1);
  if (is("plan_update") || is("plan_run")) add("schedule", type("flashmla_view"), 1);
  if (is("plan_reset") || is("plan_run") || is("plan_fault")) add("workspace", type("flashmla_view"), 1);
  if (is("plan_fault")) add("fault", type("flashmla_fault"), 1);
  if (is("plan_parts") || is("plan_parts_ragged")) {
    add("kv_len", Kind::kInt32, false, 4);
    add("batch", Kind::kInt64, true, 1);
    if (is("plan_parts")) add("q_tokens", Kind::kInt32, true, 1);
    else add("q_offsets", Kind::kInt32, false, 5);
    add("parts", type("flashmla_part"), 16);
    add("count", Kind::kInt64, false, 1);
  }
  if (is("merge")) add("args", type("flashmla_merge_args"), 1);
  if (is("append")) add("args", type("flashmla_append_args"), 1);
  if (is("copy_pages")) {
    add("caches", type("flashmla_view"), 2);
    add("copies", type("flashmla_page_copy"), 2);
    add("args", type("flashmla_copy_pages_args"), 1);
    auto* const args = static_cast<flashmla_copy_pages_args*>(arguments_["args"].memory.get());
    args->caches = static_cast<flashmla_view*>(arguments_["caches"].memory.get());
    args->copies = static_cast<flashmla_page_copy*>(arguments_["copies"].memory.get());
  }
  if (is("page_pool_create")) {
    add("num_pages", Kind::kInt64, true, 1);
    add("pool", Kind::kPointer, false, 1);
  } else if (is_pool) {
    add("pool", Kind::kInt64, false, 1);  // a stand-in: the handle is pool_
    add("pool.num_pages", Kind::kInt64, true, 1);
    add("pool.held", Kind::kInt64, true, 1);
    add("page_ids", Kind::kInt32, false, 4);
  }
  if (is("page_pool_allocate") || is("page_pool_retain") || is("page_pool_free")) add("count", Kind::kInt64, true, 1);
  if (is("page_pool_fork")) {
    add("tokens", Kind::kInt64, true, 1);
    add("page_tokens", Kind::kInt64, true, 1);
    add("forked_ids", Kind::kInt32, false, 4);
    add("copy", type("flashmla_page_copy"), 1);
  }
  if (is("get_device_info") || is("get_kernel_info")) add("index", Kind::kInt32, true, 1);
  if (is("get_device_info")) add("info", type("flashmla_device_info"), 1);
  if (is("get_driver_info")) add("info", type("flashmla_driver_info"), 1);
  if (is("get_kernel_info")) add("info", type("flashmla_kernel_info"), 1);
}

}  // namespace flashmla::errors
