"""Frameworks that are only known by DLPack, played by NumPy: where outputs come from, and who has to be waited for."""

import contextlib
import sys
import types

import numpy as np
import pytest
from arrays import Foreign
from reference import assert_decode, make_case

import flashmla
from flashmla import _arrays, _scratch


class CupyArray(Foreign):
    """As far as this package is concerned, a cupy.ndarray before version 14: no __array_namespace__, and a device that is a context."""

    @property
    def dtype(self):
        return self.array.dtype

    @property
    def device(self):
        return contextlib.nullcontext()


@pytest.fixture
def cupy(monkeypatch):
    module = types.ModuleType("cupy")
    module.float16, module.float32, module.uint8 = np.float16, np.float32, np.uint8
    module.empty = lambda shape, dtype: CupyArray(np.empty(shape, dtype))  # it takes no device
    monkeypatch.setattr(CupyArray, "__module__", "cupy")
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


def test_cupy_arrays(cupy):
    case = make_case([100, 0, 65], h_q=8, element=np.float16)
    q, cache, table, kv_len = (CupyArray(a) for a in (*case.as_type(np.float16), case.page_table, case.kv_len))
    plan = flashmla.DecodePlan(h_q=8, kv_format="fp16_576", max_batch=3)
    plan.update(kv_len)
    out, lse = plan.run(q, cache, table, kv_len)
    assert isinstance(out, CupyArray) and out.dtype == np.float16
    assert_decode(out.array.astype(np.float64), lse.array.astype(np.float64), case)


def test_who_is_waited_for(monkeypatch):
    """On a GPU, JAX alone: it neither sees our stream nor keeps an array until our work has read it."""
    waits = []
    monkeypatch.setattr(_scratch, "synchronize", lambda *stream: waits.append(stream))
    jax_like = type("ArrayImpl", (Foreign,), {"__module__": "jaxlib._jax"})
    numbers = np.zeros(1, np.int32)
    arrays = [numbers, Foreign(numbers), jax_like(numbers)]
    for array in arrays:
        _arrays.adapter_of(array, ("test", "array"))
    gpu, cpu = (flashmla.DeviceKind.CUDA, 1), (flashmla.DeviceKind.CPU, 0)
    _arrays.settle([None, False, *arrays[:2]], gpu, 7)
    _arrays.settle(arrays, cpu, 0)
    assert waits == []
    _arrays.settle(arrays, gpu, 7)
    assert waits == [(1, 7)]
