// The attention of a model's layers over a paged cache: see decode_engine.hpp.
#include "tools/flashmla/decode_engine.hpp"

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <utility>

#include "conformance/noise.hpp"
#include "tools/flashmla/row_check.hpp"
#include "tools/flashmla/text.hpp"

namespace flashmla::tools {
namespace {

// Windows into the pools of random rows start at this many different rows.
constexpr int64_t kPoolRows = 61;
// Page table entries past a request's pages, as engines leave them.
constexpr int32_t kJunkPage = 2147480000;

size_t size_of(int64_t bytes) { return static_cast<size_t>(bytes); }

View bytes_view(Buffer const& buffer, DeviceContext const& device) { return View::bytes(buffer.data(), buffer.bytes(), device.device()); }

}  // namespace

int64_t engine_bytes(EngineShape const& shape) {
  int64_t const caches = shape.num_pages * shape.page_tokens * kTokenBytes * shape.layers;
  int64_t const queries = (shape.max_batch + kPoolRows) * (shape.heads + 1) * kTokenBytes;
  int64_t const outputs = 2 * shape.max_batch * shape.heads * (kLatent * kElementBytes + 4);
  return caches + queries + outputs + shape.max_batch * (shape.max_request_pages * 4 + 12);
}

DecodeEngine::DecodeEngine(EngineShape const& shape, Target const& target, DeviceContext& device, FillProgress const& progress)
    : shape_(shape), device_(device), plan_(DecodePlan::make(problem(), target)) {
  int64_t const pool = shape.max_batch + kPoolRows;
  queries_ = random_numbers(device, shape.type, kQueryStd, pool * shape.heads * kQkDim, shape.seed);
  tokens_ = random_numbers(device, shape.type, conformance::kCacheStd, pool * kQkDim, shape.seed + 1);
  kv_len_ = Buffer(device, size_of(shape.max_batch * 4));
  page_table_ = Buffer(device, size_of(shape.max_batch * shape.max_request_pages * 4));
  slots_ = Buffer(device, size_of(shape.max_batch * 8));
  for (Buffer* const out : {&out_, &watched_out_}) *out = Buffer(device, size_of(shape.max_batch * shape.heads * kLatent * kElementBytes));
  for (Buffer* const lse : {&lse_, &watched_lse_}) *lse = Buffer(device, size_of(shape.max_batch * shape.heads * 4));
  schedule_ = Buffer(device, plan_.schedule_bytes());
  workspace_ = Buffer(device, plan_.workspace_bytes());
  append_fault_ = Buffer(device, sizeof(Fault));
  Fault const none{};
  device.copy_in(append_fault_.data(), &none, sizeof(none));
  plan_.reset(bytes_view(workspace_, device), device.stream());
  fill(progress);
}

Problem DecodeEngine::problem() const {
  Problem problem = Problem::decode(shape_.heads, shape_.type.format, shape_.max_batch);
  problem.page_tokens = shape_.page_tokens;
  problem.max_total_kv_tokens = shape_.num_pages * shape_.page_tokens;
  return problem;
}

void DecodeEngine::fill(FillProgress const& progress) {
  int64_t const cache_tokens = shape_.num_pages * shape_.page_tokens;
  TokenBlock const block(device_, shape_.type, shape_.seed + 2);
  for (int32_t layer = 0; layer < shape_.layers; ++layer) {
    caches_.emplace_back(device_, size_of(cache_tokens * kTokenBytes));
    block.fill(caches_.back().data(), cache_tokens, layer);
    progress(static_cast<double>(layer + 1) / shape_.layers);
  }
  device_.synchronize();
}

int64_t DecodeEngine::pool_row(int64_t step, int32_t layer) const { return (step * shape_.layers + layer) * 17 % kPoolRows; }
char const* DecodeEngine::query_row(int64_t row) const {
  return static_cast<char const*>(queries_.data()) + row * shape_.heads * kTokenBytes;
}
char const* DecodeEngine::token_row(int64_t row) const { return static_cast<char const*>(tokens_.data()) + row * kTokenBytes; }

/// The host's side of a step: lengths, page table and slots, to the device.
void DecodeEngine::stage(std::vector<Running> const& batch) {
  host_kv_len_.clear();
  host_slots_.clear();
  host_page_table_.assign(batch.size() * size_of(shape_.max_request_pages), kJunkPage);
  for (size_t i = 0; i < batch.size(); ++i) {
    host_kv_len_.push_back(static_cast<int32_t>(batch[i].kv_tokens));
    host_slots_.push_back(batch[i].new_slot(shape_.page_tokens));
    std::copy(batch[i].pages.begin(), batch[i].pages.end(),
              host_page_table_.begin() + static_cast<std::ptrdiff_t>(i) * shape_.max_request_pages);
  }
  device_.copy_in(kv_len_.data(), host_kv_len_.data(), host_kv_len_.size() * sizeof(int32_t));
  device_.copy_in(slots_.data(), host_slots_.data(), host_slots_.size() * sizeof(int64_t));
  device_.copy_in(page_table_.data(), host_page_table_.data(), host_page_table_.size() * sizeof(int32_t));
}

AppendArgs DecodeEngine::append_args(int64_t batch, int32_t layer) const {
  Device const device = device_.device();
  DType const dtype = shape_.type.dtype;
  AppendArgs args;
  args.kv_format = shape_.type.format;
  args.kv = View::contiguous(token_row(pool_row(last_step_, layer)), dtype, device, {batch, kQkDim});
  args.slot_mapping = View::contiguous(slots_.data(), kInt64, device, {batch});
  args.cache = cache_view(layer);
  args.fault = View::contiguous(append_fault_.data(), kInt32, device, {8});
  return args;
}

DecodeArgs DecodeEngine::decode_args(int64_t batch, int32_t layer) const {
  Device const device = device_.device();
  DType const dtype = shape_.type.dtype;
  bool const watched = layer == watched_layer_;
  DecodeArgs args;
  args.q = View::contiguous(query_row(pool_row(last_step_, layer)), dtype, device, {batch, 1, shape_.heads, kQkDim});
  args.cache = cache_view(layer);
  args.page_table = View::contiguous(page_table_.data(), kInt32, device, {batch, shape_.max_request_pages});
  args.lengths = Lengths(View::contiguous(kv_len_.data(), kInt32, device, {batch}));
  args.out = View::contiguous((watched ? watched_out_ : out_).data(), dtype, device, {batch, 1, shape_.heads, kLatent});
  args.lse = View::contiguous((watched ? watched_lse_ : lse_).data(), kFp32, device, {batch, shape_.heads, 1});
  return args;
}

View DecodeEngine::cache_view(int32_t layer) const {
  return View::contiguous(caches_[size_of(layer)].data(), shape_.type.dtype, device_.device(),
                          {shape_.num_pages, shape_.page_tokens, kQkDim});
}

void DecodeEngine::copy_pages(std::vector<PageCopy> const& copies) const {
  if (copies.empty()) return;
  std::vector<View> caches;
  for (int32_t layer = 0; layer < shape_.layers; ++layer) caches.push_back(cache_view(layer));
  for (PageCopy const& copy : copies) flashmla::copy_pages(caches, {&copy, 1}, device_.stream());
}

void DecodeEngine::step(std::vector<Running> const& batch, int64_t step, int32_t watched_layer) {
  last_step_ = step;
  watched_layer_ = watched_layer;
  auto const size = static_cast<int64_t>(batch.size());
  stage(batch);
  View const schedule = bytes_view(schedule_, device_), workspace = bytes_view(workspace_, device_);
  plan_.update(Lengths(View::contiguous(kv_len_.data(), kInt32, device_.device(), {size})), schedule, device_.stream());
  for (int32_t layer = 0; layer < shape_.layers; ++layer) {
    append(append_args(size, layer), device_.stream());
    plan_.run(decode_args(size, layer), schedule, workspace, device_.stream());
  }
  check_faults();
}

/// Synchronises.
void DecodeEngine::check_faults() const {
  std::optional<Fault> fault = plan_.fault(bytes_view(workspace_, device_), device_.stream());
  Fault append_fault{};
  device_.copy_out(&append_fault, append_fault_.data(), sizeof(append_fault));
  if (!fault && append_fault.code != FLASHMLA_FAULT_NONE) fault = append_fault;
  if (!fault) return;
  throw std::runtime_error(format("replay: step %lld: got fault %d (request %d, position %d, value %d), expected none",
                                  static_cast<long long>(last_step_), fault->code, fault->request, fault->position, fault->value));
}

std::vector<uint16_t> DecodeEngine::download_page(int32_t page, int32_t layer) const {
  std::vector<uint16_t> numbers(size_of(int64_t{shape_.page_tokens} * kQkDim));
  auto const* const cache = static_cast<uint16_t const*>(caches_[size_of(layer)].data());
  device_.copy_out(numbers.data(), cache + static_cast<int64_t>(page) * static_cast<int64_t>(numbers.size()),
                   numbers.size() * sizeof(uint16_t));
  return numbers;
}

SpotCheck DecodeEngine::spot_check(std::vector<Running> const& batch, size_t row, int32_t heads) {
  Running const& request = batch.at(row);
  std::vector<uint16_t> pages;
  for (int32_t const page : request.pages) {
    std::vector<uint16_t> const numbers = download_page(page, watched_layer_);
    pages.insert(pages.end(), numbers.begin(), numbers.end());
  }

  int64_t const first = pool_row(last_step_, watched_layer_);
  RowSample sample;
  sample.type = shape_.type;
  sample.page_tokens = shape_.page_tokens;
  sample.heads = shape_.heads;
  sample.kv_len = static_cast<int32_t>(request.kv_tokens);
  sample.q.resize(size_of(shape_.heads) * kQkDim);
  sample.out.resize(size_of(shape_.heads) * kLatent);
  sample.lse.resize(size_of(shape_.heads));
  int64_t const index = static_cast<int64_t>(row);
  device_.copy_out(sample.q.data(), query_row(first + index), sample.q.size() * sizeof(uint16_t));
  device_.copy_out(sample.out.data(), static_cast<uint16_t const*>(watched_out_.data()) + index * shape_.heads * kLatent,
                   sample.out.size() * sizeof(uint16_t));
  device_.copy_out(sample.lse.data(), static_cast<float const*>(watched_lse_.data()) + index * shape_.heads,
                   sample.lse.size() * sizeof(float));
  std::vector<uint16_t> token(kQkDim);
  device_.copy_out(token.data(), token_row(first + index), token.size() * sizeof(uint16_t));
  uint16_t const* const appended = pages.data() + (request.kv_tokens - 1) * kQkDim;

  SpotCheck result{last_step_, watched_layer_, request.index, sample.kv_len, 0, 0, std::equal(token.begin(), token.end(), appended)};
  sample.pages = std::move(pages);
  RowError const error = compare_with_reference(sample, heads);
  result.relative_error = error.relative;
  result.lse_error = error.lse;
  return result;
}

}  // namespace flashmla::tools
