"""The C ABI of libflashmla in ctypes: include/flashmla/flashmla.h, declaration by declaration.

Nothing here has behaviour. Field order and types must follow the header; tests/python/test_abi.py compiles the header and compares
every offset and size. Shapes and meanings are documented there, and in the public classes of this package.
"""

import ctypes
import enum

ABI_VERSION = 1


class Status(enum.IntEnum):
    """What a call of the library answered; `flashmla.Error.status` holds one."""

    OK = 0
    INVALID_ARGUMENT = 1
    UNSUPPORTED = 2
    EXHAUSTED = 3
    OUT_OF_MEMORY = 4
    DEVICE_ERROR = 5
    INTERNAL = 6


class DType(enum.IntEnum):
    """Element types. NumPy spells BF16 as ml_dtypes.bfloat16, or as uint16 together with dtype="bf16"."""

    NONE = 0
    BF16 = 1
    FP16 = 2
    FP32 = 3
    FP64 = 4
    INT32 = 5
    INT64 = 6
    INT8 = 7
    UINT8 = 8
    E4M3 = 9


class DeviceKind(enum.IntEnum):
    CPU = 0
    CUDA = 1


class KvFormat(enum.IntEnum):
    """How a KV cache is laid out; never inferred from a byte count. docs/formats.md describes each."""

    BF16_576 = 1
    FP16_576 = 2
    FP8_576_TENSOR = 3
    FP8_V32_656 = 4
    FP8_V4_584 = 5
    FP8_V41_528_PLANAR = 6
    FP8_V41_528_INTERLEAVED = 7
    FP8_NOPE_528 = 8
    FP4_V41_288_PLANAR = 9
    FP4_V41_288_INTERLEAVED = 10
    BF16_512 = 11
    BF16_320 = 12
    BF16_288 = 13
    FP32_576 = 14


class LseBase(enum.IntEnum):
    NATURAL = 0
    BASE_2 = 1


class LseLayout(enum.IntEnum):
    """BATCH_HEADS_TOKENS is [batch, h_q, q_tokens]; TOKENS_HEADS is [batch * q_tokens, h_q]."""

    BATCH_HEADS_TOKENS = 0
    TOKENS_HEADS = 1


class EmptyRow(enum.IntEnum):
    """The lse of a row that sees no key."""

    PLUS_INF = 0
    MINUS_INF = 1


class Isa(enum.IntEnum):
    AUTO = 0
    PORTABLE = 1
    AVX2 = 2
    AVX512_BF16 = 3
    AVX512F = 4
    NEON = 5
    NEON_BF16 = 6
    AMX_BF16 = 7


class FaultCode(enum.IntEnum):
    NONE = 0
    KV_LEN = 1
    PAGE_ID = 2
    SCHEDULE_MISMATCH = 3
    SLOT = 4
    VISIBLE_LEN = 5
    Q_OFFSETS = 6


PROBLEM_CAUSAL = 1 << 0
PROBLEM_HAS_SCALE = 1 << 1
PROBLEM_BATCH_INVARIANT = 1 << 2

_i32, _u32, _i64 = ctypes.c_int32, ctypes.c_uint32, ctypes.c_int64


class _Sized(ctypes.Structure):
    """A struct whose first field is its own size."""

    def __init__(self, **fields):
        super().__init__(**fields)
        self.struct_size = ctypes.sizeof(type(self))


class Device(ctypes.Structure):
    _fields_ = [("kind", _i32), ("index", _i32)]


class View(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("dtype", _i32), ("rank", _i32), ("device", Device), ("size", _i64 * 4), ("stride", _i64 * 4)]


class Problem(_Sized):
    _fields_ = [
        ("struct_size", _u32), ("flags", _u32), ("h_q", _i32), ("h_kv", _i32), ("kv_format", _i32), ("page_tokens", _i32),
        ("q_dtype", _i32), ("out_dtype", _i32), ("lse_base", _i32), ("lse_layout", _i32), ("empty_row", _i32), ("chunk_tokens", _i32),
        ("scale", ctypes.c_float), ("topk", _i32), ("extra_kv_format", _i32), ("extra_page_tokens", _i32), ("extra_topk", _i32),
        ("reserved", _i32), ("max_batch", _i64), ("max_q_tokens", _i64), ("max_kv_len", _i64), ("max_total_kv_tokens", _i64),
    ]  # fmt: skip


TASK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, _i32)
PARALLEL_FOR = ctypes.CFUNCTYPE(None, ctypes.c_void_p, _i32, ctypes.c_void_p, ctypes.c_void_p)


class Executor(_Sized):
    _fields_ = [("struct_size", _u32), ("flags", _u32), ("parallel_for", PARALLEL_FOR), ("context", ctypes.c_void_p)]


class Target(_Sized):
    _fields_ = [
        ("struct_size", _u32), ("flags", _u32), ("device", Device), ("isa", _i32), ("num_threads", _i32), ("num_sms", _i32),
        ("reserved", _i32), ("executor", ctypes.c_void_p),
    ]  # fmt: skip


class Lengths(_Sized):
    _fields_ = [
        ("struct_size", _u32), ("flags", _u32), ("q_tokens", _i32), ("reserved", _i32), ("kv_len", View), ("q_offsets", View),
        ("topk_len", View), ("extra_topk_len", View),
    ]  # fmt: skip


class DecodeArgs(_Sized):
    _fields_ = [
        ("struct_size", _u32), ("flags", _u32), ("q", View), ("q_nope", View), ("q_pe", View), ("cache", View), ("ckv", View),
        ("kpe", View), ("page_table", View), ("lengths", Lengths), ("visible_len", View), ("indices", View), ("extra_cache", View),
        ("extra_page_table", View), ("extra_indices", View), ("sink", View), ("q_scale", View), ("kv_scale", View), ("out", View),
        ("lse", View),
    ]  # fmt: skip

    def __init__(self, **fields):
        super().__init__(**fields)
        self.lengths.struct_size = ctypes.sizeof(Lengths)


class MergeArgs(_Sized):
    _fields_ = [
        ("struct_size", _u32), ("flags", _u32), ("lse_base", _i32), ("empty_row", _i32), ("partial_out", View), ("partial_lse", View),
        ("sink", View), ("out", View), ("lse", View),
    ]  # fmt: skip


class AppendArgs(_Sized):
    _fields_ = [
        ("struct_size", _u32), ("flags", _u32), ("kv_format", _i32), ("reserved", _i32), ("kv", View), ("ckv", View), ("kpe", View),
        ("slot_mapping", View), ("cache", View), ("fault", View),
    ]  # fmt: skip


class PageCopy(ctypes.Structure):
    _fields_ = [("source", _i32), ("target", _i32)]


class CopyPagesArgs(_Sized):
    _fields_ = [
        ("struct_size", _u32), ("flags", _u32), ("caches", ctypes.c_void_p), ("num_caches", _i64), ("copies", ctypes.c_void_p),
        ("num_copies", _i64),
    ]  # fmt: skip


class Fault(ctypes.Structure):
    _fields_ = [("code", _i32), ("request", _i32), ("position", _i32), ("value", _i32), ("reserved", _i32 * 4)]


class Part(ctypes.Structure):
    _fields_ = [
        ("worker", _i32), ("request", _i32), ("row_tile", _i32), ("first_token", _i32), ("last_token", _i32), ("split", _i32),
        ("num_splits", _i32),
    ]  # fmt: skip


class DeviceInfo(_Sized):
    _fields_ = [
        ("struct_size", _u32), ("device", Device), ("usable", _i32), ("num_units", _i32), ("capability", _i32), ("memory_bytes", _i64),
        ("name", ctypes.c_char * 128), ("reason", ctypes.c_char * 256),
    ]  # fmt: skip


class DriverInfo(_Sized):
    _fields_ = [("struct_size", _u32), ("built", _i32), ("found", _i32), ("needed", _i32), ("reason", ctypes.c_char * 256)]


class KernelInfo(_Sized):
    _fields_ = [
        ("struct_size", _u32), ("device_kind", _i32), ("usable", _i32), ("isa", _i32), ("name", ctypes.c_char * 64),
        ("serves", ctypes.c_char * 256), ("reason", ctypes.c_char * 256),
    ]  # fmt: skip


# Pointers are declared void*: callers pass addresses as plain ints, which costs less per call than typed pointers do.
_p, _size, _status, _text = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_char_p

# name: (result, arguments)
PROTOTYPES = {
    "flashmla_plan_create": (_status, (_p, _p, _p)),
    "flashmla_plan_destroy": (None, (_p,)),
    "flashmla_plan_schedule_bytes": (_size, (_p,)),
    "flashmla_plan_workspace_bytes": (_size, (_p,)),
    "flashmla_plan_update": (_status, (_p, _p, _p, _p)),
    "flashmla_plan_reset": (_status, (_p, _p, _p)),
    "flashmla_plan_run": (_status, (_p, _p, _p, _p, _p)),
    "flashmla_plan_fault": (_status, (_p, _p, _p, _p)),
    "flashmla_plan_describe": (_size, (_p, _p, _size)),
    "flashmla_plan_parts": (_status, (_p, _p, _i64, _i32, _p, _p)),
    "flashmla_plan_parts_ragged": (_status, (_p, _p, _p, _i64, _p, _p)),
    "flashmla_merge": (_status, (_p, _p)),
    "flashmla_append": (_status, (_p, _p)),
    "flashmla_copy_pages": (_status, (_p, _p)),
    "flashmla_page_pool_create": (_status, (_i64, _p)),
    "flashmla_page_pool_destroy": (None, (_p,)),
    "flashmla_page_pool_allocate": (_status, (_p, _i64, _p)),
    "flashmla_page_pool_retain": (_status, (_p, _i64, _p)),
    "flashmla_page_pool_free": (_status, (_p, _i64, _p)),
    "flashmla_page_pool_fork": (_status, (_p, _i64, _i64, _p, _p, _p)),
    "flashmla_page_pool_references": (_i64, (_p, _i32)),
    "flashmla_page_pool_num_free": (_i64, (_p,)),
    "flashmla_page_pool_num_pages": (_i64, (_p,)),
    "flashmla_abi_version": (_u32, ()),
    "flashmla_version": (_text, ()),
    "flashmla_build_info": (_text, ()),
    "flashmla_last_error": (_text, ()),
    "flashmla_status_name": (_text, (_status,)),
    "flashmla_num_devices": (_i32, ()),
    "flashmla_get_device_info": (_status, (_i32, _p)),
    "flashmla_get_driver_info": (_status, (_p,)),
    "flashmla_num_kernels": (_i32, ()),
    "flashmla_get_kernel_info": (_status, (_i32, _p)),
}
