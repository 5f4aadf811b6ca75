#!/usr/bin/env python3
"""FlashMLA's own test matrix of dense decode, with 1, 2, 3 and 8 KV heads, at its tolerances, through flashmla.compat.flash_mla.

Runs on CUDA unless told otherwise and needs torch alone: `python tests/python/upstream_dense.py [--device cpu] [--limit N] [--h-kv 1,8]`.
Every case has NaN in every slot past a length and in unused pages, junk past each row of the block table, pages in random order and a q
that is not contiguous. The reference is float64 on the same device. What the library does not serve is counted as skipped, by its words.
The last line says how many passed; the exit code is 1 if one failed. tests/python/test_compat.py runs a part of the same cases on the CPU.
"""

import argparse
import collections
import dataclasses
import itertools
import random
import sys
import time

import torch

JUNK_PAGE = 2147480000
QK, V = 576, 512
MAX_FAILURES = 20
OUT_BOUNDS = {"absolute": 8e-4, "relative": 2.01 / 128, "cosine": 5e-6}
LSE_BOUNDS = {"absolute": 1e-6, "relative": 8.01 / 65536}


@dataclasses.dataclass(frozen=True)
class Case:
    batch: int
    s_q: int
    length: int
    h_q: int
    varlen: bool
    causal: bool
    zeros: bool = False  # every third request or so has no token
    page: int = 64
    dtype: torch.dtype = torch.bfloat16
    h_kv: int = 1
    style: str = "object"  # or "tensors"

    def __str__(self):
        words = [name for name in ("varlen", "causal", "zeros") if getattr(self, name)]
        shape = f"b{self.batch} s_q{self.s_q} len{self.length} h{self.h_q}/{self.h_kv} page{self.page} {str(self.dtype)[6:]} {self.style}"
        return " ".join([shape, *words])


def upstream_cases(kv_heads=(1, 2, 3, 8)):
    """Spec section 5: 2,304 cases, 1,008 of them with one KV head, and batch 128 with zero lengths mixed in. Plan styles take turns."""
    axes = itertools.product((1, 2, 6, 64), (1, 2, 4), (20, 140, 4096), (1, 3, 9, 63, 64, 126, 128), (False, True), (False, True))
    styles = itertools.cycle(("object", "object", "tensors"))
    matrix = [Case(*axis, h_kv=h_kv) for axis in axes for h_kv in kv_heads if axis[3] % h_kv == 0]
    mixed = itertools.product((128,), (1, 2), (20, 140, 4096), (16, 128), (True,), (False, True))
    zeros = [Case(*axis, zeros=True) for axis in mixed] if 1 in kv_heads else []
    return [dataclasses.replace(case, style=style) for case, style in zip(matrix + zeros, styles)]


def make_lengths(case, rng):
    lengths = [case.length] * case.batch
    if case.varlen:
        lengths = [max(int(rng.normalvariate(case.length, case.length / 2)), case.s_q) for _ in lengths]
    if case.zeros:
        lengths = [0 if rng.random() < 0.3 else n for n in lengths]
    return lengths


def make_inputs(case, device, seed=0):
    """(q, k_cache, block_table, cache_seqlens, lengths)."""
    rng = random.Random(f"{case} {seed}")
    generator = torch.Generator(device=device)
    generator.manual_seed(rng.randrange(2**31))
    lengths = make_lengths(case, rng)
    used = [-(-n // case.page) for n in lengths]
    num_pages = sum(used) + 1
    order = torch.tensor(rng.sample(range(num_pages), num_pages), dtype=torch.int32)
    table = torch.full((case.batch, max(used) + 2), JUNK_PAGE, dtype=torch.int32)
    slots = torch.full((num_pages,), -1, dtype=torch.int64)  # tokens that a page holds; -1: unused
    at = 0
    for i, n in enumerate(lengths):
        table[i, : used[i]] = order[at : at + used[i]]
        held = torch.full((used[i],), case.page)
        if used[i]:
            held[-1] = n - (used[i] - 1) * case.page
        slots[order[at : at + used[i]].long()] = held
        at += used[i]
    shape = (num_pages, case.page, case.h_kv, QK)
    cache = (torch.randn(shape, device=device, generator=generator) / 10).clamp_(-1, 1).to(case.dtype)
    past = torch.arange(case.page, device=device)[None] >= slots.to(device)[:, None]
    cache.masked_fill_(past[:, :, None, None], float("nan"))
    q = (torch.randn(case.batch, case.s_q, case.h_q, QK + 64, device=device, generator=generator) / 10).clamp_(-1, 1).to(case.dtype)
    return q[..., :QK], cache, table.to(device), torch.tensor(lengths, dtype=torch.int32, device=device), lengths


def reference_of(case, q, keys):
    """One request in float64: (out [s_q, h_q, 512], lse [h_q, s_q]) from its q and its keys [len, h_kv, 576]."""
    n = keys.shape[0]
    if n == 0:
        empty = torch.full((case.h_q, case.s_q), float("inf"), dtype=torch.float64, device=q.device)
        return torch.zeros(case.s_q, case.h_q, V, dtype=torch.float64, device=q.device), empty
    keys = keys.double().transpose(0, 1)  # [h_kv, n, 576]
    rows = q.double().transpose(0, 1).reshape(case.h_kv, -1, QK)  # the rows of a KV head's query heads, one after another
    scores = (rows @ keys.transpose(1, 2)).view(case.h_q, case.s_q, n) * QK**-0.5
    if case.causal:
        seen = torch.ones(case.s_q, n, dtype=torch.bool, device=q.device).tril(n - case.s_q)
        scores.masked_fill_(~seen, float("-inf"))
    lse = scores.logsumexp(-1)
    weights = torch.exp(scores - torch.where(lse.isinf(), 0.0, lse)[..., None])
    out = (weights.view(case.h_kv, -1, n) @ keys[..., :V]).view(case.h_q, case.s_q, V).transpose(0, 1)
    return out, torch.where(lse.isneginf(), float("inf"), lse)


def difference(got, expected, absolute, relative, cosine=None):
    """What is wrong, in words, or None: upstream's check (infinities and NaN in place; absolute or relative error; cosine)."""
    got = got.double()
    for name in ("isnan", "isposinf", "isneginf"):
        if not torch.equal(getattr(got, name)(), getattr(expected, name)()):
            return f"{name} at other places"
    finite = expected.isfinite()
    error = torch.where(finite, (got - expected).abs(), 0.0)
    bad = (error > absolute) & (error / (expected.abs() + 1e-6) > relative)
    if bad.any():
        return f"{int(bad.sum())} of {bad.numel()} elements, by up to {float(error[bad].max()):.2e}"
    if cosine is not None:
        a, b = torch.where(finite, got, 0.0), torch.where(finite, expected, 0.0)
        total = float((a * a + b * b).sum())
        away = 1 - 2 * float((a * b).sum()) / total if total > 0 else 0.0
        if abs(away) >= cosine:
            return f"cosine difference {away:.2e}"
    return None


def run_case(case, device, flash_mla):
    """Runs one case; what is wrong, in words, or None."""
    q, cache, table, seqlens, lengths = make_inputs(case, device)
    arguments = (seqlens, case.s_q * case.h_q // case.h_kv, case.h_kv) if case.style == "tensors" else ()
    plan, num_splits = flash_mla.get_mla_metadata(*arguments)
    out, lse = flash_mla.flash_mla_with_kvcache(q, cache, table, seqlens, V, plan, num_splits, causal=case.causal)
    if out.shape != (case.batch, case.s_q, case.h_q, V) or out.dtype != case.dtype or lse.shape != (case.batch, case.h_q, case.s_q):
        return f"got out {list(out.shape)} {out.dtype}, lse {list(lse.shape)}"
    expected_out, expected_lse = torch.empty_like(out, dtype=torch.float64), torch.empty_like(lse, dtype=torch.float64)
    for i, n in enumerate(lengths):
        keys = cache[table[i, : -(-n // case.page)].long()].reshape(-1, case.h_kv, QK)[:n]
        expected_out[i], expected_lse[i] = reference_of(case, q[i], keys)
    wrong_out = difference(out, expected_out, **OUT_BOUNDS)
    wrong_lse = difference(lse, expected_lse, **LSE_BOUNDS)
    words = [f"{name}: {wrong}" for name, wrong in (("out", wrong_out), ("lse", wrong_lse)) if wrong]
    return "; ".join(words) or None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--limit", type=int, default=0, help="run so many cases, evenly spread (0: all)")
    parser.add_argument("--h-kv", default="1,2,3,8", help="only cases with so many KV heads")
    options = parser.parse_args()
    import flashmla
    from flashmla.compat import flash_mla

    cases = upstream_cases([int(n) for n in options.h_kv.split(",")])
    if options.limit:
        cases = cases[:: max(len(cases) // options.limit, 1)][: options.limit]
    started, passed, failed, skipped = time.monotonic(), 0, 0, collections.Counter()
    for case in cases:
        try:
            wrong = run_case(case, options.device, flash_mla)
        except Exception as error:  # one case must not hide the others
            if isinstance(error, flashmla.Error) and error.status is flashmla.Status.UNSUPPORTED:
                skipped[str(error)] += 1
                continue
            wrong = f"{type(error).__name__}: {str(error)[:300]}"
        if wrong:
            failed += 1
            print(f"FAILED {case}: {wrong}", flush=True)
        else:
            passed += 1
        if failed == MAX_FAILURES:  # after a CUDA error nothing else works
            break
    for reason, count in skipped.items():
        print(f"not supported, {count} cases: {reason}")
    seconds, left = time.monotonic() - started, len(cases) - passed - failed - skipped.total()
    tail = (f", {skipped.total()} not supported" if skipped else "") + (f", {left} not run" if left else "")
    print(f"upstream dense matrix, h_kv {options.h_kv}, {options.device}: {passed} passed, {failed} failed{tail} in {seconds:.0f} s")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
