"""The adapter for every other framework (CuPy, JAX, ...): DLPack, read through ctypes.

A capsule is asked for, read and dropped without being consumed: its own destructor then gives the tensor back. The array itself, which
the caller holds, keeps the memory. Layout: https://dmlc.github.io/dlpack/latest/c_api.html (DLTensor opens every DLManagedTensor).
"""

import ctypes
import sys

from flashmla._abi import DeviceKind, DType
from flashmla._arrays import HostMemory, write_view
from flashmla._errors import invalid

_CPU, _CUDA, _CUDA_HOST, _CUDA_MANAGED = 1, 2, 3, 13
_INT, _UINT, _FLOAT, _BFLOAT, _E4M3FN = 0, 1, 2, 4, 10
_DTYPES = {
    (_BFLOAT, 16): DType.BF16, (_FLOAT, 16): DType.FP16, (_FLOAT, 32): DType.FP32, (_FLOAT, 64): DType.FP64, (_INT, 32): DType.INT32,
    (_INT, 64): DType.INT64, (_INT, 8): DType.INT8, (_UINT, 8): DType.UINT8, (_E4M3FN, 8): DType.E4M3,
}  # fmt: skip
_NAMES = {DType.BF16: "bfloat16", DType.FP16: "float16", DType.FP32: "float32"}
_LEGACY_STREAM = 1  # DLPack's name for CUDA's default stream, where work goes unless the caller passes stream=


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32), ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16), ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)), ("byte_offset", ctypes.c_uint64),
    ]  # fmt: skip


_capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_capsule_pointer.restype = ctypes.c_void_p
_capsule_pointer.argtypes = (ctypes.py_object, ctypes.c_char_p)


def fill(view, array, where, as_bf16=False, stream=None):
    kind, index = _checked_device(array, where)
    try:
        capsule = array.__dlpack__(stream=stream or _LEGACY_STREAM) if kind == DeviceKind.CUDA else array.__dlpack__()
        tensor = _Tensor.from_address(_capsule_pointer(capsule, b"dltensor"))
    except (BufferError, TypeError, ValueError) as error:
        raise invalid(*where, f"an array whose __dlpack__ failed ({error})", "one that exports a writable dltensor") from error
    rank = tensor.ndim
    dtype = _DTYPES.get((tensor.code, tensor.bits)) if tensor.lanes == 1 else None
    if dtype is None and as_bf16 and (tensor.code, tensor.bits) == (_UINT, 16):
        dtype = DType.BF16
    if dtype is None:
        names = ", ".join(d.name.lower() for d in _DTYPES.values())
        raise invalid(*where, f"DLPack dtype (code {tensor.code}, {tensor.bits} bits, {tensor.lanes} lanes)", f"one of {names}")
    sizes = tensor.shape[:rank]
    if tensor.strides:
        strides = tensor.strides[:rank]
    else:  # null strides mean compact, row-major
        strides, step = [], 1
        for size in reversed(sizes):
            strides.insert(0, step)
            step *= size
    address = tensor.data + tensor.byte_offset if tensor.data else 0
    write_view(view, address, dtype, device=(kind, index), sizes=sizes, strides=strides, where=where)
    return capsule


def _checked_device(array, where):
    kind, index = array.__dlpack_device__()
    kind = int(kind)
    if kind in (_CPU, _CUDA_HOST):
        return DeviceKind.CPU, 0
    if kind in (_CUDA, _CUDA_MANAGED):
        return DeviceKind.CUDA, index
    raise invalid(*where, f"DLPack device type {kind}", f"{_CPU} (CPU), {_CUDA} (CUDA), {_CUDA_HOST} (pinned) or {_CUDA_MANAGED} (managed)")


def device(array):
    return _checked_device(array, ("array", "device"))


def _family(array):
    return type(array).__module__.partition(".")[0]


def _namespace(like, where):
    """What has the dtypes of an array's framework, and its `empty`."""
    if hasattr(like, "__array_namespace__"):
        return like.__array_namespace__()
    if _family(like) == "cupy":  # before version 14
        return sys.modules["cupy"]
    raise invalid(*where, f"no array, and {type(like).__module__} has no __array_namespace__ to make one", "an array")


def _new(like, shape, element, names):
    if _family(like) == "cupy":  # its `empty` takes no device
        with like.device:
            return names.empty(shape, dtype=element)
    return names.empty(shape, dtype=element, device=like.device)


def empty(like, shape, dtype, where):
    names = _namespace(like, where)
    element = getattr(names, _NAMES[dtype], None)
    if element is None:
        if str(like.dtype) not in (_NAMES[dtype], "uint16"):
            raise invalid(*where, f"no array, and {names.__name__} has no {_NAMES[dtype]}", "an array")
        element = like.dtype
    return _new(like, shape, element, names)


def buffer(like, num_bytes, where):
    if device(like)[0] == DeviceKind.CPU:
        memory = HostMemory(num_bytes)
        return memory, memory.address
    names = _namespace(like, where)
    memory = _new(like, (num_bytes,), names.uint8, names)
    capsule = memory.__dlpack__(stream=_LEGACY_STREAM)
    tensor = _Tensor.from_address(_capsule_pointer(capsule, b"dltensor"))
    return memory, tensor.data + tensor.byte_offset


def is_read_only(array):
    return False


def is_unordered(array):
    """Whether an array's framework orders its own streams alone: it reads results, and reuses memory, when work on another stream may still
    be going on. JAX does; CuPy's streams wait for the default stream unless they were made not to."""
    return _family(array) in ("jax", "jaxlib")


def stream(device_index):
    return 0
