"""Workspaces that a plan owns: one a stream on a GPU, one a call in flight on the CPU.

A workspace belongs to one run in flight. On a stream, runs follow one another, so one workspace a stream is enough; its lock keeps two
threads from interleaving the launches of their runs. What a CUDA graph captured must not be shared with eager calls, since a replay may
go to any stream: captures have workspaces of their own, cleared again by a node in each graph. Graphs captured on one stream share one,
as their memory pools do, and must not replay at the same time.
"""

import ctypes
import functools
import threading

from flashmla._abi import DeviceKind
from flashmla._arrays import Buffer
from flashmla._library import check, lib

_CAPTURE_ACTIVE = 1
_CAPTURE_RELAXED = 2


@functools.cache
def _driver():
    """The driver itself, found when the first stream asks: no framework need tell, and nothing is loaded without a GPU."""
    library = ctypes.CDLL("libcuda.so.1")
    library.cuStreamIsCapturing.argtypes = (ctypes.c_void_p,) * 2
    library.cuStreamGetCaptureInfo_v2.argtypes = (ctypes.c_void_p,) * 6
    library.cuStreamSynchronize.argtypes = (ctypes.c_void_p,)
    library.cuThreadExchangeStreamCaptureMode.argtypes = (ctypes.c_void_p,)
    return library


def relax_capture():
    """This thread may allocate from now on, though another captures."""
    mode = ctypes.c_int(_CAPTURE_RELAXED)
    _driver().cuThreadExchangeStreamCaptureMode(ctypes.addressof(mode))


def synchronize(device_index, stream):
    """Waits for a raw stream of a device. What went wrong there, the framework says at its own next call."""
    driver = _driver()
    context, popped = ctypes.c_void_p(), ctypes.c_void_p()
    if driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device_index) != 0:
        return
    driver.cuCtxPushCurrent_v2(context)  # the default stream is that of the current context
    driver.cuStreamSynchronize(stream or None)
    driver.cuCtxPopCurrent_v2(ctypes.byref(popped))
    driver.cuDevicePrimaryCtxRelease_v2(device_index)


def capture_id(stream):
    """A number that names the graph capture going on on a raw stream; 0 when there is none. The default stream cannot be captured."""
    if not stream:
        return 0
    driver = _driver()
    answer = (ctypes.c_uint64 * 2)()  # status (an int), id
    address = ctypes.addressof(answer)
    if driver.cuStreamIsCapturing(stream, address) != 0 or answer[0] != _CAPTURE_ACTIVE:  # the usual answer, for a third of the price
        return 0
    driver.cuStreamGetCaptureInfo_v2(stream, address, address + 8, None, None, None)
    return answer[1]


class Scratch:
    """A workspace, and room for the schedule of a caller that has none of its own."""

    __slots__ = ("workspace", "address", "lock", "stream", "capture", "schedule")

    def __init__(self, workspace, stream):
        self.workspace = workspace
        self.address = workspace.address
        self.lock = threading.Lock()
        self.stream = stream
        self.capture = None  # the capture whose graph clears this workspace; 0: cleared eagerly; None: not yet
        self.schedule = None


class _OwnedScratch:
    lasting = False  # kept for good, and so not in memory of a capture

    def __init__(self, handle, num_bytes, device):
        self._handle, self._num_bytes, self._device = handle, num_bytes, device

    def _make(self, stream, like):
        return Scratch(Buffer.make(self._num_bytes, self._device, like, ("decode", "q"), self.lasting), stream)

    def _reset(self, scratch, capture):
        check(lib.flashmla_plan_reset(self._handle, scratch.address, scratch.stream or None))
        scratch.capture = capture


class HostScratch(_OwnedScratch):
    """CPU: as many as there were calls at once. Runs are synchronous, so a released one is free."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._free, self.all = [], []

    def acquire(self, stream, like):
        try:
            return self._free.pop()
        except IndexError:
            scratch = self._make(0, like)
            self._reset(scratch, 0)
            self.all.append(scratch)
            return scratch

    def release(self, scratch):
        self._free.append(scratch)


class StreamScratch(_OwnedScratch):
    """CUDA: one a raw stream, and another for what is captured there."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._eager, self._captured, self._growing = {}, {}, threading.Lock()

    def acquire(self, stream, like):
        capture = capture_id(stream) if stream else 0
        table = self._captured if capture else self._eager
        scratch = table.get(stream)
        if scratch is None:
            with self._growing:
                scratch = table.get(stream) or table.setdefault(stream, self._make(stream, like))
        scratch.lock.acquire()
        if scratch.capture != capture:
            try:
                self._reset(scratch, capture)
            except BaseException:
                scratch.lock.release()
                raise
        return scratch

    def release(self, scratch):
        scratch.lock.release()

    @property
    def all(self):
        return [*self._eager.values(), *self._captured.values()]


def owned_scratch(handle, num_bytes, device):
    kind = HostScratch if device[0] == DeviceKind.CPU else StreamScratch
    return kind(handle, num_bytes, device)
