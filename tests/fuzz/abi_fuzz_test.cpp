// The argument checks of the C ABI: good calls of the error matrix with random fields changed.
//
// A call whose views stay inside the memory that they were given is made for real, whatever else is wrong with it: it succeeds, or
// it fails with a text in the grammar and changes nothing. One whose views claim more memory than there is would be right to touch
// it, so it goes through core's checks alone, which form no address.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "api/errors/call.hpp"
#include "core/calls.hpp"
#include "core/error.hpp"
#include "core/names.hpp"
#include "fuzz/fuzz.hpp"

namespace flashmla::errors {
namespace {

constexpr int64_t kNumbers[] = {
    0,     1,         2,         3,         4,         8,         16,         64,        512,       576,
    -1,    7,         INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN, UINT32_MAX, 1ll << 62, 1ll << 40, INT64_MAX / 2,
    65536, 1ll << 32, 128,       129};
constexpr float kFloats[] = {0,
                             -0.0f,
                             1,
                             -1,
                             std::numeric_limits<float>::infinity(),
                             -std::numeric_limits<float>::infinity(),
                             std::numeric_limits<float>::quiet_NaN(),
                             std::numeric_limits<float>::denorm_min()};

/// Everything of a call that can be changed.
struct Places {
  std::vector<Place> numbers, pointers, structs_of_views;
  std::vector<std::string> whole_arguments;
};

void collect(Place const& place, Places& all) {
  if (place.kind != Kind::kStruct) {
    if (place.kind == Kind::kPointer) all.pointers.push_back(place);
    else if (place.kind != Kind::kText) all.numbers.push_back(place);
    return;
  }
  if (place.type == find_struct("flashmla_view")) all.structs_of_views.push_back(place);
  for (Field const& field : place.type->fields) {
    if (std::string_view(field.name) == "executor") continue;  // a struct that is read at once: no address but null can be told to be wrong
    for (size_t i = 0; i < field.count; ++i)
      collect({static_cast<char*>(place.address) + field.offset + i * field.bytes, field.kind, field.type}, all);
  }
}

Places places_of(Call& call) {
  Places all;
  for (std::string const& name : call.arguments()) {
    if (name.find('.') != std::string::npos) continue;  // the state of a pool
    all.whole_arguments.push_back(name);
    if (name == "plan" || name == "pool" || name == "parts" || name == "fault") continue;
    collect(call.place(name), all);
    if (name == "caches" || name == "copies") collect(call.place(name + "[1]"), all);
  }
  return all;
}

template <typename T>
void change_integer(fuzz::Random& random, void* address) {
  T value;
  std::memcpy(&value, address, sizeof value);
  int64_t const next = random.below(3) == 0
                           ? static_cast<int64_t>(static_cast<uint64_t>(value) + static_cast<uint64_t>(random.between(-2, 2)))
                           : fuzz::any_of(random, kNumbers);
  value = static_cast<T>(next);
  std::memcpy(address, &value, sizeof value);
}

void change_number(fuzz::Random& random, Place const& place) {
  if (place.kind == Kind::kFloat) std::memcpy(place.address, &fuzz::any_of(random, kFloats), sizeof(float));
  else if (place.kind == Kind::kInt64) change_integer<int64_t>(random, place.address);
  else change_integer<int32_t>(random, place.address);
}

/// Null, some bytes on, or where another view begins.
void change_pointer(fuzz::Random& random, Place const& place, Places const& all) {
  uintptr_t value = 0;
  std::memcpy(&value, place.address, sizeof value);
  int64_t const choice = random.below(4);
  if (choice == 0) value = 0;
  if (choice == 1) value += static_cast<uintptr_t>(random.between(-300, 300));
  if (choice >= 2 && !all.structs_of_views.empty())
    value = reinterpret_cast<uintptr_t>(static_cast<flashmla_view*>(fuzz::any_of(random, all.structs_of_views).address)->data) +
            (choice == 2 ? 0 : 256 * static_cast<uintptr_t>(random.below(64)));
  std::memcpy(place.address, &value, sizeof value);
}

void change_view(fuzz::Random& random, Place const& place, Places const& all) {
  auto* const view = static_cast<flashmla_view*>(place.address);
  if (random.below(3) == 0) *view = flashmla_view{};
  else *view = *static_cast<flashmla_view*>(fuzz::any_of(random, all.structs_of_views).address);
}

/// Words of one block of memory: lengths, offsets and page ids that no host can have checked, or a schedule that nobody made.
void scribble(fuzz::Random& random, std::vector<Call::Block> const& blocks) {
  if (blocks.empty()) return;
  Call::Block const& block = fuzz::any_of(random, blocks);
  int64_t const words = std::min<int64_t>(static_cast<int64_t>(block.bytes / sizeof(int32_t)), 64);
  for (int64_t i = 0; i < words; ++i) {
    auto const word = static_cast<int32_t>(random.below(2) == 0 ? random.between(-2, 6) : fuzz::any_of(random, kNumbers));
    std::memcpy(static_cast<char*>(block.data) + i * static_cast<int64_t>(sizeof word), &word, sizeof word);
  }
}

void change_something(fuzz::Random& random, Call& call, Places const& all) {
  int64_t const choice = random.below(18);
  if (choice >= 16) return scribble(random, call.view_blocks());
  if (choice == 0) call.forget(fuzz::any_of(random, all.whole_arguments));
  else if (choice <= 2 && !all.structs_of_views.empty()) change_view(random, fuzz::any_of(random, all.structs_of_views), all);
  else if (choice <= 5 && !all.pointers.empty()) change_pointer(random, fuzz::any_of(random, all.pointers), all);
  else if (!all.numbers.empty()) change_number(random, fuzz::any_of(random, all.numbers));
}

/// Whether all that a view describes lies in one block. A view that has to be refused before anything is read through it counts too.
bool is_inside(flashmla_view const& view, std::vector<Call::Block> const& blocks) {
  if (view.data == nullptr || view.rank < 1 || view.rank > 4) return true;
  auto const elem = static_cast<__int128>(std::max<size_t>(1, core::dtype_bytes(view.dtype)));
  __int128 first = 0, last = elem;
  for (int i = 0; i < view.rank; ++i) {
    if (view.size[i] <= 0) return true;
    __int128 const reach = static_cast<__int128>(view.size[i] - 1) * view.stride[i] * elem;
    (reach < 0 ? first : last) += reach;
  }
  auto const begin = static_cast<__int128>(reinterpret_cast<uintptr_t>(view.data));
  for (Call::Block const& block : blocks) {
    auto const low = static_cast<__int128>(reinterpret_cast<uintptr_t>(block.data));
    if (begin + first >= low && begin + last <= low + static_cast<__int128>(block.bytes)) return true;
  }
  return false;
}

template <typename Args>
bool has_legal_tail(Call& call, char const* name) {
  if (call.is_null(name)) return true;
  uint32_t const size = call.pointer<Args>(name)->struct_size;
  return size <= sizeof(Args) + 32 || size > 65536;  // what lies behind is the caller's, and ours is short
}

/// Arrays that come with a count, and structs with a size, are as long as they say.
bool counts_are_true(Call& call) {
  std::string const& f = call.function();
  auto const count = [&](char const* name, int64_t most) { return call.value<int64_t>(name) <= most; };
  if (f == "flashmla_plan_create")
    return has_legal_tail<flashmla_problem>(call, "problem") && has_legal_tail<flashmla_target>(call, "target") &&
           (call.is_null("target") || call.pointer<flashmla_target>("target")->num_threads <= 8 ||
            call.pointer<flashmla_target>("target")->num_threads > 4096);
  if (f == "flashmla_plan_update") return has_legal_tail<flashmla_lengths>(call, "lengths");
  if (f == "flashmla_plan_run") return has_legal_tail<flashmla_decode_args>(call, "args");
  if (f == "flashmla_merge") return has_legal_tail<flashmla_merge_args>(call, "args");
  if (f == "flashmla_append") return has_legal_tail<flashmla_append_args>(call, "args");
  if (f == "flashmla_copy_pages") {
    auto const* const args = call.pointer<flashmla_copy_pages_args>("args");
    return args == nullptr || (has_legal_tail<flashmla_copy_pages_args>(call, "args") && args->num_caches <= 2 && args->num_copies <= 2 &&
                               (args->caches == nullptr || args->caches == call.place("caches").address) &&
                               (args->copies == nullptr || args->copies == call.place("copies").address));
  }
  if (f == "flashmla_page_pool_create") return count("num_pages", 1 << 20) || !count("num_pages", INT32_MAX);
  if (f == "flashmla_page_pool_retain" || f == "flashmla_page_pool_free") return count("count", 4);
  if (f == "flashmla_page_pool_fork") {
    int64_t const tokens = call.value<int64_t>("tokens"), page_tokens = call.value<int64_t>("page_tokens");
    return tokens < 0 || page_tokens < 1 || tokens / page_tokens < 4;
  }
  return true;
}

std::string judge(flashmla_status status, std::string const& message) {
  if (status == FLASHMLA_OK) return message.empty() ? "" : "a good call leaves an error: " + message;
  if (status != FLASHMLA_INVALID_ARGUMENT && status != FLASHMLA_UNSUPPORTED && status != FLASHMLA_EXHAUSTED)
    return std::string(flashmla_status_name(status)) + ": " + message;
  return is_in_grammar(message) ? "" : "not in the grammar: " + message;
}

std::string call_for_real(Call& call) {
  std::string const before = call.bytes();
  Answer const answer = call_c(call);
  if (answer.status != FLASHMLA_OK && call.function().rfind("flashmla_plan_parts", 0) != 0 && call.bytes() != before)
    return "the failed call changed something: " + answer.message;
  return judge(answer.status, answer.message);
}

/// The checks of core for a call whose views go beyond their memory.
std::string check_alone(Call& call) {
  std::string const& f = call.function();
  try {
    if (f == "flashmla_merge" && !call.is_null("args")) (void)core::validate(*call.pointer<flashmla_merge_args>("args"));
    if (f == "flashmla_append" && !call.is_null("args")) (void)core::validate(*call.pointer<flashmla_append_args>("args"));
    if (f == "flashmla_copy_pages" && !call.is_null("args")) (void)core::validate(*call.pointer<flashmla_copy_pages_args>("args"));
    if (f == "flashmla_plan_update" && !call.is_null("lengths"))
      (void)core::validate(core::validate(call.plan_problem()), kCpu, *call.pointer<flashmla_lengths>("lengths"));
    if (f == "flashmla_plan_run" && !call.is_null("args")) {
      auto const& args = *call.pointer<flashmla_decode_args>("args");
      (void)core::validate(core::validate(call.plan_problem()), kCpu, args);
      if (!call.is_null("schedule") && !call.is_null("workspace"))
        (void)core::validate_run_buffers(kCpu, args, *call.pointer<flashmla_view>("schedule"), *call.pointer<flashmla_view>("workspace"),
                                         {call.plan().schedule_bytes(), call.plan().workspace_bytes()});
    }
  } catch (core::Error const& error) {
    return judge(error.status(), error.what());
  }
  return "";
}

std::vector<CallBlock> const& good_calls() {
  static std::vector<CallBlock> const blocks = read_table(FLASHMLA_ERROR_MATRIX);
  return blocks;
}

TEST(AbiFuzz, ChecksHoldForAnyArguments) {
  Target target(kCpu);
  target.num_threads = 2;
  DecodePlan const keeps_the_threads = DecodePlan::make(Problem::decode(1, kKvBf16_576, 1), target);
  int64_t real = 0, good = 0;
  fuzz::run_rounds(2000, [&](fuzz::Random& random) -> std::string {
    CallBlock const& block = fuzz::any_of(random, good_calls());
    fuzz::describe_round(block.function);
    Call call(block, {});
    Places const all = places_of(call);
    for (int64_t changes = random.below(4); changes >= 0; --changes) change_something(random, call, all);
    if (!counts_are_true(call)) return "";
    for (Place const& view : all.structs_of_views)
      if (!is_inside(*static_cast<flashmla_view*>(view.address), call.view_blocks())) return check_alone(call);
    ++real;
    std::string const wrong = call_for_real(call);
    good += *flashmla_last_error() == '\0' ? 1 : 0;
    return wrong;
  });
  std::printf("%lld calls for real, %lld of them good\n", static_cast<long long>(real), static_cast<long long>(good));
}

}  // namespace
}  // namespace flashmla::errors
