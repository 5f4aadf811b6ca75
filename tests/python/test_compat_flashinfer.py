"""The drop-in for FlashInfer's MLA wrapper, on CPU tensors, called as its own documentation and the engines call it."""

import inspect

import pytest

torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402
from arrays import KINDS  # noqa: E402
from reference import assert_close, decode, make_case  # noqa: E402
from test_bad_input import check  # noqa: E402

from flashmla import Status  # noqa: E402
from flashmla.compat.flashinfer import BatchMLAPagedAttentionWrapper  # noqa: E402

KIND = {kind.name: kind for kind in KINDS}


class Call:
    """Requests of given query lengths over pages of given size, as FlashInfer takes them, and what they should give."""

    def __init__(self, lengths, q_lengths, *, page=64, heads=16, causal=False, kind="torch-bf16", fused=True):
        kind = self.kind = KIND[kind]
        longest = max(q_lengths, default=1)
        self.case = make_case(lengths, h_q=heads, s_q=longest, page=page, causal=causal, element=kind.element)
        self.q_lengths, self.page, self.heads, self.causal = q_lengths, page, heads, causal
        q, cache = (kind.from_numpy(a) for a in self.case.as_type(kind.element))
        # Bottom-right: the last rows of q are those of a shorter request.
        q = torch.cat([q[:0, 0], *(q[i, longest - n :] for i, n in enumerate(q_lengths))])
        cache = cache[:, :, 0]
        self.tensors = [q[..., :512], q[..., 512:], cache[..., :512], cache[..., 512:]]
        if not fused:
            self.tensors = [tensor.contiguous() for tensor in self.tensors]
        used = [-(-n // page) for n in lengths]
        self.lists = {
            "qo_indptr": torch.tensor(np.cumsum([0, *q_lengths]), dtype=torch.int32),
            "kv_indptr": torch.tensor(np.cumsum([0, *used]), dtype=torch.int32),
            "kv_indices": torch.tensor(
                [p for row, n in zip(self.case.page_table.tolist(), used) for p in row[:n]] + [-7], dtype=torch.int32
            ),
            "kv_len_arr": torch.tensor(lengths, dtype=torch.int32),
        }

    def plan_arguments(self, **change):
        dtype = self.tensors[0].dtype
        scalars = {"num_heads": self.heads, "head_dim_ckv": 512, "head_dim_kpe": 64, "page_size": self.page, "causal": self.causal,
                   "sm_scale": 576**-0.5, "q_data_type": dtype, "kv_data_type": dtype}  # fmt: skip
        return self.lists | scalars | change

    def check(self, out, lse, natural=False):
        expected_out, expected_lse = decode(self.case)
        longest = expected_out.shape[1]
        rows = [(i, longest - n + j) for i, n in enumerate(self.q_lengths) for j in range(n)]
        wanted_out = np.array([expected_out[i, j] for i, j in rows]).reshape(len(rows), self.heads, 512)
        wanted_lse = np.array([expected_lse[i, :, j] for i, j in rows]).reshape(len(rows), self.heads)
        wanted_lse = np.where(np.isposinf(wanted_lse), -np.inf, wanted_lse * (1 if natural else np.log2(np.e)))
        assert_close(self.kind.to_float64(out), wanted_out, absolute=8e-4, relative=2.01 / 128, cosine=5e-6)
        assert_close(self.kind.to_float64(lse), wanted_lse, absolute=2e-6, relative=8.01 / 65536)


def wrapper_of(**more):
    return BatchMLAPagedAttentionWrapper(torch.empty(1 << 10, dtype=torch.int8), backend="fa3", **more)


CALLS = {
    "decode": ([100, 64, 0, 257], [1, 1, 1, 1], {}),
    "pages of one": ([100, 3], [1, 1], {"page": 1, "kind": "torch-fp16"}),
    "two tensors": ([100, 70], [1, 1], {"page": 16, "fused": False}),
    "incremental": ([100, 64, 9], [3, 3, 3], {"causal": True, "heads": 20}),
    "ragged": ([100, 64, 0, 9, 130], [3, 1, 1, 0, 3], {"causal": True}),
    "ragged, no mask": ([100, 64, 9], [2, 5, 2], {"heads": 3}),
    "one has none": ([100, 64], [2, 0], {"causal": True}),
    "no requests": ([], [], {}),
}


@pytest.mark.parametrize("name", CALLS)
def test_against_the_reference(name):
    lengths, q_lengths, more = CALLS[name]
    call, wrapper = Call(lengths, q_lengths, **more), wrapper_of()
    wrapper.plan(**call.plan_arguments())
    call.check(*wrapper.run(*call.tensors, return_lse=True))
    call.check(*wrapper.run(*call.tensors, return_lse=True, return_lse_base_on_e=True), natural=True)
    out, lse = torch.full_like(call.tensors[0], float("nan")).contiguous(), torch.full(call.tensors[0].shape[:2], float("nan"))
    assert wrapper.run(*call.tensors, out=out) is out
    assert wrapper.run(*call.tensors, out, lse, True)[1] is lse
    call.check(out, lse)


def test_as_the_documentation_calls_it():
    """The example of FlashInfer's own page: positional, pages of one token, one query token a request."""
    batch, heads, tokens = 5, 8, 33
    q_indptr = torch.arange(0, batch + 1).int()
    kv_lens = torch.full((batch,), tokens, dtype=torch.int32)
    kv_indptr, kv_indices = torch.arange(0, batch + 1).int() * tokens, torch.arange(0, batch * tokens).int()
    q_nope, q_pe = torch.randn(batch, heads, 512).bfloat16(), torch.zeros(batch, heads, 64).bfloat16()
    ckv, kpe = torch.randn(batch * tokens, 1, 512).bfloat16(), torch.zeros(batch * tokens, 1, 64).bfloat16()
    wrapper = BatchMLAPagedAttentionWrapper(torch.empty(128, dtype=torch.int8), backend="fa2")
    wrapper.plan(q_indptr, kv_indptr, kv_indices, kv_lens, heads, 512, 64, 1, False, 192**-0.5, q_nope.dtype, ckv.dtype)
    out = wrapper.run(q_nope, q_pe, ckv, kpe, return_lse=False)
    keys = ckv.view(batch, tokens, 512).float()
    expected = torch.softmax(q_nope.float() @ keys.mT * 192**-0.5, -1) @ keys
    torch.testing.assert_close(out.float(), expected, atol=1e-2, rtol=2e-2)


def test_a_graphs_buffers_stay_where_they_are():
    """With use_cuda_graph every plan writes the tensors that a captured run reads."""
    first = Call([100, 64], [1, 1])
    wrapper = wrapper_of(use_cuda_graph=True, kv_indices=torch.zeros(40, dtype=torch.int32))
    addresses = set()
    for lengths in ([100, 64], [700, 1], [0, 2000]):
        call = Call(lengths, [1, 1])
        wrapper.plan(**call.plan_arguments())
        call.check(*wrapper.run(*call.tensors, return_lse=True))
        step = wrapper._step
        addresses.add((step.kv_len.data_ptr(), step.page_table.data_ptr(), step.schedule.address))
    assert len(addresses) == 1
    for other, words in [
        (Call([100, 64], [2, 2]), "qo_indptr: got other query lengths"),
        (Call([100, 64], [1, 1], heads=8), "or another problem"),
        (Call([41 * 64, 64], [1, 1]), "kv_indptr: got a request of 41 pages, expected at most 40"),
    ]:
        check(lambda: wrapper.plan(**other.plan_arguments()), Status.INVALID_ARGUMENT, "flashinfer_plan", words)
    wrapper.plan(**first.plan_arguments())
    first.check(*wrapper.run(*first.tensors, return_lse=True))


def test_a_graph_of_ragged_queries_takes_other_lengths():
    """Query lengths of their own may change from plan to plan, up to the first one's longest, in the same memory."""
    wrapper = wrapper_of(use_cuda_graph=True, kv_indices=torch.zeros(40, dtype=torch.int32))
    addresses = set()
    for q_lengths in ([1, 3, 1], [2, 2, 1], [1, 1, 1], [0, 4, 0]):
        call = Call([100, 64, 9], q_lengths, causal=True)
        wrapper.plan(**call.plan_arguments())
        spare = [torch.cat([part, part.new_full((2, *part.shape[1:]), float("nan"))]) for part in call.tensors[:2]]
        out, lse = wrapper.run(*spare, *call.tensors[2:], return_lse=True)
        n = sum(q_lengths)
        call.check(out[:n], lse[:n])
        addresses.add((wrapper._step.q_offsets.data_ptr(), wrapper._step.kv_len.data_ptr(), wrapper._step.schedule.address))
    assert len(addresses) == 1
    for other in (Call([100, 64, 9], [1, 5, 1]), Call([100, 64], [1, 3])):
        check(lambda: wrapper.plan(**other.plan_arguments()), Status.INVALID_ARGUMENT, "qo_indptr: got other query lengths")


def test_signatures():
    assert list(inspect.signature(BatchMLAPagedAttentionWrapper.__init__).parameters)[1:] == [
        "float_workspace_buffer", "use_cuda_graph", "qo_indptr", "kv_indptr", "kv_indices", "kv_len_arr", "backend",
    ]  # fmt: skip
    assert list(inspect.signature(BatchMLAPagedAttentionWrapper.plan).parameters)[1:] == [
        "qo_indptr", "kv_indptr", "kv_indices", "kv_len_arr", "num_heads", "head_dim_ckv", "head_dim_kpe", "page_size", "causal", "sm_scale",
        "q_data_type", "kv_data_type", "use_profiler",
    ]  # fmt: skip
    assert list(inspect.signature(BatchMLAPagedAttentionWrapper.run).parameters)[1:] == [
        "q_nope", "q_pe", "ckv_cache", "kpe_cache", "out", "lse", "return_lse", "profiler_buffer", "kv_len", "page_table",
        "return_lse_base_on_e",
    ]  # fmt: skip


INVALID, UNSUPPORTED = Status.INVALID_ARGUMENT, Status.UNSUPPORTED
BAD_PLANS = [
    ({"head_dim_ckv": 256}, UNSUPPORTED, "head_dim_ckv: got 256, expected 512"),
    ({"head_dim_kpe": 32}, UNSUPPORTED, "head_dim_kpe"),
    ({"use_profiler": True}, UNSUPPORTED, "use_profiler: got True"),
    ({"kv_data_type": torch.float8_e4m3fn}, UNSUPPORTED, "kv_data_type: got torch.float8_e4m3fn"),
    ({"q_data_type": torch.float16}, UNSUPPORTED, "q_data_type: got torch.float16, expected torch.bfloat16"),
    ({"page_size": 0}, INVALID, "page_size: got 0"),
    ({"num_heads": 129}, UNSUPPORTED, "num_heads: got 129"),
    ({"sm_scale": -1.0}, INVALID, "sm_scale: got -1.0"),
    ({"sm_scale": None}, INVALID, "sm_scale: got None"),
    ({"qo_indptr": torch.tensor([0, 2, 1])}, INVALID, "qo_indptr: got [0, 2, 1]"),
    ({"qo_indptr": torch.tensor([0.0, 1.0])}, INVALID, "qo_indptr: got a torch.float32 tensor [2]"),
    ({"qo_indptr": torch.tensor([0, 1])}, INVALID, "kv_indptr: got 3 offsets, expected 2"),
    ({"kv_indptr": torch.tensor([1, 2, 3])}, INVALID, "kv_indptr: got [1, 2, 3]"),
    ({"kv_indices": torch.tensor([0])}, INVALID, "kv_indices: got a torch.int64 tensor [1]"),
    ({"kv_len_arr": torch.tensor([1])}, INVALID, "kv_len_arr"),
    ({"kv_len_arr": torch.tensor([129, 1])}, INVALID, "kv_len_arr[0]: got 129, expected 0 .. 128 (2 pages of 64 tokens)"),
    ({"kv_len_arr": torch.tensor([1, -1])}, INVALID, "kv_len_arr[1]: got -1"),
]


@pytest.mark.parametrize("change, status, words", BAD_PLANS, ids=[w for _, _, w in BAD_PLANS])
def test_bad_plan(change, status, words):
    call, wrapper = Call([100, 64], [1, 1]), wrapper_of()
    wrapper.plan(**call.plan_arguments())
    check(lambda: wrapper.plan(**call.plan_arguments(**change)), status, "flashinfer_plan", words)
    call.check(*wrapper.run(*call.tensors, return_lse=True))  # the plan before still holds


def test_bad_run():
    call, wrapper = Call([100, 64], [1, 1]), wrapper_of()
    check(lambda: wrapper.run(*call.tensors), INVALID, "plan: got none")
    wrapper.plan(**call.plan_arguments())
    names = ("q_nope", "q_pe", "ckv_cache", "kpe_cache")
    good = dict(zip(names, call.tensors))
    for change, status, words in [
        ({"q_nope": good["q_nope"][:1]}, INVALID, "q_nope: got shape [1, 16, 512], expected [2, 16, dim]"),
        ({"q_pe": good["q_pe"][..., :32]}, INVALID, "q_pe: got dim 3 = 32, expected 64"),
        ({"q_nope": good["q_nope"].half()}, INVALID, "q_nope: got dtype FP16"),
        ({"ckv_cache": good["ckv_cache"][:, :32]}, INVALID, "ckv_cache: got dim 1 = 32, expected 64"),
        ({"kpe_cache": None}, INVALID, "kpe_cache: got None"),
        ({"out": torch.zeros(2, 16, 576)}, INVALID, "out: got a torch.float32 tensor [2, 16, 576]"),
        ({"lse": torch.zeros(2, 15)}, INVALID, "lse"),
        ({"profiler_buffer": torch.zeros(1)}, UNSUPPORTED, "profiler_buffer"),
        ({"kv_len": call.lists["kv_len_arr"]}, UNSUPPORTED, "kv_len"),
        ({"page_table": torch.zeros(1)}, UNSUPPORTED, "page_table"),
    ]:
        check(lambda: wrapper.run(**good | change), status, "flashinfer_run", words)
    check(lambda: BatchMLAPagedAttentionWrapper(torch.empty(1), backend="cutlass"), UNSUPPORTED, "backend: got 'cutlass'")
    check(lambda: BatchMLAPagedAttentionWrapper("cuda"), INVALID, "float_workspace_buffer: got 'cuda'")
    check(lambda: BatchMLAPagedAttentionWrapper(torch.empty(1), use_cuda_graph=True), INVALID, "kv_indices: got None")
