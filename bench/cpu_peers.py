#!/usr/bin/env python3
"""Decode attention on the CPU against torch's: python bench/cpu_peers.py [--heads 16,128] [--kv 4096] [--threads 2] [--isa avx512_bf16]

FlashMLA reads a paged cache through a page table in random order. torch gets the same tokens gathered into one contiguous tensor, at no charge,
and the fastest of the forms in which scaled_dot_product_attention can say MLA: heads as query rows of one KV head (`rows`), the same with
the whole key as value, so that both have one width (`wide`), heads as heads over an expanded cache (`heads`); and two plain matrix
products with a softmax between them (`matmul`). Caches rotate over more memory than a last-level cache holds, and providers take turns of
some calls each; the table has best and median of a call in ms, and how many times as long as FlashMLA's best the best took. Outputs are
compared with float64 once. torch uses AMX where there is one,
whatever --isa says. Needs torch; FLASHMLA_LIBRARY names a library that is not installed. --json prints one object instead.
"""

import argparse
import json
import statistics
import sys
import time

import torch
import torch.nn.functional as F

import flashmla

LATENT, QK_DIM, PAGE = 512, 576, 64
FORMS = ["rows", "wide", "heads", "matmul"]
COLD_BYTES = 256 << 20  # of all caches together
TURN_S, MOST_CALLS = 0.03, 40  # of a provider in a round


def torch_calls(q, keys, scale):
    """{form: call(i)} over contiguous keys [caches, kv, 576], q [heads, 576]; each returns [heads, 512]."""
    heads = q.shape[0]
    as_rows, as_heads = q[None, None], q[None, :, None]

    def rows(i):
        k = keys[i][None, None]
        return F.scaled_dot_product_attention(as_rows, k, k[..., :LATENT], scale=scale)[0, 0]

    def rows_wide(i):
        k = keys[i][None, None]
        return F.scaled_dot_product_attention(as_rows, k, k, scale=scale)[0, 0, :, :LATENT]

    def over_heads(i):
        k = keys[i][None, None].expand(1, heads, -1, -1)
        return F.scaled_dot_product_attention(as_heads, k, k[..., :LATENT], scale=scale)[0, :, 0]

    def matmul(i):
        k = keys[i]
        return torch.softmax((q @ k.T).float() * scale, -1).to(q.dtype) @ k[:, :LATENT]

    return {"rows": rows, "wide": rows_wide, "heads": over_heads, "matmul": matmul}


def flashmla_call(q, paged, tables, options):
    kv = options.kv_now
    problem = dict(h_q=q.shape[0], kv_format="bf16_576", max_batch=1, page_tokens=PAGE, device="cpu")
    plan = flashmla.DecodePlan(**problem, isa=options.isa, num_threads=options.threads)
    kv_len = torch.tensor([kv], dtype=torch.int32)
    plan.update(kv_len)
    out, lse = plan.run(q[None, None], paged, tables[0], kv_len)

    def call(i):
        plan.run(q[None, None], paged, tables[i], kv_len, out=out, lse=lse)
        return out[0, 0]

    return call


def relative_error(out, q, keys, scale):
    wanted = torch.softmax(q.double() @ keys.double().T * scale, -1) @ keys.double()[:, :LATENT]
    return float((out.double() - wanted).norm() / wanted.norm())


def measure(heads, kv, options):
    torch.manual_seed(1)
    caches = max(2, -(-COLD_BYTES // (kv * QK_DIM * 2)))
    keys = torch.randn(caches, kv, QK_DIM).bfloat16()
    q, scale = torch.randn(heads, QK_DIM).bfloat16(), QK_DIM**-0.5
    pages = -(-kv // PAGE)
    order = torch.randperm(caches * pages)
    paged = torch.zeros(caches * pages, PAGE, 1, QK_DIM, dtype=torch.bfloat16)
    padded = F.pad(keys, (0, 0, 0, pages * PAGE - kv)).reshape(caches * pages, PAGE, 1, QK_DIM)
    paged[order] = padded
    tables = order.int().reshape(caches, 1, pages)
    options.kv_now = kv
    calls = {"flashmla": flashmla_call(q, paged, tables, options), **torch_calls(q, keys, scale)}
    calls = {name: call for name, call in calls.items() if name in ("flashmla", *options.forms)}
    result = {"heads": heads, "kv": kv, "providers": {}}
    for name, call in calls.items():
        call(1)
        result["providers"][name] = {"relative_error": relative_error(call(0), q, keys[0], scale)}
    times = {name: [] for name in calls}
    at = 0
    for _ in range(options.rounds):
        for name, call in calls.items():
            run_s = 0
            for turn in range(MOST_CALLS):
                begin = time.perf_counter()
                call(at % caches)
                seconds = time.perf_counter() - begin
                at, run_s = at + 1, run_s + seconds
                if turn >= 2 or seconds > TURN_S:  # before that, threads of the provider before may still spin
                    times[name].append(1e3 * seconds)
                if run_s > TURN_S and (turn >= 2 or seconds > TURN_S):
                    break
    for name, values in times.items():
        result["providers"][name].update(best_ms=min(values), median_ms=statistics.median(values))
    best = result["providers"]["flashmla"]["best_ms"]
    for provider in result["providers"].values():
        provider["times_as_long"] = provider["best_ms"] / best
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = lambda text: [int(word) for word in text.split(",")]  # noqa: E731
    parser.add_argument("--heads", type=numbers, default=[16, 128], metavar="N,..")
    parser.add_argument("--kv", type=numbers, default=[4096], metavar="N,..")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of either side")
    parser.add_argument("--isa", default="auto", help="FlashMLA's, as `flashmla kernels` lists them")
    parser.add_argument("--forms", type=lambda text: text.split(","), default=FORMS, metavar="NAME,..", help=f"of torch: {', '.join(FORMS)}")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = [measure(heads, kv, options) for heads in options.heads for kv in options.kv]
    if options.json:
        print(json.dumps({"threads": options.threads, "isa": options.isa, "torch": torch.__version__, "results": results}, indent=1))
        return 0
    print(f"{options.threads} threads, FlashMLA {options.isa}, torch {torch.__version__}")
    for result in results:
        print(f"heads {result['heads']}, {result['kv']} tokens")
        for name, provider in result["providers"].items():
            print(f"  {name:<12}{provider['best_ms']:>9.3f} best{provider['median_ms']:>9.3f} median{provider['times_as_long']:>7.1f} x   error {provider['relative_error']:.1e}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
