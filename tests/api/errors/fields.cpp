#include "api/errors/fields.hpp"

#include <flashmla/flashmla.h>

#include <charconv>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace flashmla::errors {
namespace {

template <typename T>
constexpr Kind kind_of() {
  if constexpr (std::is_same_v<T, int32_t>) return Kind::kInt32;
  else if constexpr (std::is_same_v<T, uint32_t>) return Kind::kUint32;
  else if constexpr (std::is_same_v<T, int64_t>) return Kind::kInt64;
  else if constexpr (std::is_same_v<T, float>) return Kind::kFloat;
  else if constexpr (std::is_same_v<T, char>) return Kind::kText;
  else if constexpr (std::is_pointer_v<T>) return Kind::kPointer;
  else return Kind::kStruct;
}

template <typename Member>
constexpr Field field_of(char const* name, size_t offset, StructType const* type = nullptr) {
  using Entry = std::remove_extent_t<Member>;
  size_t const count = std::is_array_v<Member> ? std::extent_v<Member> : 1;
  return {name, kind_of<Entry>(), offset, sizeof(Entry), count, type};
}

#define FLASHMLA_FIELD(name) field_of<decltype(Struct::name)>(#name, offsetof(Struct, name))
#define FLASHMLA_NESTED(name, type) field_of<decltype(Struct::name)>(#name, offsetof(Struct, name), &type)

namespace device {
using Struct = flashmla_device;
constexpr Field kFields[] = {FLASHMLA_FIELD(kind), FLASHMLA_FIELD(index)};
constexpr StructType kType = {"flashmla_device", sizeof(Struct), kFields};
}  // namespace device

namespace view {
using Struct = flashmla_view;
constexpr Field kFields[] = {FLASHMLA_FIELD(data), FLASHMLA_FIELD(dtype), FLASHMLA_FIELD(rank), FLASHMLA_NESTED(device, device::kType),
                             FLASHMLA_FIELD(size), FLASHMLA_FIELD(stride)};
constexpr StructType kType = {"flashmla_view", sizeof(Struct), kFields};
}  // namespace view

namespace problem {
using Struct = flashmla_problem;
constexpr Field kFields[] = {FLASHMLA_FIELD(struct_size),
                             FLASHMLA_FIELD(flags),
                             FLASHMLA_FIELD(h_q),
                             FLASHMLA_FIELD(h_kv),
                             FLASHMLA_FIELD(kv_format),
                             FLASHMLA_FIELD(page_tokens),
                             FLASHMLA_FIELD(q_dtype),
                             FLASHMLA_FIELD(out_dtype),
                             FLASHMLA_FIELD(lse_base),
                             FLASHMLA_FIELD(lse_layout),
                             FLASHMLA_FIELD(empty_row),
                             FLASHMLA_FIELD(chunk_tokens),
                             FLASHMLA_FIELD(scale),
                             FLASHMLA_FIELD(topk),
                             FLASHMLA_FIELD(extra_kv_format),
                             FLASHMLA_FIELD(extra_page_tokens),
                             FLASHMLA_FIELD(extra_topk),
                             FLASHMLA_FIELD(reserved),
                             FLASHMLA_FIELD(max_batch),
                             FLASHMLA_FIELD(max_q_tokens),
                             FLASHMLA_FIELD(max_kv_len),
                             FLASHMLA_FIELD(max_total_kv_tokens)};
constexpr StructType kType = {"flashmla_problem", sizeof(Struct), kFields};
}  // namespace problem

namespace target {
using Struct = flashmla_target;
constexpr Field kFields[] = {FLASHMLA_FIELD(struct_size), FLASHMLA_FIELD(flags),       FLASHMLA_NESTED(device, device::kType),
                             FLASHMLA_FIELD(isa),         FLASHMLA_FIELD(num_threads), FLASHMLA_FIELD(num_sms),
                             FLASHMLA_FIELD(reserved),    FLASHMLA_FIELD(executor)};
constexpr StructType kType = {"flashmla_target", sizeof(Struct), kFields};
}  // namespace target

#define FLASHMLA_VIEW(name) FLASHMLA_NESTED(name, view::kType)

namespace lengths {
using Struct = flashmla_lengths;
constexpr Field kFields[] = {FLASHMLA_FIELD(struct_size), FLASHMLA_FIELD(flags),        FLASHMLA_FIELD(q_tokens),
                             FLASHMLA_FIELD(reserved),    FLASHMLA_VIEW(kv_len),        FLASHMLA_VIEW(q_offsets),
                             FLASHMLA_VIEW(topk_len),     FLASHMLA_VIEW(extra_topk_len)};
constexpr StructType kType = {"flashmla_lengths", sizeof(Struct), kFields};
}  // namespace lengths

namespace decode_args {
using Struct = flashmla_decode_args;
constexpr Field kFields[] = {FLASHMLA_FIELD(struct_size),
                             FLASHMLA_FIELD(flags),
                             FLASHMLA_VIEW(q),
                             FLASHMLA_VIEW(q_nope),
                             FLASHMLA_VIEW(q_pe),
                             FLASHMLA_VIEW(cache),
                             FLASHMLA_VIEW(ckv),
                             FLASHMLA_VIEW(kpe),
                             FLASHMLA_VIEW(page_table),
                             FLASHMLA_NESTED(lengths, lengths::kType),
                             FLASHMLA_VIEW(visible_len),
                             FLASHMLA_VIEW(indices),
                             FLASHMLA_VIEW(extra_cache),
                             FLASHMLA_VIEW(extra_page_table),
                             FLASHMLA_VIEW(extra_indices),
                             FLASHMLA_VIEW(sink),
                             FLASHMLA_VIEW(q_scale),
                             FLASHMLA_VIEW(kv_scale),
                             FLASHMLA_VIEW(out),
                             FLASHMLA_VIEW(lse)};
constexpr StructType kType = {"flashmla_decode_args", sizeof(Struct), kFields};
}  // namespace decode_args

namespace merge_args {
using Struct = flashmla_merge_args;
constexpr Field kFields[] = {FLASHMLA_FIELD(struct_size), FLASHMLA_FIELD(flags),      FLASHMLA_FIELD(lse_base),
                             FLASHMLA_FIELD(empty_row),   FLASHMLA_VIEW(partial_out), FLASHMLA_VIEW(partial_lse),
                             FLASHMLA_VIEW(sink),         FLASHMLA_VIEW(out),         FLASHMLA_VIEW(lse)};
constexpr StructType kType = {"flashmla_merge_args", sizeof(Struct), kFields};
}  // namespace merge_args

namespace append_args {
using Struct = flashmla_append_args;
constexpr Field kFields[] = {FLASHMLA_FIELD(struct_size), FLASHMLA_FIELD(flags), FLASHMLA_FIELD(kv_format), FLASHMLA_FIELD(reserved),
                             FLASHMLA_VIEW(kv),           FLASHMLA_VIEW(ckv),    FLASHMLA_VIEW(kpe),        FLASHMLA_VIEW(slot_mapping),
                             FLASHMLA_VIEW(cache),        FLASHMLA_VIEW(fault)};
constexpr StructType kType = {"flashmla_append_args", sizeof(Struct), kFields};
}  // namespace append_args

namespace page_copy {
using Struct = flashmla_page_copy;
constexpr Field kFields[] = {FLASHMLA_FIELD(source), FLASHMLA_FIELD(target)};
constexpr StructType kType = {"flashmla_page_copy", sizeof(Struct), kFields};
}  // namespace page_copy

namespace copy_pages_args {
using Struct = flashmla_copy_pages_args;
constexpr Field kFields[] = {FLASHMLA_FIELD(struct_size), FLASHMLA_FIELD(flags),  FLASHMLA_FIELD(caches),
                             FLASHMLA_FIELD(num_caches),  FLASHMLA_FIELD(copies), FLASHMLA_FIELD(num_copies)};
constexpr StructType kType = {"flashmla_copy_pages_args", sizeof(Struct), kFields};
}  // namespace copy_pages_args

namespace fault {
using Struct = flashmla_fault;
constexpr Field kFields[] = {FLASHMLA_FIELD(code), FLASHMLA_FIELD(request), FLASHMLA_FIELD(position), FLASHMLA_FIELD(value),
                             FLASHMLA_FIELD(reserved)};
constexpr StructType kType = {"flashmla_fault", sizeof(Struct), kFields};
}  // namespace fault

namespace part {
using Struct = flashmla_part;
constexpr Field kFields[] = {FLASHMLA_FIELD(worker),     FLASHMLA_FIELD(request), FLASHMLA_FIELD(row_tile),  FLASHMLA_FIELD(first_token),
                             FLASHMLA_FIELD(last_token), FLASHMLA_FIELD(split),   FLASHMLA_FIELD(num_splits)};
constexpr StructType kType = {"flashmla_part", sizeof(Struct), kFields};
}  // namespace part

namespace device_info {
using Struct = flashmla_device_info;
constexpr Field kFields[] = {
    FLASHMLA_FIELD(struct_size), FLASHMLA_NESTED(device, device::kType), FLASHMLA_FIELD(usable), FLASHMLA_FIELD(num_units),
    FLASHMLA_FIELD(capability),  FLASHMLA_FIELD(memory_bytes),           FLASHMLA_FIELD(name),   FLASHMLA_FIELD(reason)};
constexpr StructType kType = {"flashmla_device_info", sizeof(Struct), kFields};
}  // namespace device_info

namespace driver_info {
using Struct = flashmla_driver_info;
constexpr Field kFields[] = {FLASHMLA_FIELD(struct_size), FLASHMLA_FIELD(built), FLASHMLA_FIELD(found), FLASHMLA_FIELD(needed),
                             FLASHMLA_FIELD(reason)};
constexpr StructType kType = {"flashmla_driver_info", sizeof(Struct), kFields};
}  // namespace driver_info

namespace kernel_info {
using Struct = flashmla_kernel_info;
constexpr Field kFields[] = {FLASHMLA_FIELD(struct_size), FLASHMLA_FIELD(device_kind), FLASHMLA_FIELD(usable), FLASHMLA_FIELD(isa),
                             FLASHMLA_FIELD(name),        FLASHMLA_FIELD(serves),      FLASHMLA_FIELD(reason)};
constexpr StructType kType = {"flashmla_kernel_info", sizeof(Struct), kFields};
}  // namespace kernel_info

#undef FLASHMLA_VIEW
#undef FLASHMLA_NESTED
#undef FLASHMLA_FIELD

constexpr StructType const* kTypes[] = {
    &device::kType,      &view::kType,       &problem::kType,     &target::kType,      &lengths::kType,
    &decode_args::kType, &merge_args::kType, &append_args::kType, &page_copy::kType,   &copy_pages_args::kType,
    &fault::kType,       &part::kType,       &device_info::kType, &driver_info::kType, &kernel_info::kType};

/// "name" or "name[3]".
struct Step {
  std::string_view name;
  size_t index = 0;
};
Step parse_step(std::string_view text) {
  size_t const open = text.find('[');
  if (open == std::string_view::npos) return {text, 0};
  Step step{text.substr(0, open), 0};
  std::from_chars(text.data() + open + 1, text.data() + text.size(), step.index);
  return step;
}

}  // namespace

Field const* StructType::find(std::string_view field) const {
  for (Field const& f : fields)
    if (field == f.name) return &f;
  return nullptr;
}

std::span<StructType const* const> struct_types() { return kTypes; }

StructType const* find_struct(std::string_view name) {
  for (StructType const* const type : kTypes)
    if (name == type->name) return type;
  return nullptr;
}

Place find_place(StructType const& type, void* base, std::string_view path) {
  Place place{base, Kind::kStruct, &type};
  while (!path.empty()) {
    size_t const dot = path.find('.');
    Step const step = parse_step(path.substr(0, dot));
    Field const* const field = place.type == nullptr ? nullptr : place.type->find(step.name);
    if (field == nullptr || step.index >= field->count)
      throw std::invalid_argument("no field " + std::string(path) + " in " + (place.type == nullptr ? "a number" : place.type->name));
    place = {static_cast<char*>(place.address) + field->offset + step.index * field->bytes, field->kind, field->type};
    path = dot == std::string_view::npos ? std::string_view() : path.substr(dot + 1);
  }
  return place;
}

}  // namespace flashmla::errors
