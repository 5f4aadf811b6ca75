"""What the bindings should compute: MLA decode and the merge in float64 NumPy, and the inputs to try it on.

Deliberately shares nothing with src/reference: two definitions that agree are worth more than one.
"""

import dataclasses

import numpy as np

JUNK_PAGE = 2147480000  # engines leave anything in a page table past a request's length
QK, V = 576, 512


@dataclasses.dataclass
class Case:
    """Inputs of one decode call as float64 arrays whose values `element` can hold exactly."""

    q: np.ndarray  # [batch, s_q, h_q, qk_dim]
    cache: np.ndarray  # [num_pages, page, h_kv, qk_dim]
    page_table: np.ndarray  # int32 [batch, width]
    kv_len: np.ndarray  # int32 [batch]
    causal: bool = False
    scale: float = QK**-0.5
    v_dim: int = V

    def as_type(self, element):
        """q and cache with the elements of a NumPy dtype."""
        return self.q.astype(element), self.cache.astype(element)


def make_case(lengths, *, h_q=16, h_kv=1, s_q=1, page=64, causal=False, element=np.float16, seed=0, poison=True, dims=(QK, V)):
    """Random inputs of the size that upstream's tolerances are made for, with pages in random order.

    Unused slots and pages hold NaN, and unused table entries junk. dims: numbers in a key, and in a value.
    """
    qk_dim, v_dim = dims
    rng = np.random.default_rng(seed)
    used = [-(-n // page) for n in lengths]
    num_pages = sum(used) + 2
    order = rng.permutation(num_pages)
    table = np.full((len(lengths), max(used, default=0) + 3), JUNK_PAGE, np.int32)
    cache = (rng.standard_normal((num_pages, page, h_kv, qk_dim)) / 10).astype(np.float32).astype(element).astype(np.float64)
    filled = np.zeros((num_pages, page), bool)
    at = 0
    for i, n in enumerate(lengths):
        table[i, : used[i]] = order[at : at + used[i]]
        for slot in range(n):
            filled[table[i, slot // page], slot % page] = True
        at += used[i]
    if poison:
        cache[~filled] = np.nan
    q = (rng.standard_normal((len(lengths), s_q, h_q, qk_dim)) / 10).astype(np.float32).astype(element).astype(np.float64)
    return Case(q, cache, table, np.array(lengths, np.int32), causal, qk_dim**-0.5, v_dim)


def decode(case):
    """(out [batch, s_q, h_q, v_dim], lse [batch, h_q, s_q]) in float64; lse +inf where a row sees no key."""
    batch, s_q, h_q, qk_dim = case.q.shape
    page, h_kv = case.cache.shape[1:3]
    out = np.zeros((batch, s_q, h_q, case.v_dim))
    lse = np.full((batch, h_q, s_q), np.inf)
    for b, n in enumerate(case.kv_len):
        pages = case.page_table[b, : -(-n // page)]
        keys = case.cache[pages].reshape(-1, h_kv, qk_dim)[:n]
        for i in range(s_q):
            visible = max(n - s_q + i + 1, 0) if case.causal else n
            for h in range(h_q):
                if visible > 0:
                    k = keys[:visible, h * h_kv // h_q]
                    out[b, i, h], lse[b, h, i] = attend(case.q[b, i, h], k, k[:, : case.v_dim], case.scale)
    return out, lse


def attend(q, keys, values, scale):
    """One row: (output, log sum exp of the scores)."""
    scores = scale * (keys @ q)
    top = scores.max()
    weights = np.exp(scores - top)
    return weights @ values / weights.sum(), top + np.log(weights.sum())


def merge(outs, lses):
    """(out, lse) of partial results [num_parts, ...] in float64; parts with lse +-inf are empty."""
    lses = np.where(np.isinf(lses), -np.inf, lses)
    top = lses.max(0)
    weights = np.where(np.isneginf(lses), 0, np.exp(lses - np.where(np.isneginf(top), 0, top)))
    total = weights.sum(0)
    empty = total == 0
    out = (np.where(weights[..., None] == 0, 0, outs) * weights[..., None]).sum(0) / np.where(empty, 1, total)[..., None]
    return out, np.where(empty, np.inf, top + np.log(np.where(empty, 1, total)))


def assert_close(got, expected, *, absolute, relative, cosine=None):
    """Upstream's check: infinities and NaN must stand at the same places; an element passes by its absolute or its relative error."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    assert got.shape == expected.shape
    for special in (np.isnan, np.isposinf, np.isneginf):
        np.testing.assert_array_equal(special(got), special(expected))
    finite = np.isfinite(expected)
    error = np.abs(got[finite] - expected[finite])
    bad = (error > absolute) & (error / (np.abs(expected[finite]) + 1e-6) > relative)
    assert not bad.any(), f"{bad.sum()} of {bad.size} elements differ, by up to {error[bad].max()}"
    if cosine is not None:
        a, b = got[finite], expected[finite]
        difference = 1 - 2 * (a * b).sum() / max((a * a + b * b).sum(), 1e-12)
        assert abs(difference) < cosine or not b.any(), f"cosine difference {difference}"


def assert_decode(out, lse, case):
    """`out` and `lse` of a call against this reference, at upstream's tolerances of dense decode."""
    expected_out, expected_lse = decode(case)
    assert_close(out, expected_out, absolute=8e-4, relative=2.01 / 128, cosine=5e-6)
    assert_close(lse, expected_lse, absolute=1e-6, relative=8.01 / 65536)
