"""The drop-in for FlashMLA's module, on CPU tensors: both plan styles, its signature, what it refuses, and install()."""

import functools
import inspect
import itertools
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402
import upstream_dense  # noqa: E402
from test_bad_input import check  # noqa: E402
from upstream_dense import Case, make_inputs, run_case  # noqa: E402

import flashmla  # noqa: E402
import flashmla.compat  # noqa: E402
from flashmla import Status  # noqa: E402
from flashmla.compat import flash_mla  # noqa: E402

SMALL = [
    Case(*axis, style=style)
    for axis, style in zip(
        itertools.product((1, 2, 6), (1, 2), (20, 140), (1, 3, 9, 63, 64, 126, 128), (False, True), (False, True)),
        itertools.cycle(("object", "tensors", "object")),
    )
][::3]
OTHERS = [
    Case(3, 2, 300, 16, True, True, page=page, h_kv=h_kv, dtype=dtype, style=style, zeros=zeros)
    for page, h_kv, dtype, style, zeros in [
        (1, 1, torch.float16, "object", False), (2, 2, torch.bfloat16, "tensors", False), (16, 1, torch.bfloat16, "object", True),
        (32, 8, torch.float16, "tensors", True), (128, 2, torch.bfloat16, "object", False), (256, 1, torch.bfloat16, "tensors", True),
        (61, 1, torch.float16, "object", False), (64, 1, torch.bfloat16, "tensors", True),
    ]
]  # fmt: skip


@pytest.mark.parametrize("case", SMALL + OTHERS + [Case(1, 1, 4096, 9, False, False), Case(2, 4, 4096, 3, True, True)], ids=str)
def test_upstream_case(case):
    assert run_case(case, "cpu", flash_mla) is None


def test_the_check_itself_can_fail():
    expected = torch.tensor([1.0, float("inf"), 0.5], dtype=torch.float64)
    assert upstream_dense.difference(expected.clone(), expected, 1e-6, 1e-6, 1e-6) is None
    assert "isposinf" in upstream_dense.difference(torch.tensor([1.0, 2.0, 0.5]), expected, 1e-6, 1e-6)
    assert "isnan" in upstream_dense.difference(torch.tensor([float("nan"), float("inf"), 0.5]), expected, 1e-6, 1e-6)
    assert "1 of 3" in upstream_dense.difference(torch.tensor([1.1, float("inf"), 0.5]), expected, 1e-6, 1e-6)
    assert "cosine" in upstream_dense.difference(torch.tensor([1.1, float("inf"), 0.5]), expected, 1.0, 1.0, 1e-6)


CASE = Case(3, 1, 100, 16, True, False)


def arguments(case=CASE):
    q, cache, table, seqlens, _ = make_inputs(case, "cpu")
    return q, cache, table, seqlens, 512


def test_signature_is_upstreams():
    assert list(inspect.signature(flash_mla.flash_mla_with_kvcache).parameters) == [
        "q", "k_cache", "block_table", "cache_seqlens", "head_dim_v", "tile_scheduler_metadata", "num_splits", "softmax_scale", "causal",
        "is_fp8_kvcache", "indices", "attn_sink", "extra_k_cache", "extra_indices_in_kvcache", "topk_length", "extra_topk_length",
        "enable_batch_invariant",
    ]  # fmt: skip


def test_object_style_takes_up_to_two_arguments():
    seqlens = torch.tensor([5], dtype=torch.int32)
    for args, kwargs in [((), {}), ((seqlens,), {}), ((seqlens, 16), {}), ((), {"topk": None, "is_fp8_kvcache": False})]:
        plan, num_splits = flash_mla.get_mla_metadata(*args, **kwargs)
        assert isinstance(plan, flash_mla.SchedulerMetadata) and num_splits is None
    assert repr(plan) == "SchedulerMetadata(unused)"


def test_one_object_serves_all_layers_of_a_step():
    plan, _ = flash_mla.get_mla_metadata()
    q, cache, table, seqlens, v = arguments()
    first = flash_mla.flash_mla_with_kvcache(q, cache, table, seqlens, v, plan)
    assert "h_q=16" in repr(plan)
    longer = torch.cat([cache, cache])  # another layer's cache may have another number of pages
    second = flash_mla.flash_mla_with_kvcache(q * 2, longer, table, seqlens, v, plan, None)
    third = flash_mla.flash_mla_with_kvcache(q, cache, table, seqlens, v, plan)
    assert torch.equal(first[0], third[0]) and torch.equal(first[1], third[1])
    assert not torch.equal(first[1], second[1])
    assert first[0].data_ptr() != third[0].data_ptr()


def test_stale_object_costs_balance_alone():
    plan, _ = flash_mla.get_mla_metadata()
    q, cache, table, seqlens, v = arguments()
    flash_mla.flash_mla_with_kvcache(q, cache, table, torch.ones_like(seqlens), v, plan)
    stale = flash_mla.flash_mla_with_kvcache(q, cache, table, seqlens, v, plan)
    fresh = flash_mla.flash_mla_with_kvcache(q, cache, table, seqlens, v, *flash_mla.get_mla_metadata())
    torch.testing.assert_close(stale, fresh, atol=8e-4, rtol=1e-2)


def test_cache_without_the_head_dimension():
    q, cache, table, seqlens, v = arguments()
    plan = flash_mla.get_mla_metadata()
    flat = flash_mla.flash_mla_with_kvcache(q, cache[:, :, 0], table, seqlens, v, *plan)
    full = flash_mla.flash_mla_with_kvcache(q, cache, table, seqlens, v, *plan)
    assert torch.equal(flat[0], full[0])


def test_softmax_scale_by_position_and_by_name():
    q, cache, table, seqlens, v = arguments(Case(2, 2, 70, 4, False, True))

    def call(*args, **kwargs):
        return flash_mla.flash_mla_with_kvcache(q, cache, table, seqlens, v, *flash_mla.get_mla_metadata(), *args, **kwargs)

    default = call(causal=True)
    explicit = call(576**-0.5, True)
    assert torch.equal(default[0], explicit[0]) and torch.equal(default[1], explicit[1])
    assert not torch.allclose(default[1], call(softmax_scale=0.5, causal=True)[1])
    assert not torch.allclose(default[1], call()[1])


def test_attention_sink():
    q, cache, table, seqlens, v = arguments()
    for args in ((), (seqlens, 16, 1)):
        plain = flash_mla.flash_mla_with_kvcache(q, cache, table, seqlens, v, *flash_mla.get_mla_metadata(*args))
        sink = torch.linspace(-2, 2, 16)
        out, lse = flash_mla.flash_mla_with_kvcache(q, cache, table, seqlens, v, *flash_mla.get_mla_metadata(*args), attn_sink=sink)
        factor = torch.sigmoid(lse.transpose(1, 2) - sink)[..., None]
        torch.testing.assert_close(out.float(), plain[0].float() * factor, atol=8e-4, rtol=1e-2)
        assert torch.equal(lse, plain[1])


def rows_of(lengths, tokens=16, heads=1):
    return flash_mla.get_mla_metadata(torch.tensor(lengths, dtype=torch.int32), tokens, heads)


@pytest.mark.parametrize("seed", range(20))
def test_two_tensors_hold_a_valid_schedule(seed, monkeypatch):
    """Every block of every request exactly once, in order; splits counted and flagged; idle workers begin at `batch`."""
    rng = np.random.default_rng(seed)
    batch = int(rng.integers(1, 40))
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(int(rng.integers(1, 150))))
    lengths = (rng.integers(0, 3000, batch) * rng.integers(0, 2, batch)).tolist()
    rows, splits = rows_of(lengths)
    assert rows.dtype == splits.dtype == torch.int32 and rows.shape[1] == 8 and splits.shape == (batch + 1,)
    blocks = [-(-n // 64) for n in lengths]
    pieces = [[] for _ in range(batch)]
    for first, last, start, stop, split, first_split, last_split, _ in rows.tolist():
        if first >= batch:
            continue
        for request in range(first, last + 1):
            begin = start if request == first else 0
            end = stop if request == last else blocks[request]
            assert len(pieces[request]) == (split if request == first else 0)
            pieces[request].append((begin, end))
        assert first_split == (splits[first + 1] - splits[first] > 1) and last_split == (splits[last + 1] - splits[last] > 1)
    for request, ranges in enumerate(pieces):
        assert ranges[0][0] == 0 and ranges[-1][1] == blocks[request]
        assert all(a[1] == b[0] for a, b in zip(ranges, ranges[1:]))
        assert len(ranges) == 1 or all(begin < end for begin, end in ranges)
        assert splits[request + 1] - splits[request] == len(ranges)
    assert splits[0] == 0


def test_two_tensors_are_self_contained():
    """Engines copy them into buffers of a larger batch, slice those, and keep them for several steps."""
    q, cache, table, seqlens, v = arguments()
    rows, splits = flash_mla.get_mla_metadata(seqlens, 16, 1)
    own_rows, own_splits = torch.zeros_like(rows), torch.zeros(100, dtype=torch.int32)
    own_rows.copy_(rows)
    own_splits[: splits.numel()].copy_(splits)
    expected = flash_mla.flash_mla_with_kvcache(q, cache, table, seqlens, v, rows, splits)
    for num_splits in (own_splits[:4], None):
        got = flash_mla.flash_mla_with_kvcache(q, cache, table, seqlens, v, own_rows, num_splits)
        assert torch.equal(got[0], expected[0]) and torch.equal(got[1], expected[1])
    shorter = flash_mla.flash_mla_with_kvcache(q, cache, table, seqlens // 2, v, own_rows, own_splits[:4])
    again = flash_mla.flash_mla_with_kvcache(q, cache, table, seqlens // 2, v, *flash_mla.get_mla_metadata(seqlens // 2, 16, 1))
    assert torch.equal(shorter[0], again[0])


def test_vllm_rows_are_rejected_by_name():
    q, cache, table, seqlens, v = arguments()
    rows = torch.tensor([[0, 0, 1, 1, 0, 0, 0, 0], [1, 1, 2, 2, 1, 0, 0, 0]], dtype=torch.int32)
    splits = torch.tensor([0, 1, 3, 4], dtype=torch.int32)
    junk = torch.full((2, 8), -3, dtype=torch.int32)
    for metadata, words in ((rows, "got rows of vLLM's 2025 layout"), (junk, "got rows that do not follow one another")):
        call = functools.partial(flash_mla.flash_mla_with_kvcache, q, cache, table, seqlens, v, metadata, splits)
        check(call, Status.INVALID_ARGUMENT, "tile_scheduler_metadata", words)


def test_no_requests():
    rows, splits = rows_of([])
    assert splits.tolist() == [0] and (rows[:, 0] == 0).all()
    q, cache, table, seqlens, v = arguments()
    for plan in (flash_mla.get_mla_metadata(), (rows, splits)):
        out, lse = flash_mla.flash_mla_with_kvcache(q[:0], cache, table[:0], seqlens[:0], v, *plan)
        assert out.shape == (0, 1, 16, 512) and lse.shape == (0, 16, 1)


UNSUPPORTED = [
    ({"is_fp8_kvcache": True}, "is_fp8_kvcache: got True"),
    ({"indices": torch.zeros(3, 1, 64, dtype=torch.int32)}, "indices: got a torch.int32 tensor [3, 1, 64]"),
    ({"extra_k_cache": torch.zeros(1)}, "extra_k_cache"),
    ({"extra_indices_in_kvcache": torch.zeros(1)}, "extra_indices_in_kvcache"),
    ({"topk_length": torch.zeros(1)}, "topk_length"),
    ({"extra_topk_length": torch.zeros(1)}, "extra_topk_length"),
]


@pytest.mark.parametrize("style", ["object", "used object", "tensors"])
@pytest.mark.parametrize("more, words", UNSUPPORTED, ids=[next(iter(m)) for m, _ in UNSUPPORTED])
def test_what_is_not_built(style, more, words):
    args = arguments()
    plan = flash_mla.get_mla_metadata(*(args[3], 16, 1) if style == "tensors" else ())
    if style == "used object":
        flash_mla.flash_mla_with_kvcache(*args, *plan)
    check(lambda: flash_mla.flash_mla_with_kvcache(*args, *plan, **more), Status.UNSUPPORTED, words)


def test_batch_invariant():
    q, cache, table, seqlens, v = arguments()
    out, lse = flash_mla.flash_mla_with_kvcache(q, cache, table, seqlens, v, *flash_mla.get_mla_metadata(), enable_batch_invariant=True)
    for i in range(len(seqlens)):
        alone = flash_mla.flash_mla_with_kvcache(
            q[i : i + 1], cache, table[i : i + 1], seqlens[i : i + 1], v, *flash_mla.get_mla_metadata(), enable_batch_invariant=True
        )
        assert torch.equal(alone[0], out[i : i + 1]) and torch.equal(alone[1], lse[i : i + 1])
    plain, _ = flash_mla.flash_mla_with_kvcache(q, cache, table, seqlens, v, *flash_mla.get_mla_metadata())
    torch.testing.assert_close(out.float(), plain.float(), rtol=1e-2, atol=1e-3)


def test_other_operations_are_refused():
    check(lambda: flash_mla.flash_mla_sparse_fwd(None, None, None, 1.0), Status.UNSUPPORTED, "flash_mla_sparse_fwd", "dense decode")
    check(lambda: flash_mla.flash_attn_varlen_func(*[None] * 7), Status.UNSUPPORTED, "flash_attn_varlen_func", "dense decode")


BAD = [
    ({"q": torch.zeros(3, 16, 576)}, "q: got rank 3"),
    ({"q": None}, "q: got None"),
    ({"q": torch.zeros(3, 1, 16, 576)}, "q: got dtype torch.float32, expected torch.bfloat16"),
    ({"q": torch.zeros(3, 1, 16, 512, dtype=torch.bfloat16)}, "q: got dim 3 = 512"),
    ({"k_cache": torch.zeros(64, 576, dtype=torch.bfloat16)}, "k_cache: got rank 2"),
    ({"k_cache": torch.zeros(4, 64, 3, 576, dtype=torch.bfloat16)}, "h_kv: got 3"),
    ({"block_table": torch.zeros(3, 4)}, "block_table: got dtype FP32"),
    ({"block_table": [[0]]}, "block_table: got builtins.list"),
    ({"cache_seqlens": torch.zeros(3)}, "cache_seqlens: got dtype FP32"),
    ({"cache_seqlens": torch.zeros(2, dtype=torch.int32)}, "cache_seqlens: got shape [2], expected [3]"),
    ({"softmax_scale": -1.0}, "scale: got -1.0"),
    ({"tile_scheduler_metadata": None}, "tile_scheduler_metadata: got None"),
    ({"tile_scheduler_metadata": torch.zeros(2, 7, dtype=torch.int32)}, "tile_scheduler_metadata: got a torch.int32 tensor [2, 7]"),
    ({"tile_scheduler_metadata": torch.zeros(2, 8)}, "tile_scheduler_metadata: got a torch.float32 tensor"),
    ({"num_splits": torch.zeros(4, dtype=torch.int32)}, "num_splits: got a torch.int32 tensor [4] on cpu, expected None"),
    ({"attn_sink": torch.zeros(15)}, "attn_sink: got dim 0 = 15"),
]


@pytest.mark.parametrize("change, words", BAD, ids=[w.partition(":")[0] + str(i) for i, (_, w) in enumerate(BAD)])
def test_bad_arguments(change, words):
    names = ("q", "k_cache", "block_table", "cache_seqlens", "head_dim_v", "tile_scheduler_metadata", "num_splits")
    good = dict(zip(names, (*arguments(), *flash_mla.get_mla_metadata())))
    check(lambda: flash_mla.flash_mla_with_kvcache(**good | change), Status.INVALID_ARGUMENT, "flash_mla_with_kvcache", words)
    flash_mla.flash_mla_with_kvcache(**good)  # a refused first call leaves the object unused
    if "tile_scheduler_metadata" not in change:
        with pytest.raises(flashmla.Error):
            flash_mla.flash_mla_with_kvcache(**good | change)
    flash_mla.flash_mla_with_kvcache(**good)


def test_bad_dtype_and_width():
    args = arguments()
    plan = flash_mla.get_mla_metadata()
    bad = (args[0], args[1].to(torch.float8_e4m3fn), *args[2:])
    check(lambda: flash_mla.flash_mla_with_kvcache(*bad, *plan), Status.UNSUPPORTED, "k_cache: got dtype torch.float8_e4m3fn")
    check(lambda: flash_mla.flash_mla_with_kvcache(*args[:4], 128, *plan), Status.UNSUPPORTED, "head_dim_v: got 128, expected 512")


OTHER_SHAPES = [
    (Case(2, 1, 100, 16, True, False), {}, "batch 2, expected batch 3"),
    (Case(3, 2, 100, 16, True, False), {}, "s_q 2, expected s_q 1"),
    (Case(3, 1, 100, 8, True, False), {}, "h_q 8, expected h_q 16"),
    (Case(3, 1, 100, 16, True, False, page=16), {}, "page 16, expected page 64"),
    (Case(3, 1, 100, 16, True, False, dtype=torch.float16), {}, "format fp16_576, expected format bf16_576"),
    (CASE, {"causal": True}, "causal True, expected causal False"),
    (CASE, {"softmax_scale": 0.1}, "softmax_scale 0.1, expected softmax_scale None"),
]


@pytest.mark.parametrize("case, more, words", OTHER_SHAPES, ids=[w.partition(",")[0] for _, _, w in OTHER_SHAPES])
def test_object_of_another_shape(case, more, words):
    plan = flash_mla.get_mla_metadata()
    flash_mla.flash_mla_with_kvcache(*arguments(), *plan)
    words = f"tile_scheduler_metadata: got a call with {words}"
    check(lambda: flash_mla.flash_mla_with_kvcache(*arguments(case), *plan, **more), Status.INVALID_ARGUMENT, words)
    flash_mla.flash_mla_with_kvcache(*arguments(), *plan)


def test_bad_metadata_arguments():
    seqlens = torch.tensor([5], dtype=torch.int32)
    for args, kwargs, status, words in [
        ((seqlens.long(), 16, 1), {}, Status.INVALID_ARGUMENT, "cache_seqlens: got a torch.int64 tensor"),
        (([5], 16, 1), {}, Status.INVALID_ARGUMENT, "cache_seqlens"),
        ((seqlens, 0, 1), {}, Status.INVALID_ARGUMENT, "num_q_tokens_per_head_k: got 0"),
        ((seqlens, 16, None), {}, Status.INVALID_ARGUMENT, "num_heads_k: got None"),
        ((seqlens, 16, 1, 16, True), {}, Status.UNSUPPORTED, "is_fp8_kvcache"),
        ((seqlens, 16, 1), {"topk": 64}, Status.UNSUPPORTED, "topk: got 64"),
        ((seqlens, 16, 1), {"num_heads_k": 1}, Status.INVALID_ARGUMENT, "arguments"),
        ((seqlens, 16, 1), {"heads": 1}, Status.INVALID_ARGUMENT, "arguments"),
        ((1, 2, 3, 4, 5, 6, 7), {}, Status.INVALID_ARGUMENT, "arguments"),
    ]:
        check(lambda: flash_mla.get_mla_metadata(*args, **kwargs), status, "get_mla_metadata", words)


def test_install_is_opt_in():
    code = """
import sys, flashmla.compat
assert 'flash_mla' not in sys.modules
module = flashmla.compat.install()
assert flashmla.compat.install() is module
import flash_mla
from flash_mla import flash_mla_with_kvcache, get_mla_metadata
from flash_mla.flash_mla_interface import flash_mla_with_kvcache as same
import flashmla.compat.flash_mla
assert flash_mla is flashmla.compat.flash_mla and same is flash_mla_with_kvcache
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_install_does_not_push_another_wheel_aside(monkeypatch):
    monkeypatch.setitem(sys.modules, "flash_mla", inspect)
    check(flashmla.compat.install, Status.INVALID_ARGUMENT, "install: flash_mla: got a module imported already")
