"""The operators of torch: their results, what torch.library.opcheck says, and a module that is compiled whole."""

import shutil

import pytest

torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402
from arrays import KINDS  # noqa: E402
from reference import assert_close, assert_decode, make_case, merge  # noqa: E402
from test_bad_input import check  # noqa: E402

import flashmla  # noqa: E402
import flashmla.torch_ops  # noqa: E402, F401
from flashmla import Status  # noqa: E402

OPS = torch.ops.flashmla
KIND = next(kind for kind in KINDS if kind.name == "torch-bf16")


def tensors_of(case):
    return [KIND.from_numpy(a) for a in (*case.as_type(KIND.element), case.page_table, case.kv_len)]


CASE = make_case([100, 0, 65], h_q=8, s_q=2, causal=True, element=KIND.element)


def assert_result(result, case=CASE):
    assert_decode(KIND.to_float64(result[0]), KIND.to_float64(result[1]), case)


def test_decode_with_and_without_a_schedule():
    inputs = tensors_of(CASE)
    schedule = OPS.schedule(inputs[3], 8, 2)
    for _ in range(3):  # wherever the allocator puts it
        schedule = torch.cat([schedule.new_zeros(1), schedule])[1:]
        assert_result(OPS.decode(*inputs, schedule=schedule, causal=True))
    assert_result(OPS.decode(*inputs, causal=True))
    out, lse = torch.full((3, 2, 8, 512), float("nan"), dtype=torch.bfloat16), torch.full((3, 8, 2), float("nan"))
    assert OPS.decode_out(*inputs, out, lse, schedule=schedule, causal=True) is None
    assert_result((out, lse))


def test_options():
    inputs = tensors_of(CASE)
    out, lse = OPS.decode(*inputs, causal=True)
    partial, lse_2 = OPS.decode(*inputs, causal=True, lse_base="base_2", empty_row="minus_inf", out_dtype=torch.float32)
    assert partial.dtype == torch.float32 and torch.allclose(partial, out.float(), atol=1e-2)
    seen = ~lse.isinf()
    assert torch.allclose(lse_2[seen], lse[seen] * np.log2(np.e)) and (lse_2[~seen] == -float("inf")).all()
    assert not torch.allclose(OPS.decode(*inputs, causal=True, scale=0.5)[1][seen], lse[seen])
    visible = torch.tensor([99, 100, 0, 0, 64, 65], dtype=torch.int32)
    assert torch.equal(OPS.decode(*inputs, visible_len=visible)[0], out)
    sunk = OPS.decode(*inputs, causal=True, sink=torch.full((8,), float("inf")))[0]
    assert (sunk == 0).all()


@pytest.mark.parametrize("kv_format, qk_dim", [("bf16_320", 320), ("bf16_288", 288)])
def test_values_of_256_numbers(kv_format, qk_dim):
    case = make_case([100, 0, 65], h_q=8, s_q=2, causal=True, element=KIND.element, dims=(qk_dim, 256))
    q, cache, table, kv_len = tensors_of(case)
    emptied = torch.where(cache.isnan(), cache, 0)
    slots = torch.arange(cache.shape[0] * cache.shape[1])
    OPS.append(emptied, cache.view(-1, qk_dim), slots, kv_format=kv_format)
    schedule = OPS.schedule(kv_len, 8, 2, kv_format=kv_format)
    out, lse = OPS.decode(q, emptied, table, kv_len, schedule=schedule, causal=True, kv_format=kv_format)
    assert_result((out, lse), case)
    with torch._subclasses.FakeTensorMode() as fake:
        made = OPS.decode(*(fake.from_tensor(t) for t in (q, cache, table, kv_len)), causal=True, kv_format=kv_format)
        assert made[0].shape == out.shape and made[1].shape == lse.shape
    check(lambda: OPS.decode(q, cache, table, kv_len), Status.INVALID_ARGUMENT, f"q: got dim 3 = {qk_dim}, expected 576")
    check(lambda: OPS.decode(q, cache, table, kv_len, kv_format="bf16"), Status.INVALID_ARGUMENT, "kv_format: got 'bf16'")


RAGGED_ROWS = [(0, 1), (2, 0), (2, 1)]  # of CASE: one query token, none, both


def ragged_inputs():
    q, cache, table, kv_len = tensors_of(CASE)
    return torch.stack([q[i, j] for i, j in RAGGED_ROWS] + [q[0, 0] * float("nan")]), cache, table, kv_len


def test_ragged_queries():
    inputs, offsets = ragged_inputs(), torch.tensor([0, 1, 1, 3], dtype=torch.int32)
    whole = OPS.decode(*tensors_of(CASE), causal=True)
    expected = [torch.stack([part[i, j] for i, j in RAGGED_ROWS]) for part in (whole[0], whole[1].mT)]
    for schedule in (None, OPS.schedule(inputs[3], 8, 2, q_offsets=offsets)):
        out, lse = OPS.decode(*inputs, schedule=schedule, causal=True, q_offsets=offsets, max_q_tokens=2)
        assert out.shape == (4, 8, 512) and lse.shape == (8, 4)
        torch.testing.assert_close(out[:3], expected[0])
        torch.testing.assert_close(lse[:, :3].T, expected[1])
    check(lambda: OPS.decode(*inputs, q_offsets=offsets), Status.INVALID_ARGUMENT, "max_q_tokens: got 0, expected at least 1")
    words = "q: got rank 4, expected rank 3"
    check(lambda: OPS.decode(*tensors_of(CASE), q_offsets=offsets, max_q_tokens=2), Status.INVALID_ARGUMENT, words)


def test_a_ragged_call_compiles_whole():
    def step(q, cache, table, kv_len, offsets):
        schedule = OPS.schedule(kv_len, q.shape[1], 2, q_offsets=offsets)
        return OPS.decode(q * 1.0, cache, table, kv_len, schedule=schedule, causal=True, q_offsets=offsets, max_q_tokens=2)

    inputs = ragged_inputs()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for numbers in ([0, 1, 1, 3], [0, 0, 1, 3]):
        offsets = torch.tensor(numbers, dtype=torch.int32)
        for ours, theirs in zip(compiled(*inputs, offsets), step(*inputs, offsets)):
            assert torch.equal(ours[:3] if ours.dim() == 3 else ours[:, :3], theirs[:3] if ours.dim() == 3 else theirs[:, :3])


def test_append_and_merge():
    cache, kv = torch.zeros(3, 16, 576, dtype=torch.bfloat16), torch.randn(2, 576).bfloat16()
    OPS.append(cache, kv, torch.tensor([17, -1]))
    OPS.append(cache, kv[:, :512], torch.tensor([-1, 0]), kv[:, 512:])
    assert torch.equal(cache[1, 1], kv[0]) and torch.equal(cache[0, 0], kv[1]) and cache.count_nonzero() == kv.count_nonzero()
    outs, lses = torch.randn(3, 4, 8, 512), torch.randn(3, 4, 8)
    out, lse = OPS.merge(outs, lses, out_dtype=torch.float32)
    expected_out, expected_lse = merge(outs.double().numpy(), lses.double().numpy())
    assert_close(out, expected_out, absolute=1e-6, relative=1e-5)
    assert_close(lse, expected_lse, absolute=1e-6, relative=1e-5)


def test_refusals_name_the_argument():
    q, cache, table, kv_len = tensors_of(CASE)
    for call, words in [
        (lambda: OPS.decode(q[0], cache, table, kv_len), "q: got rank 3"),
        (lambda: OPS.decode(q, cache[0, 0], table, kv_len), "cache: got rank 2"),
        (lambda: OPS.decode(q, cache, table.long(), kv_len), "page_table: got dtype INT64"),
        (lambda: OPS.decode(q, cache, table, kv_len, out_dtype=torch.int32), "out_dtype: got torch.int32"),
        (lambda: OPS.decode(q, cache, table, kv_len, lse_base="ten"), "lse_base: got 'ten'"),
        (lambda: OPS.decode(q, cache, table, kv_len, schedule=torch.zeros(7, dtype=torch.uint8)), "schedule: got 7 bytes"),
        (lambda: OPS.merge(torch.zeros(1, 1, 1, 8), torch.zeros(1, 1, 1), out_dtype=torch.int8), "out_dtype: got torch.int8"),
    ]:
        check(call, Status.INVALID_ARGUMENT, words)
    check(lambda: OPS.decode(q, cache.double(), table, kv_len), Status.UNSUPPORTED, "cache: got dtype torch.float64")


def test_float32():
    q, cache, table, kv_len = tensors_of(CASE)
    out, lse = OPS.decode(q, cache, table, kv_len)
    out_32, lse_32 = OPS.decode(q.float(), cache.float(), table, kv_len)
    assert out_32.dtype == torch.float32
    assert torch.allclose(out_32, out.float(), atol=1e-2) and torch.allclose(lse_32, lse, atol=1e-3)


CHECKED = {
    "decode": lambda q, cache, table, kv_len: ((q, cache, table, kv_len), {"causal": True}),
    "decode_out": lambda *inputs: ((*inputs, torch.zeros(3, 2, 8, 512, dtype=torch.bfloat16), torch.zeros(3, 8, 2)), {}),
    "schedule": lambda q, cache, table, kv_len: ((kv_len, 8, 2), {}),
    "ragged decode": lambda q, cache, table, kv_len: (
        (q.flatten(0, 1), cache, table, kv_len),
        {"q_offsets": torch.tensor([0, 1, 4, 6], dtype=torch.int32), "max_q_tokens": 3},
    ),
    "append": lambda q, cache, table, kv_len: ((cache, torch.ones(1, 576).bfloat16(), torch.tensor([3])), {}),
    "merge": lambda *_: ((torch.randn(2, 3, 8, 512), torch.randn(2, 3, 8)), {}),
}


@pytest.mark.parametrize("name", CHECKED)
def test_opcheck(name):
    case = make_case([100, 5, 65], h_q=8, s_q=2, causal=True, element=KIND.element, poison=False)
    arguments, more = CHECKED[name](*tensors_of(case))
    torch.library.opcheck(getattr(OPS, name.split()[-1]).default, arguments, more)


class Layer(torch.nn.Module):
    """A decoding step of one attention layer: the new tokens go to the cache, then everything is attended to."""

    def __init__(self):
        super().__init__()
        self.project = torch.nn.Linear(512, 16, dtype=torch.bfloat16)

    def forward(self, q, cache, page_table, kv_len, kv, slots):
        flashmla.torch_ops.append(cache, kv, slots)
        schedule = flashmla.torch_ops.schedule(kv_len, q.shape[2])
        out, lse = flashmla.torch_ops.decode(q * 1.0, cache, page_table, kv_len, schedule=schedule)
        return self.project(out).float().sin(), lse


def layer_inputs(lengths):
    """Inputs of a step that appends the last token of each request, and what the step should give."""
    case = make_case(lengths, h_q=8, element=KIND.element)
    q, cache, table, kv_len = tensors_of(case)
    last = kv_len.long() - 1
    slots = table.gather(1, last[:, None] // 64)[:, 0].long() * 64 + last % 64
    kv = cache.view(-1, 576)[slots].clone()
    before = cache.clone()
    before.view(-1, 576)[slots] = float("nan")
    return (q, before, table, kv_len, kv, slots), cache, case


@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_a_module_compiles_whole(backend):
    if backend == "inductor" and shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("inductor needs a C++ compiler")
    torch.manual_seed(0)
    layer = Layer().requires_grad_(False)
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend=backend)
    for lengths in ([100, 3, 65], [64, 200, 1], [1, 130]):  # the last one is of another batch, and traced with a symbolic one
        inputs, cache, case = layer_inputs(lengths)
        result = compiled(*inputs)
        assert torch.equal(inputs[1].view(torch.int16), cache.view(torch.int16))  # appended in place
        expected = layer(*layer_inputs(lengths)[0])
        torch.testing.assert_close(result, expected, atol=1e-2, rtol=1e-2)
        assert_result((decode_again(inputs), result[1]), case)


def decode_again(inputs):
    return OPS.decode(*inputs[:4])[0]


def test_mutation_is_declared():
    for name, mutated in (("append", {"cache"}), ("decode_out", {"out", "lse"}), ("decode", set())):
        arguments = getattr(OPS, name).default._schema.arguments
        assert {a.name for a in arguments if a.alias_info is not None and a.alias_info.is_write} == mutated
