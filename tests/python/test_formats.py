"""Caches with values of 256 numbers, BF16_320 and BF16_288: decode, append, copies of pages and merge, for every kind of BF16 array."""

import dataclasses

import numpy as np
import pytest
from arrays import KINDS
from reference import assert_close, assert_decode, decode, make_case

import flashmla
from flashmla import KvFormat, Status

WIDTHS = {"bf16_320": 320, "bf16_288": 288}
LATENT = 256
BF16_KINDS = [kind for kind in KINDS if kind.kv_format == "bf16_576"]
LENGTHS = [100, 1, 0, 64, 257]


@pytest.fixture(params=WIDTHS)
def kv_format(request):
    return request.param


def case_of(kv_format, lengths=LENGTHS, **options):
    return make_case(lengths, element=BF16_KINDS[0].element, dims=(WIDTHS[kv_format], LATENT), **options)


def plan_of(case, kv_format, **fields):
    batch, s_q, h_q, _ = case.q.shape
    page, h_kv = case.cache.shape[1:3]
    return flashmla.DecodePlan(
        h_q=h_q, h_kv=h_kv, kv_format=kv_format, page_tokens=page, max_batch=batch, max_q_tokens=s_q, causal=case.causal, **fields
    )


def inputs(case, kind):
    return [kind.from_numpy(a) for a in (*case.as_type(kind.element), case.page_table, case.kv_len)]


@pytest.mark.parametrize("kind", BF16_KINDS, ids=str)
@pytest.mark.parametrize("page, h_q, h_kv, s_q", [(64, 16, 1, 1), (16, 20, 1, 3), (1, 8, 2, 2), (64, 128, 1, 1)])
def test_decode(kv_format, kind, page, h_q, h_kv, s_q):
    case = case_of(kv_format, page=page, h_q=h_q, h_kv=h_kv, s_q=s_q, causal=s_q > 1)
    q, cache, table, kv_len = inputs(case, kind)
    plan = plan_of(case, kv_format)
    assert plan.problem.v_dim == LATENT
    plan.update(kv_len)
    out, lse = plan.run(q, cache, table, kv_len, dtype=kind.dtype)
    assert tuple(out.shape) == (len(LENGTHS), s_q, h_q, LATENT)
    assert_decode(kind.to_float64(out), kind.to_float64(lse), case)
    given = plan.run(q, cache, table, kv_len, out=out, lse=lse, dtype=kind.dtype)  # the quick way of torch
    assert given[0] is out
    assert_decode(kind.to_float64(out), kind.to_float64(lse), case)


@pytest.mark.parametrize("kind", BF16_KINDS, ids=str)
def test_pairs_and_partial_results(kv_format, kind):
    case = case_of(kv_format, s_q=2, causal=True)
    q, cache = case.as_type(kind.element)
    pairs = [tuple(kind.from_numpy(np.ascontiguousarray(part)) for part in (a[..., :LATENT], a[..., LATENT:])) for a in (q, cache)]
    _, _, table, kv_len = inputs(case, kind)
    plan = plan_of(case, kv_format, out_dtype="fp32", lse_layout="tokens_heads")
    plan.update(kv_len)
    out, lse = plan.run(*pairs, table, kv_len, dtype=kind.dtype)
    expected_out, expected_lse = decode(case)
    assert_close(kind.to_float64(out), expected_out, absolute=8e-4, relative=2.01 / 128)
    # As the only part, and beside an empty one, it is merged into itself.
    rows = kind.to_float64(out).reshape(-1, 16, LATENT).astype(np.float32)
    parts, part_lse = np.stack([rows, rows]), np.stack([kind.to_float64(lse), np.full(rows.shape[:2], np.inf)]).astype(np.float32)
    merged, merged_lse = flashmla.merge(parts, part_lse)
    assert_close(merged, rows, absolute=1e-6, relative=1e-5)
    assert_close(merged_lse, expected_lse.transpose(0, 2, 1).reshape(-1, 16), absolute=1e-5, relative=8.01 / 65536)


@pytest.mark.parametrize("kind", BF16_KINDS, ids=str)
@pytest.mark.parametrize("pair", [False, True])
def test_append_and_copy_pages(kv_format, kind, pair):
    width = WIDTHS[kv_format]
    kv = np.random.default_rng(1).standard_normal((4, width)).astype(kind.element)
    cache = np.full((3, 16, width), 7, np.float32).astype(kind.element)
    expected = cache.copy()
    for token, slot in enumerate([17, -1, 0, 16]):
        if slot >= 0:
            expected[slot // 16, slot % 16] = kv[token]
    expected[2] = expected[1]
    new = tuple(kind.from_numpy(np.ascontiguousarray(a)) for a in (kv[:, :LATENT], kv[:, LATENT:])) if pair else kind.from_numpy(kv)
    target = kind.from_numpy(cache)
    flashmla.append(new, target, kind.from_numpy(np.array([17, -1, 0, 16], np.int64)), kv_format=kv_format, dtype=kind.dtype)
    flashmla.copy_pages([target], [(1, 2)])
    np.testing.assert_array_equal(kind.to_float64(target), expected.astype(np.float64))


def test_ragged(kv_format):
    kind = BF16_KINDS[0]
    case = case_of(kv_format, [100, 70], s_q=3, causal=True)
    q, cache, table, kv_len = inputs(case, kind)
    offsets = np.array([0, 1, 4], np.int32)
    plan = plan_of(case, kv_format)
    plan.update(kv_len, q_offsets=offsets)
    out, _ = plan.run(np.concatenate([q[0, 2:], q[1]]), cache, table, kv_len, q_offsets=offsets)
    assert out.shape == (4, 16, LATENT)
    expected, _ = decode(case)
    assert_close(out.astype(np.float64), np.concatenate([expected[0, 2:], expected[1]]), absolute=8e-4, relative=2.01 / 128)


def test_shapes_of_another_format_are_refused(kv_format):
    kind = BF16_KINDS[0]
    case = case_of(kv_format)
    q, cache, table, kv_len = inputs(case, kind)
    plan = plan_of(case, kv_format)
    plan.update(kv_len)
    wide = make_case(LENGTHS, element=kind.element)
    width = WIDTHS[kv_format]
    for call, words in [
        (lambda: plan.run(wide.q.astype(kind.element), cache, table, kv_len), f"q: got dim 3 = 576, expected {width} (latent + rope)"),
        (lambda: plan.run(q, wide.cache.astype(kind.element), table, kv_len), f"cache: got dim 3 = 576, expected {width} (latent + rope)"),
        (lambda: plan.run(q, cache, table, kv_len, out=np.zeros((5, 1, 16, 512), kind.element)), "out: got dim 3 = 512, expected 256"),
    ]:
        with pytest.raises(flashmla.Error) as refused:
            call()
        assert refused.value.status is Status.INVALID_ARGUMENT
        assert words in str(refused.value)


def test_names():
    fields = {"h_q": 16, "max_batch": 1}
    for name in WIDTHS:
        problem = flashmla.DecodePlan(kv_format=name.upper(), **fields).problem
        assert problem.kv_format is KvFormat[name.upper()]
        assert dataclasses.replace(problem, kv_format="bf16_576").v_dim == 512
