"""The drop-in for FlashInfer against FlashInfer itself, on random problems on a GPU.

Skipped where the wheel is missing (`flashinfer-python==0.6.1` with `apache-tvm-ffi==0.1.11`), or where it can't make its kernel: at its
first call it compiles one with nvcc and ninja, for some 40 seconds and with no network. Needs torch: `python tests/python/test_cuda_peers.py`.
FLASHMLA_PEER_BACKENDS=fa3,fa2 takes their other kernel too, FLASHMLA_PEER_CASES=200 more problems.
"""

import collections
import os
import random
import sys

try:
    import torch
    from test_cuda import REASON, check_result, pytest, run_all, unless_unsupported
    from test_cuda_callers import as_flash_mla, flashinfer_plan, flashinfer_run, optional, skip
    from upstream_dense import Case, make_inputs

    from flashmla.compat.flashinfer import BatchMLAPagedAttentionWrapper
except ImportError as error:
    from test_cuda import pytest, run_all

    REASON = str(error)

if pytest is not None:
    pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

PAGES, HEADS = (1, 16, 64), (8, 16, 20, 32, 64, 128)


def random_cases(count, seed=1):
    """Lengths of one and more, and no less than the query tokens: FlashInfer has no rule for rows that see nothing."""
    rng = random.Random(seed)
    for i in range(count):
        s_q = rng.choice((1, 1, 2, 3))
        h_q = HEADS[i // len(PAGES) % len(HEADS)]
        yield Case(rng.randint(1, 9), s_q, rng.choice((5, 60, 300, 900)), h_q, True, rng.random() < 0.5, page=PAGES[i % len(PAGES)])


def wrapper_of(kind, inputs, case, backend):
    wrapper = kind(torch.empty(128 << 20, dtype=torch.int8, device="cuda"), backend=backend)
    flashinfer_plan(wrapper, inputs, case)
    return wrapper


def base_2(wrapper, inputs):
    q, cache = inputs[0].flatten(0, 1).contiguous(), inputs[1][:, :, 0]
    return wrapper.run(q[..., :512], q[..., 512:], cache[..., :512], cache[..., 512:], return_lse=True)


def answers_of(wrapper, inputs):
    """[base e, base 2] of FlashInfer."""
    held = [inputs[0].contiguous(), inputs[1]]
    answers = [flashinfer_run(wrapper, held), base_2(wrapper, held)]
    torch.cuda.synchronize()
    return answers


def compare(case, inputs, theirs, ours):
    own = [flashinfer_run(ours, inputs), base_2(ours, inputs)]
    check_result(case, inputs, as_flash_mla(case, own[0]))
    for mine, their in zip(own, theirs):
        torch.testing.assert_close(mine[0].float(), their[0].float(), atol=2e-3, rtol=2e-2)
        torch.testing.assert_close(mine[1], their[1].float(), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(own[1][1], own[0][1] * 1.4426950408889634, atol=1e-4, rtol=1e-5)


def check_backend(theirs, backend, count):
    tally, wrong = collections.Counter(), []
    for case in random_cases(count):
        inputs = make_inputs(case, "cuda")
        inputs[1].nan_to_num_()  # FlashInfer reads what lies past a length
        try:
            their = answers_of(wrapper_of(theirs, inputs, case, backend), inputs)
        except Exception as error:
            if not tally:  # the first: its kernel does not come to be here
                skip(f"flashinfer: {backend}: {type(error).__name__}: {str(error)[-200:]}")
            tally["refused by FlashInfer"] += 1
            continue
        own = unless_unsupported(lambda: wrapper_of(BatchMLAPagedAttentionWrapper, inputs, case, backend))
        if own is None:
            tally[f"pages of {case.page} not supported"] += 1
            continue
        try:
            compare(case, inputs, their, own)
            tally["alike"] += 1
        except AssertionError as error:
            tally["wrong"] += 1
            wrong.append(f"{case}: {' '.join(str(error).split())[:200]}")
    print(f"flashinfer {theirs_version()} {backend}: " + ", ".join(f"{number} {what}" for what, number in tally.items()), flush=True)
    assert not wrong and tally["alike"], "\n".join(wrong[:5])


def theirs_version():
    return getattr(optional("flashinfer"), "__version__", "")


def test_flashinfer_itself():
    """Both wrappers on the same tensors, base e and base 2, pages of 1, 16 and 64, several heads."""
    theirs = optional("flashinfer").mla.BatchMLAPagedAttentionWrapper
    for backend in os.environ.get("FLASHMLA_PEER_BACKENDS", "fa3").split(","):
        check_backend(theirs, backend, int(os.environ.get("FLASHMLA_PEER_CASES", "54")))


if __name__ == "__main__":
    sys.exit(run_all({"test_flashinfer_itself": test_flashinfer_itself}, "peers on cuda", REASON))
