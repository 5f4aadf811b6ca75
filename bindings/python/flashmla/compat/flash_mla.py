"""Drop-in for FlashMLA's Python module, dense decode: `import flashmla.compat.flash_mla as flash_mla`, or flashmla.compat.install().

Both plan styles are taken. `get_mla_metadata()` with up to two arguments returns (object, None): the object holds this library's own
schedule, filled by the first call that uses it, which may be inside a CUDA-graph capture; make a new one each step, and keep it as long
as graphs that used it. With three arguments or more it returns the two tensors of 2025, which this library only checks: every call then
makes its own schedule from the lengths, on the stream, so the tensors may be copied and cut as engines do.

CPU tensors are accepted everywhere, and every page size that the library supports. What is not built raises flashmla.Error.
"""

import os
import threading

import torch

from flashmla import __version__
from flashmla._errors import Error, invalid, unsupported, whole_number
from flashmla._scratch import capture_id
from flashmla._shared import power_of_two, run_once, shared_plan
from flashmla.compat import _metadata
from flashmla.compat._words import renamed, tensor_text
from flashmla.torch import device as device_of
from flashmla.torch import stream as current_stream

__all__ = ["__version__", "flash_attn_varlen_func", "flash_mla_sparse_fwd", "flash_mla_with_kvcache", "get_mla_metadata"]

_OPERATION = "flash_mla_with_kvcache"
_DENSE = "dense decode over a BF16 or FP16 cache [num_pages, page, h_kv, 576] (the only one built)"
_FORMATS = {torch.bfloat16: "bf16_576", torch.float16: "fp16_576"}
_ARGUMENTS = {
    "page_table": "block_table", "kv_len": "cache_seqlens", "lengths.kv_len": "cache_seqlens", "cache": "k_cache", "sink": "attn_sink",
}  # fmt: skip
_METADATA_ARGUMENTS = ("cache_seqlens", "num_q_tokens_per_head_k", "num_heads_k", "num_heads_q", "is_fp8_kvcache", "topk")

_lock = threading.Lock()


class SchedulerMetadata:
    """The object style of a plan. The first call that uses it says what it is for; a call of another shape is then an Error."""

    __slots__ = ("asked", "options", "runner", "schedule", "capture")

    def __init__(self):
        self.options = None  # head_dim_v, softmax_scale, causal, enable_batch_invariant; None until the first call
        self.asked = None  # the key of the plan, and the rows
        self.runner = None
        self.schedule = None
        self.capture = 0  # the graph capture that fills the schedule, 0 when an eager call did

    def __repr__(self):
        values = {} if self.asked is None else _values(self.asked)
        return f"SchedulerMetadata({', '.join(f'{name}={value}' for name, value in values.items()) or 'unused'})"


def get_mla_metadata(*args, **kwargs):
    """The plan of a step. With 0 to 2 arguments (ignored): (object, None), the style to use.

    With 3 to 6, in FlashMLA's order (cache_seqlens int32 [batch], num_q_tokens_per_head_k, num_heads_k, num_heads_q=None,
    is_fp8_kvcache=False, topk=None): two int32 tensors on the lengths' device, [num_parts, 8] and [batch + 1], filled on the current
    stream. Raises flashmla.Error.
    """
    operation = "get_mla_metadata"
    if len(args) + len(kwargs) <= 2:
        return SchedulerMetadata(), None
    named = dict(zip(_METADATA_ARGUMENTS, args))
    if len(args) > len(_METADATA_ARGUMENTS) or named.keys() & kwargs.keys() or not kwargs.keys() <= set(_METADATA_ARGUMENTS):
        raise invalid(operation, "arguments", f"{len(args)} positional and {sorted(kwargs)}", f"at most {', '.join(_METADATA_ARGUMENTS)}")
    named |= kwargs
    if named.get("is_fp8_kvcache"):
        raise unsupported(operation, "is_fp8_kvcache", named["is_fp8_kvcache"], f"False: {_DENSE}")
    if named.get("topk") is not None:
        raise unsupported(operation, "topk", named["topk"], f"None: {_DENSE}")
    lengths = named.get("cache_seqlens")
    if not isinstance(lengths, torch.Tensor) or lengths.dtype != torch.int32 or lengths.dim() != 1:
        raise invalid(operation, "cache_seqlens", tensor_text(lengths), "an int32 tensor [batch]")
    tokens = whole_number(operation, "num_q_tokens_per_head_k", named.get("num_q_tokens_per_head_k"), 1, 2**31 - 1)
    heads = whole_number(operation, "num_heads_k", named.get("num_heads_k"), 1, 2**31 - 1)
    if lengths.is_cuda:
        workers = torch.cuda.get_device_properties(lengths.device).multi_processor_count
    else:
        workers = len(os.sched_getaffinity(0))
    num_parts = max(workers // heads // -(-tokens // _metadata.BLOCK_TOKENS), 1)
    return _metadata.make_rows(lengths, num_parts)


def flash_mla_with_kvcache(q, k_cache, block_table, cache_seqlens, head_dim_v, tile_scheduler_metadata, num_splits=None,
                           softmax_scale=None, causal=False, is_fp8_kvcache=False, indices=None, attn_sink=None, extra_k_cache=None,
                           extra_indices_in_kvcache=None, topk_length=None, extra_topk_length=None,
                           enable_batch_invariant=False):  # fmt: skip
    """Dense decode over a paged cache. Returns (out [batch, s_q, h_q, 512] of q's dtype, lse float32 [batch, h_q, s_q], natural log).

    q: [batch, s_q, h_q, 576] BF16 or FP16. k_cache: [num_pages, page, h_kv, 576] of the same dtype (h_kv may be left out when it is 1).
    block_table: int32 [batch, max_pages]; entries past a length may hold anything. cache_seqlens: int32 [batch]. head_dim_v: 512.
    tile_scheduler_metadata, num_splits: what get_mla_metadata returned; num_splits may be None. softmax_scale: 576 ** -0.5 by default.
    causal: bottom-right. attn_sink: float32 [h_q]. A row that sees no key gives 0 and lse +inf. The remaining arguments belong to FP8 and
    sparse attention, which are not built. Work is enqueued on the current stream. Raises flashmla.Error.
    """
    metadata = tile_scheduler_metadata
    if (
        type(metadata) is SchedulerMetadata
        and metadata.options == (head_dim_v, softmax_scale, causal, enable_batch_invariant)
        and attn_sink is indices is extra_k_cache is extra_indices_in_kvcache is topk_length is extra_topk_length is num_splits is None
        and not is_fp8_kvcache
        and not metadata.capture
        and not enable_batch_invariant  # whose plan holds requests as long as the table at that time
    ):
        try:
            result = metadata.runner.run(metadata.schedule, None, q, k_cache, block_table, cache_seqlens, out=None, lse=None)
        except Error as error:
            raise _renamed(error, metadata, q, k_cache, cache_seqlens) from None
        if result is not None:
            return result
    options = (head_dim_v, softmax_scale, causal, enable_batch_invariant)
    sparse = {"indices": indices, "extra_k_cache": extra_k_cache, "extra_indices_in_kvcache": extra_indices_in_kvcache,
              "topk_length": topk_length, "extra_topk_length": extra_topk_length}  # fmt: skip
    _refuse_what_is_not_built(is_fp8_kvcache, sparse)
    _check_tensors({"q": q, "k_cache": k_cache, "block_table": block_table, "cache_seqlens": cache_seqlens})
    asked = _asked(q, k_cache, options, block_table)
    try:
        if type(metadata) is SchedulerMetadata:
            if num_splits is not None:
                raise invalid(_OPERATION, "num_splits", tensor_text(num_splits), "None, as get_mla_metadata returned it with the object")
            return _run_with_object(metadata, asked, options, (q, k_cache, block_table, cache_seqlens), attn_sink)
        _check_two_tensors(metadata, num_splits, q)
        # The tensors say nothing that the lengths do not: the schedule is remade in every call.
        return run_once(_plan_for(asked), q, k_cache, block_table, cache_seqlens, sink=attn_sink)
    except Error as error:
        raise _renamed(error, metadata, q, k_cache, cache_seqlens) from None


def flash_mla_sparse_fwd(q, kv, indices, sm_scale, d_v=512, attn_sink=None, topk_length=None):
    """Sparse prefill: not built; always raises flashmla.Error."""
    raise unsupported("flash_mla_sparse_fwd", "operation", "sparse prefill", f"flash_mla_with_kvcache: {_DENSE}")


def flash_attn_varlen_func(q, k, v, cu_seqlens_qo, cu_seqlens_kv, max_seqlen_qo, max_seqlen_kv, dropout_p=0.0, softmax_scale=None,
                           causal=False, deterministic=False, is_varlen=True):  # fmt: skip
    """Dense prefill: not built; always raises flashmla.Error."""
    raise unsupported("flash_attn_varlen_func", "operation", "dense prefill", f"flash_mla_with_kvcache: {_DENSE}")


def _refuse_what_is_not_built(is_fp8_kvcache, sparse):
    if is_fp8_kvcache:
        raise unsupported(_OPERATION, "is_fp8_kvcache", is_fp8_kvcache, f"False: {_DENSE}")
    for name, value in sparse.items():
        if value is not None:
            raise unsupported(_OPERATION, name, tensor_text(value), f"None: {_DENSE}")


def _check_tensors(tensors):
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise invalid(_OPERATION, name, tensor_text(tensor), "a torch.Tensor")


def _asked(q, k_cache, options, block_table=None):
    """What a call asks of a plan: every field of its key but the batch, then (batch, s_q). Batch-invariant plans declare the longest
    request, the width of block_table rounded up to a power of two."""
    head_dim_v, scale, causal, batch_invariant = options
    if q.dim() != 4:
        raise invalid(_OPERATION, "q", f"rank {q.dim()}", "rank 4: [batch, s_q, h_q, 576]")
    if k_cache.dim() not in (3, 4):
        raise invalid(_OPERATION, "k_cache", f"rank {k_cache.dim()}", "rank 4: [num_pages, page, h_kv, 576], or 3 without h_kv")
    if k_cache.dtype not in _FORMATS:
        raise unsupported(_OPERATION, "k_cache", f"dtype {k_cache.dtype}", "torch.bfloat16 or torch.float16")
    if q.dtype != k_cache.dtype:
        raise invalid(_OPERATION, "q", f"dtype {q.dtype}", f"{k_cache.dtype}, that of k_cache")
    if head_dim_v != 512:
        raise unsupported(_OPERATION, "head_dim_v", head_dim_v, "512")
    batch, s_q, h_q, _ = q.shape
    h_kv = k_cache.shape[2] if k_cache.dim() == 4 else 1
    longest = 0
    if batch_invariant and block_table is not None and block_table.dim() == 2:
        longest = min(power_of_two(block_table.shape[1] * k_cache.shape[1]), 2**31 - 1)
    key = (device_of(q), h_q, h_kv, _FORMATS[k_cache.dtype], k_cache.shape[1], s_q, bool(causal), scale, bool(batch_invariant), longest)
    return key, (batch, s_q)


def _plan_for(asked):
    (device, h_q, h_kv, kv_format, page, s_q, causal, scale, batch_invariant, longest), (batch, _) = asked
    return shared_plan(
        device, batch, h_q=h_q, h_kv=h_kv, kv_format=kv_format, page_tokens=page, max_q_tokens=max(s_q, 1), causal=causal, scale=scale,
        batch_invariant=batch_invariant, max_kv_len=longest,
    )  # fmt: skip


def _run_with_object(metadata, asked, options, tensors, attn_sink):
    q, k_cache, block_table, cache_seqlens = tensors
    batch = asked[1][0]
    if cache_seqlens.shape != (batch,):
        raise invalid(_OPERATION, "cache_seqlens", f"shape {list(cache_seqlens.shape)}", f"[{batch}], the batch of q")
    with _lock:
        if metadata.asked is None:
            runner = _plan_for(asked).torch_runner()
            schedule = runner.plan.new_schedule(q)
            _update(runner.plan, metadata, schedule, cache_seqlens, asked)
            metadata.runner, metadata.schedule, metadata.options, metadata.asked = runner, schedule, options, asked
        elif metadata.asked != asked:
            raise _other_shape(metadata.asked, asked)
        elif metadata.capture and metadata.capture != _current_capture(q):
            # A graph fills the schedule at its replays, and there may have been none yet.
            _update(metadata.runner.plan, metadata, metadata.schedule, cache_seqlens, asked)
    return metadata.runner.plan.run(q, k_cache, block_table, cache_seqlens, sink=attn_sink, schedule=metadata.schedule)


def _update(plan, metadata, schedule, cache_seqlens, asked):
    plan.update(cache_seqlens, q_tokens=asked[1][1], schedule=schedule)
    metadata.capture = _current_capture(cache_seqlens)


def _current_capture(tensor):
    return capture_id(current_stream(tensor.device.index)) if tensor.is_cuda else 0


def _check_two_tensors(metadata, num_splits, q):
    if not isinstance(metadata, torch.Tensor):
        raise invalid(_OPERATION, "tile_scheduler_metadata", tensor_text(metadata), "what get_mla_metadata returned")
    wanted = {"tile_scheduler_metadata": (metadata, ("num_parts", _metadata.ROW)), "num_splits": (num_splits, (q.shape[0] + 1,))}
    for name, (tensor, shape) in wanted.items():
        if tensor is None and name == "num_splits":
            continue
        good = isinstance(tensor, torch.Tensor) and tensor.dtype == torch.int32
        if not good or tensor.dim() != len(shape) or tensor.shape[-1] != shape[-1]:
            raise invalid(_OPERATION, name, tensor_text(tensor), f"an int32 tensor [{', '.join(str(n) for n in shape)}]")
        if tensor.device != q.device:
            raise invalid(_OPERATION, name, f"device {tensor.device}", f"{q.device}, that of q")
    if not metadata.is_cuda and metadata.shape[0] > 0:
        _metadata.check_rows(_OPERATION, metadata)


_FIELDS = (
    "device", "h_q", "h_kv", "format", "page", "s_q", "causal", "softmax_scale", "enable_batch_invariant", "longest request", "batch"
)  # fmt: skip


def _values(asked):
    """What a call asks for, by name."""
    key, (batch, _) = asked
    (kind, index), *rest = key
    return dict(zip(_FIELDS, (f"{kind.name.lower()}:{index}", *rest, batch)))


def _other_shape(filled, asked):
    old, new = _values(filled), _values(asked)
    changed = [name for name in _FIELDS if old[name] != new[name]]
    got, expected = (", ".join(f"{name} {values[name]}" for name in changed) for values in (new, old))
    return invalid(_OPERATION, "tile_scheduler_metadata", f"a call with {got}",
                   f"{expected}, as in the first call that used it (call get_mla_metadata() again when shapes change)")  # fmt: skip


def _renamed(error, metadata, q, k_cache, cache_seqlens):
    """An Error of the library in the names of this module, or the one that says that the metadata belongs to another shape."""
    if type(metadata) is SchedulerMetadata and metadata.asked is not None:
        try:
            asked = _asked(q, k_cache, metadata.options)
            asked = ((*asked[0][:-1], metadata.asked[0][-1]), asked[1])
        except Error as own:
            return own
        if asked != metadata.asked:
            return _other_shape(metadata.asked, asked)
    return renamed(error, _OPERATION, _ARGUMENTS)
