"""FlashMLA: Multi-head Latent Attention decode over a paged KV cache, on a CPU anywhere and on NVIDIA Hopper.

    plan = flashmla.DecodePlan(h_q=16, kv_format="bf16_576", max_batch=8, device="cuda")
    plan.update(kv_len)                                    # once a step
    out, lse = plan.run(q, cache, page_table, kv_len)      # once a layer

This package is ctypes over libflashmla's C ABI and needs the standard library alone. Arrays are recognised when they arrive: torch tensors,
NumPy arrays, and anything else that speaks DLPack. `flashmla.compat.flash_mla` is a drop-in for the module of that name.
"""

from flashmla._abi import DeviceKind, DType, EmptyRow, FaultCode, Isa, KvFormat, LseBase, LseLayout, Status
from flashmla._errors import Error
from flashmla._library import lib as _lib
from flashmla._problem import Problem
from flashmla.info import DeviceInfo, DriverInfo, KernelInfo, build_info, devices, driver, kernels
from flashmla.ops import append, copy_pages, merge
from flashmla.plan import DecodePlan, Fault, Part, Schedule
from flashmla.pool import Fork, PagePool

__version__ = _lib.flashmla_version().decode()

__all__ = [
    "DType", "DecodePlan", "DeviceInfo", "DeviceKind", "DriverInfo", "EmptyRow", "Error", "Fault", "FaultCode", "Fork", "Isa", "KernelInfo",
    "KvFormat", "LseBase", "LseLayout", "PagePool", "Part", "Problem", "Schedule", "Status", "append", "build_info", "copy_pages",
    "devices", "driver", "kernels", "merge",
]  # fmt: skip
