"""Recognises arrays when they arrive, so that importing this package imports no framework.

An adapter is a module with the same few functions for one family of arrays:
    fill(view, array, where, as_bf16, stream)  writes the array into a C view; returns what must stay alive during the call, or None
    device(array)                    (DeviceKind, index)
    empty(like, shape, dtype, where) a new contiguous array of `dtype` (a DType) beside `like`
    buffer(like, num_bytes, where)   device memory for a schedule or workspace: (owner, address), 256-byte aligned
    stream(device_index)             the raw stream that work should go to
    is_read_only(array)              whether it must not be written
    is_unordered(array)              whether its framework would use its memory without waiting for that stream
`where` is (operation, argument) for error messages; `stream` the raw stream that will use the array, None for the default.
flashmla.torch, flashmla._numpy and flashmla._dlpack are the adapters.
"""

import ctypes
import importlib

from flashmla._abi import DeviceKind, DType, View
from flashmla._errors import invalid

MAX_RANK = 4
HOST = (DeviceKind.CPU, 0)

_adapters = {}  # type of array -> adapter module


def adapter_of(array, where):
    """The adapter for `array`; raises Error for what is no array."""
    kind = type(array)
    adapter = _adapters.get(kind)
    if adapter is None:
        adapter = _adapters[kind] = importlib.import_module(_adapter_name(kind, where))
    return adapter


def _adapter_name(kind, where):
    for base in kind.__mro__:
        family = base.__module__.partition(".")[0]
        if family == "torch" and base.__name__ == "Tensor":
            return "flashmla.torch"
        if family == "numpy" and base.__name__ == "ndarray":
            return "flashmla._numpy"
    if hasattr(kind, "__dlpack__") and hasattr(kind, "__dlpack_device__"):
        return "flashmla._dlpack"
    raise invalid(*where, f"{kind.__module__}.{kind.__qualname__}", "a torch.Tensor, a numpy.ndarray or an array with __dlpack__")


def fill(view, array, where, as_bf16=False, stream=None):
    """Writes `array` into the C view; returns what must stay alive while the view is used, or None."""
    return adapter_of(array, where).fill(view, array, where, as_bf16, stream)


def fill_output(view, array, where, as_bf16=False, stream=None):
    """The same for an array that will be written."""
    adapter = adapter_of(array, where)
    if adapter.is_read_only(array):
        raise invalid(*where, "a read-only array", "one that can be written")
    return adapter.fill(view, array, where, as_bf16, stream)


def parts_of(operation, fused, pair, value):
    """{name: array} of an argument that is one array, or a tuple of the two that `pair` names."""
    if not isinstance(value, tuple):
        return {fused: value}
    if len(value) != 2:
        raise invalid(operation, fused, f"a tuple of {len(value)}", f"an array, or the pair ({pair[0]}, {pair[1]})")
    return dict(zip(pair, value))


def settle(arrays, device, stream):
    """Waits for the work just enqueued where an array's framework could not know of it, and would read or free its memory too soon."""
    if device[0] != DeviceKind.CPU and any(_adapters[type(array)].is_unordered(array) for array in arrays if type(array) in _adapters):
        from flashmla._scratch import synchronize

        synchronize(device[1], stream)


def write_view(view, address, dtype, *, device, sizes, strides, where):
    """Sizes and strides in elements."""
    rank = len(sizes)
    if rank > MAX_RANK:
        raise invalid(*where, f"rank {rank}", f"a rank of at most {MAX_RANK}")
    view.data, view.dtype, view.rank = address or None, dtype, rank
    view.device.kind, view.device.index = device
    view.size[:rank] = sizes
    view.stride[:rank] = strides


def resolve_dtype(name, table, where, as_bf16):
    """The DType of a framework's dtype called `name`; `table` maps names, and uint16 counts as BF16 when the caller said so."""
    if name == "uint16" and as_bf16:
        return DType.BF16
    dtype = table.get(name)
    if dtype is None:
        hint = ' (for bfloat16 in uint16, pass dtype="bf16")' if name == "uint16" else ""
        raise invalid(*where, f"dtype {name}", f"one of {', '.join(table)}{hint}")
    return dtype


def parse_as_bf16(operation, dtype):
    """Whether uint16 arrays hold bfloat16, from the public argument `dtype`."""
    if dtype is None:
        return False
    if isinstance(dtype, str) and dtype.lower() in ("bf16", "bfloat16") or dtype is DType.BF16:
        return True
    raise invalid(operation, "dtype", repr(dtype), 'None or "bf16" (it only says what uint16 arrays hold)')


def device_name(device):
    return "cpu" if device[0] == DeviceKind.CPU else f"cuda:{device[1]}"


class HostMemory:
    """Zeroed host bytes at a 256-byte aligned `address`."""

    __slots__ = ("address", "_bytes")
    ALIGNMENT = 256

    def __init__(self, num_bytes):
        self._bytes = ctypes.create_string_buffer(num_bytes + self.ALIGNMENT - 1)
        self.address = -(-ctypes.addressof(self._bytes) // self.ALIGNMENT) * self.ALIGNMENT


class Buffer:
    """A schedule or workspace as the library sees it: `address` is that of its C view. Owns its memory, or keeps the caller's."""

    __slots__ = ("view", "address", "memory")

    def __init__(self, memory):
        self.view = View()
        self.address = ctypes.addressof(self.view)
        self.memory = memory

    @classmethod
    def make(cls, num_bytes, device, like, where, lasting=False):
        """New memory on `device`; `like` is an array on that device, whose framework allocates; `where` names it. lasting: `like` is a
        torch tensor, and the memory outlives every capture."""
        if device[0] == DeviceKind.CPU:
            memory = HostMemory(num_bytes)
            address = memory.address
        else:
            adapter = adapter_of(like, where)
            if adapter.device(like) != device:  # its framework would allocate there
                raise invalid(*where, f"device {device_name(adapter.device(like))}", f"{device_name(device)}, the plan's")
            memory, address = (adapter.lasting_buffer if lasting else adapter.buffer)(like, num_bytes, where)
        buffer = cls(memory)
        write_view(buffer.view, address, DType.UINT8, device=device, sizes=(num_bytes,), strides=(1,), where=where)
        return buffer

    @classmethod
    def wrap(cls, array, where, stream=None):
        """The caller's own memory: any contiguous array; size, device and alignment are checked by the library."""
        buffer = cls(array)
        keep = fill_output(buffer.view, array, where, stream=stream)
        if keep is not None:
            buffer.memory = (array, keep)
        return buffer
