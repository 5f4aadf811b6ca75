"""The adapter for numpy.ndarray. Imported when the first one arrives; imports nothing itself but NumPy, which is there by then."""

import numpy

from flashmla._abi import DType
from flashmla._arrays import HOST, HostMemory, resolve_dtype, write_view
from flashmla._errors import invalid

_DTYPES = {
    "bfloat16": DType.BF16, "float16": DType.FP16, "float32": DType.FP32, "float64": DType.FP64, "int32": DType.INT32,
    "int64": DType.INT64, "int8": DType.INT8, "uint8": DType.UINT8, "float8_e4m3fn": DType.E4M3,
}  # fmt: skip


def fill(view, array, where, as_bf16=False, stream=None):
    dtype = resolve_dtype(array.dtype.name, _DTYPES, where, as_bf16)
    if not array.dtype.isnative:
        raise invalid(*where, f"byte order {array.dtype.byteorder!r}", "the machine's own")
    item = array.itemsize
    if any(stride % item for stride in array.strides):
        raise invalid(*where, f"strides of {array.strides} bytes", f"multiples of the {item}-byte element")
    # __array_interface__ also serves read-only arrays, and costs half of array.ctypes.
    address = array.__array_interface__["data"][0]
    strides = [stride // item for stride in array.strides]
    write_view(view, address, dtype, device=HOST, sizes=array.shape, strides=strides, where=where)
    return None


def device(array):
    return HOST


def empty(like, shape, dtype, where):
    if dtype == DType.BF16:
        if like.dtype == numpy.uint16:
            return numpy.empty(shape, numpy.uint16)
        try:
            import ml_dtypes
        except ImportError:
            raise invalid(*where, "no array and no ml_dtypes", "one of them (NumPy itself has no bfloat16)") from None
        return numpy.empty(shape, ml_dtypes.bfloat16)
    return numpy.empty(shape, {DType.FP16: numpy.float16, DType.FP32: numpy.float32}[dtype])


def buffer(like, num_bytes, where):
    memory = HostMemory(num_bytes)
    return memory, memory.address


def stream(device_index):
    return 0


def is_read_only(array):
    return not array.flags.writeable


def is_unordered(array):
    return False
