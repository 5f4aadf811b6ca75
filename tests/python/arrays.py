"""The kinds of arrays that the tests pass in: NumPy with ml_dtypes, NumPy with uint16, float16, torch, and a bare DLPack exporter.

Each turns float64 NumPy arrays into its own and back; `dtype` is what `run` has to be told.
"""

import dataclasses
import typing

import ml_dtypes
import numpy as np

try:
    import torch
except ImportError:
    torch = None


class Foreign:
    """An array of a framework that this package has never heard of: a NumPy one that shows DLPack, a shape and nothing else."""

    def __init__(self, array):
        self.array = array
        self.shape = array.shape

    def __dlpack__(self, *, stream=None):
        return self.array.__dlpack__()

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


@dataclasses.dataclass(frozen=True)
class Kind:
    name: str
    kv_format: str
    element: type  # NumPy dtype with the same values
    from_numpy: typing.Callable  # array of `element`, or int32 -> what the library is given
    to_float64: typing.Callable
    dtype: str | None = None
    allocates: bool = True  # whether outputs can be left to the library

    def __str__(self):
        return self.name


def _uint16(array):
    return array.view(np.uint16) if array.dtype == ml_dtypes.bfloat16 else array


def _from_uint16(array):
    return (array.view(ml_dtypes.bfloat16) if array.dtype == np.uint16 else array).astype(np.float64)


def to_torch(array):
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _widen(array):
    return array.astype(np.float64)


KINDS = [
    Kind("numpy-bf16", "bf16_576", ml_dtypes.bfloat16, lambda a: a, _widen),
    Kind("numpy-uint16", "bf16_576", ml_dtypes.bfloat16, _uint16, _from_uint16, dtype="bf16"),
    Kind("numpy-fp16", "fp16_576", np.float16, lambda a: a, _widen),
    Kind("numpy-fp32", "fp32_576", np.float32, lambda a: a, _widen),
    Kind("dlpack-fp16", "fp16_576", np.float16, Foreign, lambda a: _widen(a.array), allocates=False),
]
if torch is not None:
    KINDS += [
        Kind("torch-bf16", "bf16_576", ml_dtypes.bfloat16, to_torch, lambda t: t.double().numpy()),
        Kind("torch-fp16", "fp16_576", np.float16, to_torch, lambda t: t.double().numpy()),
        Kind("torch-fp32", "fp32_576", np.float32, to_torch, lambda t: t.double().numpy()),
    ]

FP16_KINDS = [kind for kind in KINDS if kind.kv_format == "fp16_576" and kind.allocates]
NUMPY_FP16 = FP16_KINDS[0]
