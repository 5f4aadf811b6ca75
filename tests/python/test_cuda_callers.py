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
    from test_cuda import REASON, capture, check_result, pytest, refused, replay, run_all
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
        refused(lambda: wrapper.run(q[..., :512], q[..., 512:], *split), flashmla.Status.UNSUPPORTED)


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


def test_flashinfer_itself():
    """Both wrappers on the same tensors, where FlashInfer is installed and can make its kernel."""
    theirs = optional("flashinfer")
    case = Case(5, 1, 900, 16, True, False)
    inputs = make_inputs(case, "cuda")
    inputs[1].nan_to_num_()  # FlashInfer reads what lies past a length
    results = []
    for kind in (theirs.mla.BatchMLAPagedAttentionWrapper, BatchMLAPagedAttentionWrapper):
        wrapper = kind(torch.empty(128 << 20, dtype=torch.int8, device="cuda"), backend="fa3")
        flashinfer_plan(wrapper, inputs, case)
        results.append(flashinfer_run(wrapper, [inputs[0].contiguous(), inputs[1]]))
        q, cache = inputs[0].flatten(0, 1).contiguous(), inputs[1][:, :, 0]
        results.append(wrapper.run(q[..., :512], q[..., 512:], cache[..., :512], cache[..., 512:], return_lse=True))
    for their, own in zip(results[:2], results[2:]):
        torch.testing.assert_close(own[0].float(), their[0].float(), atol=2e-3, rtol=2e-2)
        torch.testing.assert_close(own[1], their[1], atol=1e-3, rtol=1e-3)


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
    parts = {"k_cache": cache[..., 512:].contiguous(), "v_cache": cache[..., :512].contiguous()}
    refused(lambda: flash_attn_with_kvcache(q[..., 512:], **parts, qv=q[..., :512], page_table=table), flashmla.Status.UNSUPPORTED)


def check_foreign(from_numpy, to_numpy):
    """`update` and `run` with arrays of another framework, and appending with them; everything was waited for when `to_numpy` reads."""
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


if __name__ == "__main__":
    sys.exit(run_all(globals(), "other callers on cuda", REASON))
