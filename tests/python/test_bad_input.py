"""Every public argument wrong in turn: an Error of the house grammar, raised before anything is written."""

import re

import numpy as np
import pytest
from arrays import Foreign, torch

import flashmla
from flashmla import Status, _native

GRAMMAR = re.compile(r"^[a-z_]+: [\w\[\]. ]+: got .+, expected .+", re.S)


def check(call, status, *words):
    """The call raises an Error of that status in the house grammar, with these words in it."""
    with pytest.raises(flashmla.Error) as refused:
        call()
    message = str(refused.value)
    assert GRAMMAR.match(message), message
    assert refused.value.status is status, message
    for word in words:
        assert word in message


PROBLEM = {"h_q": 16, "kv_format": "fp16_576", "max_batch": 4, "max_q_tokens": 2}
BAD_PROBLEMS = [
    ({"h_q": 0}, Status.INVALID_ARGUMENT, "h_q: got 0"),
    ({"h_q": 129}, Status.UNSUPPORTED, "h_q: got 129"),
    ({"h_q": 16.0}, Status.INVALID_ARGUMENT, "h_q: got 16.0 of type float"),
    ({"h_q": 2**40}, Status.INVALID_ARGUMENT, "h_q: got 1099511627776"),
    ({"h_kv": 3}, Status.INVALID_ARGUMENT, "h_kv: got 3"),
    ({"kv_format": "bf16"}, Status.INVALID_ARGUMENT, "kv_format: got 'bf16', expected one of bf16_576"),
    ({"kv_format": 99}, Status.INVALID_ARGUMENT, "kv_format: got 99"),
    ({"kv_format": "fp8_v32_656"}, Status.UNSUPPORTED, "kv_format: got FP8_V32_656"),
    ({"page_tokens": -1}, Status.INVALID_ARGUMENT, "page_tokens"),
    ({"max_batch": 0}, Status.INVALID_ARGUMENT, "max_batch: got 0"),
    ({"max_batch": 2**70}, Status.INVALID_ARGUMENT, "max_batch"),
    ({"max_q_tokens": -3}, Status.INVALID_ARGUMENT, "max_q_tokens: got -3"),
    ({"max_kv_len": -1}, Status.INVALID_ARGUMENT, "max_kv_len: got -1"),
    ({"max_total_kv_tokens": -1}, Status.INVALID_ARGUMENT, "max_total_kv_tokens"),
    ({"q_dtype": "bf16"}, Status.UNSUPPORTED, "q_dtype: got BF16, expected FP16"),
    ({"q_dtype": "complex"}, Status.INVALID_ARGUMENT, "q_dtype: got 'complex'"),
    ({"out_dtype": "int32"}, Status.INVALID_ARGUMENT, "out_dtype: got INT32"),
    ({"scale": -1.0}, Status.INVALID_ARGUMENT, "scale: got -1.0"),
    ({"scale": float("nan")}, Status.INVALID_ARGUMENT, "scale: got nan"),
    ({"scale": "big"}, Status.INVALID_ARGUMENT, "scale: got 'big'"),
    ({"scale": 1e300}, Status.INVALID_ARGUMENT, "scale: got 1e+300"),
    ({"scale": 10**400}, Status.INVALID_ARGUMENT, "scale: got 1000"),
    ({"h_q": np.zeros(2, int)}, Status.INVALID_ARGUMENT, "h_q: got array([0, 0]) of type ndarray"),
    ({"lse_base": 10}, Status.INVALID_ARGUMENT, "lse_base: got 10"),
    ({"lse_layout": "heads"}, Status.INVALID_ARGUMENT, "lse_layout: got 'heads'"),
    ({"empty_row": "zero"}, Status.INVALID_ARGUMENT, "empty_row: got 'zero'"),
    ({"chunk_tokens": 64}, Status.INVALID_ARGUMENT, "chunk_tokens: got 64"),
    ({"isa": "sse"}, Status.INVALID_ARGUMENT, "isa: got 'sse'"),
    ({"num_threads": -1}, Status.INVALID_ARGUMENT, "num_threads: got -1"),
    ({"num_sms": -1}, Status.INVALID_ARGUMENT, "num_sms: got -1"),
    ({"device": "tpu"}, Status.INVALID_ARGUMENT, "device: got 'tpu'"),
    ({"device": "cuda:x"}, Status.INVALID_ARGUMENT, "device: got 'cuda:x'"),
    ({"device": "cuda:4294967296"}, Status.INVALID_ARGUMENT, "device: got 'cuda:4294967296'"),
    ({"device": "cpu:1"}, Status.INVALID_ARGUMENT, "device: got 'cpu:1'"),
    ({"device": (7, 0)}, Status.INVALID_ARGUMENT, "device: got 7"),
    ({"device": ("cpu", 1)}, Status.INVALID_ARGUMENT, "device.index: got 1"),
    ({"device": "cuda:1000"}, Status.UNSUPPORTED, "device: got cuda:1000"),
    ({"heads": 16}, Status.INVALID_ARGUMENT, "heads"),
]


@pytest.mark.parametrize("change, status, words", BAD_PROBLEMS, ids=[str(c[0]) for c in BAD_PROBLEMS])
def test_plan(change, status, words):
    check(lambda: flashmla.DecodePlan(**PROBLEM | change), status, "plan_create", words)


def test_plan_without_a_problem():
    check(lambda: flashmla.DecodePlan(), Status.INVALID_ARGUMENT, "h_q")
    check(lambda: flashmla.DecodePlan({"h_q": 16}), Status.INVALID_ARGUMENT, "problem")
    check(lambda: flashmla.DecodePlan(flashmla.Problem(**PROBLEM), h_q=3), Status.INVALID_ARGUMENT, "problem")


def zeros(*shape, dtype=np.float16):
    return np.zeros(shape, dtype)


def frozen(*shape, dtype=np.float16):
    """What numpy.memmap gives by default: to write there ends the process."""
    array = zeros(*shape, dtype=dtype)
    array.flags.writeable = False
    return array


def inputs():
    """A good call of `run`, as keywords."""
    return {
        "q": zeros(2, 1, 16, 576), "cache": zeros(3, 64, 1, 576), "page_table": zeros(2, 4, dtype=np.int32),
        "kv_len": np.full(2, 9, np.int32), "out": np.full((2, 1, 16, 512), 5, np.float16), "lse": np.full((2, 16, 1), 5, np.float32),
    }  # fmt: skip


BAD_RUNS = [
    ({"q": zeros(2, 16, 576)}, "q: got rank 3"),
    ({"q": zeros(2, 1, 8, 576)}, "q: got dim 2 = 8, expected 16"),
    ({"q": zeros(2, 1, 16, 512)}, "q: got dim 3 = 512, expected 576"),
    ({"q": zeros(2, 1, 16, 576, dtype=np.float32)}, "q: got dtype FP32, expected FP16"),
    ({"q": zeros(2, 1, 16, 576, dtype=np.uint16)}, 'pass dtype="bf16"'),
    ({"q": zeros(2, 1, 16, 576, dtype=np.complex64)}, "q: got dtype complex64"),
    ({"q": zeros(2, 1, 16, 576, dtype=">f2")}, "byte order"),
    ({"q": zeros(2, 1, 16, 1152)[..., ::2]}, "q"),
    ({"q": zeros(1, 1, 1, 1, 576)}, "rank 5"),
    ({"q": [[1.0]]}, "q: got builtins.list"),
    ({"q": (zeros(2, 1, 16, 512), zeros(2, 1, 16, 32))}, "q_pe: got dim 3 = 32, expected 64"),
    ({"cache": zeros(3, 32, 1, 576)}, "cache: got dim 1 = 32, expected 64"),
    ({"cache": zeros(3, 64, 2, 576)}, "cache: got dim 2 = 2, expected 1"),
    ({"cache": zeros(3, 64, 1, 576, dtype=np.float64)}, "cache: got dtype FP64"),
    ({"cache": (zeros(3, 64, 512), zeros(2, 64, 64))}, "kpe: got dim 0 = 2, expected 3"),
    ({"cache": None}, "cache"),
    ({"q": ()}, "q: got a tuple of 0, expected an array, or the pair (q_nope, q_pe)"),
    ({"q": (zeros(2, 1, 16, 512), zeros(2, 1, 16, 64), zeros(1))}, "q: got a tuple of 3"),
    ({"cache": (zeros(3, 64, 512), zeros(3, 64, 64), zeros(1))}, "cache: got a tuple of 3"),
    ({"out": frozen(2, 1, 16, 512)}, "out: got a read-only array"),
    ({"lse": frozen(2, 16, 1, dtype=np.float32)}, "lse: got a read-only array"),
    ({"workspace": frozen(16, dtype=np.uint8)}, "workspace: got a read-only array"),
    ({"page_table": zeros(2, 4, dtype=np.int64)}, "page_table: got dtype INT64, expected INT32"),
    ({"page_table": zeros(3, 4, dtype=np.int32)}, "page_table: got dim 0 = 3, expected 2"),
    ({"page_table": zeros(2, 8, dtype=np.int32)[:, ::2]}, "page_table"),
    ({"page_table": "0123"}, "page_table: got builtins.str"),
    ({"kv_len": np.zeros((2, 1), np.int32)}, "kv_len: got rank 2"),
    ({"kv_len": np.zeros(4, np.int32)[::2]}, "kv_len"),
    ({"kv_len": np.zeros(2, np.float32)}, "kv_len: got dtype FP32"),
    ({"kv_len": 3}, "kv_len: got builtins.int"),
    ({"out": zeros(2, 1, 16, 576)}, "out: got dim 3 = 576, expected 512"),
    ({"out": zeros(2, 1, 16, 512, dtype=np.float32)}, "out: got dtype FP32, expected FP16"),
    ({"out": "here"}, "out: got builtins.str"),
    ({"lse": zeros(2, 1, 16, dtype=np.float32)}, "lse: got dim 1 = 1, expected 16"),
    ({"lse": zeros(2, 16, 1)}, "lse: got dtype FP16, expected FP32"),
    ({"visible_len": np.zeros(3, np.int32)}, "visible_len: got dim 0 = 3"),
    ({"visible_len": np.zeros(2, np.int64)}, "visible_len: got dtype INT64"),
    ({"sink": np.zeros(15, np.float32)}, "sink: got dim 0 = 15, expected 16"),
    ({"sink": np.zeros(16, np.float64)}, "sink: got dtype FP64"),
    ({"schedule": np.zeros(16, np.uint8)}, "schedule"),
    ({"schedule": object()}, "schedule: got builtins.object"),
    ({"workspace": np.zeros(16, np.uint8)}, "workspace"),
    ({"workspace": "much"}, "workspace: got builtins.str"),
    ({"dtype": "fp16"}, "dtype: got 'fp16'"),
    ({"stream": "fast"}, "stream: got 'fast' of type str"),
    ({"stream": -1}, "stream: got -1"),
]


def torch_has(value):
    return isinstance(value, np.ndarray) and value.flags.writeable and value.dtype.isnative and value.dtype.name not in ("uint16", "complex64")


TORCH_RUNS = [row for row in BAD_RUNS if all(torch_has(value) for value in row[0].values())]


@pytest.mark.parametrize("change, words", BAD_RUNS, ids=[w.replace(":", "") for _, w in BAD_RUNS])
def test_run(change, words):
    plan = flashmla.DecodePlan(**PROBLEM)
    arguments = inputs()
    plan.update(arguments["kv_len"], q_tokens=1)
    check(lambda: plan.run(**arguments | change), Status.INVALID_ARGUMENT, words)
    assert (arguments["out"] == 5).all() and (arguments["lse"] == 5).all()
    plan.run(**arguments)  # the plan is as good as before
    assert (arguments["out"] == 0).all()


@pytest.mark.skipif(torch is None, reason="torch is not installed")
@pytest.mark.parametrize("path", ["builtin", "ctypes"])
@pytest.mark.parametrize("change, words", TORCH_RUNS, ids=[w.replace(":", "") for _, w in TORCH_RUNS])
def test_run_with_torch(change, words, path, monkeypatch):
    if path == "ctypes":
        monkeypatch.setattr(_native, "make", lambda *_: None)
    plan = flashmla.DecodePlan(**PROBLEM)
    arguments = {name: torch.from_numpy(array) for name, array in inputs().items()}
    plan.update(arguments["kv_len"], q_tokens=1)
    bad = arguments | {name: torch.from_numpy(array) for name, array in change.items()}
    check(lambda: plan.run(**bad), Status.INVALID_ARGUMENT, words)
    check(lambda: plan.run(**bad), Status.INVALID_ARGUMENT, words)  # nothing was remembered of the first
    assert (arguments["out"] == 5).all()
    plan.run(**arguments)
    assert (arguments["out"] == 0).all()


@pytest.mark.skipif(torch is None, reason="torch is not installed")
def test_run_with_odd_tensors():
    plan = flashmla.DecodePlan(**PROBLEM)
    arguments = {name: torch.from_numpy(array) for name, array in inputs().items()}
    plan.update(arguments["kv_len"], q_tokens=1)
    for name, tensor in {"q": arguments["q"].to("meta"), "cache": torch.zeros(3, 64, 576).to_sparse()}.items():
        check(lambda: plan.run(**arguments | {name: tensor}), Status.INVALID_ARGUMENT, f"{name}: got")


def test_run_out_of_order():
    plan = flashmla.DecodePlan(**PROBLEM)
    arguments = inputs()
    check(lambda: plan.run(**arguments), Status.INVALID_ARGUMENT, "schedule: got none")
    plan.update(np.zeros(3, np.int32), q_tokens=1)
    check(lambda: plan.run(**arguments), Status.INVALID_ARGUMENT, "schedule: got one for batch 3 and q_tokens 1")
    plan.update(arguments["kv_len"], q_tokens=2)
    check(lambda: plan.run(**arguments), Status.INVALID_ARGUMENT, "schedule: got one for batch 2 and q_tokens 2")


def test_overlap():
    plan = flashmla.DecodePlan(**PROBLEM)
    arguments = inputs()
    plan.update(arguments["kv_len"], q_tokens=1)
    check(lambda: plan.run(**arguments | {"out": arguments["q"][..., :512]}), Status.INVALID_ARGUMENT, "out")


def test_update():
    plan = flashmla.DecodePlan(**PROBLEM)
    good = np.zeros(2, np.int32)
    check(lambda: plan.update(np.zeros(5, np.int32)), Status.INVALID_ARGUMENT, "kv_len", "max_batch 4")
    check(lambda: plan.update(good.astype(np.int64)), Status.INVALID_ARGUMENT, "kv_len: got dtype INT64")
    check(lambda: plan.update([1, 2]), Status.INVALID_ARGUMENT, "kv_len: got builtins.list")
    check(lambda: plan.update(good, q_tokens=3), Status.INVALID_ARGUMENT, "q_tokens")
    check(lambda: plan.update(good, q_tokens="1"), Status.INVALID_ARGUMENT, "q_tokens: got '1'")
    check(lambda: plan.update(good, schedule=np.zeros(1, np.uint8)), Status.INVALID_ARGUMENT, "schedule")
    check(lambda: plan.update(good, schedule=frozen(4096, dtype=np.uint8)), Status.INVALID_ARGUMENT, "schedule: got a read-only array")
    check(lambda: plan.reset(np.zeros(1, np.uint8)), Status.INVALID_ARGUMENT, "workspace")
    check(lambda: plan.fault(np.zeros(1, np.uint8)), Status.INVALID_ARGUMENT, "workspace")


def test_parts():
    plan = flashmla.DecodePlan(**PROBLEM)
    check(lambda: plan.parts([1, 2, 3, 4, 5]), Status.INVALID_ARGUMENT, "batch: got 5")
    check(lambda: plan.parts([-1]), Status.INVALID_ARGUMENT, "kv_len[0]: got -1")
    check(lambda: plan.parts([2**40]), Status.INVALID_ARGUMENT, "kv_len[0]: got 1099511627776")
    check(lambda: plan.parts([1], q_tokens=7), Status.INVALID_ARGUMENT, "q_tokens: got 7")
    check(lambda: plan.parts(5), Status.INVALID_ARGUMENT, "kv_len: got 5 of type int")
    check(lambda: plan.parts(np.int32(5)), Status.INVALID_ARGUMENT, "kv_len: got 5 of type int")


def test_merge():
    out, lse = zeros(2, 3, 4, 512, dtype=np.float32), zeros(2, 3, 4, dtype=np.float32)
    for arguments, words in [
        ((out[0], lse), "partial_out: got rank 3"),
        ((out.astype(np.int32), lse), "partial_out: got"),
        ((out, lse.astype(np.float64)), "partial_lse: got dtype FP64"),
        ((out, lse[:1]), "partial_lse: got dim 0 = 1"),
        ((None, lse), "partial_out: got builtins.NoneType"),
    ]:
        check(lambda: flashmla.merge(*arguments, out_dtype="fp32"), Status.INVALID_ARGUMENT, "merge", words)
    for more, words in [
        ({"sink": np.zeros(5, np.float32)}, "sink: got dim 0 = 5"),
        ({"out": zeros(3, 4, 511, dtype=np.float32)}, "expected 511 (d_v of out)"),
        ({"out": out[0]}, "out"),
        ({"lse": zeros(3, 3, dtype=np.float32)}, "lse: got dim 1 = 3"),
        ({"out_dtype": "int8"}, "out_dtype: got int8"),
        ({"lse_base": "e"}, "lse_base: got 'e'"),
        ({"empty_row": 7}, "empty_row: got 7"),
        ({"dtype": "fp8"}, "dtype: got 'fp8'"),
    ]:
        check(lambda: flashmla.merge(out, lse, **more), Status.INVALID_ARGUMENT, "merge", words)


def test_append():
    kv, cache, slots = zeros(2, 576), zeros(3, 16, 576), np.zeros(2, np.int64)
    for arguments, words in [
        ((kv[:, :512], cache, slots), "kv: got dim 1 = 512"),
        ((kv.astype(np.float32), cache, slots), "kv: got dtype FP32"),
        (((kv[:, :512], kv[:, :32]), cache, slots), "kpe: got dim 1 = 32"),
        ((kv, cache[:, :, :512], slots), "cache"),
        ((kv, cache.astype(np.float32), slots), "cache: got dtype FP32"),
        ((kv, cache, slots.astype(np.int32)), "slot_mapping: got dtype INT32, expected INT64"),
        ((kv, cache, slots[:1]), "expected 1 (tokens, from slot_mapping)"),
        ((kv, 5, slots), "cache: got builtins.int"),
        ((kv, frozen(3, 16, 576), slots), "cache: got a read-only array"),
        (((kv,), cache, slots), "kv: got a tuple of 1"),
    ]:
        check(lambda: flashmla.append(*arguments, kv_format="fp16_576"), Status.INVALID_ARGUMENT, "append", words)
    check(lambda: flashmla.append(kv, cache, slots, kv_format="fp16"), Status.INVALID_ARGUMENT, "kv_format: got 'fp16'")
    check(lambda: flashmla.append(kv, cache, slots, kv_format="fp8_v32_656"), Status.UNSUPPORTED, "kv_format")
    bad_fault = np.zeros(3, np.int32)
    check(lambda: flashmla.append(kv, cache, slots, kv_format="fp16_576", fault=bad_fault), Status.INVALID_ARGUMENT, "fault")


def test_copy_pages():
    cache = zeros(3, 16, 576)
    for arguments, words in [
        ((5, []), "caches: got 5 of type int"),
        (([cache], None), "copies: got None"),
        (([cache], [(0, 1, 2)]), "copies[0]: got (0, 1, 2)"),
        (([None], [(0, 1)]), "caches[0]: got builtins.NoneType"),
        (([cache, frozen(3, 16, 576)], [(0, 1)]), "caches[1]: got a read-only array"),
    ]:
        check(lambda: flashmla.copy_pages(*arguments), Status.INVALID_ARGUMENT, "copy_pages", words)


def test_page_pool():
    check(lambda: flashmla.PagePool(0), Status.INVALID_ARGUMENT, "num_pages: got 0")
    check(lambda: flashmla.PagePool(2**40), Status.INVALID_ARGUMENT, "num_pages")
    check(lambda: flashmla.PagePool("4"), Status.INVALID_ARGUMENT, "num_pages: got '4'")
    pool = flashmla.PagePool(4)
    check(lambda: pool.allocate(-1), Status.INVALID_ARGUMENT, "count: got -1")
    check(lambda: pool.allocate(1.5), Status.INVALID_ARGUMENT, "count: got 1.5")
    check(lambda: pool.allocate(2**62), Status.EXHAUSTED, "count")
    check(lambda: pool.allocate(np.zeros(2, int)), Status.INVALID_ARGUMENT, "count: got array([0, 0])")
    check(lambda: pool.free(5), Status.INVALID_ARGUMENT, "page_ids: got 5 of type int")
    check(lambda: pool.retain(None), Status.INVALID_ARGUMENT, "page_ids: got None")
    check(lambda: pool.fork(None, 3, 4), Status.INVALID_ARGUMENT, "page_ids: got None")
    check(lambda: pool.free(["a"]), Status.INVALID_ARGUMENT, "page_ids[0]: got 'a'")
    check(lambda: pool.free([2**31]), Status.INVALID_ARGUMENT, "page_ids[0]: got 2147483648")
    assert pool.num_free == 4


def test_dlpack_that_fails():
    class Broken(Foreign):
        def __dlpack__(self, *, stream=None):
            raise BufferError("no")

    class Elsewhere(Foreign):
        def __dlpack_device__(self):
            return (7, 0)

    plan = flashmla.DecodePlan(**PROBLEM)
    arguments = inputs()
    plan.update(arguments["kv_len"], q_tokens=1)
    odd = Foreign(zeros(2, 1, 16, 576, dtype=np.uint32))
    for change, words in [
        ({"q": Broken(arguments["q"])}, "q: got an array whose __dlpack__ failed (no)"),
        ({"q": Elsewhere(arguments["q"])}, "q: got DLPack device type 7"),
        ({"q": Foreign(arguments["q"]), "out": None}, "out: got no array"),
        ({"q": odd}, "q: got DLPack dtype (code 1, 32 bits, 1 lanes)"),
    ]:
        check(lambda: plan.run(**arguments | change), Status.INVALID_ARGUMENT, words)
