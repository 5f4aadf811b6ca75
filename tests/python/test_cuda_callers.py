"""Other callers on a GPU: torch's operators, the drop-ins for FlashInfer and FlashAttention-3, JAX and CuPy arrays, the builtin's use.

Skipped, as one, where flashmla has no usable GPU, and by name where a framework is missing. Like test_cuda.py it needs torch alone:
`python tests/python/test_cuda_callers.py` runs every test without pytest.
"""

import importlib
import os
import sys
import unittest

try:
    import torch
    from test_cuda import REASON, capture, check_result, pytest, replay, run_all, unless_unsupported
    from upstream_dense import Case, make_inputs

    import flashmla
    import flashmla.torch_ops
    from flashmla.compat.flash_attn_3 import flash_attn_with_kvcache
    from flashmla.compat.flashinfer import BatchMLAPagedAttentionWrapper
except ImportError as error:
    from test_cuda import pytest, run_all

    REASON = str(error)

if pytest is not None:
    pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


def optional(name):
    """A module, or a test skipped by its name."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    try:
        return importlib.import_module(name)
    except Exception as error:  # some fail in other ways than ImportError where their libraries are missing
        skip(f"{name}: {error}")


def skip(reason):
    raise unittest.SkipTest(reason)  # which pytest knows too


def test_plain_tensors_take_the_builtin():
    if not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
        skip("torch before 2.10 has no DLPack exchange API")
    case = Case(3, 1, 300, 16, True, False)
    inputs = make_inputs(case, "cuda")
    plan = flashmla.DecodePlan(h_q=16, kv_format="bf16_576", max_batch=3, device="cuda")
    plan.update(inputs[3])
    runner = plan.torch_runner()
    assert runner.native is not None, "libflashmla_python.so is not beside libflashmla.so"
    builtin, answers = runner.native, []
    runner.native = lambda *arguments: answers.append(builtin(*arguments)) or answers[-1]
    check_result(case, inputs, plan.run(*inputs[:4]))
    with torch.cuda.stream(torch.cuda.Stream()):
        result = plan.run(*inputs[:4])
    torch.cuda.synchronize()
    check_result(case, inputs, result)
    assert answers == [0, 0]


def test_operators():
    case = Case(4, 2, 500, 16, True, True)
    inputs = make_inputs(case, "cuda")

    def step(q, cache, table, seqlens):
        schedule = flashmla.torch_ops.schedule(seqlens, q.shape[2], q.shape[1])
        return flashmla.torch_ops.decode(q, cache, table, seqlens, schedule=schedule, causal=True)

    check_result(case, inputs, step(*inputs[:4]))
    for backend in ("aot_eager", "inductor"):
        torch._dynamo.reset()
        check_result(case, inputs, torch.compile(step, fullgraph=True, backend=backend)(*inputs[:4]))
    check_result(case, inputs, torch.ops.flashmla.decode(*inputs[:4], causal=True))


HIDDEN = 256


class Attention(torch.nn.Module if REASON is None else object):
    """What a model does in a decoding step: project, attend to the cache, project back."""

    def __init__(self, case):
        super().__init__()
        self.case = case
        options = {"dtype": torch.bfloat16, "device": "cuda"}
        self.to_q = torch.nn.Parameter(torch.randn(HIDDEN, case.h_q * 576, **options) / 160, requires_grad=False)
        self.from_out = torch.nn.Parameter(torch.randn(case.h_q * 512, HIDDEN, **options) / 64, requires_grad=False)

    def forward(self, hidden, cache, table, seqlens):
        q = (hidden @ self.to_q).unflatten(-1, (self.case.h_q, 576))
        schedule = flashmla.torch_ops.schedule(seqlens, self.case.h_q, self.case.s_q)
        out, lse = flashmla.torch_ops.decode(q, cache, table, seqlens, schedule=schedule, causal=self.case.causal)
        return out.flatten(2) @ self.from_out, lse


def check_compiled(layers, mode):
    """Layers compiled whole, over calls whose lengths change, against the same in eager mode and against float64."""
    case = layers[0].case
    q, cache, table, seqlens, lengths = make_inputs(case, "cuda")
    torch._dynamo.mark_static_address(cache)  # as an engine does: the graph reads it where it is

    def step(hidden, *more):
        results = []
        for layer in layers:
            hidden, lse = layer(hidden, *more)
            results += [hidden, lse]
        return results

    torch._dynamo.reset()
    compiled = torch.compile(step, fullgraph=True, mode=mode)
    for turn in range(6):  # graph trees warm up, record, and then replay
        hidden = torch.randn(case.batch, case.s_q, HIDDEN, dtype=torch.bfloat16, device="cuda")
        shorter = torch.tensor([max(n - 37 * turn, 0 if turn == 5 else 1) for n in lengths], dtype=torch.int32, device="cuda")
        torch.compiler.cudagraph_mark_step_begin()
        results = [tensor.clone() for tensor in compiled(hidden, cache, table, shorter)]
        torch.testing.assert_close(results, step(hidden, cache, table, shorter), atol=2e-2, rtol=2e-2)
        rows = (hidden @ layers[0].to_q).unflatten(-1, (case.h_q, 576))
        result = flashmla.torch_ops.decode(rows, cache, table, shorter, causal=case.causal)
        check_result(case, (rows, cache, table, shorter, None), result)
        torch.testing.assert_close(results[1], result[1], atol=1e-3, rtol=1e-3)


def test_a_module_compiles_whole():
    torch.manual_seed(0)
    check_compiled([Attention(Case(4, 1, 700, 16, True, False))], "default")
    check_compiled([Attention(Case(3, 2, 500, 128, True, True))], "default")


def test_a_module_compiles_to_cuda_graphs():
    """mode="reduce-overhead": CUDA-graph trees, which complain about memory of their pool that is no output, and skip what they can't take."""
    from torch._dynamo.utils import counters

    torch.manual_seed(0)
    skips = counters["inductor"]["cudagraph_skips"]
    for case in (Case(4, 1, 700, 16, True, False), Case(3, 2, 500, 128, True, True)):
        check_compiled([Attention(case), Attention(case)], "reduce-overhead")
    assert counters["inductor"]["cudagraph_skips"] == skips, "the call was left out of the CUDA graph"


def test_memory_of_the_operators_is_outside_a_capture():
    from flashmla import torch as adapter

    like = torch.zeros(1, device="cuda")
    aside = []
    adapter._allocate_aside(aside, like.device, 4096)
    assert aside, "no memory was made aside"
    _, made = capture(lambda: [like.add_(1), adapter.lasting_buffer(like, 20 << 20, ("decode", "q"))])
    address = made[1][1]
    segments = [s for s in torch.cuda.memory_snapshot() if s["address"] <= address < s["address"] + s["total_size"]]
    assert [tuple(segment["segment_pool_id"]) for segment in segments] == [(0, 0)]


def flashinfer_lists(inputs, case):
    """(kv_indptr, kv_indices, kv_len_arr) of the drop-in from the page table."""
    table, lengths = inputs[2].tolist(), inputs[4]
    used = [-(-n // case.page) for n in lengths]
    indptr = torch.tensor([0, *used], dtype=torch.int32, device="cuda").cumsum(0).int()
    indices = torch.tensor([page for row, n in zip(table, used) for page in row[:n]], dtype=torch.int32, device="cuda")
    return indptr, indices, inputs[3]


def flashinfer_plan(wrapper, inputs, case):
    offsets = torch.arange(case.batch + 1, device="cuda").int() * case.s_q
    dtype = inputs[0].dtype
    wrapper.plan(offsets, *flashinfer_lists(inputs, case), case.h_q, 512, 64, case.page, case.causal, 576**-0.5, dtype, dtype)


def flashinfer_run(wrapper, inputs):
    """(out, lse) of the shapes and base of FlashMLA, so that check_result can judge them."""
    q, cache = inputs[0].flatten(0, 1), inputs[1][:, :, 0]
    return wrapper.run(q[..., :512], q[..., 512:], cache[..., :512], cache[..., 512:], return_lse=True, return_lse_base_on_e=True)


def as_flash_mla(case, result):
    out, lse = result
    lse = lse.unflatten(0, (case.batch, case.s_q)).transpose(1, 2)
    return out.unflatten(0, (case.batch, case.s_q)), torch.where(lse.isneginf(), float("inf"), lse)


def test_flashinfer_wrapper():
    for s_q, causal in ((1, False), (3, True)):
        case = Case(5, s_q, 900, 16, True, causal, zeros=True)
        inputs = make_inputs(case, "cuda")
        wrapper = BatchMLAPagedAttentionWrapper(torch.empty(1024, dtype=torch.int8, device="cuda"))
        flashinfer_plan(wrapper, inputs, case)
        check_result(case, inputs, as_flash_mla(case, flashinfer_run(wrapper, inputs)))
        split = [part.contiguous() for part in (inputs[1][:, :, 0, :512], inputs[1][:, :, 0, 512:])]
        q = inputs[0].flatten(0, 1)
        more = {"return_lse": True, "return_lse_base_on_e": True}
        result = unless_unsupported(lambda: wrapper.run(q[..., :512], q[..., 512:], *split, **more))
        if result is not None:
            check_result(case, inputs, as_flash_mla(case, result))


def test_flashinfer_ragged_queries():
    case = Case(3, 3, 700, 16, True, True)
    inputs = make_inputs(case, "cuda")
    lengths, q, cache = [1, 3, 1], inputs[0], inputs[1][:, :, 0]
    rows = torch.cat([q[i, 3 - n :] for i, n in enumerate(lengths)])
    wrapper = BatchMLAPagedAttentionWrapper(torch.empty(1024, dtype=torch.int8, device="cuda"))
    offsets = torch.tensor([0, 1, 4, 5], dtype=torch.int32, device="cuda")
    wrapper.plan(offsets, *flashinfer_lists(inputs, case), 16, 512, 64, 64, True, 576**-0.5, q.dtype, q.dtype)
    out = wrapper.run(rows[..., :512], rows[..., 512:], cache[..., :512], cache[..., 512:])
    native = flashmla.DecodePlan(h_q=16, kv_format="bf16_576", max_batch=3, max_q_tokens=3, causal=True, device="cuda")
    native.update(inputs[3])
    expected = native.run(*inputs[:4])[0]
    torch.testing.assert_close(out, torch.cat([expected[i, 3 - n :] for i, n in enumerate(lengths)]), atol=8e-4, rtol=2e-2)


def test_flashinfer_wrapper_in_a_graph():
    case = Case(4, 1, 700, 16, True, False)
    inputs = make_inputs(case, "cuda")
    room = torch.zeros(4096, *inputs[1].shape[1:], dtype=inputs[1].dtype, device="cuda")
    wrapper = BatchMLAPagedAttentionWrapper(
        torch.empty(1024, dtype=torch.int8, device="cuda"), use_cuda_graph=True, kv_indices=torch.zeros(4096, dtype=torch.int32)
    )
    held = [inputs[0].contiguous(), room]
    flashinfer_plan(wrapper, inputs, case)
    graph, result = capture(lambda: flashinfer_run(wrapper, held))
    for seed in range(3):
        inputs = make_inputs(case, "cuda", seed)
        held[0].copy_(inputs[0])
        room[: inputs[1].shape[0]].copy_(inputs[1])
        flashinfer_plan(wrapper, inputs, case)
        check_result(case, inputs, as_flash_mla(case, replay(graph, result)))


def test_flash_attn_3():
    case = Case(5, 2, 900, 16, True, True, zeros=True)
    inputs = make_inputs(case, "cuda")
    q, cache, table, seqlens, _ = inputs

    def call(q, **more):
        parts = {"q": q[..., 512:], "qv": q[..., :512], "k_cache": cache[..., 512:], "v_cache": cache[..., :512]}
        return flash_attn_with_kvcache(**parts, page_table=table, cache_seqlens=seqlens, causal=True, return_softmax_lse=True, **more)[:2]

    def judged(result):
        check_result(case, inputs, (result[0], torch.where(result[1].isneginf(), float("inf"), result[1])))

    judged(call(q))
    offsets = torch.arange(case.batch + 1, device="cuda").int() * 2
    flat = call(q.flatten(0, 1), cu_seqlens_q=offsets, max_seqlen_q=2)
    judged((flat[0].unflatten(0, (5, 2)), flat[1].unflatten(1, (5, 2)).transpose(0, 1)))
    graph, result = capture(lambda: call(q.flatten(0, 1), cu_seqlens_q=offsets, max_seqlen_q=2))
    replayed = replay(graph, result)
    assert torch.equal(replayed[0], flat[0]) and torch.equal(replayed[1], flat[1])
    # A graph replayed with other offsets: requests with 2, 0, 1, 2 and 1 query tokens, and rows of q that are nobody's.
    rows = [(0, 0), (0, 1), (2, 1), (3, 0), (3, 1), (4, 1)]
    flat_q = torch.stack([q[i, j] for i, j in rows] + [torch.full_like(q[0, 0], float("nan"))] * 4)
    graph, result = capture(lambda: call(flat_q, cu_seqlens_q=offsets, max_seqlen_q=2))
    whole = call(q)
    offsets.copy_(torch.tensor([0, 2, 2, 3, 5, 6], device="cuda"))
    out, lse = replay(graph, result)
    # Causal and bottom-right: a request of one query token has the last row of the uniform call.
    torch.testing.assert_close(out[:6], torch.stack([whole[0][i, j] for i, j in rows]), atol=8e-4, rtol=2e-2)
    torch.testing.assert_close(lse[:, :6].T, torch.stack([whole[1][i, :, j] for i, j in rows]), atol=1e-5, rtol=1e-4)
    parts = {"k_cache": cache[..., 512:].contiguous(), "v_cache": cache[..., :512].contiguous(), "cache_seqlens": seqlens, "causal": True}
    more = {"qv": q[..., :512], "page_table": table, "return_softmax_lse": True}
    result = unless_unsupported(lambda: flash_attn_with_kvcache(q[..., 512:], **parts, **more))
    if result is not None:
        judged(result[:2])


def check_foreign(from_numpy, to_numpy):
    """`update`, `run` and `merge` with arrays of another framework; everything was waited for when `to_numpy` reads."""
    case = Case(4, 1, 3000, 16, True, False, dtype=torch.float16)
    inputs = make_inputs(case, "cuda")
    arrays = [from_numpy(tensor.cpu().numpy()) for tensor in inputs[:4]]
    plan = flashmla.DecodePlan(h_q=16, kv_format="fp16_576", max_batch=4, device="cuda")
    for _ in range(20):
        plan.update(arrays[3])
        out, lse = plan.run(*arrays)
        assert type(out) is type(lse) is type(arrays[0])
        check_result(case, inputs, tuple(torch.from_numpy(to_numpy(array)).cuda() for array in (out, lse)))
    assert plan.fault() is None
    parts, lses = torch.randn(3, 5, 16, 512), torch.randn(3, 5, 16)
    merged, merged_lse = (torch.from_numpy(to_numpy(array)) for array in flashmla.merge(from_numpy(parts.numpy()), from_numpy(lses.numpy())))
    expected = (lses.double().softmax(0)[..., None] * parts).sum(0)
    torch.testing.assert_close(merged.double(), expected, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(merged_lse.double(), lses.double().logsumexp(0), atol=2e-6, rtol=1e-5)


def check_foreign_writes(from_numpy, to_numpy):
    """`append` and `copy_pages` into arrays of another framework."""
    kv, slots = torch.randn(4, 576).half(), torch.tensor([70, -1, 0, 131])
    expected = torch.zeros(3, 64, 576).half()
    expected.view(-1, 576)[slots[slots >= 0]] = kv[slots >= 0]
    cache = from_numpy(torch.zeros(3, 64, 576).half().numpy())
    fault = from_numpy(torch.zeros(8, dtype=torch.int32).numpy())
    flashmla.append(from_numpy(kv.numpy()), cache, from_numpy(slots.numpy()), kv_format="fp16_576", fault=fault)
    assert torch.equal(torch.from_numpy(to_numpy(cache)), expected) and flashmla.Fault.read(to_numpy(fault)) is None
    flashmla.copy_pages([cache], [(1, 0)])
    expected[0] = expected[1]
    assert torch.equal(torch.from_numpy(to_numpy(cache)), expected)


def test_jax_arrays():
    jax, numpy = optional("jax"), optional("numpy")
    try:
        device = jax.devices("cuda")[0]
    except RuntimeError as error:
        skip(f"jax: {error}")
    check_foreign(lambda array: jax.device_put(array, device), lambda array: numpy.array(array))


def test_cupy_arrays():
    cupy = optional("cupy")
    check_foreign(cupy.asarray, cupy.asnumpy)
    check_foreign_writes(cupy.asarray, cupy.asnumpy)


if __name__ == "__main__":
    sys.exit(run_all(globals(), "other callers on cuda", REASON))
