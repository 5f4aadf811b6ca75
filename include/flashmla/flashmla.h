/* FlashMLA C ABI: Multi-head Latent Attention over a paged KV cache.
 *
 * The story in one paragraph. A `flashmla_problem` says what does not change between decoding steps (heads, cache
 * format, maxima). `flashmla_plan_create` turns it into a plan bound to one device: everything that can fail, allocate
 * or load happens there. Each step, `flashmla_plan_update` makes a schedule from the lengths, which may live in device
 * memory, and `flashmla_plan_run` computes attention for one layer. Both only enqueue work on a CUDA stream (the CPU
 * backend is synchronous), and both may be captured into a CUDA graph and replayed with changed lengths and tables.
 *
 * Rules of this header:
 *  - C99; these are the only symbols the library exports.
 *  - Every argument struct begins with `struct_size`, which the caller sets to sizeof(that struct). Zero in any other
 *    field means "default"; fields where zero is itself legal have a presence bit in `flags`. A view of all zeros is
 *    absent.
 *  - Every function that can fail returns a status; `flashmla_last_error()` then holds one line of the form
 *    `operation: argument: got X, expected Y (reason)`. A failed call changes nothing. Nothing is ever printed.
 *  - Views do not own memory. Memory must stay valid until the enqueued work has finished. Unless a comment says
 *    otherwise, no output may overlap any other view of the call.
 */
#ifndef FLASHMLA_FLASHMLA_H_
#define FLASHMLA_FLASHMLA_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define FLASHMLA_API
#else
#define FLASHMLA_API __attribute__((visibility("default")))
#endif

#define FLASHMLA_ABI_VERSION 1

/* ---------------------------------------------------------------- enums -- */

typedef enum flashmla_status {
  FLASHMLA_OK = 0,
  FLASHMLA_INVALID_ARGUMENT = 1, /* the caller's mistake; the message names the argument */
  FLASHMLA_UNSUPPORTED = 2,      /* legal, but not built, or not on this device; the message names the nearest that is */
  FLASHMLA_EXHAUSTED = 3,        /* a page pool has fewer free pages than were asked for */
  FLASHMLA_OUT_OF_MEMORY = 4,    /* host or device memory */
  FLASHMLA_DEVICE_ERROR = 5,     /* a CUDA call failed */
  FLASHMLA_INTERNAL = 6          /* a defect of this library */
} flashmla_status;

typedef enum flashmla_dtype {
  FLASHMLA_DTYPE_NONE = 0,
  FLASHMLA_BF16 = 1,
  FLASHMLA_FP16 = 2,
  FLASHMLA_FP32 = 3,
  FLASHMLA_FP64 = 4,
  FLASHMLA_INT32 = 5,
  FLASHMLA_INT64 = 6,
  FLASHMLA_INT8 = 7,
  FLASHMLA_UINT8 = 8,
  FLASHMLA_E4M3 = 9
} flashmla_dtype;

typedef enum flashmla_device_kind { FLASHMLA_CPU = 0, FLASHMLA_CUDA = 1 } flashmla_device_kind;

/* How a KV cache is laid out. Never inferred: three layouts in the wild share 528 bytes a token. docs/formats.md */
typedef enum flashmla_kv_format {
  FLASHMLA_KV_NONE = 0,
  FLASHMLA_KV_BF16_576 = 1, /* 512 latent + 64 RoPE; key = all 576, value = the first 512 */
  FLASHMLA_KV_FP16_576 = 2,
  FLASHMLA_KV_FP8_576_TENSOR = 3,
  FLASHMLA_KV_FP8_V32_656 = 4,
  FLASHMLA_KV_FP8_V4_584 = 5,
  FLASHMLA_KV_FP8_V41_528_PLANAR = 6,
  FLASHMLA_KV_FP8_V41_528_INTERLEAVED = 7,
  FLASHMLA_KV_FP8_NOPE_528 = 8,
  FLASHMLA_KV_FP4_V41_288_PLANAR = 9,
  FLASHMLA_KV_FP4_V41_288_INTERLEAVED = 10,
  FLASHMLA_KV_BF16_512 = 11,
  FLASHMLA_KV_BF16_320 = 12, /* 256 latent + 64 RoPE; value = the first 256 */
  FLASHMLA_KV_BF16_288 = 13, /* 256 latent + 32 RoPE; value = the first 256 */
  FLASHMLA_KV_FP32_576 = 14  /* as BF16_576; CPU only */
} flashmla_kv_format;

typedef enum flashmla_lse_base { FLASHMLA_LSE_NATURAL = 0, FLASHMLA_LSE_BASE_2 = 1 } flashmla_lse_base;
typedef enum flashmla_lse_layout {
  FLASHMLA_LSE_BATCH_HEADS_TOKENS = 0, /* [batch, h_q, q_tokens]; with q_offsets [h_q, total_q] */
  FLASHMLA_LSE_TOKENS_HEADS = 1        /* [batch * q_tokens, h_q]; with q_offsets [total_q, h_q] */
} flashmla_lse_layout;
/* The lse of a row that sees no key (its output is 0). */
typedef enum flashmla_empty_row { FLASHMLA_EMPTY_LSE_PLUS_INF = 0, FLASHMLA_EMPTY_LSE_MINUS_INF = 1 } flashmla_empty_row;

/* Instruction sets of the CPU backend; 0 picks the best that the machine has. */
typedef enum flashmla_isa {
  FLASHMLA_ISA_AUTO = 0,
  FLASHMLA_ISA_PORTABLE = 1,
  FLASHMLA_ISA_AVX2 = 2, /* AVX2 + FMA + F16C */
  FLASHMLA_ISA_AVX512_BF16 = 3,
  FLASHMLA_ISA_AVX512F = 4,   /* AVX-512 F, BW, VL and DQ, all arithmetic in float32 */
  FLASHMLA_ISA_NEON = 5,      /* AArch64 */
  FLASHMLA_ISA_NEON_BF16 = 6, /* AArch64 with FEAT_BF16 */
  FLASHMLA_ISA_AMX_BF16 = 7   /* AVX-512 with BF16, and AMX tiles */
} flashmla_isa;

/* ------------------------------------------------------------- plain data -- */

typedef struct flashmla_device {
  int32_t kind;  /* flashmla_device_kind */
  int32_t index; /* CUDA ordinal; 0 for the CPU */
} flashmla_device;

/* A strided tensor that somebody else owns. Sizes in elements, strides in elements of `dtype`. rank 0 with a null
 * `data` means absent. A dimension of size 1 may have any stride. */
typedef struct flashmla_view {
  void* data;
  int32_t dtype; /* flashmla_dtype */
  int32_t rank;  /* 0 .. 4 */
  flashmla_device device;
  int64_t size[4];
  int64_t stride[4];
} flashmla_view;

/* What does not change between steps. */
enum {
  FLASHMLA_PROBLEM_CAUSAL = 1u << 0,         /* bottom-right: q token i of s_q sees keys < kv_len - s_q + i + 1 */
  FLASHMLA_PROBLEM_HAS_SCALE = 1u << 1,      /* `scale` is set (zero is legal) */
  FLASHMLA_PROBLEM_BATCH_INVARIANT = 1u << 2 /* a row's bits: not its batch mates', threads' or schedule's; a GPU needs max_kv_len */
};
typedef struct flashmla_problem {
  uint32_t struct_size;
  uint32_t flags;
  int32_t h_q;          /* query heads, 1 .. 128; required */
  int32_t h_kv;         /* KV heads; default 1; divides h_q */
  int32_t kv_format;    /* flashmla_kv_format; required */
  int32_t page_tokens;  /* tokens a page; default 64 */
  int32_t q_dtype;      /* BF16, FP16 or FP32; default: that of kv_format */
  int32_t out_dtype;    /* BF16, FP16 or FP32 (partial results that will be merged); default: q_dtype */
  int32_t lse_base;     /* flashmla_lse_base */
  int32_t lse_layout;   /* flashmla_lse_layout */
  int32_t empty_row;    /* flashmla_empty_row */
  int32_t chunk_tokens; /* split size with BATCH_INVARIANT, a multiple of 64; default: 1024 up to 32 heads, else 4096. Requests of
                           more than 256 chunks have longer ones */
  float scale;          /* softmax scale, finite and >= 0; default qk_dim ** -0.5 */
  int32_t topk;         /* token-sparse attention: indices a query token; 0 = dense */
  int32_t extra_kv_format;
  int32_t extra_page_tokens;
  int32_t extra_topk;
  int32_t reserved;
  int64_t max_batch;           /* requests a call; required */
  int64_t max_q_tokens;        /* query tokens a request; default 1 */
  int64_t max_kv_len;          /* tokens a request; default: unbounded (the table's width rules) */
  int64_t max_total_kv_tokens; /* sum over a batch; a hint */
} flashmla_problem;

/* A task of the CPU backend. It never throws. */
typedef void (*flashmla_task)(void* task_context, int32_t index);
/* Calls task(task_context, i) once for each i in [0, count), on any threads and in any order, and returns when these calls
 * have returned. Several threads may call it at a time, if they run plans at a time. */
typedef void (*flashmla_parallel_for)(void* context, int32_t count, flashmla_task task, void* task_context);

/* The caller's own threads, in place of a pool of the library. Tasks do not wait for each other, so that any number of threads will
 * do, the calling one alone too. What parallel_for leaves out, the thread that called run does; but no task may be called after
 * parallel_for has returned. A C++ exception that leaves it makes run fail with FLASHMLA_INVALID_ARGUMENT. */
typedef struct flashmla_executor {
  uint32_t struct_size;
  uint32_t flags;
  flashmla_parallel_for parallel_for; /* required */
  void* context;                      /* its first argument; must outlive the plan */
} flashmla_executor;

/* Where and how a plan runs. */
typedef struct flashmla_target {
  uint32_t struct_size;
  uint32_t flags;
  flashmla_device device;
  int32_t isa;         /* flashmla_isa; CPU only */
  int32_t num_threads; /* CPU only: threads that work is cut for; default: every core this process may use */
  int32_t num_sms;     /* CUDA only: use at most so many multiprocessors; default all */
  int32_t reserved;
  flashmla_executor const* executor; /* CPU only; read by plan_create. Default: a pool of num_threads of the library */
} flashmla_target;

/* The lengths of one step; on the plan's device. */
typedef struct flashmla_lengths {
  uint32_t struct_size;
  uint32_t flags;
  int32_t q_tokens; /* query tokens of every request (s_q); default 1. With q_offsets: none has more; default max_q_tokens */
  int32_t reserved;
  flashmla_view kv_len;         /* int32 [batch], contiguous; tokens in the cache, the new ones among them */
  flashmla_view q_offsets;      /* int32 [batch + 1], contiguous; ragged queries (cu_seqlens): request r has the query tokens
                                   [q_offsets[r], q_offsets[r + 1]) of q, none too. See flashmla_decode_args */
  flashmla_view topk_len;       /* int32 [batch] */
  flashmla_view extra_topk_len; /* int32 [batch] */
} flashmla_lengths;

/* The views of one decode call. d_qk = latent + rope: 576 = 512 + 64 for the *_576 formats, 256 + 64 and 256 + 32
 * for BF16_320 and BF16_288; d_v is the latent part of them all.
 * With lengths.q_offsets, q, q_nope, q_pe and out have no batch dimension: [total_q, h_q, ...], total_q being what q has, and
 * visible_len is [total_q]. Tokens in front of the first offset or behind the last are nobody's: they are not read, and their rows
 * of out and lse stay as they are, so that a CUDA graph can be made for more tokens than a step has. The causal rule counts each
 * request's own query tokens. A schedule made from other offsets or lengths of the same batch costs balance only. */
typedef struct flashmla_decode_args {
  uint32_t struct_size;
  uint32_t flags;
  flashmla_view q;          /* [batch, q_tokens, h_q, d_qk], any strides but the last, which is 1; or the pair: */
  flashmla_view q_nope;     /* [batch, q_tokens, h_q, latent] */
  flashmla_view q_pe;       /* [batch, q_tokens, h_q, rope] */
  flashmla_view cache;      /* [num_pages, page_tokens, h_kv, d_qk] (or without h_kv when it is 1); or the pair: */
  flashmla_view ckv;        /* [num_pages, page_tokens, h_kv, latent] */
  flashmla_view kpe;        /* [num_pages, page_tokens, h_kv, rope] */
  flashmla_view page_table; /* int32 [batch, max_pages], any row stride; entries past a length are never read through */
  flashmla_lengths lengths;
  flashmla_view visible_len; /* int32 [batch * q_tokens]: keys a query token sees; replaces the causal rule */
  flashmla_view indices;     /* int32 [batch, q_tokens, topk], physical: page * page_tokens + offset */
  flashmla_view extra_cache; /* a second source, attended together with the first */
  flashmla_view extra_page_table;
  flashmla_view extra_indices;
  flashmla_view sink;     /* float32 [h_q]: out *= exp(lse) / (exp(lse) + exp(sink)); lse unchanged */
  flashmla_view q_scale;  /* float32 [1], FP8_576_TENSOR */
  flashmla_view kv_scale; /* float32 [1], FP8_576_TENSOR */
  flashmla_view out;      /* [batch, q_tokens, h_q, d_v], problem.out_dtype, last stride 1 */
  flashmla_view lse;      /* float32, shape by problem.lse_layout; may be absent */
} flashmla_decode_args;

/* Merge of partial results: out = sum_i w_i out_i, w_i = exp(lse_i - lse). A part with lse +-inf is empty. */
typedef struct flashmla_merge_args {
  uint32_t struct_size;
  uint32_t flags;
  int32_t lse_base;          /* of partial_lse and lse alike */
  int32_t empty_row;         /* flashmla_empty_row */
  flashmla_view partial_out; /* [num_parts, tokens, heads, d_v] BF16, FP16 or FP32, last stride 1 */
  flashmla_view partial_lse; /* float32 [num_parts, tokens, heads] */
  flashmla_view sink;        /* float32 [heads], always natural log; may be absent */
  flashmla_view out;         /* [tokens, heads, d_v] BF16, FP16 or FP32, last stride 1 */
  flashmla_view lse;         /* float32 [tokens, heads]; may be absent */
} flashmla_merge_args;

/* New tokens into their pages. Slot = page * page_tokens + offset; -1 skips a token; any other slot outside the cache
 * is skipped and recorded in `fault`. */
typedef struct flashmla_append_args {
  uint32_t struct_size;
  uint32_t flags;
  int32_t kv_format; /* flashmla_kv_format; required */
  int32_t reserved;
  flashmla_view kv;           /* [tokens, d_qk], last stride 1; or the pair: */
  flashmla_view ckv;          /* [tokens, latent] */
  flashmla_view kpe;          /* [tokens, rope] */
  flashmla_view slot_mapping; /* int64 [tokens] */
  flashmla_view cache;        /* [num_pages, page_tokens, d_qk] or with h_kv 1 */
  flashmla_view fault;        /* int32 [8] on the device, zeroed by the caller (a flashmla_fault); may be absent */
} flashmla_append_args;

/* One page to be copied over another of the same cache. A pair of -1 asks for nothing. */
typedef struct flashmla_page_copy {
  int32_t source;
  int32_t target;
} flashmla_page_copy;

/* Whole pages copied to other pages, in every layer's cache at once: what flashmla_page_pool_fork asks for. Both arrays lie
 * in HOST memory and are read before the call returns; inside stream capture their contents become part of the graph. */
typedef struct flashmla_copy_pages_args {
  uint32_t struct_size;
  uint32_t flags;
  flashmla_view const* caches; /* [num_caches]: views [num_pages, ...] of one device, dtype, shape and strides; last stride 1 */
  int64_t num_caches;
  flashmla_page_copy const* copies; /* [num_copies]; without order: no target may be named twice, or be a source too */
  int64_t num_copies;
} flashmla_copy_pages_args;

/* What a device found wrong in lengths, offsets or page ids. The values were masked: nothing outside a view was read. */
typedef enum flashmla_fault_code {
  FLASHMLA_FAULT_NONE = 0,
  FLASHMLA_FAULT_KV_LEN = 1,            /* negative, or beyond the page table or max_kv_len; position 0, value = the length */
  FLASHMLA_FAULT_PAGE_ID = 2,           /* outside [0, num_pages); position = entry of the table, value = the id */
  FLASHMLA_FAULT_SCHEDULE_MISMATCH = 3, /* made for another batch, row count or plan, with and without q_offsets, or never updated;
                                           value = its batch */
  FLASHMLA_FAULT_SLOT = 4,              /* append: position = token, value = the slot (saturated to int32) */
  FLASHMLA_FAULT_VISIBLE_LEN = 5,       /* negative or beyond kv_len; position = query token of the request */
  FLASHMLA_FAULT_Q_OFFSETS = 6          /* negative, falling, beyond q's tokens, or more tokens than the bound: then the request has
                                           only what remains inside; position = entry of q_offsets, value = the offset */
} flashmla_fault_code;
typedef struct flashmla_fault {
  int32_t code; /* flashmla_fault_code */
  int32_t request;
  int32_t position;
  int32_t value;
  int32_t reserved[4];
} flashmla_fault;

/* One part: a token range of one request and row tile, computed by one worker. */
typedef struct flashmla_part {
  int32_t worker;
  int32_t request;
  int32_t row_tile;
  int32_t first_token;
  int32_t last_token; /* exclusive; the last split of a request reaches to its actual end */
  int32_t split;      /* 0-based among the parts of this (request, row tile) */
  int32_t num_splits;
} flashmla_part;

/* ------------------------------------------------------------------ plans -- */

typedef struct flashmla_plan flashmla_plan;
typedef void* flashmla_stream; /* a cudaStream_t; ignored by the CPU backend */

/* Binds a problem to a device. Legal inside stream capture. The plan is immutable and may be used from many threads. */
FLASHMLA_API flashmla_status flashmla_plan_create(flashmla_problem const* problem, flashmla_target const* target, flashmla_plan** plan);
FLASHMLA_API void flashmla_plan_destroy(flashmla_plan* plan); /* null is fine; no work may be in flight */

/* Bytes of the two caller-owned buffers (on the plan's device, 256-byte aligned), from the problem's maxima. A schedule
 * is read-only for run and may be shared by all layers and streams of a step; a workspace belongs to one run in flight. */
FLASHMLA_API size_t flashmla_plan_schedule_bytes(flashmla_plan const* plan);
FLASHMLA_API size_t flashmla_plan_workspace_bytes(flashmla_plan const* plan);

/* Enqueues: makes the schedule from lengths. */
FLASHMLA_API flashmla_status flashmla_plan_update(flashmla_plan const* plan, flashmla_lengths const* lengths, flashmla_view const* schedule,
                                                  flashmla_stream stream);
/* Enqueues: clears the fault record and all that runs expect of a workspace; once after it was allocated, and again if a plan of another
 * problem or target has used it since. */
FLASHMLA_API flashmla_status flashmla_plan_reset(flashmla_plan const* plan, flashmla_view const* workspace, flashmla_stream stream);
/* Enqueues: attention of one layer. */
FLASHMLA_API flashmla_status flashmla_plan_run(flashmla_plan const* plan, flashmla_decode_args const* args, flashmla_view const* schedule,
                                               flashmla_view const* workspace, flashmla_stream stream);
/* Synchronises the stream, returns the first fault recorded since the last call, and clears it. */
FLASHMLA_API flashmla_status flashmla_plan_fault(flashmla_plan const* plan, flashmla_view const* workspace, flashmla_stream stream,
                                                 flashmla_fault* fault);

/* Text: kernel chosen, workers, tiles, shared memory, registers. Writes at most `capacity` bytes with the terminator and
 * returns the size that the whole text needs. */
FLASHMLA_API size_t flashmla_plan_describe(flashmla_plan const* plan, char* text, size_t capacity);
/* The parts that the plan makes of lengths in HOST memory. `count` holds the capacity on entry and the number of parts
 * on return; a capacity too small is FLASHMLA_INVALID_ARGUMENT with `count` set to what is needed. */
FLASHMLA_API flashmla_status flashmla_plan_parts(flashmla_plan const* plan, int32_t const* kv_len, int64_t batch, int32_t q_tokens,
                                                 flashmla_part* parts, int64_t* count);
/* The same for ragged queries: request r has q_offsets[r + 1] - q_offsets[r] query tokens, at most max_q_tokens, and one that has
 * none has no part. q_offsets [batch + 1] in HOST memory; where they begin does not matter. */
FLASHMLA_API flashmla_status flashmla_plan_parts_ragged(flashmla_plan const* plan, int32_t const* kv_len, int32_t const* q_offsets,
                                                        int64_t batch, flashmla_part* parts, int64_t* count);

/* -------------------------------------------------------- stand-alone ops -- */

FLASHMLA_API flashmla_status flashmla_merge(flashmla_merge_args const* args, flashmla_stream stream);
FLASHMLA_API flashmla_status flashmla_append(flashmla_append_args const* args, flashmla_stream stream);
FLASHMLA_API flashmla_status flashmla_copy_pages(flashmla_copy_pages_args const* args, flashmla_stream stream);

/* -------------------------------------------------------------- page pool -- */

/* Hands out page ids 0 .. num_pages - 1; the same ids serve all layers. Each page in use has a number of references, so that
 * requests with a common prefix can share its pages. Host memory only; thread-safe; every call is all or nothing. */
typedef struct flashmla_page_pool flashmla_page_pool;
FLASHMLA_API flashmla_status flashmla_page_pool_create(int64_t num_pages, flashmla_page_pool** pool);
FLASHMLA_API void flashmla_page_pool_destroy(flashmla_page_pool* pool);
/* Pages that nobody holds, one reference each. FLASHMLA_EXHAUSTED when fewer are free. */
FLASHMLA_API flashmla_status flashmla_page_pool_allocate(flashmla_page_pool* pool, int64_t count, int32_t* page_ids);
/* One reference more for each id. FLASHMLA_INVALID_ARGUMENT for one that is out of range or free. */
FLASHMLA_API flashmla_status flashmla_page_pool_retain(flashmla_page_pool* pool, int64_t count, int32_t const* page_ids);
/* One reference less for each id; a page without references is free again. FLASHMLA_INVALID_ARGUMENT for an id that is out of
 * range, free already, or named more often than it has references. */
FLASHMLA_API flashmla_status flashmla_page_pool_free(flashmla_page_pool* pool, int64_t count, int32_t const* page_ids);
/* A second holder of the first `tokens` tokens of a request whose pages are page_ids [ceil(tokens / page_tokens)]. forked_ids, of
 * the same length, gets the same pages with one reference more each. Only when the tokens end inside a page, which both
 * holders are going to write, is the last one a new page, and `copy` names the two (else a pair of -1): give it to
 * flashmla_copy_pages before either holder writes. FLASHMLA_EXHAUSTED when that page is missing. */
FLASHMLA_API flashmla_status flashmla_page_pool_fork(flashmla_page_pool* pool, int64_t tokens, int64_t page_tokens, int32_t const* page_ids,
                                                     int32_t* forked_ids, flashmla_page_copy* copy);
/* References of a page: 0 when it is free, or no page of this pool. */
FLASHMLA_API int64_t flashmla_page_pool_references(flashmla_page_pool const* pool, int32_t page_id);
FLASHMLA_API int64_t flashmla_page_pool_num_free(flashmla_page_pool const* pool);
FLASHMLA_API int64_t flashmla_page_pool_num_pages(flashmla_page_pool const* pool);

/* ---------------------------------------------------------- introspection -- */

FLASHMLA_API uint32_t flashmla_abi_version(void);
FLASHMLA_API const char* flashmla_version(void);    /* "0.1.0" */
FLASHMLA_API const char* flashmla_build_info(void); /* one line: compiler, CUDA toolkit or "cuda off", targets */
FLASHMLA_API const char* flashmla_last_error(void); /* of this thread; "" after a success; valid until its next call */
FLASHMLA_API const char* flashmla_status_name(flashmla_status status);

typedef struct flashmla_device_info {
  uint32_t struct_size;
  flashmla_device device;
  int32_t usable;       /* 1: plans can be made here */
  int32_t num_units;    /* multiprocessors, or cores this process may use */
  int32_t capability;   /* CUDA: 10 * major + minor; CPU: best flashmla_isa */
  int64_t memory_bytes; /* total */
  char name[128];
  char reason[256]; /* why it is not usable, else "" */
} flashmla_device_info;
/* Devices: the CPU first, then CUDA devices by ordinal. */
FLASHMLA_API int32_t flashmla_num_devices(void);
FLASHMLA_API flashmla_status flashmla_get_device_info(int32_t index, flashmla_device_info* info);

/* CUDA driver versions as 1000 * major + 10 * minor; `found` is 0 where no driver is. */
typedef struct flashmla_driver_info {
  uint32_t struct_size;
  int32_t built; /* 1 when the library has its CUDA part */
  int32_t found;
  int32_t needed;
  char reason[256]; /* why CUDA can't be used, else "" */
} flashmla_driver_info;
FLASHMLA_API flashmla_status flashmla_get_driver_info(flashmla_driver_info* info);

typedef struct flashmla_kernel_info {
  uint32_t struct_size;
  int32_t device_kind;
  int32_t usable; /* 1: this machine can run it */
  int32_t isa;    /* CPU rows: flashmla_isa */
  char name[64];
  char serves[256]; /* the problems it accepts, in words */
  char reason[256]; /* why it is not usable, else "" */
} flashmla_kernel_info;
/* The kernel table, in the order in which plans try its rows. */
FLASHMLA_API int32_t flashmla_num_kernels(void);
FLASHMLA_API flashmla_status flashmla_get_kernel_info(int32_t index, flashmla_kernel_info* info);

#ifdef __cplusplus
}
#endif
#endif /* FLASHMLA_FLASHMLA_H_ */
