"""merge, append, copy_pages and the page pool."""

import numpy as np
import pytest
from arrays import KINDS
from reference import JUNK_PAGE, assert_close, merge

import flashmla
from flashmla import FaultCode, Status


def partials(parts=3, tokens=4, heads=5, seed=0):
    rng = np.random.default_rng(seed)
    out = (rng.standard_normal((parts, tokens, heads, 512)) / 10).astype(np.float32)
    lse = rng.standard_normal((parts, tokens, heads)).astype(np.float32) * 3
    lse[1, 0], lse[0, 1] = np.inf, -np.inf
    lse[:, 2, 0] = np.inf  # no part has a key
    out[np.isinf(lse)] = np.nan
    return out, lse


@pytest.mark.parametrize("element", ["fp32", "fp16"])
def test_merge(element):
    out, lse = partials()
    out = out.astype({"fp32": np.float32, "fp16": np.float16}[element])
    expected = merge(out.astype(np.float64), lse.astype(np.float64))
    merged, merged_lse = flashmla.merge(out, lse, out_dtype="fp32")
    assert merged.dtype == np.float32
    assert_close(merged, expected[0], absolute=2e-6, relative=1e-5)
    assert_close(merged_lse, expected[1], absolute=2e-6, relative=1e-5)


@pytest.mark.parametrize("kind", [k for k in KINDS if k.kv_format == "bf16_576"], ids=str)
def test_merge_of_bf16(kind):
    out, lse = partials()
    rounded = out.astype(kind.element)
    expected = merge(rounded.astype(np.float64), lse.astype(np.float64))
    merged, merged_lse = flashmla.merge(kind.from_numpy(rounded), kind.from_numpy(lse), dtype=kind.dtype)
    assert_close(kind.to_float64(merged), expected[0], absolute=8e-4, relative=2.01 / 128)
    assert_close(kind.to_float64(merged_lse), expected[1], absolute=2e-6, relative=1e-5)


def test_merge_options():
    out, lse = partials()
    sink = np.linspace(-1, 1, 5, dtype=np.float32)
    expected, expected_lse = merge(out.astype(np.float64), lse.astype(np.float64))
    with np.errstate(over="ignore"):
        factor = np.where(np.isposinf(expected_lse), 0, 1 / (1 + np.exp(sink - expected_lse)))
    into, into_lse = np.full((4, 5, 512), np.nan, np.float32), np.full((4, 5), np.nan, np.float32)
    base_2 = (lse / np.log(2)).astype(np.float32)
    got = flashmla.merge(out, base_2, sink=sink, out=into, lse=into_lse, lse_base="base_2", empty_row="minus_inf")
    assert got[0] is into and got[1] is into_lse
    assert_close(into, expected * factor[..., None], absolute=2e-6, relative=1e-5)
    assert_close(into_lse, np.where(np.isposinf(expected_lse), -np.inf, expected_lse / np.log(2)), absolute=2e-6, relative=1e-5)
    assert flashmla.merge(out, lse, lse=False)[1] is None


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("pair", [False, True])
def test_append(kind, pair):
    rng = np.random.default_rng(1)
    kv = rng.standard_normal((5, 576)).astype(np.float32).astype(kind.element)
    cache = np.full((3, 16, 576), 7, np.float32).astype(kind.element)
    expected = cache.copy()
    slots = np.array([17, -1, 0, 47, 16], np.int64)
    for token, slot in enumerate(slots):
        if slot >= 0:
            expected[slot // 16, slot % 16] = kv[token]
    new = tuple(kind.from_numpy(np.ascontiguousarray(a)) for a in (kv[:, :512], kv[:, 512:])) if pair else kind.from_numpy(kv)
    target = kind.from_numpy(cache)
    flashmla.append(new, target, kind.from_numpy(slots), kv_format=kind.kv_format, dtype=kind.dtype)
    np.testing.assert_array_equal(kind.to_float64(target), expected.astype(np.float64))


def test_append_records_bad_slots():
    cache = np.zeros((2, 16, 576), np.float16)
    fault = np.zeros(8, np.int32)
    flashmla.append(np.ones((3, 576), np.float16), cache, np.array([1, 32, -7], np.int64), kv_format="fp16_576", fault=fault)
    found = flashmla.Fault.read(fault)
    assert found.code is FaultCode.SLOT and found.position in (1, 2) and found.value == {1: 32, 2: -7}[found.position]
    assert cache[0, 1].all() and cache.sum() == 576
    assert flashmla.Fault.read(np.zeros(8, np.int32)) is None


def test_append_then_decode():
    """A request grown token by token through a pool answers as one written at once."""
    rng = np.random.default_rng(2)
    pool = flashmla.PagePool(6)
    cache = np.full((6, 16, 576), np.nan, np.float16)
    tokens = (rng.standard_normal((40, 576)) / 10).astype(np.float16)
    table = np.full((1, 4), JUNK_PAGE, np.int32)
    q = (rng.standard_normal((1, 1, 8, 576)) / 10).astype(np.float16)
    plan = flashmla.DecodePlan(h_q=8, kv_format="fp16_576", page_tokens=16, max_batch=1)
    for n, token in enumerate(tokens):
        if n % 16 == 0:
            (table[0, n // 16],) = pool.allocate(1)
        flashmla.append(token[None], cache, np.array([table[0, n // 16] * 16 + n % 16], np.int64), kv_format="fp16_576")
    kv_len = np.array([40], np.int32)
    plan.update(kv_len)
    out, _ = plan.run(q, cache, table, kv_len)
    scores = q[0, 0].astype(np.float64) @ tokens.T.astype(np.float64) * 576**-0.5
    p = np.exp(scores - scores.max(-1, keepdims=True))
    assert_close(out[0, 0], p @ tokens[:, :512] / p.sum(-1, keepdims=True), absolute=8e-4, relative=2.01 / 128)
    assert plan.fault() is None


def test_page_pool():
    pool = flashmla.PagePool(5)
    first = pool.allocate(3)
    assert (pool.num_pages, pool.num_free, len(set(first))) == (5, 2, 3)
    with pytest.raises(flashmla.Error) as refused:
        pool.allocate(3)
    assert refused.value.status is Status.EXHAUSTED and "page_pool_allocate: count: got 3, expected at most 2" in str(refused.value)
    assert pool.num_free == 2
    second = pool.allocate(2)
    assert sorted(first + second) == list(range(5))
    pool.free(first)
    for wrong in ([first[0]], [7], [-1], [second[0], second[0]]):
        with pytest.raises(flashmla.Error) as refused:
            pool.free(wrong)
        assert refused.value.status is Status.INVALID_ARGUMENT
        assert pool.num_free == 3
    pool.free(np.array(second))
    assert pool.allocate(0) == [] and pool.num_free == 5
    assert repr(pool) == "PagePool(5 of 5 pages free)"


def test_page_pool_references():
    pool = flashmla.PagePool(6)
    parent = pool.allocate(3)
    child = pool.fork(parent, 130, 64)
    assert isinstance(child, flashmla.Fork)
    assert child.pages[:2] == parent[:2] and child.pages[2] not in parent and child.copies == [(parent[2], child.pages[2])]
    assert [pool.references(page) for page in parent] == [2, 2, 1]
    assert pool.fork(np.array(parent), 128, 64) == (parent[:2], [])
    pool.retain(parent[:1])
    assert pool.references(parent[0]) == 4 and pool.num_free == 2
    pool.allocate(2)
    with pytest.raises(flashmla.Error) as refused:
        pool.fork(parent, 130, 64)
    assert refused.value.status is Status.EXHAUSTED and "page_pool_fork: tokens: got 130" in str(refused.value)
    for pages, tokens, page_tokens, fragment in (
        (parent, 193, 64, "page_ids: got 3, expected at least 4"),
        (parent, -1, 64, "tokens: got -1"),
        (parent, 1, 0, "page_tokens: got 0"),
        ([6], 1, 1, "page_ids[0]: got 6"),
    ):
        with pytest.raises(flashmla.Error) as refused:
            pool.fork(pages, tokens, page_tokens)
        assert fragment in str(refused.value) and refused.value.status is Status.INVALID_ARGUMENT
    assert [pool.references(page) for page in parent] == [4, 3, 1]
    pool.free([parent[0]] * 4)
    assert pool.references(parent[0]) == 0 and pool.references(-1) == 0 and pool.num_free == 1
    with pytest.raises(flashmla.Error):
        pool.retain([parent[0]])


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_copy_pages(kind):
    rng = np.random.default_rng(3)
    layers = [rng.standard_normal((5, 16, 576)).astype(np.float32).astype(kind.element) for _ in range(3)]
    caches = [kind.from_numpy(layer.copy()) for layer in layers]
    flashmla.copy_pages(caches, [(4, 0), (-1, -1), (4, 2)])
    for cache, layer in zip(caches, layers):
        np.testing.assert_array_equal(kind.to_float64(cache), layer[[4, 1, 4, 3, 4]].astype(np.float64))
    flashmla.copy_pages(tuple(caches), np.array([[1, 3]]))
    np.testing.assert_array_equal(kind.to_float64(caches[2]), layers[2][[4, 1, 4, 1, 4]].astype(np.float64))
    flashmla.copy_pages(caches, [])


def test_copy_pages_of_bytes_and_bad_arguments():
    cache = np.arange(4 * 656, dtype=np.uint8).reshape(4, 1, 656)
    before = cache.copy()
    for caches, copies, fragment in (
        ([], [], "caches: got no array"),
        ([cache], [(0, 4)], "copies[0].target: got 4, expected a page id in [0, 4)"),
        ([cache], [(0, 1), (2, 1)], "copies[1].target: got 1, expected a page that no other copy writes"),
        ([cache], [(0, 1), (1, 2)], "copies[1].source: got 1, expected a page that no copy writes"),
        ([cache], [3], "copies[0]: got 3, expected a pair"),
        ([cache], [(0, 2**31)], "copies[0].target: got 2147483648"),
        ([cache, cache], [(0, 1)], "memory shared with caches[0]"),
        ([cache, before[:3]], [(0, 1)], "caches[1]: got dim 0 = 3, expected 4 (as caches[0])"),
    ):
        with pytest.raises(flashmla.Error) as refused:
            flashmla.copy_pages(caches, copies)
        assert fragment in str(refused.value) and str(refused.value).startswith("copy_pages: ")
    np.testing.assert_array_equal(cache, before)
    flashmla.copy_pages([cache], [(0, 3)])
    np.testing.assert_array_equal(cache, before[[0, 1, 2, 0]])


def test_forked_requests_decode_apart():
    """A request forks in the middle of a page; both sides go on, and each answers as if it were alone."""
    rng = np.random.default_rng(4)
    page_tokens, tokens = 16, 40
    pool = flashmla.PagePool(8)
    cache = np.full((8, page_tokens, 576), np.nan, np.float16)

    def append(pages, position, token):
        slot = pages[position // page_tokens] * page_tokens + position % page_tokens
        flashmla.append(token[None], cache, np.array([slot], np.int64), kv_format="fp16_576")

    prompt, *ends = ((rng.standard_normal((n, 576)) / 10).astype(np.float16) for n in (tokens, 6, 6))
    parent = pool.allocate(3)
    for n, token in enumerate(prompt):
        append(parent, n, token)
    child = pool.fork(parent, tokens, page_tokens)
    flashmla.copy_pages([cache], child.copies)
    assert pool.num_pages - pool.num_free == 4
    for pages, end in zip((parent, child.pages), ends):
        for n, token in enumerate(end):
            append(pages, tokens + n, token)
    q = (rng.standard_normal((2, 1, 8, 576)) / 10).astype(np.float16)
    kv_len = np.array([46, 46], np.int32)
    plan = flashmla.DecodePlan(h_q=8, kv_format="fp16_576", page_tokens=page_tokens, max_batch=2)
    plan.update(kv_len)
    out, _ = plan.run(q, cache, np.array([parent, child.pages], np.int32), kv_len)
    for i, end in enumerate(ends):
        kv = np.concatenate([prompt, end]).astype(np.float64)
        scores = q[i, 0].astype(np.float64) @ kv.T * 576**-0.5
        p = np.exp(scores - scores.max(-1, keepdims=True))
        assert_close(out[i, 0], p @ kv[:, :512] / p.sum(-1, keepdims=True), absolute=8e-4, relative=2.01 / 128)
