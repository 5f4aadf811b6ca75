"""Ragged queries: DecodePlan and the operators of torch with q_offsets, for every kind of array."""

import numpy as np
import pytest
from arrays import KINDS, Foreign
from reference import assert_close, decode, make_case
from test_bad_input import check

import flashmla
from flashmla import Fault, FaultCode, Status

LENGTHS, COUNTS, SPARE = [100, 7, 65, 30], [1, 3, 0, 2], 2
LONGEST = max(COUNTS)
OFFSETS = np.cumsum([0, *COUNTS]).astype(np.int32)
TOTAL = int(OFFSETS[-1]) + SPARE
ROWS = [(i, LONGEST - n + j) for i, n in enumerate(COUNTS) for j in range(n)]  # bottom-right: a shorter request has the last rows


def make_inputs(kind, *, heads=8, h_kv=1, page=16):
    """(case, arrays): the case has LONGEST query tokens a request, the arrays only COUNTS, and behind them SPARE rows of NaN."""
    case = make_case(LENGTHS, h_q=heads, h_kv=h_kv, s_q=LONGEST, page=page, causal=True, element=kind.element)
    q, cache = case.as_type(kind.element)
    rows = np.stack([q[i, j] for i, j in ROWS] + [np.full_like(q[0, 0], np.nan)] * SPARE)
    return case, tuple(kind.from_numpy(a) for a in (rows, cache, case.page_table, case.kv_len, OFFSETS))


def make_plan(kind, heads=8, h_kv=1, page=16, **fields):
    fields = {"max_batch": 8, "max_q_tokens": 5, "causal": True} | fields
    return flashmla.DecodePlan(h_q=heads, h_kv=h_kv, kv_format=kind.kv_format, page_tokens=page, **fields)


def empty_outputs(kind, lse_shape, heads=8):
    out, lse = np.full((TOTAL, heads, 512), np.nan, kind.element), np.full(lse_shape, np.nan, np.float32)
    return (kind.from_numpy(out), kind.from_numpy(lse)) if kind.allocates else (Foreign(out), Foreign(lse))


def assert_rows(case, out, lse):
    """out [tokens, heads, 512], lse [tokens, heads]."""
    expected_out, expected_lse = decode(case)
    n = len(ROWS)
    assert_close(out[:n], np.array([expected_out[i, j] for i, j in ROWS]), absolute=8e-4, relative=2.01 / 128, cosine=5e-6)
    assert_close(lse[:n], np.array([expected_lse[i, :, j] for i, j in ROWS]), absolute=2e-6, relative=8.01 / 65536)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("heads, h_kv, layout", [(8, 1, "batch_heads_tokens"), (8, 2, "tokens_heads"), (128, 1, "tokens_heads")])
def test_against_the_reference(kind, heads, h_kv, layout):
    case, (q, cache, table, kv_len, offsets) = make_inputs(kind, heads=heads, h_kv=h_kv)
    plan = make_plan(kind, heads, h_kv, lse_layout=layout)
    by_tokens = layout == "tokens_heads"
    out, lse = empty_outputs(kind, (TOTAL, heads) if by_tokens else (heads, TOTAL), heads)
    plan.update(kv_len, q_offsets=offsets)
    given = plan.run(q, cache, table, kv_len, q_offsets=offsets, out=out, lse=lse, dtype=kind.dtype)
    assert given[0] is out and given[1] is lse
    out, lse = kind.to_float64(out), kind.to_float64(lse)
    lse = lse if by_tokens else lse.T
    assert_rows(case, out, lse)
    assert np.isnan(out[len(ROWS) :]).all() and np.isnan(lse[len(ROWS) :]).all()  # nobody's rows stay as they are
    assert plan.fault() is None


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.allocates], ids=str)
def test_new_outputs_pairs_and_an_earlier_schedule(kind):
    case, (q, cache, table, kv_len, offsets) = make_inputs(kind)
    plan = make_plan(kind)
    plan.update(kind.from_numpy(np.array([5, 900, 1, 0], np.int32)), q_offsets=kind.from_numpy(np.array([0, 0, 5, 6, 6], np.int32)))
    out, lse = plan.run((q[..., :512], q[..., 512:]), cache, table, kv_len, q_offsets=offsets, dtype=kind.dtype)
    assert tuple(out.shape) == (TOTAL, 8, 512) and tuple(lse.shape) == (8, TOTAL)
    assert_rows(case, kind.to_float64(out), kind.to_float64(lse).T)


def test_visible_lengths_count_the_rows_of_q():
    kind = KINDS[0]
    case, (q, cache, table, kv_len, offsets) = make_inputs(kind)
    plan = make_plan(kind, causal=False)
    plan.update(kv_len, q_offsets=offsets)
    seen = [LENGTHS[i] - LONGEST + j + 1 for i, j in ROWS] + [-9] * SPARE
    visible = kind.from_numpy(np.array(seen, np.int32))
    out, lse = empty_outputs(kind, (8, TOTAL))
    plan.run(q, cache, table, kv_len, q_offsets=offsets, visible_len=visible, out=out, lse=lse, dtype=kind.dtype)
    assert_rows(case, kind.to_float64(out), kind.to_float64(lse).T)
    assert plan.fault() is None


def test_parts_of_ragged_queries():
    plan = flashmla.DecodePlan(h_q=16, kv_format="bf16_576", max_batch=4, max_q_tokens=600, num_threads=2)
    lengths, offsets = [1000, 70, 30, 4096], [3, 4, 4, 604, 605]
    parts = plan.parts(lengths, q_offsets=offsets)
    tokens = {}  # of each (request, row tile)
    for part in parts:
        item = part.request, part.row_tile
        assert part.first_token == tokens.get(item, 0)
        tokens[item] = part.last_token
    assert {request for request, _ in tokens} == {0, 2, 3}
    assert sum(request == 2 for request, _ in tokens) > 1
    assert all(tokens[item] == lengths[item[0]] for item in tokens)
    assert plan.parts(np.array(lengths, np.int32), q_offsets=np.array(offsets, np.int32)) == parts
    assert plan.parts([5, 5], q_offsets=[0, 0, 0]) == []
    for call, words in [
        (lambda: plan.parts(lengths, q_offsets=offsets[:-1]), "q_offsets: got 4 offsets, expected 5 (batch + 1)"),
        (lambda: plan.parts(lengths, 2, q_offsets=offsets), "q_tokens: got 2, expected None"),
        (lambda: plan.parts([1], q_offsets=[1, 0]), "q_offsets[1]: got 0, expected 1 to 601"),
        (lambda: plan.parts([1], q_offsets=[0, "x"]), "q_offsets[1]: got 'x' of type str"),
        (lambda: plan.parts([1], q_offsets=5), "q_offsets: got 5 of type int"),
    ]:
        check(call, Status.INVALID_ARGUMENT, words)


def test_bad_offsets_are_a_fault():
    kind = next(kind for kind in KINDS if kind.allocates)
    _, (q, cache, table, kv_len, _) = make_inputs(kind)
    plan = make_plan(kind, max_q_tokens=3)
    for offsets, fault in [
        ([0, 1, 4, 4, 9], Fault(FaultCode.Q_OFFSETS, 3, 4, 9)),  # beyond q
        ([0, 1, 5, 5, 6], Fault(FaultCode.Q_OFFSETS, 1, 2, 5)),  # more than max_q_tokens
        ([-2, 1, 4, 4, 6], Fault(FaultCode.Q_OFFSETS, 0, 0, -2)),
        ([2, 1, 1, 1, 1], Fault(FaultCode.Q_OFFSETS, 0, 1, 1)),  # falling
    ]:
        array = kind.from_numpy(np.array(offsets, np.int32))
        plan.update(kv_len, q_offsets=array)
        plan.run(q, cache, table, kv_len, q_offsets=array, dtype=kind.dtype)
        assert plan.fault() == fault


def test_wrong_calls_name_the_argument():
    kind = next(kind for kind in KINDS if kind.allocates)
    _, (q, cache, table, kv_len, offsets) = make_inputs(kind)
    plan = make_plan(kind)
    uniform = kind.from_numpy(np.zeros((4, 2, 8, 576), kind.element))
    plan.update(kv_len, q_tokens=2)
    for call, words in [
        (lambda: plan.run(q, cache, table, kv_len, q_offsets=offsets, dtype=kind.dtype),
         "schedule: got one for batch 4 and q_tokens 2, expected batch 4 and q_offsets"),
        (lambda: plan.run(uniform, cache, table, kv_len, q_offsets=offsets, dtype=kind.dtype), "q: got rank 4, expected rank 3"),
        (lambda: plan.update(kv_len, q_offsets=offsets[:-1]), "q_offsets: got dim 0 = 4, expected 5 (batch + 1)"),
        (lambda: plan.update(kv_len, q_offsets=offsets, q_tokens=6), "q_tokens: got 6, expected at most max_q_tokens 5"),
        (lambda: plan.update(kv_len, q_offsets=[0, 1, 2]), "q_offsets: got builtins.list"),
    ]:  # fmt: skip
        check(call, Status.INVALID_ARGUMENT, words)
    plan.update(kv_len, q_offsets=offsets)
    words = "schedule: got one for batch 4 and q_offsets, expected batch 4 and q_tokens 2"
    check(lambda: plan.run(uniform, cache, table, kv_len, dtype=kind.dtype), Status.INVALID_ARGUMENT, words)
    check(lambda: plan.run(q, cache, table, kv_len, dtype=kind.dtype), Status.INVALID_ARGUMENT, "q: got rank 3, expected rank 4")
