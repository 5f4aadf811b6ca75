"""The adapter for torch.Tensor, and the quick path of `run` for them. This module imports torch; `import flashmla` does not import it.

No __dlpack__, and the raw current stream. An eager call's cost on the host is mostly Python's, so `Runner` hands plain tensors to a
builtin function that reads them in C (flashmla._native). Where that cannot be had it keeps argument structs filled in: a call whose
shapes, strides, dtypes and devices are those of the last one writes six pointers and calls the library.
"""

import ctypes
import threading

import torch

from flashmla import _abi, _native
from flashmla._abi import DeviceKind, DType
from flashmla._arrays import HOST, resolve_dtype, write_view
from flashmla._errors import invalid
from flashmla._library import check, lib

_DTYPES = {
    "bfloat16": DType.BF16, "float16": DType.FP16, "float32": DType.FP32, "float64": DType.FP64, "int32": DType.INT32,
    "int64": DType.INT64, "int8": DType.INT8, "uint8": DType.UINT8, "float8_e4m3fn": DType.E4M3,
}  # fmt: skip
_TORCH_DTYPES = {DType.BF16: torch.bfloat16, DType.FP16: torch.float16, DType.FP32: torch.float32}


def fill(view, tensor, where, as_bf16=False, stream=None):
    if tensor.layout is not torch.strided:
        raise invalid(*where, f"layout {tensor.layout}", "torch.strided")
    kind = tensor.device.type
    if kind == "cuda":
        device = (DeviceKind.CUDA, tensor.device.index)
    elif kind == "cpu":
        device = HOST
    else:
        raise invalid(*where, f"device {tensor.device}", "a cpu or cuda tensor")
    dtype = resolve_dtype(str(tensor.dtype).removeprefix("torch."), _DTYPES, where, as_bf16)
    write_view(view, tensor.data_ptr(), dtype, device=device, sizes=tensor.shape, strides=tensor.stride(), where=where)
    return None


def device(tensor):
    return (DeviceKind.CUDA, tensor.device.index) if tensor.is_cuda else HOST


def empty(like, shape, dtype, where):
    # A caller that keeps bfloat16 in uint16 gets it back so.
    kind = like.dtype if dtype == DType.BF16 and like.dtype == torch.uint16 else _TORCH_DTYPES[dtype]
    return torch.empty(shape, dtype=kind, device=like.device)


def buffer(like, num_bytes, where):
    # The caching allocator aligns to 512 bytes, and inside a capture allocates from the graph's own pool.
    memory = torch.empty(num_bytes, dtype=torch.uint8, device=like.device)
    return memory, memory.data_ptr()


def lasting_buffer(like, num_bytes, where):
    """Memory that is kept for good, whoever captures: CUDA-graph trees want nothing left in their pool but outputs. What they redirect to it
    are the allocations of their thread, so this one is made in another."""
    made = []
    thread = threading.Thread(target=_allocate_aside, args=(made, like.device, num_bytes))
    thread.start()
    thread.join()
    return (made[0], made[0].data_ptr()) if made else buffer(like, num_bytes, where)


_aside_streams = {}  # device index -> a stream on which nothing ever runs
_aside_lock = threading.Lock()


def _allocate_aside(made, device, num_bytes):
    """Puts a tensor into `made`, or nothing where that fails. On a stream where nothing runs, so that no work before knows the memory."""
    from flashmla._scratch import relax_capture

    try:
        relax_capture()  # of this thread: to allocate would spoil a capture that goes on in another
        with torch.cuda.device(device), _aside_lock:
            stream = _aside_streams.get(device.index)
            if stream is None:
                handle = ctypes.c_void_p()
                torch.cuda.check_error(torch.cuda.cudart().cudaStreamCreate(ctypes.addressof(handle)))
                stream = _aside_streams[device.index] = torch.cuda.ExternalStream(handle.value, device=device)
            with torch.cuda.stream(stream):
                made.append(torch.empty(num_bytes, dtype=torch.uint8, device=device))
    except Exception:  # the caller allocates as usual, and says what is wrong
        made.clear()


def _public_raw_stream(device_index):
    return torch.cuda.current_stream(device_index).cuda_stream


#: The raw current stream of a CUDA device: 0.1 us, where torch.cuda.current_stream() costs 4.6.
stream = getattr(torch._C, "_cuda_getCurrentRawStream", _public_raw_stream)


def is_read_only(array):
    return False


def is_unordered(array):
    return False


_POINTER = ctypes.sizeof(ctypes.c_uint64)


def _pointer_index(field, inside=0):
    """Where the pointer of a view of DecodeArgs lies, in 64-bit words."""
    return (field.offset + inside + _abi.View.data.offset) // _POINTER


_Q = _pointer_index(_abi.DecodeArgs.q)
_CACHE = _pointer_index(_abi.DecodeArgs.cache)
_PAGE_TABLE = _pointer_index(_abi.DecodeArgs.page_table)
_KV_LEN = _pointer_index(_abi.DecodeArgs.lengths, _abi.Lengths.kv_len.offset)
_OUT = _pointer_index(_abi.DecodeArgs.out)
_LSE = _pointer_index(_abi.DecodeArgs.lse)
_Words = ctypes.c_uint64 * (ctypes.sizeof(_abi.DecodeArgs) // _POINTER)
_run = lib.flashmla_plan_run
_new_like = torch.empty_like


def _pattern(shape, dtype, device):
    """A tensor of no memory that empty_like can copy: half the cost of torch.empty, which parses sizes, dtype and device each time."""
    pattern = torch.empty(shape, dtype=dtype, device=device)
    pattern.untyped_storage().resize_(0)
    return pattern


class _Frame:
    """One argument struct, filled in for calls that look alike. Used by one call at a time, since the library reads it without the GIL."""

    __slots__ = ("args", "address", "words", "inputs", "rows", "out_layout", "lse_layout")

    def __init__(self):
        self.args = _abi.DecodeArgs()
        self.address = ctypes.addressof(self.args)
        self.words = _Words.from_buffer(self.args)
        self.inputs = None  # shape, stride, dtype, device of q, cache, page_table and kv_len that the struct describes
        self.out_layout = self.lse_layout = None  # the same of the outputs


class Runner:
    """`DecodePlan.run` for plain calls with torch tensors."""

    def __init__(self, plan):
        self.plan = plan
        self.handle = plan.handle
        self.scratch = plan.scratch
        self.on_gpu = plan.device[0] == DeviceKind.CUDA
        self.device_index = plan.device[1]
        self.device = torch.device("cuda", self.device_index) if self.on_gpu else torch.device("cpu")
        self.out_dtype = _TORCH_DTYPES[plan.problem.element_of_out]
        self.native = _native.make(plan.handle, torch.Tensor)
        self._patterns = (None, None, None)  # shape of q, what out and lse are then like
        self._frames = []

    def run(self, schedule, workspace, q, cache, page_table, kv_len, *, out, lse):
        """(out, lse), or None when an argument is no plain tensor and the general path has to look at it. See DecodePlan.run."""
        main = q[0] if type(q) is tuple else q
        if out is None or lse is None:
            try:
                shape, out_like, lse_like = self._patterns
                if main.shape != shape:
                    shape, out_like, lse_like = self._like(main)
            except AttributeError:
                return None
            if out is None:
                out = _new_like(out_like)
            if lse is None:
                lse = _new_like(lse_like)
        if lse is False:
            lse = None
        native = self.native
        if native is None:
            return self._run_framed(schedule, workspace, (q, cache, page_table, kv_len), out, lse)
        raw = stream(self.device_index) if self.on_gpu else 0
        given = workspace is not None
        scratch = workspace if given else self.scratch.acquire(raw, main)
        try:
            status = native(
                q, cache, page_table, kv_len, out, lse, schedule.batch, schedule.q_tokens, schedule.address, scratch.address, raw
            )  # fmt: skip
        finally:
            if not given:
                self.scratch.release(scratch)
        if status:
            if status == _native.NOT_HANDLED:
                return self._run_framed(schedule, workspace, (q, cache, page_table, kv_len), out, lse)
            check(status)
        return out, lse

    def _like(self, q):
        """Patterns of the outputs for a q of this shape."""
        batch, q_tokens, h_q, _ = _rank4(q)  # of q or of its first part
        out_like = _pattern((batch, q_tokens, h_q, self.plan.problem.v_dim), self.out_dtype, self.device)
        lse_like = _pattern(self.plan.lse_shape(batch, q_tokens, h_q), torch.float32, self.device)
        patterns = self._patterns = (q.shape, out_like, lse_like)
        return patterns

    def _run_framed(self, schedule, workspace, tensors, out, lse):
        """The same through ctypes, and for whatever the builtin does not know; lse None for none."""
        q, cache, page_table, kv_len = tensors
        try:
            inputs = (
                q.shape, q.stride(), q.dtype, q.device, cache.shape, cache.stride(), cache.dtype, cache.device,
                page_table.shape, page_table.stride(), page_table.dtype, page_table.device,
                kv_len.shape, kv_len.stride(), kv_len.dtype, kv_len.device,
            )  # fmt: skip
        except (AttributeError, TypeError, RuntimeError):
            return None
        try:
            frame = self._frames.pop()
        except IndexError:
            frame = _Frame()
        try:
            if frame.inputs != inputs:
                self._bind_inputs(frame, q, cache, page_table, kv_len)
                frame.inputs = inputs
            if schedule.rows != frame.rows and schedule.rows is not None:
                from flashmla.plan import stale_schedule

                raise stale_schedule(schedule.rows, frame.rows)
            layout = (out.shape, out.stride(), out.dtype, out.device)
            if frame.out_layout != layout:
                frame.out_layout = None
                fill(frame.args.out, out, ("decode", "out"))
                frame.out_layout = layout
            layout = False if lse is None else (lse.shape, lse.stride(), lse.dtype, lse.device)
            if frame.lse_layout != layout:
                self._bind_lse(frame, lse, layout)
            words = frame.words
            words[_Q], words[_CACHE] = q.data_ptr(), cache.data_ptr()
            words[_PAGE_TABLE], words[_KV_LEN] = page_table.data_ptr(), kv_len.data_ptr()
            words[_OUT] = out.data_ptr()
            words[_LSE] = 0 if lse is None else lse.data_ptr()
            raw = stream(self.device_index) if self.on_gpu else 0
            scratch = self.scratch.acquire(raw, q) if workspace is None else workspace
            try:
                check(_run(self.handle, frame.address, schedule.address, scratch.address, raw))
            finally:
                if workspace is None:
                    self.scratch.release(scratch)
        finally:
            self._frames.append(frame)
        return out, lse

    def _bind_inputs(self, frame, q, cache, page_table, kv_len):
        frame.inputs = None
        args = frame.args
        fill(args.q, q, ("decode", "q"))
        fill(args.cache, cache, ("decode", "cache"))
        fill(args.page_table, page_table, ("decode", "page_table"))
        fill(args.lengths.kv_len, kv_len, ("decode", "kv_len"))
        batch, q_tokens, _, _ = _rank4(q)
        args.lengths.q_tokens = q_tokens
        frame.rows = (batch, q_tokens)

    def _bind_lse(self, frame, lse, layout):
        frame.lse_layout = None
        if lse is None:
            frame.args.lse = _abi.View()
        else:
            fill(frame.args.lse, lse, ("decode", "lse"))
        frame.lse_layout = layout


def _rank4(q):
    """The sizes of q."""
    if len(q.shape) != 4:
        raise invalid("decode", "q", f"rank {len(q.shape)}", "rank 4: [batch, q_tokens, h_q, dim]")
    return q.shape
