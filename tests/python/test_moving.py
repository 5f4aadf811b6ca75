"""The snippets of docs/moving.md: what stands before the move runs on the drop-in as it is, and both forms after it give the same."""

import pathlib
import sys
import types

import pytest

torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402
from arrays import KINDS  # noqa: E402
from reference import assert_close, decode, make_case  # noqa: E402

from flashmla.compat import flash_attn_3, flash_mla, flashinfer  # noqa: E402

KIND = next(kind for kind in KINDS if kind.name == "torch-bf16")
SNIPPETS = sorted(pathlib.Path(__file__).with_name("moving").glob("*.py"))


@pytest.fixture
def peers(monkeypatch):
    """The peers' modules by name, which are the drop-ins."""
    package = types.ModuleType("flashinfer")
    for name, module in (
        ("flash_mla", flash_mla),
        ("flash_attn_interface", flash_attn_3),
        ("flashinfer", package),
        ("flashinfer.mla", flashinfer),
    ):
        monkeypatch.setitem(sys.modules, name, module)


def tensors_of(case, flat):
    """The names that the snippets use. `flat`: q has no batch dimension and the cache no head, as in FlashInfer."""
    q, kv = (KIND.from_numpy(a) for a in case.as_type(KIND.element))
    page_table, kv_len = KIND.from_numpy(case.page_table), KIND.from_numpy(case.kv_len)
    used = [-(-n // 64) for n in case.kv_len]
    indices = [page for row, n in zip(case.page_table.tolist(), used) for page in row[:n]]
    parts_q, parts_kv = (q.flatten(0, 1), kv[:, :, 0]) if flat else (q, kv)
    return {
        "torch": torch, "q": q, "kv": kv, "page_table": page_table, "kv_len": kv_len, "scale": 576**-0.5,
        "q_nope": parts_q[..., :512], "q_pe": parts_q[..., 512:], "ckv": parts_kv[..., :512], "kpe": parts_kv[..., 512:],
        "float_workspace_buffer": torch.empty(1024, dtype=torch.int8), "kv_indices": torch.tensor(indices, dtype=torch.int32),
        "qo_indptr": torch.arange(4, dtype=torch.int32) * 2, "kv_indptr": torch.tensor(np.cumsum([0, *used]), dtype=torch.int32),
    }  # fmt: skip


@pytest.mark.parametrize("path", SNIPPETS, ids=lambda path: path.stem)
def test_snippet(path, peers):
    case = make_case([100, 1, 130], h_q=16, s_q=2, causal=True, element=KIND.element)
    is_flat = path.stem.startswith("flashinfer")
    names = tensors_of(case, is_flat)
    exec(compile(path.read_text(), str(path), "exec"), names)
    out, lse = decode(case)
    if not path.stem.startswith("flash_mla"):
        lse = np.where(np.isposinf(lse), -np.inf, lse)
    if is_flat:
        lse = lse.transpose(0, 2, 1).reshape(-1, 16) * np.log2(np.e)
    assert_close(KIND.to_float64(names["out"]).reshape(out.shape), out, absolute=8e-4, relative=2.01 / 128, cosine=5e-6)
    assert_close(KIND.to_float64(names["lse"]), lse, absolute=2e-6, relative=8.01 / 65536)


def test_a_move_changes_one_line():
    for before in (path for path in SNIPPETS if path.stem.endswith("_before")):
        old, new = (path.read_text().splitlines() for path in (before, before.with_name(before.name.replace("_before", "_after"))))
        assert old[1:] == new[1:] and old[0] != new[0]
