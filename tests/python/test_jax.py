"""JAX arrays outside jit, where JAX is installed: read by DLPack, results in new arrays."""

import pytest

jax = pytest.importorskip("jax")

import ml_dtypes  # noqa: E402
import numpy as np  # noqa: E402
from reference import assert_close, assert_decode, make_case, merge  # noqa: E402
from test_bad_input import check  # noqa: E402

import flashmla  # noqa: E402
from flashmla import Status  # noqa: E402

CPU = jax.local_devices(backend="cpu")[0]


def to_jax(array):
    return jax.device_put(array, CPU)


def widen(array):
    return np.asarray(array).astype(np.float64)


@pytest.mark.parametrize("element, kv_format", [(ml_dtypes.bfloat16, "bf16_576"), (np.float16, "fp16_576")], ids=["bf16", "fp16"])
@pytest.mark.parametrize("s_q, page", [(1, 64), (3, 16)])
def test_decode(element, kv_format, s_q, page):
    case = make_case([100, 0, 65], h_q=16, s_q=s_q, page=page, causal=True, element=element)
    q, cache, table, kv_len = (to_jax(a) for a in (*case.as_type(element), case.page_table, case.kv_len))
    plan = flashmla.DecodePlan(h_q=16, kv_format=kv_format, page_tokens=page, max_batch=3, max_q_tokens=s_q, causal=True)
    plan.update(kv_len)
    out, lse = plan.run(q, cache, table, kv_len)
    assert isinstance(out, jax.Array) and isinstance(lse, jax.Array) and out.dtype == q.dtype and out.device == q.device
    assert_decode(widen(out), widen(lse), case)
    again, _ = plan.run(q, cache, table, kv_len)
    assert (widen(again) == widen(out)).all()
    assert_decode(widen(out), widen(lse), case)  # the first result is a new array, not one that the second call wrote
    pair, _ = plan.run((q[..., :512], q[..., 512:]), (cache[..., :512], cache[..., 512:]), table, kv_len)
    assert_decode(widen(pair), widen(lse), case)


def test_merge():
    rng = np.random.default_rng(0)
    outs, lses = rng.standard_normal((3, 4, 8, 512), np.float32), rng.standard_normal((3, 4, 8), np.float32)
    out, lse = flashmla.merge(to_jax(outs), to_jax(lses))
    expected_out, expected_lse = merge(outs.astype(np.float64), lses.astype(np.float64))
    assert_close(widen(out), expected_out, absolute=1e-6, relative=1e-5)
    assert_close(widen(lse), expected_lse, absolute=1e-6, relative=1e-5)


def test_a_traced_array_is_refused_by_name():
    plan = flashmla.DecodePlan(h_q=16, kv_format="fp16_576", max_batch=1)
    check(lambda: jax.jit(lambda n: plan.update(n))(to_jax(np.ones(1, np.int32))), Status.INVALID_ARGUMENT, "plan_update: kv_len: got")
