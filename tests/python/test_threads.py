"""Calls release the GIL, plans serve many threads at once, and what is dropped is given back."""

import gc
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from arrays import KINDS
from reference import assert_decode, make_case

import flashmla

BY_NAME = {kind.name: kind for kind in KINDS}


def test_a_call_releases_the_gil():
    """While one thread is inside `run`, another one runs Python: it sees times between the call's begin and end."""
    plan = flashmla.DecodePlan(h_q=128, kv_format="bf16_576", max_batch=1, num_threads=1, isa="portable")
    q = np.zeros((1, 1, 128, 576), np.uint16)
    cache = np.zeros((64, 64, 576), np.uint16)
    table = np.arange(64, dtype=np.int32)[None] % 64
    kv_len = np.array([4096], np.int32)
    plan.update(kv_len)
    ticks, stop = [], threading.Event()

    def tick():
        while not stop.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.0002)

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        for _ in range(20):  # a loaded machine may need more than one try to schedule the other thread
            begin = time.perf_counter()
            plan.run(q, cache, table, kv_len, dtype="bf16")
            end = time.perf_counter()
            # The interpreter alone would switch threads before or after the call, never inside it.
            inside = [t for t in ticks if begin + (end - begin) * 0.2 < t < begin + (end - begin) * 0.8]
            if inside:
                break
    finally:
        stop.set()
        thread.join()
    assert inside


@pytest.mark.parametrize("name", [name for name in ("numpy-fp16", "torch-bf16") if name in BY_NAME])
def test_one_plan_serves_many_threads(name):
    kind = BY_NAME[name]
    cases = [make_case([seed + 1, 70 * seed, 9], h_q=8, element=kind.element, seed=seed) for seed in range(8)]
    plan = flashmla.DecodePlan(h_q=8, kv_format=kind.kv_format, max_batch=3, num_threads=2)
    schedules = [plan.new_schedule() for _ in cases]

    def work(index):
        case = cases[index]
        q, cache = (kind.from_numpy(a) for a in case.as_type(kind.element))
        table, kv_len = kind.from_numpy(case.page_table), kind.from_numpy(case.kv_len)
        for _ in range(5):
            plan.update(kv_len, schedule=schedules[index])
            results = [plan.run(q, cache, table, kv_len, schedule=schedules[index]) for _ in range(3)]
        return results

    with ThreadPoolExecutor(8) as threads:
        for case, results in zip(cases, threads.map(work, range(len(cases)))):
            for out, lse in results:
                assert_decode(kind.to_float64(out), kind.to_float64(lse), case)
    assert plan.fault() is None


def test_errors_are_those_of_the_thread():
    plan = flashmla.DecodePlan(h_q=8, kv_format="fp16_576", max_batch=2)

    def refused(index):
        for _ in range(50):
            with pytest.raises(flashmla.Error) as error:
                plan.parts([-1 - index])
            assert f"got {-1 - index}," in str(error.value)
        return True

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(refused, range(8)))


def test_pool_serves_many_threads():
    pool = flashmla.PagePool(64)

    def churn(_):
        for _ in range(100):
            pages = pool.allocate(4)
            assert len(set(pages)) == 4
            pool.free(pages)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(churn, range(8)))
    assert pool.num_free == 64


def test_plans_are_destroyed_and_arrays_not_kept():
    kind = BY_NAME["numpy-fp16"]
    case = make_case([50], element=kind.element)
    q, cache = case.as_type(kind.element)
    plan = flashmla.DecodePlan(h_q=16, kv_format=kind.kv_format, max_batch=1)
    plan.update(case.kv_len)
    out, lse = plan.run(q, cache, case.page_table, case.kv_len)
    references = sys.getrefcount(q), sys.getrefcount(cache)
    plan.run(q, cache, case.page_table, case.kv_len, out=out, lse=lse)
    assert (sys.getrefcount(q), sys.getrefcount(cache)) == references
    gone = weakref.ref(plan)
    del plan
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("batch_invariant", [False, True])
def test_work_on_the_callers_threads(threads, batch_invariant):
    kind = BY_NAME["numpy-fp16"]
    case = make_case([700, 3, 260], element=kind.element)
    q, cache = case.as_type(kind.element)
    fields = {"h_q": 16, "kv_format": kind.kv_format, "max_batch": 3, "num_threads": 3, "batch_invariant": batch_invariant}
    fields |= {"chunk_tokens": 64} if batch_invariant else {}
    expected = flashmla.DecodePlan(**fields)
    expected.update(case.kv_len)
    wanted = expected.run(q, cache, case.page_table, case.kv_len)
    assert_decode(*(a.astype(np.float64) for a in wanted), case)
    with ThreadPoolExecutor(threads) as pool:
        plan = flashmla.DecodePlan(**fields, executor=pool)
        assert "3 threads of the caller" in plan.describe()
        plan.update(case.kv_len)
        gc.collect()
        for _ in range(3):
            for got, want in zip(plan.run(q, cache, case.page_table, case.kv_len), wanted):
                np.testing.assert_array_equal(got, want)
    for got, want in zip(plan.run(q, cache, case.page_table, case.kv_len), wanted):  # the pool was shut down: this thread does it all
        np.testing.assert_array_equal(got, want)


def test_what_is_no_executor():
    for pool in (3, object()):
        with pytest.raises(flashmla.Error, match="executor: got "):
            flashmla.DecodePlan(h_q=16, kv_format="bf16_576", max_batch=1, executor=pool)
