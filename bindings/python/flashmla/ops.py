"""Stand-alone operations: the merge of partial results, new tokens into a paged cache, and copies of its pages."""

import ctypes

from flashmla import _abi
from flashmla._abi import DeviceKind, DType, EmptyRow, KvFormat, LseBase
from flashmla._arrays import adapter_of, fill, fill_output, parse_as_bf16, parts_of, settle
from flashmla._errors import invalid, member, sequence, whole_number
from flashmla._library import check, lib


_OUTPUTS = ("out", "lse", "cache", "fault")


def _fill_all(operation, args, arrays, as_bf16, stream):
    """Fills the views of `args` from {name: array or None}; returns what must stay alive during the call."""
    keep = []
    for name, array in arrays.items():
        if array is not None:
            put = fill_output if name in _OUTPUTS else fill
            keep.append(put(getattr(args, name), array, (operation, name), as_bf16, stream))
    return keep


def _stream(operation, adapter, like, stream):
    from flashmla.plan import raw_stream

    kind, index = adapter.device(like)
    if kind == DeviceKind.CPU:
        return None
    return (adapter.stream(index) if stream is None else raw_stream(operation, stream)) or None


def merge(partial_out, partial_lse, *, sink=None, out=None, lse=None, out_dtype=None, lse_base=LseBase.NATURAL,
          empty_row=EmptyRow.PLUS_INF, stream=None, dtype=None):  # fmt: skip
    """Enqueues: merges partial results of the same rows over disjoint keys. Returns (out, lse).

    out = sum_i w_i out_i with w_i = exp(lse_i - lse). A part whose lse is +-inf is empty and has weight 0, whatever its numbers are.
    partial_out: [num_parts, tokens, heads, d_v] bf16, fp16 or fp32, last stride 1. partial_lse: float32 [num_parts, tokens, heads].
    sink: float32 [heads], natural log, applied once: here or in `run`. out: [tokens, heads, d_v] bf16, fp16 or fp32, new by default with
    out_dtype (by default that of partial_out). lse: float32 [tokens, heads], new by default, False for none. lse_base: of partial_lse and
    lse alike. empty_row: the lse of a row whose parts are all empty. dtype: "bf16" when bfloat16 arrives as uint16.
    Outputs may not overlap anything else. Raises flashmla.Error.
    """
    args = _abi.MergeArgs(
        lse_base=member("merge", "lse_base", lse_base, LseBase), empty_row=member("merge", "empty_row", empty_row, EmptyRow)
    )
    as_bf16 = parse_as_bf16("merge", dtype)
    adapter = adapter_of(partial_out, ("merge", "partial_out"))
    raw = _stream("merge", adapter, partial_out, stream)
    keep = _fill_all("merge", args, {"partial_out": partial_out, "partial_lse": partial_lse, "sink": sink}, as_bf16, raw)
    shape = tuple(args.partial_out.size[: args.partial_out.rank])
    if len(shape) != 4:
        raise invalid("merge", "partial_out", f"rank {len(shape)}", "rank 4: [num_parts, tokens, heads, d_v]")
    if out is None:
        element = args.partial_out.dtype if out_dtype is None else member("merge", "out_dtype", out_dtype, DType)
        if element not in (DType.BF16, DType.FP16, DType.FP32):
            raise invalid("merge", "out_dtype", DType(element).name.lower(), "bf16, fp16 or fp32")
        out = adapter.empty(partial_out, shape[1:], DType(element), ("merge", "out"))
    if lse is None:
        lse = adapter.empty(partial_lse, shape[1:3], DType.FP32, ("merge", "lse"))
    keep += _fill_all("merge", args, {"out": out, "lse": None if lse is False else lse}, as_bf16, raw)
    check(lib.flashmla_merge(ctypes.addressof(args), raw))
    settle((partial_out, partial_lse, sink, out, lse), adapter.device(partial_out), raw)
    return out, None if lse is False else lse


def append(kv, cache, slot_mapping, *, kv_format, fault=None, stream=None, dtype=None):
    """Enqueues: writes new tokens into their pages.

    kv: [tokens, 576], last stride 1, or the pair (ckv [tokens, 512], kpe [tokens, 64]); 320 (256 and 64) with bf16_320, 288 (256 and
    32) with bf16_288. cache: [num_pages, page_tokens, 576], or with h_kv 1 before the last dimension. slot_mapping: int64 [tokens], slot = page * page_tokens + offset; -1 skips a token, any other slot
    outside the cache is skipped and recorded. kv_format: a `KvFormat` or its name. fault: int32 [8] on the same device, zeroed, for
    the first bad slot (see `Fault.read`). dtype: "bf16" when bfloat16 arrives as uint16. Raises flashmla.Error.
    """
    args = _abi.AppendArgs(kv_format=member("append", "kv_format", kv_format, KvFormat))
    arrays = parts_of("append", "kv", ("ckv", "kpe"), kv) | {"slot_mapping": slot_mapping, "cache": cache, "fault": fault}
    adapter = adapter_of(cache, ("append", "cache"))
    raw = _stream("append", adapter, cache, stream)
    keep = _fill_all("append", args, arrays, parse_as_bf16("append", dtype), raw)
    check(lib.flashmla_append(ctypes.addressof(args), raw))
    settle(arrays.values(), adapter.device(cache), raw)
    del keep


def copy_pages(caches, copies, *, stream=None):
    """Enqueues: copies whole pages in the caches of all layers, as `PagePool.fork` asks for.

    caches: a sequence of arrays [num_pages, ...] of one device, dtype, shape and strides, last stride 1. copies: pairs (source, target)
    of page ids, or an array [n, 2] in host memory; a pair of -1 asks for nothing. Copies have no order: no target may be named twice or
    be a source too. The pairs are read before the call returns; inside stream capture they become part of the graph. Raises Error.
    """
    operation = "copy_pages"
    caches = sequence(operation, "caches", caches, "a sequence of arrays")
    if not caches:
        raise invalid(operation, "caches", "no array", "at least one")
    views = (_abi.View * len(caches))()
    adapter = adapter_of(caches[0], (operation, "caches[0]"))
    raw = _stream(operation, adapter, caches[0], stream)
    keep = [fill_output(view, cache, (operation, f"caches[{i}]"), True, raw) for i, (view, cache) in enumerate(zip(views, caches))]
    pairs = _page_copies(operation, copies)
    args = _abi.CopyPagesArgs(
        caches=ctypes.addressof(views), num_caches=len(caches), copies=ctypes.addressof(pairs), num_copies=len(pairs)
    )
    check(lib.flashmla_copy_pages(ctypes.addressof(args), raw))
    settle(caches, adapter.device(caches[0]), raw)
    del keep


def _page_copies(operation, copies):
    pairs = []
    for i, pair in enumerate(sequence(operation, "copies", copies, "a sequence of pairs (source, target)")):
        try:
            source, target = pair
        except (TypeError, ValueError):
            raise invalid(operation, f"copies[{i}]", repr(pair), "a pair (source, target)") from None
        ids = [whole_number(operation, f"copies[{i}].{name}", n, -(2**31), 2**31 - 1) for name, n in (("source", source), ("target", target))]
        pairs.append(_abi.PageCopy(*ids))
    return (_abi.PageCopy * len(pairs))(*pairs)
