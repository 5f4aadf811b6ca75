#!/usr/bin/env python3
"""What an eager Python call costs the host: h_q 16, batch 1, 8,192 tokens, schedule reused, as in every layer of a step but the first.

perf_counter around each call; the device is synchronised outside the timing every 50 calls, so that the launch queue never fills; median
of 10,000. `native` is DecodePlan.run with out= and lse= given; `compat` is flash_mla_with_kvcache of the drop-in in the object style,
which allocates its outputs. `builtin` says whether calls went through libflashmla_python.so (FLASHMLA_NATIVE=0: not). --modules measures
other modules with FlashMLA's functions beside them, in turns. One JSON line on stdout.
--device cpu only shows that the script works: there a call computes before it returns.
"""

import argparse
import importlib
import json
import platform
import statistics
import sys
import time

import torch

import flashmla
from flashmla import _native

H_Q, TOKENS, PAGE, TABLE_PAGES, JUNK_PAGE = 16, 8192, 64, 2560, 2147480000
CALLS_BETWEEN_SYNCS = 50


def make_inputs(device):
    pages = TOKENS // PAGE
    table = torch.full((1, TABLE_PAGES), JUNK_PAGE, dtype=torch.int32)
    table[0, :pages] = torch.randperm(pages).int()
    q = torch.randn(1, 1, H_Q, 576, device=device).bfloat16()
    cache = (torch.randn(pages, PAGE, 1, 576, device=device) / 10).bfloat16()
    return q, cache, table.to(device), torch.tensor([TOKENS], dtype=torch.int32, device=device)


def native_call(inputs, device):
    plan = flashmla.DecodePlan(h_q=H_Q, kv_format="bf16_576", max_batch=1, device=device)
    plan.update(inputs[3])
    out, lse = plan.run(*inputs)
    return lambda: plan.run(*inputs, out=out, lse=lse)


def drop_in_call(module, inputs):
    plan, num_splits = module.get_mla_metadata()
    return lambda: module.flash_mla_with_kvcache(*inputs, 512, plan, num_splits)


def measure(calls, count, synchronize):
    """Microseconds of every call, {name: [..]}; the callables take turns in runs of CALLS_BETWEEN_SYNCS."""
    times = {name: [] for name in calls}
    clock = time.perf_counter
    for call in calls.values():
        for _ in range(CALLS_BETWEEN_SYNCS):
            call()
        synchronize()
    for _ in range(-(-count // CALLS_BETWEEN_SYNCS)):
        for name, call in calls.items():
            for _ in range(CALLS_BETWEEN_SYNCS):
                begin = clock()
                call()
                times[name].append((clock() - begin) * 1e6)
            synchronize()
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--calls", type=int, help="calls measured (10000 on cuda, 50 on cpu)")
    parser.add_argument("--modules", default="", help="comma-separated modules to measure as well, e.g. providers.sgl_flash_mla")
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    count = options.calls or (10_000 if on_gpu else CALLS_BETWEEN_SYNCS)
    torch.manual_seed(0)
    inputs = make_inputs(options.device)
    calls = {"native": native_call(inputs, options.device)}
    for name in ["flashmla.compat.flash_mla", *filter(None, options.modules.split(","))]:
        label = "compat" if name == "flashmla.compat.flash_mla" else name
        calls[label] = drop_in_call(importlib.import_module(name), inputs)
    times = measure(calls, count, torch.cuda.synchronize if on_gpu else lambda: None)
    result = {
        "device": torch.cuda.get_device_name() if on_gpu else platform.processor() or "cpu",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "flashmla": flashmla.__version__,
        "builtin": _native.make(None, torch.Tensor) is not None,
        "calls": count,
        "us": {
            name: {
                "median": round(statistics.median(t), 2),
                "p10": round(sorted(t)[len(t) // 10], 2),
                "p90": round(sorted(t)[len(t) * 9 // 10], 2),
            }
            for name, t in times.items()
        },
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
