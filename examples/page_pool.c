/* A request grows token by token: pages from the pool, new tokens appended into them, attention over all of it.
 *
 * Everything here is on the CPU and in plain C. A serving engine does the same with device memory and a stream. */
#include <flashmla/flashmla.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { kHeads = 16, kQkDim = 576, kLatent = 512, kPageTokens = 64, kNumPages = 8, kMaxPages = 4, kTokens = 130 };

static void check(flashmla_status status) {
  if (status == FLASHMLA_OK) return;
  fprintf(stderr, "%s: %s\n", flashmla_status_name(status), flashmla_last_error());
  exit(EXIT_FAILURE);
}

static uint16_t to_bf16(float value) { /* truncates, which is good enough for made-up numbers */
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return (uint16_t)(bits >> 16);
}

static float from_bf16(uint16_t value) {
  uint32_t const bits = (uint32_t)value << 16;
  float result;
  memcpy(&result, &bits, sizeof result);
  return result;
}

static void* allocate(size_t bytes) { /* buffers of a plan are 256-byte aligned */
  void* const memory = aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (memory == NULL) exit(EXIT_FAILURE);
  return memset(memory, 0, (bytes + 255) / 256 * 256);
}

/* A contiguous view; trailing sizes of 0 are dimensions that the tensor lacks. */
static flashmla_view view(void* data, flashmla_dtype dtype, int64_t a, int64_t b, int64_t c, int64_t d) {
  flashmla_view result = {.data = data, .dtype = dtype, .size = {a, b, c, d}};
  while (result.rank < 4 && result.size[result.rank] > 0) ++result.rank;
  int64_t stride = 1;
  for (int i = result.rank - 1; i >= 0; stride *= result.size[i--]) result.stride[i] = stride;
  return result;
}

int main(void) {
  flashmla_problem const problem = {
      .struct_size = sizeof problem, .h_q = kHeads, .kv_format = FLASHMLA_KV_BF16_576, .page_tokens = kPageTokens, .max_batch = 1};
  flashmla_target const target = {.struct_size = sizeof target, .device = {FLASHMLA_CPU, 0}};
  flashmla_plan* plan;
  check(flashmla_plan_create(&problem, &target, &plan));
  size_t const schedule_bytes = flashmla_plan_schedule_bytes(plan), workspace_bytes = flashmla_plan_workspace_bytes(plan);
  flashmla_view const schedule = view(allocate(schedule_bytes), FLASHMLA_UINT8, (int64_t)schedule_bytes, 0, 0, 0);
  flashmla_view const workspace = view(allocate(workspace_bytes), FLASHMLA_UINT8, (int64_t)workspace_bytes, 0, 0, 0);
  check(flashmla_plan_reset(plan, &workspace, NULL));

  uint16_t* const cache = allocate(sizeof(uint16_t) * kNumPages * kPageTokens * kQkDim); /* [kNumPages, kPageTokens, 1, kQkDim] */
  static uint16_t token[kQkDim], q[kHeads * kQkDim], out[kHeads * kLatent];
  static float lse[kHeads];
  int32_t pages[kMaxPages] = {-1, -1, -1, -1}, num_pages = 0, kv_len = 0;
  flashmla_page_pool* pool;
  check(flashmla_page_pool_create(kNumPages, &pool));

  for (int i = 0; i < kHeads * kQkDim; ++i) q[i] = to_bf16(0.01f * (float)(i % 7));
  while (kv_len < kTokens) {
    if (kv_len % kPageTokens == 0) check(flashmla_page_pool_allocate(pool, 1, &pages[num_pages++]));
    for (int i = 0; i < kQkDim; ++i) token[i] = to_bf16(i < kLatent ? (float)(kv_len % 2) : 0.0f);
    int64_t slot = (int64_t)pages[kv_len / kPageTokens] * kPageTokens + kv_len % kPageTokens;
    flashmla_append_args const append = {.struct_size = sizeof append,
                                         .kv_format = FLASHMLA_KV_BF16_576,
                                         .kv = view(token, FLASHMLA_BF16, 1, kQkDim, 0, 0),
                                         .slot_mapping = view(&slot, FLASHMLA_INT64, 1, 0, 0, 0),
                                         .cache = view(cache, FLASHMLA_BF16, kNumPages, kPageTokens, 1, kQkDim)};
    check(flashmla_append(&append, NULL));
    ++kv_len;

    flashmla_lengths const lengths = {.struct_size = sizeof lengths, .q_tokens = 1, .kv_len = view(&kv_len, FLASHMLA_INT32, 1, 0, 0, 0)};
    check(flashmla_plan_update(plan, &lengths, &schedule, NULL));
    flashmla_decode_args const decode = {.struct_size = sizeof decode,
                                         .q = view(q, FLASHMLA_BF16, 1, 1, kHeads, kQkDim),
                                         .cache = append.cache,
                                         .page_table = view(pages, FLASHMLA_INT32, 1, kMaxPages, 0, 0),
                                         .lengths = lengths,
                                         .out = view(out, FLASHMLA_BF16, 1, 1, kHeads, kLatent),
                                         .lse = view(lse, FLASHMLA_FP32, 1, kHeads, 1, 0)};
    check(flashmla_plan_run(plan, &decode, &schedule, &workspace, NULL));
  }
  flashmla_fault fault;
  check(flashmla_plan_fault(plan, &workspace, NULL, &fault));
  printf("%d tokens in %d pages of %d (%d still free): out[0] = %.4f, lse[0] = %.4f, fault %d\n", (int)kv_len, (int)num_pages, kPageTokens,
         (int)flashmla_page_pool_num_free(pool), (double)from_bf16(out[0]), (double)lse[0], (int)fault.code);

  check(flashmla_page_pool_free(pool, num_pages, pages));
  flashmla_page_pool_destroy(pool);
  flashmla_plan_destroy(plan);
  free(schedule.data);
  free(workspace.data);
  free(cache);
  /* Odd tokens hold ones and even tokens zeros: the output is a weighted mean of both. */
  return from_bf16(out[0]) > 0.5f && from_bf16(out[0]) < 1.0f && fault.code == FLASHMLA_FAULT_NONE ? EXIT_SUCCESS : EXIT_FAILURE;
}
