"""The builtin function behind `run` for plain tensors: bindings/python/native/run.c, loaded where it and the framework allow.

The file lies beside libflashmla. Without it, or with a framework that has no DLPack exchange API (torch before 2.10), `make` answers None
and calls go through ctypes: the same results, some microseconds later. FLASHMLA_NATIVE=0 does so on purpose.
"""

import ctypes
import functools
import os

from flashmla._library import lib, path

NOT_HANDLED = -1
_NAME = "libflashmla_python.so"
_EXCHANGE_MAJOR = 1


class _Version(ctypes.Structure):
    _fields_ = [("major", ctypes.c_uint32), ("minor", ctypes.c_uint32)]


class _Exchange(ctypes.Structure):
    """DLPackExchangeAPI: a version, the table of an older version or null, and the functions."""

    _fields_ = [
        ("version", _Version), ("previous", ctypes.c_void_p), ("allocate", ctypes.c_void_p), ("to_managed", ctypes.c_void_p),
        ("from_managed", ctypes.c_void_p), ("to_tensor", ctypes.c_void_p), ("stream", ctypes.c_void_p),
    ]  # fmt: skip


class _Runner(ctypes.Structure):
    """The struct of that name in run.c."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("run", "plan", "read", "tensor_type", "tuple_type", "none")]


@functools.cache
def _library():
    if os.environ.get("FLASHMLA_NATIVE") == "0":
        return None
    try:
        library = ctypes.PyDLL(str(path.resolve().parent / _NAME))
    except OSError:
        return None
    library.flashmla_python_runner.restype = ctypes.py_object
    library.flashmla_python_runner.argtypes = (ctypes.c_void_p,)
    return library


def _reader(tensor_type):
    """The address of the function that describes a tensor of exactly this type, or None."""
    capsule = getattr(tensor_type, "__dlpack_c_exchange_api__", None)
    if capsule is None:
        return None
    get = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", ctypes.pythonapi))
    try:
        address = get(capsule, b"dlpack_exchange_api")
    except ValueError:  # a draft of the protocol used another name
        return None
    while address:
        table = _Exchange.from_address(address)
        if table.version.major == _EXCHANGE_MAJOR:
            return table.to_tensor
        address = table.previous
    return None


def make(handle, tensor_type):
    """run(q, cache, page_table, kv_len, out, lse or None, batch, q_tokens, schedule, workspace, stream) for a plan's handle, or None.

    q and cache are tensors or pairs of them. It answers a status, or NOT_HANDLED when nothing was called because an argument is not a plain tensor or the schedule is of other rows
    (batch -1: unknown). schedule and workspace are addresses of C views.
    """
    library, reader = _library(), _reader(tensor_type)
    if library is None or reader is None:
        return None
    run = ctypes.cast(lib.flashmla_plan_run, ctypes.c_void_p).value
    runner = _Runner(run=run, plan=handle, read=reader, tensor_type=id(tensor_type), tuple_type=id(tuple), none=id(None))
    return library.flashmla_python_runner(ctypes.addressof(runner))
