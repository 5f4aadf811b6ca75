"""DecodePlan against the float64 reference, for every kind of array."""

import numpy as np
import pytest
from arrays import FP16_KINDS, KINDS, NUMPY_FP16, Foreign, torch
from reference import assert_close, assert_decode, decode, make_case

import flashmla

LENGTHS = [100, 1, 0, 64, 257]


def make_plan(case, kind, **fields):
    batch, s_q, h_q, _ = case.q.shape
    page, h_kv = case.cache.shape[1:3]
    return flashmla.DecodePlan(
        h_q=h_q, h_kv=h_kv, kv_format=kind.kv_format, page_tokens=page, max_batch=batch, max_q_tokens=s_q, causal=case.causal, **fields
    )


def run(plan, case, kind, **more):
    """update and run with arrays of the kind; (out, lse) in float64."""
    q, cache = (kind.from_numpy(a) for a in case.as_type(kind.element))
    table, kv_len = kind.from_numpy(case.page_table), kind.from_numpy(case.kv_len)
    plan.update(kv_len)
    if not kind.allocates:
        batch, s_q, h_q, _ = case.q.shape
        more.setdefault("out", Foreign(np.full((batch, s_q, h_q, 512), np.nan, kind.element)))
        more.setdefault("lse", Foreign(np.full((batch, h_q, s_q), np.nan, np.float32)))
    out, lse = plan.run(q, cache, table, kv_len, dtype=kind.dtype, **more)
    return kind.to_float64(out), None if lse is None else kind.to_float64(lse)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("page, h_q, h_kv, s_q", [(64, 16, 1, 1), (16, 20, 1, 3), (1, 8, 2, 2), (256, 128, 1, 1)])
def test_decode(kind, causal, page, h_q, h_kv, s_q):
    case = make_case(LENGTHS, h_q=h_q, h_kv=h_kv, s_q=s_q, page=page, causal=causal, element=kind.element)
    assert_decode(*run(make_plan(case, kind), case, kind), case)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.allocates], ids=str)
def test_outputs_are_of_the_callers_framework(kind):
    case = make_case([70], element=kind.element)
    q, cache = (kind.from_numpy(a) for a in case.as_type(kind.element))
    table, kv_len = kind.from_numpy(case.page_table), kind.from_numpy(case.kv_len)
    plan = make_plan(case, kind)
    plan.update(kv_len)
    out, lse = plan.run(q, cache, table, kv_len, dtype=kind.dtype)
    assert type(out) is type(q) and type(lse) is type(q)
    assert out.dtype == q.dtype
    given = plan.run(q, cache, table, kv_len, out=out, lse=lse, dtype=kind.dtype)
    assert given[0] is out and given[1] is lse


@pytest.mark.parametrize("kind", FP16_KINDS, ids=str)
def test_strided_views(kind):
    case = make_case(LENGTHS, s_q=2, element=kind.element)
    q, cache = case.as_type(kind.element)
    batch, s_q, h_q, dim = q.shape
    wide_q = np.zeros((h_q, batch, s_q, dim + 24), q.dtype)
    wide_q[..., 8 : 8 + dim] = q.transpose(2, 0, 1, 3)
    padded = np.full((cache.shape[0], cache.shape[1] + 3, 1, dim + 64), np.nan, cache.dtype)
    padded[:, :64, :, :dim] = cache
    table = np.repeat(case.page_table, 2, 0)
    convert = kind.from_numpy
    plan = make_plan(case, kind)
    kv_len = convert(case.kv_len)
    plan.update(kv_len)
    strided_q = convert(wide_q)[..., 8 : 8 + dim]
    strided_q = strided_q.transpose(1, 2, 0, 3) if isinstance(strided_q, np.ndarray) else strided_q.permute(1, 2, 0, 3)
    out, lse = plan.run(strided_q, convert(padded)[:, :64, :, :dim], convert(table)[::2], kv_len)
    assert_decode(kind.to_float64(out), kind.to_float64(lse), case)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_pairs_of_views(kind):
    case = make_case(LENGTHS, s_q=2, causal=True, element=kind.element)
    q, cache = case.as_type(kind.element)
    convert = kind.from_numpy
    plan = make_plan(case, kind)
    kv_len = convert(case.kv_len)
    plan.update(kv_len)
    outputs = {"out": convert(np.zeros(q.shape[:3] + (512,), kind.element)), "lse": convert(np.zeros((len(LENGTHS), 16, 2), np.float32))}
    pair_q = tuple(convert(np.ascontiguousarray(part)) for part in (q[..., :512], q[..., 512:]))
    pair_cache = tuple(convert(np.ascontiguousarray(part)) for part in (cache[..., :512], cache[..., 512:]))
    out, lse = plan.run(pair_q, pair_cache, convert(case.page_table), kv_len, dtype=kind.dtype, **outputs)
    assert_decode(kind.to_float64(out), kind.to_float64(lse), case)


@pytest.mark.parametrize("kind", FP16_KINDS, ids=str)
def test_options(kind):
    case = make_case([90, 0], s_q=2, causal=True, element=kind.element)
    expected_out, expected_lse = decode(case)
    plan = make_plan(case, kind, out_dtype="fp32", lse_base="base_2", lse_layout="tokens_heads", empty_row="minus_inf")
    out, lse = run(plan, case, kind)
    assert_close(out, expected_out, absolute=8e-4, relative=2.01 / 128)
    rows = np.where(np.isposinf(expected_lse), -np.inf, expected_lse / np.log(2)).transpose(0, 2, 1).reshape(4, 16)
    assert_close(lse, rows, absolute=1e-5, relative=8.01 / 65536)
    assert run(plan, case, kind, lse=False)[1] is None


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_sink_and_visible_len(kind):
    case = make_case([90, 70], s_q=2, element=kind.element)
    sink = np.linspace(-2, 2, 16, dtype=np.float32)
    sink[0], sink[1] = -np.inf, np.inf
    visible = np.array([90, 30, 0, 7], np.int32)
    out, lse = run(make_plan(case, kind), case, kind, sink=kind.from_numpy(sink), visible_len=kind.from_numpy(visible))
    for b in range(2):
        for i in range(2):
            seen = make_case([90, 70], s_q=2, element=kind.element)
            seen.q, seen.kv_len = case.q[b : b + 1, i : i + 1], visible[2 * b + i : 2 * b + i + 1]
            seen.page_table = case.page_table[b : b + 1]
            expected_out, expected_lse = decode(seen)
            with np.errstate(over="ignore", invalid="ignore"):
                factor = 1 / (1 + np.exp(sink.astype(np.float64) - expected_lse[0, :, 0]))
            factor = np.where(np.isposinf(expected_lse[0, :, 0]), 0, factor)
            assert_close(out[b, i], expected_out[0, 0] * factor[:, None], absolute=8e-4, relative=2.01 / 128)
            assert_close(lse[b, :, i], expected_lse[0, :, 0], absolute=1e-6, relative=8.01 / 65536)


@pytest.mark.parametrize("scale", [0.0, 0.1352])
def test_scale(scale):
    kind = NUMPY_FP16
    case = make_case([33, 70], element=kind.element)
    case.scale = scale
    assert_decode(*run(make_plan(case, kind, scale=scale), case, kind), case)


def test_schedule_serves_later_lengths():
    kind = NUMPY_FP16
    case = make_case([300, 5, 0], element=kind.element)
    plan = make_plan(case, kind)
    plan.update(np.array([1, 900, 64], np.int32))
    q, cache = case.as_type(kind.element)
    assert_decode(*plan.run(q, cache, case.page_table, case.kv_len), case)
    assert plan.fault() is None


def test_own_schedule_and_workspace():
    kind = NUMPY_FP16
    case = make_case(LENGTHS, element=kind.element)
    q, cache = case.as_type(kind.element)
    plan = make_plan(case, kind)

    def aligned(num_bytes):
        raw = np.zeros(num_bytes + 255, np.uint8)
        start = -raw.__array_interface__["data"][0] % 256
        return raw[start : start + num_bytes]

    schedule, workspace = aligned(plan.schedule_bytes), aligned(plan.workspace_bytes)
    plan.reset(workspace)
    plan.update(case.kv_len, schedule=schedule)
    assert_decode(*plan.run(q, cache, case.page_table, case.kv_len, schedule=schedule, workspace=workspace), case)
    second = plan.new_schedule()
    plan.update(case.kv_len, schedule=second)
    assert_decode(*plan.run(q, cache, case.page_table, case.kv_len, schedule=second), case)
    broken = case.page_table.copy()
    broken[0, 0] = -5
    plan.run(q, cache, broken, case.kv_len, schedule=schedule, workspace=workspace)
    assert plan.fault() is None  # recorded in the caller's workspace, not in the plan's
    fault = plan.fault(workspace)
    assert fault == flashmla.Fault(flashmla.FaultCode.PAGE_ID, 0, 0, -5)
    assert plan.fault(workspace) is None


def test_faults_are_masked_and_reported():
    kind = NUMPY_FP16
    case = make_case(LENGTHS, element=kind.element)
    q, cache = case.as_type(kind.element)
    plan = make_plan(case, kind)
    plan.update(case.kv_len)
    too_long = case.kv_len.copy()
    too_long[1] = 10**6
    plan.run(q, cache, case.page_table, too_long)
    fault = plan.fault()
    assert (fault.code, fault.request, fault.value) == (flashmla.FaultCode.KV_LEN, 1, 10**6)
    assert plan.fault() is None
    assert_decode(*plan.run(q, cache, case.page_table, case.kv_len), case)


@pytest.mark.parametrize("kind", FP16_KINDS, ids=str)
def test_shapes_may_change_from_call_to_call(kind):
    plan = flashmla.DecodePlan(h_q=16, kv_format=kind.kv_format, max_batch=8, max_q_tokens=3)
    for seed, (lengths, s_q) in enumerate([([5, 70], 1), ([300], 3), ([1, 2, 3, 4, 5, 6, 7, 64], 1), ([5, 70], 1)]):
        case = make_case(lengths, s_q=s_q, element=kind.element, seed=seed)
        q, cache = (kind.from_numpy(a) for a in case.as_type(kind.element))
        table, kv_len = kind.from_numpy(case.page_table), kind.from_numpy(case.kv_len)
        plan.update(kv_len, q_tokens=s_q)
        for _ in range(2):
            out, lse = plan.run(q, cache, table, kv_len)
            assert_decode(kind.to_float64(out), kind.to_float64(lse), case)


def test_empty_batch():
    kind = NUMPY_FP16
    plan = flashmla.DecodePlan(h_q=16, kv_format=kind.kv_format, max_batch=8)
    kv_len = np.zeros(0, np.int32)
    plan.update(kv_len)
    out, lse = plan.run(np.zeros((0, 1, 16, 576), np.float16), np.zeros((1, 64, 576), np.float16), np.zeros((0, 4), np.int32), kv_len)
    assert out.shape == (0, 1, 16, 512) and lse.shape == (0, 16, 1)


@pytest.mark.skipif(torch is None, reason="torch is not installed")
def test_mixed_frameworks_on_the_cpu():
    case = make_case(LENGTHS, element=np.float16)
    q, cache = case.as_type(np.float16)
    plan = make_plan(case, NUMPY_FP16)
    plan.update(torch.from_numpy(case.kv_len))
    out, lse = plan.run(torch.from_numpy(q), cache, Foreign(case.page_table.copy()), case.kv_len)
    assert isinstance(out, torch.Tensor)
    assert_decode(out.double().numpy(), lse.numpy(), case)


@pytest.mark.parametrize("isa", [isa.name.lower() for isa in flashmla.Isa if isa is not flashmla.Isa.AUTO])
def test_instruction_sets(isa):
    usable = {row.isa.name.lower() for row in flashmla.kernels() if row.usable and row.device_kind == flashmla.DeviceKind.CPU}
    if isa not in usable:
        pytest.skip(f"this machine lacks {isa}")
    kind = KINDS[0]
    case = make_case(LENGTHS, element=kind.element)
    plan = make_plan(case, kind, isa=isa, num_threads=2)
    assert isa in plan.describe()
    assert_decode(*run(plan, case, kind), case)


def test_parts_cover_every_token_once():
    plan = flashmla.DecodePlan(h_q=16, kv_format="bf16_576", max_batch=8, num_threads=4)
    lengths = [1000, 70, 0, 4096, 1]
    seen = {request: [] for request in range(len(lengths))}
    for part in plan.parts(lengths):
        seen[part.request].append(part)
    for request, length in enumerate(lengths):
        parts = sorted(seen[request], key=lambda p: p.split)
        assert [p.split for p in parts] == list(range(len(parts))) and all(p.num_splits == len(parts) for p in parts)
        assert parts[0].first_token == 0 and parts[-1].last_token == length
        assert all(a.last_token == b.first_token for a, b in zip(parts, parts[1:]))
    assert plan.parts(np.array(lengths, np.int32)) == plan.parts(lengths)
