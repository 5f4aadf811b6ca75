"""The builtin function behind `run`: that plain tensors go through it, and that everything else gets there all the same."""

import gc
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

torch = pytest.importorskip("torch")

from arrays import KINDS  # noqa: E402
from reference import assert_decode, make_case  # noqa: E402
from test_bad_input import check  # noqa: E402

import flashmla  # noqa: E402
from flashmla import Status, _native  # noqa: E402

KIND = next(kind for kind in KINDS if kind.name == "torch-bf16")
pytestmark = pytest.mark.skipif(
    _native.make(None, torch.Tensor) is None, reason="no libflashmla_python.so beside libflashmla, or torch has no DLPack exchange API"
)


class Counted:
    """A plan of one case whose builtin counts its calls and answers."""

    def __init__(self, lengths=(100, 0, 65), **fields):
        self.case = make_case(list(lengths), h_q=8, element=KIND.element)
        self.inputs = [KIND.from_numpy(a) for a in (*self.case.as_type(KIND.element), self.case.page_table, self.case.kv_len)]
        self.plan = flashmla.DecodePlan(h_q=8, kv_format=KIND.kv_format, max_batch=len(lengths), **fields)
        self.plan.update(self.inputs[3])
        runner = self.plan.torch_runner()
        self.builtin, self.answers = runner.native, []
        runner.native = self.call

    def call(self, *arguments):
        status = self.builtin(*arguments)
        self.answers.append(status)
        return status

    def run(self, *inputs, **more):
        out, lse = self.plan.run(*(inputs or self.inputs), **more)
        assert_decode(KIND.to_float64(out), KIND.to_float64(lse), self.case)
        return out, lse


def test_plain_tensors_go_through_the_builtin():
    counted = Counted()
    out, lse = counted.run()
    again, _ = counted.run(out=torch.full_like(out, float("nan")), lse=torch.full_like(lse, float("nan")))
    assert counted.plan.run(*counted.inputs, lse=False)[1] is None
    assert counted.answers == [0, 0, 0] and torch.equal(out, again) and out.is_contiguous() and lse.is_contiguous()


def test_other_strides_and_sizes_need_no_preparation():
    counted = Counted()
    q, cache, table, kv_len = counted.inputs
    wide = torch.full((3, 1, 8, 600), float("nan"), dtype=q.dtype)
    wide[..., :576] = q
    counted.run(wide[..., :576], cache[:, :, 0], table.repeat(1, 2)[:, : table.shape[1]], kv_len)
    counted.run(q, torch.cat([cache, cache]), table, kv_len)
    out = torch.empty(8, 1, 3, 512, dtype=q.dtype).transpose(0, 2)
    counted.run(out=out)
    assert counted.answers == [0, 0, 0]


def test_pairs_of_tensors():
    counted = Counted()
    q, cache, table, kv_len = counted.inputs
    pairs = (q[..., :512], q[..., 512:]), (cache[..., :512].clone(), cache[:, :, 0, 512:])
    out, lse = counted.run(*pairs, table, kv_len)
    counted.run(q, pairs[1], table, kv_len, out=out.fill_(float("nan")), lse=lse.fill_(float("nan")))
    assert counted.answers == [0, 0]
    for wrong, words in [
        (((q[..., :512], q[..., 512:].float()), cache), "q_pe: got dtype FP32"),
        (((q[..., :512], None), cache), "q_pe: got no view"),
        ((q[..., :512], cache), "q: got dim 3 = 512"),
        ((pairs[0], (cache[..., :512], cache[1:, :, :, 512:])), "kpe: got dim 0"),
    ]:
        check(lambda: counted.plan.run(*wrong, table, kv_len), Status.INVALID_ARGUMENT, words)
        counted.run(*pairs, table, kv_len)


def test_what_it_does_not_know_goes_the_general_way():
    counted = Counted()
    q, cache, table, kv_len = counted.inputs

    class Named(torch.Tensor):
        pass

    counted.run(torch.nn.Parameter(q, requires_grad=False), cache, table, kv_len)
    counted.run(q, cache.as_subclass(Named), table, kv_len)
    counted.run(q, cache, table.numpy(), kv_len)
    assert counted.answers == [_native.NOT_HANDLED] * 3
    counted.run(q.clone().requires_grad_(), cache, table, kv_len)


def test_refusals_are_worded_as_ever():
    counted = Counted()
    q, cache, table, kv_len = counted.inputs
    for inputs, words in [
        ((q.float(), cache, table, kv_len), "q: got dtype FP32, expected BF16"),
        ((q.to("meta"), cache, table, kv_len), "q: got device meta"),
        ((q, cache.to_sparse(), table, kv_len), "cache: got layout torch.sparse_coo"),
        ((q, cache, table.long(), kv_len), "page_table: got dtype INT64"),
        ((q, cache, table.to(torch.bool), kv_len), "page_table: got dtype bool"),
        ((q, cache, table, kv_len[:2]), "q: got dim 0 = 3, expected 2"),
        ((q[:2], cache, table[:2], kv_len[:2]), "schedule: got one for batch 3 and q_tokens 1"),
        ((q[None], cache, table, kv_len), "q: got rank 5"),
        ((q, None, table, kv_len), "cache: got no view"),
    ]:
        for more in ({}, {"out": torch.empty(3, 1, 8, 512, dtype=q.dtype), "lse": torch.empty(3, 8, 1)}):
            check(lambda: counted.plan.run(*inputs, **more), Status.INVALID_ARGUMENT, words)
            counted.run()


def test_nothing_is_kept():
    counted = Counted()
    out, lse = counted.run()
    tensors = [*counted.inputs, out, lse]
    gc.collect()
    before = [sys.getrefcount(tensor) for tensor in tensors], sys.getrefcount(torch.Tensor), sys.getrefcount(None)
    for _ in range(1000):
        counted.builtin(*tensors, 3, 1, 0, 0, 0)  # refused by the library: no schedule
        counted.builtin(1, *tensors[1:], 3, 1, 0, 0, 0)
    after = [sys.getrefcount(tensor) for tensor in tensors], sys.getrefcount(torch.Tensor), sys.getrefcount(None)
    assert before[0] == after[0] and abs(before[1] - after[1]) < 10 and abs(before[2] - after[2]) < 100


def test_wrong_calls_of_the_builtin_itself():
    counted = Counted()
    assert counted.builtin() == counted.builtin(*counted.inputs) == _native.NOT_HANDLED
    with pytest.raises(TypeError):
        counted.builtin(*counted.inputs, *counted.run(), 3, 1, "schedule", 0, 0)


def test_many_threads_at_once():
    counted = [Counted((40 + i, 7), num_threads=1) for i in range(4)]

    def work(one):
        return [one.run() for _ in range(20)]

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, counted * 2))
    assert all(set(one.answers) == {0} for one in counted)


def test_it_can_be_turned_off():
    code = "from flashmla import _native; import torch; print(_native.make(None, torch.Tensor))"
    environment = os.environ | {"FLASHMLA_NATIVE": "0", "PYTHONPATH": os.path.dirname(os.path.dirname(flashmla.__file__))}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert result.stdout == "None\n"
