"""Drop-in for FlashAttention-3's flash_attn_with_kvcache (hopper/flash_attn_interface.py) where it is used for MLA: q holds the RoPE
part of the queries, qv the latent part, k_cache the RoPE part of the keys, and v_cache the latent part, which is key and value.

    from flashmla.compat.flash_attn_3 import flash_attn_with_kvcache

k_cache and v_cache may be views of one tensor, kv[..., 512:] and kv[..., :512] with kv [num_pages, page, h_kv, 576], or two. Each call
makes its schedule itself. What only tunes FlashAttention-3 (pack_gqa) is taken and ignored; arguments that mean something this library
does not have are named in an Error when set.
"""

import torch

from flashmla._errors import Error, invalid, unsupported, whole_number
from flashmla._shared import power_of_two, run_once, shared_plan
from flashmla.compat._ragged import device_offsets, host_offsets, longest
from flashmla.compat._words import renamed, tensor_text
from flashmla.torch import device as device_of

__all__ = ["flash_attn_with_kvcache"]

_OPERATION = "flash_attn_with_kvcache"
_FORMATS = {torch.bfloat16: "bf16_576", torch.float16: "fp16_576"}
_ARGUMENTS = {
    "q": "qv", "q_nope": "qv", "q_pe": "q", "cache": "v_cache", "ckv": "v_cache", "kpe": "k_cache", "ckv, kpe": "v_cache, k_cache",
    "kv_len": "cache_seqlens", "lengths.kv_len": "cache_seqlens", "q_offsets": "cu_seqlens_q", "max_q_tokens": "max_seqlen_q", "scale": "softmax_scale", "page_tokens": "k_cache", "h_q": "q",
    "h_kv": "k_cache",
}  # fmt: skip


def flash_attn_with_kvcache(q, k_cache, v_cache, k=None, v=None, qv=None, rotary_cos=None, rotary_sin=None, cache_seqlens=None,
                            cache_batch_idx=None, cache_leftpad=None, page_table=None, cu_seqlens_q=None, cu_seqlens_k_new=None,
                            max_seqlen_q=None, rotary_seqlens=None, q_descale=None, k_descale=None, v_descale=None, softmax_scale=None,
                            causal=False, window_size=(-1, -1), attention_chunk=0, softcap=0.0, rotary_interleaved=True,
                            scheduler_metadata=None, num_splits=0, pack_gqa=None, sm_margin=0, return_softmax_lse=False):  # fmt: skip
    """out [batch, s_q, h_q, 512] of qv's dtype; with return_softmax_lse (out, lse float32 [batch, h_q, s_q], and two empty tensors).

    q [batch, s_q, h_q, 64], qv [batch, s_q, h_q, 512]; k_cache [num_pages, page, h_kv, 64], v_cache [num_pages, page, h_kv, 512];
    page_table int32 [batch, max_pages], or None where row i of the caches is request i; cache_seqlens int32 [batch] or an int, or None
    for all. With cu_seqlens_q int32 [batch + 1], q and qv are [tokens, h_q, dim] and lse is [h_q, tokens]; tokens behind the last offset
    are left alone. On a GPU it stays there: offsets that max_seqlen_q or the tokens do not allow are clamped. max_seqlen_q: by default
    as many as there are tokens; say it, since the work is cut for it. softmax_scale: 576 ** -0.5 by default. causal: bottom-right. A row that sees no key gives 0 and -inf. Work is enqueued on the current stream.
    Raises flashmla.Error.
    """
    _refuse({"k": k, "v": v, "rotary_cos": rotary_cos, "rotary_sin": rotary_sin, "cache_batch_idx": cache_batch_idx,
             "cache_leftpad": cache_leftpad, "cu_seqlens_k_new": cu_seqlens_k_new, "rotary_seqlens": rotary_seqlens,
             "q_descale": q_descale, "k_descale": k_descale, "v_descale": v_descale,
             "scheduler_metadata": scheduler_metadata}, None)  # fmt: skip
    _refuse({"attention_chunk": attention_chunk, "softcap": softcap, "num_splits": num_splits, "sm_margin": sm_margin}, 0)
    _refuse({"window_size": tuple(window_size) if isinstance(window_size, list) else window_size}, (-1, -1))
    for name, tensor in (("q", q), ("k_cache", k_cache), ("v_cache", v_cache), ("qv", qv)):
        if not isinstance(tensor, torch.Tensor):
            parts = "MLA: q and k_cache are the RoPE parts, qv and v_cache the latent ones"
            raise invalid(_OPERATION, name, tensor_text(tensor), f"a torch.Tensor ({parts})")
    if cu_seqlens_q is not None:
        cu_seqlens_q = device_offsets(_OPERATION, "cu_seqlens_q", cu_seqlens_q, q.device)
    _check_shapes(q, qv, k_cache, v_cache, 4 if cu_seqlens_q is None else 3)
    batch = (q if cu_seqlens_q is None else cu_seqlens_q[1:]).shape[0]
    kv_len, page_table = _lengths_and_pages(k_cache, cache_seqlens, page_table, batch)
    fields = {"h_q": q.shape[-2], "h_kv": k_cache.shape[2], "kv_format": _FORMATS[v_cache.dtype], "page_tokens": k_cache.shape[1],
              "causal": bool(causal), "scale": softmax_scale, "empty_row": "minus_inf"}  # fmt: skip
    try:
        if cu_seqlens_q is None:
            out, lse = _attend((qv, q), (v_cache, k_cache), page_table, kv_len, fields)
        else:
            fields["max_q_tokens"] = _most_q_tokens(cu_seqlens_q, max_seqlen_q, q)
            plan = shared_plan(device_of(q), batch, **fields)
            out, lse = run_once(plan, (qv, q), (v_cache, k_cache), page_table, kv_len, q_offsets=cu_seqlens_q)
    except Error as error:
        raise renamed(error, _OPERATION, _ARGUMENTS) from None
    return (out, lse, lse.new_empty(0), lse.new_empty(0)) if return_softmax_lse else out


def _refuse(arguments, default):
    for name, value in arguments.items():
        if isinstance(value, torch.Tensor) or value != default:
            raise unsupported(_OPERATION, name, tensor_text(value), f"{default!r} (MLA decode over a cache that holds the new tokens)")


def _check_shapes(q, qv, k_cache, v_cache, rank):
    if v_cache.dtype not in _FORMATS:
        raise unsupported(_OPERATION, "v_cache", f"dtype {v_cache.dtype}", "torch.bfloat16 or torch.float16")
    for name, tensor, dim, wanted in (("q", q, 64, rank), ("qv", qv, 512, rank), ("k_cache", k_cache, 64, 4), ("v_cache", v_cache, 512, 4)):
        if tensor.dim() != wanted:
            raise invalid(_OPERATION, name, f"rank {tensor.dim()}", f"rank {wanted}")
        if tensor.shape[-1] != dim:
            raise unsupported(_OPERATION, name, f"head dimension {tensor.shape[-1]}", f"{dim} (MLA: 64 RoPE and 512 latent)")
        if tensor.dtype != v_cache.dtype:
            raise unsupported(_OPERATION, name, f"dtype {tensor.dtype}", f"{v_cache.dtype}, that of v_cache")
    if q.shape[:-1] != qv.shape[:-1]:
        raise invalid(_OPERATION, "qv", f"shape {list(qv.shape)}", f"{[*q.shape[:-1], 512]}, the sizes of q")


def _lengths_and_pages(k_cache, cache_seqlens, page_table, batch):
    device = k_cache.device
    if page_table is None:
        if k_cache.shape[0] != batch:
            raise invalid(_OPERATION, "k_cache", f"{k_cache.shape[0]} rows", f"{batch}, the batch (there is no page_table)")
        page_table = torch.arange(batch, dtype=torch.int32, device=device)[:, None]
    elif not isinstance(page_table, torch.Tensor) or page_table.dim() != 2:
        raise invalid(_OPERATION, "page_table", tensor_text(page_table), "an int32 tensor [batch, max_pages]")
    if cache_seqlens is None:
        cache_seqlens = page_table.shape[1] * k_cache.shape[1]
    if isinstance(cache_seqlens, int):
        cache_seqlens = torch.full((batch,), cache_seqlens, dtype=torch.int32, device=device)
    if not isinstance(cache_seqlens, torch.Tensor) or cache_seqlens.shape != (batch,):
        raise invalid(
            _OPERATION, "cache_seqlens", tensor_text(cache_seqlens), f"an int32 tensor [{batch}], one length a request, or an int"
        )
    return cache_seqlens, page_table


def _most_q_tokens(cu_seqlens_q, max_seqlen_q, q):
    """The bound of a ragged call. What lies on the host is checked; a GPU clamps."""
    if max_seqlen_q is not None:
        max_seqlen_q = whole_number(_OPERATION, "max_seqlen_q", max_seqlen_q, 0, 2**31 - 1)
    if not q.is_cuda:
        offsets = host_offsets(_OPERATION, "cu_seqlens_q", cu_seqlens_q)
        if offsets[-1] > q.shape[0]:
            raise invalid(_OPERATION, "cu_seqlens_q", f"a last offset of {offsets[-1]}", f"{q.shape[0]}, the query tokens, or less")
        if max_seqlen_q is not None and longest(offsets) > max_seqlen_q:
            raise invalid(_OPERATION, "max_seqlen_q", max_seqlen_q, f"at least {longest(offsets)}, the longest of cu_seqlens_q")
    return power_of_two(q.shape[0] if max_seqlen_q is None else max_seqlen_q)


def _attend(q, cache, page_table, kv_len, fields):
    batch, s_q = q[0].shape[:2]
    plan = shared_plan(device_of(q[0]), batch, max_q_tokens=max(s_q, 1), **fields)
    return run_once(plan, q, cache, page_table, kv_len)
