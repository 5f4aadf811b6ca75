"""The Python calls on a GPU: CUDA graphs, streams, both plan styles, other frameworks' tensors.

Skipped, as one, where flashmla has no usable GPU. Needs torch alone: without pytest, `python tests/python/test_cuda.py` runs every test
and ends with a summary line.
"""

import itertools
import sys
import unittest

try:
    import pytest
except ImportError:  # a GPU machine may have torch and no pytest
    pytest = None

try:
    import torch
    import upstream_dense
    from upstream_dense import Case, make_inputs

    import flashmla
    from flashmla.compat import flash_mla

    REASON = None if any(d.usable and d.device.startswith("cuda") for d in flashmla.devices()) else "no GPU that flashmla can use"
    if REASON is None and not torch.cuda.is_available():
        REASON = "torch sees no GPU"
except ImportError as error:
    REASON = str(error)

if pytest is not None:
    pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


def check_result(case, inputs, result):
    """`result` against float64."""
    q, cache, table, seqlens, _ = inputs
    out, lse = result
    for i, n in enumerate(seqlens.tolist()):
        keys = cache[table[i, : -(-n // case.page)].long()].reshape(-1, case.h_kv, 576)[:n]
        expected_out, expected_lse = upstream_dense.reference_of(case, q[i], keys)
        wrong = upstream_dense.difference(out[i], expected_out, **upstream_dense.OUT_BOUNDS)
        assert wrong is None, f"request {i}: out: {wrong}"
        wrong = upstream_dense.difference(lse[i], expected_lse, **upstream_dense.LSE_BOUNDS)
        assert wrong is None, f"request {i}: lse: {wrong}"


def drop_in(case, inputs, plan):
    return flash_mla.flash_mla_with_kvcache(*inputs[:4], 512, *plan, causal=case.causal)


def capture(call):
    """(graph, what the call returned); nothing ran before the capture."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()
    return graph, result


def replay(graph, result):
    for tensor in result:
        tensor.fill_(float("nan"))
    graph.replay()
    torch.cuda.synchronize()
    return result


def test_native_plan():
    case = Case(5, 2, 700, 16, True, True)
    inputs = make_inputs(case, "cuda")
    q, cache, table, seqlens, _ = inputs
    plan = flashmla.DecodePlan(h_q=16, kv_format="bf16_576", max_batch=5, max_q_tokens=2, causal=True, device="cuda")
    plan.update(seqlens)
    out, lse = plan.run(q, cache, table, seqlens)
    assert out.is_cuda and lse.is_cuda
    check_result(case, inputs, (out, lse))
    plan.run(q, cache, table, seqlens, out=out.fill_(float("nan")), lse=lse.fill_(float("nan")))
    check_result(case, inputs, (out, lse))
    assert plan.fault() is None
    assert plan.run(q, cache, table, seqlens, lse=False)[1] is None
    assert plan.describe()


def test_batch_invariance():
    """A request's bits are those of any batch that it is in, also in a graph, and right."""
    case = Case(6, 2, 3000, 16, True, True)
    inputs = make_inputs(case, "cuda")
    q, cache, table, seqlens, _ = inputs

    def call(which):
        rows = (q[which], cache, table[which], seqlens[which])
        return flash_mla.flash_mla_with_kvcache(*rows, 512, *flash_mla.get_mla_metadata(), causal=True, enable_batch_invariant=True)

    whole = call(slice(None))
    check_result(case, inputs, whole)
    for which in (slice(0, 1), slice(2, 4), slice(5, 6), torch.tensor([4, 1, 3], device="cuda")):
        part = call(which)
        assert torch.equal(part[0], whole[0][which]) and torch.equal(part[1], whole[1][which])
    graph, result = capture(lambda: call(slice(1, 5)))
    replayed = replay(graph, result)
    assert torch.equal(replayed[0], whole[0][1:5]) and torch.equal(replayed[1], whole[1][1:5])
    try:
        flashmla.DecodePlan(h_q=16, kv_format="bf16_576", max_batch=6, batch_invariant=True, device="cuda")
    except flashmla.Error as error:
        assert error.status == flashmla.Status.UNSUPPORTED and "max_kv_len" in str(error)
    else:
        raise AssertionError("a plan without max_kv_len was made")


def test_faults():
    case = Case(3, 1, 200, 16, False, False)
    q, cache, table, seqlens, _ = make_inputs(case, "cuda")
    plan = flashmla.DecodePlan(h_q=16, kv_format="bf16_576", max_batch=3, device="cuda")
    plan.update(seqlens)
    broken = table.clone()
    broken[1, 0] = -7
    plan.run(q, cache, broken, seqlens)
    assert plan.fault() == flashmla.Fault(flashmla.FaultCode.PAGE_ID, 1, 0, -7)
    assert plan.fault() is None


def test_object_as_the_measuring_scripts_use_it():
    """An eager first call, calls on a side stream, then a graph of several calls over several caches."""
    case = Case(4, 1, 1000, 16, True, False)
    inputs = make_inputs(case, "cuda")
    caches = [inputs[1], inputs[1] * 2]
    plan = flash_mla.get_mla_metadata()
    drop_in(case, inputs, plan)
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        for _ in range(2):
            drop_in(case, inputs, plan)
    torch.cuda.synchronize()
    graph, results = capture(lambda: [drop_in(case, (inputs[0], cache, *inputs[2:]), plan) for cache in caches])
    for _ in range(3):
        replay(graph, [tensor for result in results for tensor in result])
        for cache, result in zip(caches, results, strict=True):
            check_result(case, (inputs[0], cache, *inputs[2:]), result)


def change_in_place(inputs, case, seed):
    """Other lengths, tables and numbers in the same tensors; pages that the new request does not have stay as they are."""
    other = make_inputs(case, "cuda", seed)
    pages = min(other[1].shape[0], inputs[1].shape[0])
    inputs[0].copy_(other[0])
    inputs[1][:pages].copy_(other[1][:pages])
    inputs[2].fill_(upstream_dense.JUNK_PAGE)
    inputs[2][:, : other[2].shape[1]].copy_(other[2])
    inputs[3].copy_(other[3])


def roomy_inputs(case):
    """Inputs with room for the longest table and the largest cache of `change_in_place`."""
    q, cache, table, seqlens, lengths = make_inputs(case, "cuda")
    room = torch.zeros(8 * cache.shape[0] + 64, *cache.shape[1:], dtype=cache.dtype, device="cuda")
    room[: cache.shape[0]] = cache
    wide = torch.full((case.batch, 8 * table.shape[1]), upstream_dense.JUNK_PAGE, dtype=torch.int32, device="cuda")
    wide[:, : table.shape[1]] = table
    return [q, room, wide, seqlens, lengths]


def test_first_call_inside_a_capture():
    """The schedule is then made at each replay, from the lengths of that moment."""
    case = Case(7, 2, 900, 20, True, True, zeros=True)
    for arguments in (False, True):  # the object, and two tensors that are made inside the capture too
        inputs = roomy_inputs(case)

        def call(inputs=inputs, arguments=arguments):
            plan = flash_mla.get_mla_metadata(*((inputs[3], 2 * 20, 1) if arguments else ()))
            return drop_in(case, inputs, plan), plan

        graph, (result, _plan) = capture(call)
        for seed in range(4):
            change_in_place(inputs, case, seed)
            check_result(case, inputs, replay(graph, result))


def test_object_filled_by_a_capture_then_used_eagerly():
    """No replay has made the schedule yet, so the eager call has to; and a second graph makes its own."""
    case = Case(3, 1, 300, 16, True, False)
    inputs = roomy_inputs(case)
    plan = flash_mla.get_mla_metadata()
    first, first_result = capture(lambda: drop_in(case, inputs, plan))
    second, second_result = capture(lambda: drop_in(case, inputs, plan))
    check_result(case, inputs, drop_in(case, inputs, plan))
    change_in_place(inputs, case, 1)
    check_result(case, inputs, replay(second, second_result))
    check_result(case, inputs, replay(first, first_result))
    check_result(case, inputs, drop_in(case, inputs, plan))


def test_native_update_and_run_inside_a_capture():
    case = Case(6, 1, 2000, 128, True, False)
    inputs = roomy_inputs(case)
    plan = flashmla.DecodePlan(h_q=128, kv_format="bf16_576", max_batch=6, device="cuda")

    def call():
        plan.update(inputs[3])
        return plan.run(*inputs[:4])

    graph, result = capture(call)
    for seed in range(3):
        change_in_place(inputs, case, seed)
        check_result(case, inputs, replay(graph, result))
    assert plan.fault() is None


def test_tensors_are_kept_and_copied_as_engines_do():
    case = Case(5, 1, 500, 16, True, False)
    inputs = make_inputs(case, "cuda")
    rows, splits = flash_mla.get_mla_metadata(inputs[3], 16, 1)
    assert rows.is_cuda and splits.is_cuda and rows.shape[1] == 8 and splits.tolist()[0] == 0
    own_rows, own_splits = torch.zeros_like(rows), torch.zeros(65, dtype=torch.int32, device="cuda")
    own_rows.copy_(rows)
    own_splits[:6].copy_(splits)
    for num_splits in (own_splits[:6], None):
        check_result(case, inputs, drop_in(case, inputs, (own_rows, num_splits)))
    on_cpu = flash_mla.get_mla_metadata(inputs[3].cpu(), 16, 1)
    assert on_cpu[1].shape == splits.shape


def test_streams_at_once():
    """One object on several streams: each has a workspace of its own."""
    case = Case(2, 1, 20000, 16, False, False)
    inputs = make_inputs(case, "cuda")
    plan = flash_mla.get_mla_metadata()
    expected = drop_in(case, inputs, plan)
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in range(4)]
    results = []
    for _ in range(20):
        for stream in streams:
            with torch.cuda.stream(stream):
                results.append(drop_in(case, inputs, plan))
    torch.cuda.synchronize()
    for result in results:
        assert torch.equal(result[0], expected[0]) and torch.equal(result[1], expected[1])


def test_explicit_stream():
    case = Case(2, 1, 3000, 16, False, False)
    inputs = make_inputs(case, "cuda")
    torch.cuda.synchronize()
    plan = flashmla.DecodePlan(h_q=16, kv_format="bf16_576", max_batch=2, device="cuda:0")
    stream = torch.cuda.Stream()
    out = torch.empty(2, 1, 16, 512, dtype=torch.bfloat16, device="cuda")
    lse = torch.empty(2, 16, 1, device="cuda")
    for handle in (stream, stream.cuda_stream):
        out.fill_(float("nan"))
        torch.cuda.synchronize()
        plan.update(inputs[3], stream=handle)
        plan.run(*inputs[:4], out=out, lse=lse, stream=handle)
        stream.synchronize()
        check_result(case, inputs, (out, lse))


class Foreign:
    """A CUDA tensor of a framework that this package has never heard of."""

    def __init__(self, tensor):
        self.tensor, self.shape = tensor, tensor.shape

    def __dlpack__(self, *, stream=None):
        return self.tensor.__dlpack__(stream=stream)

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()


def test_dlpack():
    case = Case(2, 1, 300, 16, True, False)
    inputs = make_inputs(case, "cuda")
    plan = flashmla.DecodePlan(h_q=16, kv_format="bf16_576", max_batch=2, device="cuda")

    def memory(num_bytes):
        return torch.empty(num_bytes, dtype=torch.uint8, device="cuda")

    schedule, workspace = Foreign(memory(plan.schedule_bytes)), Foreign(memory(plan.workspace_bytes))
    q, cache, table, seqlens = (Foreign(tensor) for tensor in inputs[:4])
    out = torch.full((2, 1, 16, 512), float("nan"), dtype=torch.bfloat16, device="cuda")
    lse = torch.full((2, 16, 1), float("nan"), device="cuda")
    plan.reset(workspace)
    plan.update(seqlens, schedule=schedule)
    plan.run(q, cache, table, seqlens, out=Foreign(out), lse=Foreign(lse), schedule=schedule, workspace=workspace)
    check_result(case, inputs, (out, lse))
    assert plan.fault(workspace) is None


def test_values_of_256_numbers():
    """Keys of 256 latent numbers and 64 or 32 of RoPE: one tensor or two, pages of each kind."""
    for width, page, pair in itertools.product((320, 288), (64, 16, 1), (False, True)):
        generator = torch.Generator("cuda").manual_seed(width + page)
        lengths, pages = [100, 1, 0, 700], 801 // page + 4

        def random(*shape, generator=generator):
            return (torch.randn(*shape, device="cuda", generator=generator) / 10).bfloat16()

        table = torch.randperm(pages, device="cuda", generator=generator, dtype=torch.int32)
        table = torch.stack([torch.roll(table, 200 * i) for i in range(4)])
        kv_len = torch.tensor(lengths, dtype=torch.int32, device="cuda")
        q, kv = random(4, 2, 16, width), random(pages * page, width)
        slots = torch.arange(pages * page, device="cuda")
        cache = torch.full((pages, page, width), float("nan"), dtype=torch.bfloat16, device="cuda")
        flashmla.append(kv, cache, slots, kv_format=f"bf16_{width}")
        assert torch.equal(cache.view(-1, width), kv)

        def parts(tensor, pair=pair):
            return (tensor[..., :256].contiguous(), tensor[..., 256:].contiguous()) if pair else tensor

        plan = flashmla.DecodePlan(
            h_q=16, kv_format=f"bf16_{width}", page_tokens=page, max_batch=4, max_q_tokens=2, causal=True, device="cuda"
        )
        plan.update(kv_len)
        out, lse = plan.run(parts(q), parts(cache), table, kv_len)
        for i, n in enumerate(lengths):
            keys = cache[table[i, : -(-n // page)].long()].reshape(-1, width)[:n].double()
            scores = (q[i].double() @ keys.T).transpose(0, 1) * width**-0.5  # [h_q, s_q, n]
            scores.masked_fill_(~torch.ones(2, n, dtype=torch.bool, device="cuda").tril(n - 2), float("-inf"))
            expected = scores.softmax(-1).nan_to_num(0) @ keys[:, :256]
            wrong = upstream_dense.difference(out[i].transpose(0, 1), expected, **upstream_dense.OUT_BOUNDS)
            assert wrong is None, f"bf16_{width}, page {page}, pair {pair}, request {i}: out: {wrong}"
            expected = scores.logsumexp(-1)
            expected = torch.where(expected.isinf(), float("inf"), expected)
            wrong = upstream_dense.difference(lse[i], expected, **upstream_dense.LSE_BOUNDS)
            assert wrong is None, f"bf16_{width}, page {page}, pair {pair}, request {i}: lse: {wrong}"


def test_merge_and_append():
    cache = torch.zeros(3, 64, 576, dtype=torch.bfloat16, device="cuda")
    kv = torch.randn(4, 576, device="cuda").bfloat16()
    slots = torch.tensor([70, -1, 0, 191], device="cuda")
    fault = torch.zeros(8, dtype=torch.int32, device="cuda")
    flashmla.append(kv, cache, slots, kv_format="bf16_576", fault=fault)
    expected = torch.zeros_like(cache).view(-1, 576)
    expected[slots[slots >= 0]] = kv[slots >= 0]
    assert torch.equal(cache.view(-1, 576), expected) and flashmla.Fault.read(fault.cpu()) is None
    out, lse = torch.randn(3, 5, 16, 512, device="cuda"), torch.randn(3, 5, 16, device="cuda")
    merged, merged_lse = flashmla.merge(out, lse)
    weights = lse.double().softmax(0)
    torch.testing.assert_close(merged.double(), (weights[..., None] * out).sum(0), atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(merged_lse.double(), lse.double().logsumexp(0), atol=2e-6, rtol=1e-5)


def test_wrong_devices_and_pages():
    case = Case(2, 1, 100, 16, False, False)
    q, cache, table, seqlens, _ = make_inputs(case, "cuda")
    plan = flash_mla.get_mla_metadata()
    flash_mla.flash_mla_with_kvcache(q, cache, table, seqlens, 512, *plan)
    wrong = [
        (q.cpu(), cache, table, seqlens),
        (q, cache.cpu(), table, seqlens),
        (q, cache, table.cpu(), seqlens),
        (q, cache, table, seqlens.cpu()),
    ]
    for inputs in wrong:
        for use in (plan, flash_mla.get_mla_metadata()):
            refused(lambda inputs=inputs, use=use: flash_mla.flash_mla_with_kvcache(*inputs, 512, *use), flashmla.Status.INVALID_ARGUMENT)
    native = flashmla.DecodePlan(h_q=16, kv_format="bf16_576", max_batch=2, device="cuda")
    refused(lambda: native.update(seqlens.cpu()), flashmla.Status.INVALID_ARGUMENT)
    native.update(seqlens)
    refused(lambda: native.run(q.cpu(), cache, table, seqlens), flashmla.Status.INVALID_ARGUMENT)
    check_result(case, (q, cache, table, seqlens, None), native.run(q, cache, table, seqlens))
    small = Case(2, 1, 100, 16, False, False, page=16)
    inputs = make_inputs(small, "cuda")
    result = unless_unsupported(lambda: drop_in(small, inputs, flash_mla.get_mla_metadata()))
    if result is not None:
        check_result(small, inputs, result)
    check_result(case, (q, cache, table, seqlens, None), flash_mla.flash_mla_with_kvcache(q, cache, table, seqlens, 512, *plan))


def test_copy_pages_captured_and_replayed():
    """The pairs live in the graph: what becomes of the caller's lists does not matter. More layers and pairs than one launch takes."""
    caches = [torch.randn(900, 2, 576, device="cuda", dtype=torch.bfloat16) for _ in range(70)]
    copies = [[n, 450 + n] for n in range(420)] + [[-1, -1]]
    expected = [torch.cat([cache[:450], cache[:420], cache[870:]]) for cache in caches]

    def call():
        flashmla.copy_pages(caches, copies)
        return ()

    graph, _ = capture(call)
    copies.clear()
    assert all(not torch.equal(cache, want) for cache, want in zip(caches, expected))
    for _ in range(2):
        replay(graph, ())
        assert all(torch.equal(cache, want) for cache, want in zip(caches, expected))
        for cache in caches:
            cache[450:870] = 0
    refused(lambda: flashmla.copy_pages(caches, [[0, 900]]), flashmla.Status.INVALID_ARGUMENT)
    refused(lambda: flashmla.copy_pages([caches[0], caches[1].cpu()], [[0, 1]]), flashmla.Status.INVALID_ARGUMENT)


def unless_unsupported(call):
    """What the call gives, or None where the library says that it does not serve it."""
    try:
        return call()
    except flashmla.Error as error:
        if error.status is not flashmla.Status.UNSUPPORTED:
            raise
        return None


def refused(call, status):
    try:
        call()
    except flashmla.Error as error:
        assert error.status is status, str(error)
    else:
        raise AssertionError(f"nothing was refused, expected {status.name}")


def run_all(module, title, reason):
    """Every test of a module's globals without pytest; the exit code."""
    if reason is not None:
        print(f"{title}: skipped ({reason})")
        return 77
    passed = failed = skipped = 0
    for name, test in [(name, value) for name, value in module.items() if name.startswith("test_")]:
        try:
            test()
            torch.cuda.synchronize()
            passed += 1
        except unittest.SkipTest as why:
            skipped += 1
            print(f"skipped {name}: {why}", flush=True)
        except Exception as error:
            failed += 1
            print(f"FAILED {name}: {type(error).__name__}: {error}", flush=True)
    print(f"{title}: {passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(run_all(globals(), "python on cuda", REASON))
