// The functions of the C ABI, and their C++ forms, over a Call.
#include <functional>

#include "api/errors/call.hpp"

namespace flashmla::errors {
namespace {

template <typename Cpp, typename C>
Cpp as_cpp(C const& c) {
  Cpp made;
  static_cast<C&>(made) = c;
  return made;
}
View as_view(flashmla_view const& view) { return as_cpp<View>(view); }

/// C++ has references where C has pointers, and fills in the size of a struct itself.
template <typename Args>
bool is_plain(Call& call, std::string const& name) {
  return !call.is_null(name) && call.pointer<Args>(name)->struct_size <= sizeof(Args);
}
bool are_given(Call& call, std::initializer_list<char const*> names) {
  for (char const* const name : names)
    if (call.is_null(name)) return false;
  return true;
}

std::vector<int32_t> first_ids(Call& call, std::string const& name, int64_t count) {
  auto const* const ids = call.pointer<int32_t const>(name);
  return {ids, ids + count};
}

using CFunction = flashmla_status (*)(Call&);
/// False: C++ has no way to say it.
using CppFunction = bool (*)(Call&);

bool cpp_plan_create(Call& call) {
  if (!are_given(call, {"plan"}) || !is_plain<flashmla_problem>(call, "problem") || !is_plain<flashmla_target>(call, "target"))
    return false;
  (void)DecodePlan::make(as_cpp<Problem>(*call.pointer<flashmla_problem>("problem")),
                         as_cpp<Target>(*call.pointer<flashmla_target>("target")));
  return true;
}
bool cpp_plan_update(Call& call) {
  if (!are_given(call, {"plan", "schedule"}) || !is_plain<flashmla_lengths>(call, "lengths")) return false;
  call.plan().update(as_cpp<Lengths>(*call.pointer<flashmla_lengths>("lengths")), as_view(*call.pointer<flashmla_view>("schedule")));
  return true;
}
bool cpp_plan_reset(Call& call) {
  if (!are_given(call, {"plan", "workspace"})) return false;
  call.plan().reset(as_view(*call.pointer<flashmla_view>("workspace")));
  return true;
}
bool cpp_plan_run(Call& call) {
  if (!are_given(call, {"plan", "schedule", "workspace"}) || !is_plain<flashmla_decode_args>(call, "args")) return false;
  call.plan().run(as_cpp<DecodeArgs>(*call.pointer<flashmla_decode_args>("args")), as_view(*call.pointer<flashmla_view>("schedule")),
                  as_view(*call.pointer<flashmla_view>("workspace")));
  return true;
}
bool cpp_plan_fault(Call& call) {
  if (!are_given(call, {"plan", "workspace", "fault"})) return false;
  (void)call.plan().fault(as_view(*call.pointer<flashmla_view>("workspace")));
  return true;
}
bool cpp_plan_parts(Call& call) {
  int64_t const batch = call.value<int64_t>("batch");
  if (!are_given(call, {"plan", "kv_len", "parts", "count"}) || batch < 0 || batch > 4 || *call.pointer<int64_t>("count") != 16)
    return false;
  (void)call.plan().parts(first_ids(call, "kv_len", batch), call.value<int32_t>("q_tokens"));
  return true;
}
bool cpp_plan_parts_ragged(Call& call) {
  int64_t const batch = call.value<int64_t>("batch");
  if (!are_given(call, {"plan", "kv_len", "q_offsets", "parts", "count"}) || batch < 0 || batch > 4) return false;
  if (*call.pointer<int64_t>("count") != 16) return false;
  (void)call.plan().parts(first_ids(call, "kv_len", batch), first_ids(call, "q_offsets", batch + 1));
  return true;
}
bool cpp_merge(Call& call) {
  if (!is_plain<flashmla_merge_args>(call, "args")) return false;
  merge(as_cpp<MergeArgs>(*call.pointer<flashmla_merge_args>("args")));
  return true;
}
bool cpp_append(Call& call) {
  if (!is_plain<flashmla_append_args>(call, "args")) return false;
  append(as_cpp<AppendArgs>(*call.pointer<flashmla_append_args>("args")));
  return true;
}
bool cpp_copy_pages(Call& call) {
  auto const* const args = call.pointer<flashmla_copy_pages_args>("args");
  if (args == nullptr || args->struct_size != sizeof *args || args->flags != 0 || args->num_caches < 0 || args->num_copies < 0)
    return false;
  if (args->caches == nullptr || args->copies == nullptr) return false;
  std::vector<View> caches;
  for (int64_t i = 0; i < args->num_caches; ++i) caches.push_back(as_view(args->caches[i]));
  copy_pages(caches, {args->copies, static_cast<size_t>(args->num_copies)});
  return true;
}

bool cpp_pool_create(Call& call) {
  if (!are_given(call, {"pool"})) return false;
  PagePool const pool(call.value<int64_t>("num_pages"));
  return true;
}
/// A C++ pool in the state of the call's; `use` fails, and must leave it so.
template <typename Use>
bool with_pool(Call& call, Use&& use) {
  PagePool pool(call.value<int64_t>("pool.num_pages"));
  std::vector<int32_t> const held = pool.allocate(call.value<int64_t>("pool.held"));
  int64_t const num_free = pool.num_free();
  try {
    use(pool);
  } catch (Error const&) {
    if (pool.num_free() != num_free) throw Error(FLASHMLA_INTERNAL, "the failed call changed the pool");
    throw;
  }
  return true;
}
bool cpp_pool_allocate(Call& call) {
  if (!are_given(call, {"pool", "page_ids"})) return false;
  return with_pool(call, [&](PagePool& pool) { (void)pool.allocate(call.value<int64_t>("count")); });
}
template <void (PagePool::*method)(std::vector<int32_t> const&)>
bool cpp_pool_ids(Call& call) {
  int64_t const count = call.value<int64_t>("count");
  if (!are_given(call, {"pool", "page_ids"}) || count < 0 || count > 4) return false;
  return with_pool(call, [&](PagePool& pool) { (pool.*method)(first_ids(call, "page_ids", count)); });
}
bool cpp_pool_fork(Call& call) {
  if (!are_given(call, {"pool", "page_ids", "forked_ids", "copy"})) return false;
  return with_pool(call, [&](PagePool& pool) {
    (void)pool.fork(first_ids(call, "page_ids", 4), call.value<int64_t>("tokens"), call.value<int64_t>("page_tokens"));
  });
}

struct Function {
  char const* name;
  CFunction c;
  CppFunction cpp;  // null: C++ has no such function
};
constexpr Function kFunctions[] = {
    {"flashmla_plan_create",
     [](Call& c) {
       flashmla_plan** const plan = c.pointer<flashmla_plan*>("plan");
       flashmla_status const status =
           flashmla_plan_create(c.pointer<flashmla_problem>("problem"), c.pointer<flashmla_target>("target"), plan);
       if (status == FLASHMLA_OK) flashmla_plan_destroy(*plan);
       return status;
     },
     cpp_plan_create},
    {"flashmla_plan_update",
     [](Call& c) {
       return flashmla_plan_update(c.plan_handle(), c.pointer<flashmla_lengths>("lengths"), c.pointer<flashmla_view>("schedule"), nullptr);
     },
     cpp_plan_update},
    {"flashmla_plan_reset", [](Call& c) { return flashmla_plan_reset(c.plan_handle(), c.pointer<flashmla_view>("workspace"), nullptr); },
     cpp_plan_reset},
    {"flashmla_plan_run",
     [](Call& c) {
       return flashmla_plan_run(c.plan_handle(), c.pointer<flashmla_decode_args>("args"), c.pointer<flashmla_view>("schedule"),
                                c.pointer<flashmla_view>("workspace"), nullptr);
     },
     cpp_plan_run},
    {"flashmla_plan_fault",
     [](Call& c) {
       return flashmla_plan_fault(c.plan_handle(), c.pointer<flashmla_view>("workspace"), nullptr, c.pointer<flashmla_fault>("fault"));
     },
     cpp_plan_fault},
    {"flashmla_plan_parts",
     [](Call& c) {
       return flashmla_plan_parts(c.plan_handle(), c.pointer<int32_t>("kv_len"), c.value<int64_t>("batch"), c.value<int32_t>("q_tokens"),
                                  c.pointer<flashmla_part>("parts"), c.pointer<int64_t>("count"));
     },
     cpp_plan_parts},
    {"flashmla_plan_parts_ragged",
     [](Call& c) {
       return flashmla_plan_parts_ragged(c.plan_handle(), c.pointer<int32_t>("kv_len"), c.pointer<int32_t>("q_offsets"),
                                         c.value<int64_t>("batch"), c.pointer<flashmla_part>("parts"), c.pointer<int64_t>("count"));
     },
     cpp_plan_parts_ragged},
    {"flashmla_merge", [](Call& c) { return flashmla_merge(c.pointer<flashmla_merge_args>("args"), nullptr); }, cpp_merge},
    {"flashmla_append", [](Call& c) { return flashmla_append(c.pointer<flashmla_append_args>("args"), nullptr); }, cpp_append},
    {"flashmla_copy_pages", [](Call& c) { return flashmla_copy_pages(c.pointer<flashmla_copy_pages_args>("args"), nullptr); },
     cpp_copy_pages},
    {"flashmla_page_pool_create",
     [](Call& c) {
       flashmla_page_pool** const pool = c.pointer<flashmla_page_pool*>("pool");
       flashmla_status const status = flashmla_page_pool_create(c.value<int64_t>("num_pages"), pool);
       if (status == FLASHMLA_OK) flashmla_page_pool_destroy(*pool);
       return status;
     },
     cpp_pool_create},
    {"flashmla_page_pool_allocate",
     [](Call& c) { return flashmla_page_pool_allocate(c.pool_handle(), c.value<int64_t>("count"), c.pointer<int32_t>("page_ids")); },
     cpp_pool_allocate},
    {"flashmla_page_pool_retain",
     [](Call& c) { return flashmla_page_pool_retain(c.pool_handle(), c.value<int64_t>("count"), c.pointer<int32_t>("page_ids")); },
     cpp_pool_ids<&PagePool::retain>},
    {"flashmla_page_pool_free",
     [](Call& c) { return flashmla_page_pool_free(c.pool_handle(), c.value<int64_t>("count"), c.pointer<int32_t>("page_ids")); },
     cpp_pool_ids<&PagePool::free>},
    {"flashmla_page_pool_fork",
     [](Call& c) {
       return flashmla_page_pool_fork(c.pool_handle(), c.value<int64_t>("tokens"), c.value<int64_t>("page_tokens"),
                                      c.pointer<int32_t>("page_ids"), c.pointer<int32_t>("forked_ids"),
                                      c.pointer<flashmla_page_copy>("copy"));
     },
     cpp_pool_fork},
    {"flashmla_get_device_info",
     [](Call& c) { return flashmla_get_device_info(c.value<int32_t>("index"), c.pointer<flashmla_device_info>("info")); }, nullptr},
    {"flashmla_get_driver_info", [](Call& c) { return flashmla_get_driver_info(c.pointer<flashmla_driver_info>("info")); }, nullptr},
    {"flashmla_get_kernel_info",
     [](Call& c) { return flashmla_get_kernel_info(c.value<int32_t>("index"), c.pointer<flashmla_kernel_info>("info")); }, nullptr},
};

Function const& find_function(std::string const& name) {
  for (Function const& function : kFunctions)
    if (name == function.name) return function;
  throw std::invalid_argument("no function " + name);
}

}  // namespace

Answer call_c(Call& call) {
  flashmla_status const status = find_function(call.function()).c(call);
  return {status, flashmla_last_error()};
}

std::optional<Answer> call_cpp(Call& call) {
  Function const& function = find_function(call.function());
  try {
    if (function.cpp == nullptr || !function.cpp(call)) return std::nullopt;
    return Answer{};
  } catch (Error const& error) {
    return Answer{error.status(), error.what()};
  } catch (std::exception const& error) {
    return Answer{FLASHMLA_INTERNAL, std::string("not an Error: ") + error.what()};
  }
}

std::vector<std::string> callable_functions() {
  std::vector<std::string> names;
  for (Function const& function : kFunctions) names.emplace_back(function.name);
  return names;
}

}  // namespace flashmla::errors
