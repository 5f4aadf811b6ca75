/* A C99 program over the shared library: makes a plan, decodes a cache of ones, and reads an error. */
#include <flashmla/flashmla.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { kHeads = 4, kPageTokens = 16, kPages = 3 };

static flashmla_view make_view(void* data, flashmla_dtype dtype, int rank, int64_t const* size) {
  flashmla_view view;
  int64_t stride = 1;
  int i;
  memset(&view, 0, sizeof view);
  view.data = data;
  view.dtype = dtype;
  view.rank = rank;
  for (i = rank - 1; i >= 0; --i) {
    view.size[i] = size[i];
    view.stride[i] = stride;
    stride *= size[i];
  }
  return view;
}

typedef struct buffer {
  void* base;
  flashmla_view view; /* 256-byte aligned inside `base`; C99 has no aligned_alloc */
} buffer;

static buffer make_buffer(size_t num_bytes) {
  int64_t const size[1] = {(int64_t)num_bytes};
  buffer made;
  made.base = malloc(num_bytes + 255);
  made.view = make_view((void*)(((uintptr_t)made.base + 255) / 256 * 256), FLASHMLA_UINT8, 1, size);
  return made;
}

static int failures = 0;
static void expect(int is_good, char const* what) {
  if (is_good) return;
  ++failures;
  fprintf(stderr, "%s: %s\n", what, flashmla_last_error());
}

static void decode(flashmla_plan const* plan) {
  static uint16_t q[kHeads * 576], cache[kPages * kPageTokens * 576], out[kHeads * 512];
  static int32_t table[2] = {2, 0}, kv_len[1] = {20};
  int64_t const q_size[4] = {1, 1, kHeads, 576}, cache_size[3] = {kPages, kPageTokens, 576}, table_size[2] = {1, 2}, len_size[1] = {1};
  int64_t const out_size[4] = {1, 1, kHeads, 512};
  buffer schedule = make_buffer(flashmla_plan_schedule_bytes(plan));
  buffer workspace = make_buffer(flashmla_plan_workspace_bytes(plan));
  flashmla_decode_args args;
  flashmla_fault fault;
  int i;
  for (i = 0; i < kPages * kPageTokens * 576; ++i) cache[i] = 0x3f80; /* 1.0 in BF16 */
  memset(&args, 0, sizeof args);
  args.struct_size = sizeof args;
  args.lengths.struct_size = sizeof args.lengths;
  args.q = make_view(q, FLASHMLA_BF16, 4, q_size);
  args.cache = make_view(cache, FLASHMLA_BF16, 3, cache_size);
  args.page_table = make_view(table, FLASHMLA_INT32, 2, table_size);
  args.lengths.kv_len = make_view(kv_len, FLASHMLA_INT32, 1, len_size);
  args.out = make_view(out, FLASHMLA_BF16, 4, out_size);
  expect(flashmla_plan_reset(plan, &workspace.view, NULL) == FLASHMLA_OK, "reset");
  expect(flashmla_plan_update(plan, &args.lengths, &schedule.view, NULL) == FLASHMLA_OK, "update");
  expect(flashmla_plan_run(plan, &args, &schedule.view, &workspace.view, NULL) == FLASHMLA_OK, "run");
  expect(out[0] == 0x3f80 && out[kHeads * 512 - 1] == 0x3f80, "a mean of ones is one");
  expect(flashmla_plan_fault(plan, &workspace.view, NULL, &fault) == FLASHMLA_OK && fault.code == FLASHMLA_FAULT_NONE, "fault");
  args.q.size[3] = 512;
  expect(flashmla_plan_run(plan, &args, &schedule.view, &workspace.view, NULL) == FLASHMLA_INVALID_ARGUMENT, "a wrong shape is refused");
  expect(strstr(flashmla_last_error(), "decode: q: got dim 3 = 512, expected 576") != NULL, "the message names it");
  free(schedule.base);
  free(workspace.base);
}

int main(void) {
  flashmla_problem problem;
  flashmla_target target;
  flashmla_plan* plan = NULL;
  expect(flashmla_abi_version() == FLASHMLA_ABI_VERSION, "abi version");
  memset(&problem, 0, sizeof problem);
  problem.struct_size = sizeof problem;
  problem.h_q = kHeads;
  problem.kv_format = FLASHMLA_KV_BF16_576;
  problem.page_tokens = kPageTokens;
  problem.max_batch = 1;
  memset(&target, 0, sizeof target);
  target.struct_size = sizeof target;
  target.num_threads = 2;
  expect(flashmla_plan_create(&problem, &target, &plan) == FLASHMLA_OK, "plan_create");
  if (plan != NULL) decode(plan);
  flashmla_plan_destroy(plan);
  return failures;
}
