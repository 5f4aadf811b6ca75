"""FlashMLA as operators of torch: `import flashmla.torch_ops` registers torch.ops.flashmla.*, which torch.compile and torch.export trace.

    schedule = torch.ops.flashmla.schedule(kv_len, h_q)                                    # once a step
    torch.ops.flashmla.append(cache, kv, slot_mapping)                                     # mutates cache
    out, lse = torch.ops.flashmla.decode(q, cache, page_table, kv_len, schedule=schedule)  # once a layer

Shapes, dtypes and meanings are those of `flashmla.DecodePlan.run`, `append` and `merge`; cache and q are fused, of BF16, FP16 or FP32, of
576 numbers a token unless kv_format says otherwise ("bf16_320", "bf16_288"). Plans are kept by the module, one for what calls have in
common, so an operator needs no object. `schedule` may be left out of `decode`, which then makes its own in every call. With q_offsets
(int32 [batch + 1]: cu_seqlens) requests have query tokens of their own number, and q, out and lse no batch dimension; max_q_tokens, the
most that one may have, must then be said. Work goes to the current stream. There is no backward. Errors are flashmla.Error.
"""

import ctypes

import torch

from flashmla import ops
from flashmla._abi import DeviceKind, KvFormat
from flashmla._errors import invalid, member, unsupported
from flashmla._problem import v_dim_of
from flashmla._shared import run_once, shared_plan
from flashmla.plan import Schedule
from flashmla.torch import device as device_of
from flashmla.torch import fill

_FORMATS = {torch.bfloat16: "bf16_576", torch.float16: "fp16_576", torch.float32: "fp32_576"}
_OUT_DTYPES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
_ALIGNMENT = 256

_library = torch.library.Library("flashmla", "DEF")
_INPUTS = "Tensor q, Tensor cache, Tensor page_table, Tensor kv_len"
_OPTIONS = """Tensor? schedule=None, bool causal=False, float? scale=None, Tensor? visible_len=None, Tensor? sink=None,
              Tensor? q_offsets=None, int max_q_tokens=0, str lse_base='natural', str empty_row='plus_inf', str kv_format=''"""
_DEFAULTS = {"schedule": None, "causal": False, "scale": None, "visible_len": None, "sink": None, "q_offsets": None, "max_q_tokens": 0, "lse_base": "natural",
             "empty_row": "plus_inf", "kv_format": "", "out_dtype": None}  # fmt: skip


def _operator(schema, fake):
    """Makes the decorated function the operator of that schema, on the CPU and on CUDA."""

    def register(function):
        name = schema.partition("(")[0]
        _library.define(schema)
        for key in ("CPU", "CUDA"):
            _library.impl(name, function, key)
        torch.library.register_fake(f"flashmla::{name}", fake, lib=_library)
        return getattr(torch.ops.flashmla, name)

    return register


def _kv_format(operation, dtype, given=""):
    """The format that is named, or that of 576 numbers of the cache's dtype."""
    if given:
        return member(operation, "kv_format", given, KvFormat)
    if dtype not in _FORMATS:
        raise unsupported(operation, "cache", f"dtype {dtype}", "torch.bfloat16, torch.float16 or torch.float32")
    return _FORMATS[dtype]


def _plan(q, cache, rows, *, causal, scale, lse_base, empty_row, kv_format, out_dtype):
    """The plan of a decode call; sizes that no plan can have are named as the arguments of the call. rows: (batch, most query tokens)."""
    if cache.dim() not in (3, 4):
        raise invalid("decode", "cache", f"rank {cache.dim()}", "rank 4: [num_pages, page_tokens, h_kv, 576], or 3 without h_kv")
    if out_dtype not in _OUT_DTYPES:
        raise invalid("decode", "out_dtype", out_dtype, "torch.bfloat16, torch.float16 or torch.float32")
    batch, q_tokens = rows
    return shared_plan(
        device_of(q), batch, lasting=True, h_q=q.shape[-2], h_kv=cache.shape[2] if cache.dim() == 4 else 1, kv_format=_kv_format("decode", cache.dtype, kv_format),
        page_tokens=cache.shape[1], max_q_tokens=max(q_tokens, 1), causal=causal, scale=scale, lse_base=lse_base, empty_row=empty_row,
        out_dtype=_OUT_DTYPES[out_dtype],
    )  # fmt: skip


def _aligned(tensor):
    """The bytes of a schedule where the library wants them; allocators for the CPU align less, and compilers move tensors about."""
    if tensor.data_ptr() % _ALIGNMENT == 0:
        return tensor
    room = torch.empty(tensor.numel() + _ALIGNMENT, dtype=torch.uint8, device=tensor.device)
    start = -room.data_ptr() % _ALIGNMENT
    return room[start : start + tensor.numel()].copy_(tensor)


def _rows(q, kv_len, q_offsets, max_q_tokens):
    """(batch, the most query tokens of a request)."""
    rank, words = (4, "[batch, q_tokens, h_q, 576]") if q_offsets is None else (3, "[total_q, h_q, 576]")
    if q.dim() != rank:
        raise invalid("decode", "q", f"rank {q.dim()}", f"rank {rank}: {words}")
    if q_offsets is None:
        return tuple(q.shape[:2])
    if max_q_tokens < 1:
        raise invalid("decode", "max_q_tokens", max_q_tokens, "at least 1, the most query tokens of a request (q_offsets)")
    return kv_len.shape[0], max_q_tokens


def _decode(tensors, out, lse, options):
    q, cache, page_table, kv_len = tensors
    options = _DEFAULTS | options  # torch leaves out what is as the schema has it
    schedule, more = options.pop("schedule"), {name: options.pop(name) for name in ("visible_len", "sink", "q_offsets")}
    plan = _plan(q, cache, _rows(q, kv_len, more["q_offsets"], options.pop("max_q_tokens")), **options)
    if schedule is None:
        return run_once(plan, q, cache, page_table, kv_len, out=out, lse=lse, **more)
    return plan.run(q, cache, page_table, kv_len, schedule=_aligned(schedule), out=out, lse=lse, **more)


def _schedule_plan(kv_len, h_q, q_tokens, h_kv=1, page_tokens=64, dtype=None, *, kv_format=""):
    kv_format = _kv_format("schedule", torch.bfloat16 if dtype is None else dtype, kv_format)
    batch = kv_len.shape[0] if isinstance(kv_len.shape[0], int) else 1
    return shared_plan(
        device_of(kv_len), batch, lasting=True, h_q=h_q, h_kv=h_kv, kv_format=kv_format, page_tokens=page_tokens,
        max_q_tokens=max(q_tokens, 1),
    )  # fmt: skip


def _fake_schedule(kv_len, h_q, q_tokens=1, *of_cache, q_offsets=None, kv_format=""):
    plan = _schedule_plan(kv_len, h_q, q_tokens, *of_cache, kv_format=kv_format)
    return kv_len.new_empty((plan.schedule_bytes,), dtype=torch.uint8)


@_operator(
    "schedule(Tensor kv_len, int h_q, int q_tokens=1, int h_kv=1, int page_tokens=64, ScalarType? dtype=None, *, "
    "Tensor? q_offsets=None, str kv_format='') -> Tensor",
    _fake_schedule,
)
def schedule(kv_len, h_q, q_tokens=1, *of_cache, q_offsets=None, kv_format=""):
    """The schedule of a step, uint8, for every `decode` of these lengths (its dtype: that of the cache, BF16 by default). With q_offsets,
    q_tokens is the max_q_tokens of `decode`. One for earlier lengths or offsets costs balance, not correctness; one of another batch or
    q_tokens is a fault, and nothing is computed."""
    plan = _schedule_plan(kv_len, h_q, q_tokens, *of_cache, kv_format=kv_format)
    if plan.device[0] == DeviceKind.CUDA:
        made = torch.empty(plan.schedule_bytes, dtype=torch.uint8, device=kv_len.device)
        target = Schedule(made)
        fill(target.view, made, ("schedule", "kv_len"))
    else:
        target = plan.new_schedule()
        made = torch.empty(plan.schedule_bytes, dtype=torch.uint8)
    plan.update(kv_len, q_tokens=q_tokens, q_offsets=q_offsets, schedule=target)
    if plan.device[0] == DeviceKind.CPU:
        ctypes.memmove(made.data_ptr(), target.memory.address, plan.schedule_bytes)
    return made


def _fake_decode(q, cache, page_table, kv_len, **options):
    *batch, tokens, h_q, _ = q.shape
    v_dim = v_dim_of(member("decode", "kv_format", options.get("kv_format") or "bf16_576", KvFormat))
    out = q.new_empty((*batch, tokens, h_q, v_dim), dtype=options.get("out_dtype") or q.dtype)
    return out, q.new_empty((*batch, h_q, tokens), dtype=torch.float32)


@_operator(f"decode({_INPUTS}, *, {_OPTIONS}, ScalarType? out_dtype=None) -> (Tensor, Tensor)", _fake_decode)
def decode(q, cache, page_table, kv_len, **options):
    """(out [batch, q_tokens, h_q, 512] of out_dtype, by default that of q; lse float32 [batch, h_q, q_tokens]); without batch with q_offsets."""
    options["out_dtype"] = options.get("out_dtype") or q.dtype
    return _decode((q, cache, page_table, kv_len), None, None, options)


def _fake_nothing(*arguments, **options):
    return None


@_operator(f"decode_out({_INPUTS}, Tensor(a!) out, Tensor(b!) lse, *, {_OPTIONS}) -> ()", _fake_nothing)
def decode_out(q, cache, page_table, kv_len, out, lse, **options):
    """`decode` into given tensors."""
    _decode((q, cache, page_table, kv_len), out, lse, options | {"out_dtype": out.dtype})


@_operator("append(Tensor(a!) cache, Tensor kv, Tensor slot_mapping, Tensor? kpe=None, *, str kv_format='') -> ()", _fake_nothing)
def append(cache, kv, slot_mapping, kpe=None, *, kv_format=""):
    """New tokens into a paged cache: kv [tokens, 576], or the latent part [tokens, 512] with kpe [tokens, 64]."""
    ops.append(kv if kpe is None else (kv, kpe), cache, slot_mapping, kv_format=_kv_format("append", cache.dtype, kv_format))


def _fake_merge(partial_out, partial_lse, sink=None, lse_base="natural", empty_row="plus_inf", out_dtype=None):
    _, tokens, heads, width = partial_out.shape
    out = partial_out.new_empty((tokens, heads, width), dtype=partial_out.dtype if out_dtype is None else out_dtype)
    return out, partial_lse.new_empty((tokens, heads))


@_operator(
    "merge(Tensor partial_out, Tensor partial_lse, Tensor? sink=None, str lse_base='natural', str empty_row='plus_inf', "
    "ScalarType? out_dtype=None) -> (Tensor, Tensor)",
    _fake_merge,
)
def merge(partial_out, partial_lse, sink=None, lse_base="natural", empty_row="plus_inf", out_dtype=None):
    """Partial results [num_parts, tokens, heads, d_v] with their lse [num_parts, tokens, heads] into one."""
    if out_dtype is not None and out_dtype not in _OUT_DTYPES:
        raise invalid("merge", "out_dtype", out_dtype, "torch.bfloat16, torch.float16 or torch.float32")
    named = None if out_dtype is None else _OUT_DTYPES[out_dtype]
    return ops.merge(partial_out, partial_lse, sink=sink, out_dtype=named, lse_base=lse_base, empty_row=empty_row)
