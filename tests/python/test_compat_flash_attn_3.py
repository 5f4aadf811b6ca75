"""The drop-in for FlashAttention-3's flash_attn_with_kvcache, on CPU tensors, called as engines call it for MLA."""

import inspect

import pytest

torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402
from arrays import KINDS  # noqa: E402
from reference import assert_close, decode, make_case  # noqa: E402
from test_bad_input import check  # noqa: E402

from flashmla import Status  # noqa: E402
from flashmla.compat.flash_attn_3 import flash_attn_with_kvcache  # noqa: E402

KIND = next(kind for kind in KINDS if kind.name == "torch-bf16")
INVALID, UNSUPPORTED = Status.INVALID_ARGUMENT, Status.UNSUPPORTED


def arguments(case):
    """The call of an engine: parts of one q and of one cache, 4 heads as in [pages, page, 1, dim]."""
    q, cache = (KIND.from_numpy(a) for a in case.as_type(KIND.element))
    return {
        "q": q[..., 512:], "k_cache": cache[..., 512:], "v_cache": cache[..., :512], "qv": q[..., :512],
        "page_table": KIND.from_numpy(case.page_table), "cache_seqlens": KIND.from_numpy(case.kv_len), "causal": case.causal,
        "return_softmax_lse": True,
    }  # fmt: skip


def assert_result(case, out, lse, rows=None):
    """`rows`: the (request, row) pairs of a ragged call, whose out is [tokens, h_q, 512] and lse [h_q, tokens]."""
    expected_out, expected_lse = decode(case)
    if rows is not None:
        expected_out = np.array([expected_out[i, j] for i, j in rows])
        expected_lse = np.array([expected_lse[i, :, j] for i, j in rows]).T
    assert_close(KIND.to_float64(out), expected_out, absolute=8e-4, relative=2.01 / 128, cosine=5e-6)
    assert_close(KIND.to_float64(lse), np.where(np.isposinf(expected_lse), -np.inf, expected_lse), absolute=1e-6, relative=8.01 / 65536)


@pytest.mark.parametrize(
    "s_q, causal, page, h_q, h_kv", [(1, False, 64, 16, 1), (3, True, 64, 128, 1), (2, True, 1, 4, 2), (2, False, 32, 5, 1)]
)
@pytest.mark.parametrize("fused", [True, False])
def test_against_the_reference(s_q, causal, page, h_q, h_kv, fused):
    case = make_case([100, 0, 65], h_q=h_q, h_kv=h_kv, s_q=s_q, page=page, causal=causal, element=KIND.element)
    call = arguments(case)
    if not fused:
        call |= {name: call[name].contiguous() for name in ("q", "qv", "k_cache", "v_cache")}
    out, lse, *rest = flash_attn_with_kvcache(**call)
    assert_result(case, out, lse)
    assert [tensor.numel() for tensor in rest] == [0, 0]
    only = flash_attn_with_kvcache(
        **call | {"return_softmax_lse": False, "pack_gqa": True, "max_seqlen_q": s_q, "rotary_interleaved": False}
    )
    assert torch.equal(only, out)


@pytest.mark.parametrize("q_lengths", [[1, 1, 1], [3, 3, 3], [2, 0, 2], [3, 1, 2], [0, 0, 0]])
@pytest.mark.parametrize("causal", [False, True])
def test_ragged_queries(q_lengths, causal):
    case = make_case([100, 7, 65], h_q=8, s_q=3, causal=causal, element=KIND.element)
    rows = [(i, 3 - n + j) for i, n in enumerate(q_lengths) for j in range(n)]  # bottom-right: the last rows are the shorter request
    call = arguments(case)
    picks = [i * 3 + j for i, j in rows]
    call |= {name: call[name].flatten(0, 1)[picks] for name in ("q", "qv")}
    offsets = torch.tensor(np.cumsum([0, *q_lengths]), dtype=torch.int32)
    for more in ({"max_seqlen_q": 3}, {}):
        out, lse, *_ = flash_attn_with_kvcache(**call, cu_seqlens_q=offsets, **more)
        assert out.shape == (len(rows), 8, 512) and lse.shape == (8, len(rows))
        if rows:
            assert_result(case, out, lse, rows)


def test_tokens_behind_the_last_offset_are_left_alone():
    """As an engine pads its steps for graphs: more rows of q than the requests have."""
    case = make_case([100, 7], h_q=8, s_q=2, causal=True, element=KIND.element)
    call = arguments(case)
    for name in ("q", "qv"):
        flat = call[name].flatten(0, 1)[1:]
        call[name] = torch.cat([flat, flat.new_full((2, *flat.shape[1:]), float("nan"))])
    offsets = torch.tensor([0, 1, 3], dtype=torch.int32)
    out, lse, *_ = flash_attn_with_kvcache(**call, cu_seqlens_q=offsets, max_seqlen_q=2)
    assert out.shape == (5, 8, 512) and lse.shape == (8, 5)
    assert_result(case, out[:3], lse[:, :3], [(0, 1), (1, 0), (1, 1)])


def test_one_length_and_no_page_table():
    case = make_case([64, 64], h_q=8, page=64, element=KIND.element, poison=False)
    call = arguments(case)
    pages = call["page_table"][:, 0].long()
    expected = flash_attn_with_kvcache(**call)[0]
    assert torch.equal(flash_attn_with_kvcache(**call | {"cache_seqlens": 64})[0], expected)
    rows = call | {"k_cache": call["k_cache"][pages], "v_cache": call["v_cache"][pages], "page_table": None}
    assert torch.equal(flash_attn_with_kvcache(**rows)[0], expected)
    assert torch.equal(flash_attn_with_kvcache(**rows | {"cache_seqlens": None})[0], expected)
    scaled = flash_attn_with_kvcache(**call | {"softmax_scale": 0.0})[0]
    mean = call["v_cache"][pages].float().mean(1)
    torch.testing.assert_close(scaled[:, 0].float(), mean.expand(2, 8, 512), atol=1e-3, rtol=1e-2)


def test_signature():
    assert list(inspect.signature(flash_attn_with_kvcache).parameters) == [
        "q", "k_cache", "v_cache", "k", "v", "qv", "rotary_cos", "rotary_sin", "cache_seqlens", "cache_batch_idx", "cache_leftpad", "page_table",
        "cu_seqlens_q", "cu_seqlens_k_new", "max_seqlen_q", "rotary_seqlens", "q_descale", "k_descale", "v_descale", "softmax_scale", "causal",
        "window_size", "attention_chunk", "softcap", "rotary_interleaved", "scheduler_metadata", "num_splits", "pack_gqa", "sm_margin",
        "return_softmax_lse",
    ]  # fmt: skip


REFUSED = {
    "k": torch.zeros(2), "v": torch.zeros(2), "rotary_cos": torch.zeros(2), "rotary_sin": torch.zeros(2), "cache_batch_idx": torch.zeros(2),
    "cache_leftpad": torch.zeros(2), "cu_seqlens_k_new": torch.zeros(2), "rotary_seqlens": torch.zeros(2), "q_descale": torch.zeros(2),
    "k_descale": torch.zeros(2), "v_descale": torch.zeros(2), "scheduler_metadata": torch.zeros(2), "window_size": (128, 0),
    "attention_chunk": 4, "softcap": 30.0, "num_splits": 2, "sm_margin": 8,
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_there_is_refused_by_name(name):
    call = arguments(make_case([9], h_q=4, element=KIND.element))
    check(lambda: flash_attn_with_kvcache(**call | {name: REFUSED[name]}), UNSUPPORTED, f"flash_attn_with_kvcache: {name}: got")


def test_bad_arguments():
    case = make_case([100, 7], h_q=8, element=KIND.element)
    call = arguments(case)
    flat = {name: call[name].flatten(0, 1) for name in ("q", "qv")}
    for change, status, words in [
        ({"qv": None}, INVALID, "qv: got None"),
        ({"qv": call["qv"][:1]}, INVALID, "qv: got shape [1, 1, 8, 512], expected [2, 1, 8, 512]"),
        ({"q": call["qv"]}, UNSUPPORTED, "q: got head dimension 512, expected 64"),
        ({"v_cache": call["v_cache"].float()}, UNSUPPORTED, "v_cache: got dtype torch.float32"),
        ({"q": call["q"].half()}, UNSUPPORTED, "q: got dtype torch.float16, expected torch.bfloat16"),
        ({"k_cache": call["k_cache"][0]}, INVALID, "k_cache: got rank 3"),
        ({"k_cache": call["k_cache"][:1]}, INVALID, "k_cache: got dim 0 = 1"),
        ({"page_table": None}, INVALID, "k_cache: got"),
        ({"page_table": call["page_table"].long()}, INVALID, "page_table: got dtype INT64"),
        ({"page_table": call["page_table"][:1]}, INVALID, "page_table: got dim 0 = 1"),
        ({"cache_seqlens": call["cache_seqlens"][:1]}, INVALID, "cache_seqlens: got a torch.int32 tensor [1]"),
        ({"cache_seqlens": call["cache_seqlens"].float()}, INVALID, "cache_seqlens: got dtype FP32"),
        ({"softmax_scale": float("nan")}, INVALID, "softmax_scale: got nan"),
        (flat | {"cu_seqlens_q": torch.tensor([0, 1, 3])}, INVALID, "cu_seqlens_q: got a last offset of 3, expected 2"),
        (flat | {"cu_seqlens_q": torch.tensor([0, 2, 2]), "max_seqlen_q": 1}, INVALID, "max_seqlen_q: got 1, expected at least 2"),
        (flat | {"cu_seqlens_q": torch.tensor([0, 1, 2]), "max_seqlen_q": 1.5}, INVALID, "max_seqlen_q: got 1.5"),
        (flat | {"cu_seqlens_q": torch.tensor([0, 2, 1])}, INVALID, "cu_seqlens_q: got [0, 2, 1]"),
        (flat | {"cu_seqlens_q": [0, 1, 2]}, INVALID, "cu_seqlens_q: got"),
    ]:
        check(lambda: flash_attn_with_kvcache(**call | change), status, "flash_attn_with_kvcache", words)
    assert_result(case, *flash_attn_with_kvcache(**call)[:2])
