"""DecodePlan: attention of new tokens over a paged KV cache, planned once and run once a layer."""

import concurrent.futures
import contextlib
import ctypes
import sys
import typing
import weakref

from flashmla import _abi
from flashmla._abi import DeviceKind, DType, FaultCode, Isa, LseLayout
from flashmla._arrays import HOST, Buffer, adapter_of, device_name, fill, fill_output, parse_as_bf16, parts_of, settle
from flashmla._errors import Error, invalid, member, sequence, whole_number
from flashmla._library import check, lib
from flashmla._problem import Problem
from flashmla._scratch import owned_scratch


_INT32_MAX = 2**31 - 1


class Part(typing.NamedTuple):
    """A token range [first_token, last_token) of one request and row tile, computed by one worker; `split` of `num_splits`."""

    worker: int
    request: int
    row_tile: int
    first_token: int
    last_token: int
    split: int
    num_splits: int


class Fault(typing.NamedTuple):
    """What a device found wrong in lengths or page ids; the values were masked, nothing outside an array was read."""

    code: FaultCode
    request: int
    position: int
    value: int

    @classmethod
    def read(cls, array):
        """The fault in an int32 [8] array that `append(fault=...)` wrote (its copy on the host), or None."""
        code, request, position, value = (int(x) for x in array.tolist()[:4])
        return cls(FaultCode(code), request, position, value) if code else None


class Schedule(Buffer):
    """A step's schedule: made by `DecodePlan.new_schedule`, filled by `update`, read by `run`; one serves all layers of the step."""

    __slots__ = ("batch", "q_tokens", "capture")

    def __init__(self, memory):
        super().__init__(memory)
        self.batch = self.q_tokens = -1  # of the last update, q_tokens 0: ragged; -1 when the caller's own memory holds it
        self.capture = 0  # the graph capture that fills it, or 0

    @property
    def rows(self):
        """(batch, q_tokens), or (batch, 0) with q_offsets; None when unknown."""
        return None if self.batch < 0 else (self.batch, self.q_tokens)


def _destroy(handle, _executor):
    """_executor: alive for as long as the plan may call it."""
    lib.flashmla_plan_destroy(handle)


def _executor_of(pool):
    """The C struct over a concurrent.futures.Executor."""
    if not callable(getattr(pool, "submit", None)) or isinstance(pool, concurrent.futures.ProcessPoolExecutor):
        raise invalid("plan_create", "executor", repr(pool), "a concurrent.futures.Executor of threads")

    def parallel_for(_context, count, task, task_context):
        call = _abi.TASK(task)
        tasks = []
        with contextlib.suppress(RuntimeError):  # a pool that was shut down: the calling thread does what is left
            for index in range(count):
                tasks.append(pool.submit(call, task_context, index))
        concurrent.futures.wait(tasks)

    return _abi.Executor(parallel_for=_abi.PARALLEL_FOR(parallel_for))


class DecodePlan:
    """A problem bound to one device.

    DecodePlan(h_q=16, kv_format="bf16_576", max_batch=8, device="cuda:0") takes the fields of `Problem` as keywords, or a Problem.
    device: "cpu", "cuda", "cuda:N", a torch.device or a (DeviceKind, index) pair. isa ("auto" or a name of `Isa` in lower case) and
    num_threads (0: every core of this process) are for the CPU; num_sms (0: all) limits the multiprocessors of a GPU. executor: a
    concurrent.futures.Executor whose threads do the CPU's work, cut for num_threads, instead of threads of the library; what it does not
    run, the calling thread does. Not a process pool.

    Each step: `update(kv_len)` once, then `run(...)` once a layer. Both only enqueue on the current stream (the CPU is synchronous) and
    may be captured into a CUDA graph and replayed with changed lengths and tables. The plan owns a schedule and a workspace a stream;
    both may be given instead. A plan may be used from many threads; it must outlive the graphs that captured it.

    Raises flashmla.Error: INVALID_ARGUMENT for what no device could do, UNSUPPORTED (with the nearest problem that is) for the rest.
    """

    def __init__(self, problem=None, *, device="cpu", isa=Isa.AUTO, num_threads=0, num_sms=0, executor=None, **fields):
        if problem is None:
            problem = _problem_of(fields)
        elif fields or not isinstance(problem, Problem):
            raise invalid("plan_create", "problem", f"{problem!r} and {sorted(fields)}", "a flashmla.Problem, or its fields as keywords")
        self.problem = problem
        self.device = parse_device("plan_create", device)
        target = _abi.Target(
            isa=member("plan_create", "isa", isa, Isa),
            num_threads=whole_number("plan_create", "num_threads", num_threads, 0, 2**31 - 1),
            num_sms=whole_number("plan_create", "num_sms", num_sms, 0, 2**31 - 1),
        )
        target.device.kind, target.device.index = self.device
        self._executor = None if executor is None else _executor_of(executor)  # the library keeps its function
        target.executor = None if executor is None else ctypes.addressof(self._executor)
        handle = ctypes.c_void_p()
        c_problem = problem.to_abi()
        check(lib.flashmla_plan_create(ctypes.byref(c_problem), ctypes.byref(target), ctypes.byref(handle)))
        self.handle = handle.value
        weakref.finalize(self, _destroy, self.handle, self._executor)
        self.schedule_bytes = lib.flashmla_plan_schedule_bytes(self.handle)
        self.workspace_bytes = lib.flashmla_plan_workspace_bytes(self.handle)
        self.scratch = owned_scratch(self.handle, self.workspace_bytes, self.device)
        self._schedule = None
        self._runner = None  # flashmla.torch.Runner, made when the first torch tensor arrives

    def __repr__(self):
        return f"DecodePlan({self.problem!r}, device={device_name(self.device)!r})"

    def describe(self):
        """Text for people: the kernel chosen, workers, tiles, shared memory, registers."""
        size = lib.flashmla_plan_describe(self.handle, None, 0)
        text = ctypes.create_string_buffer(size)
        lib.flashmla_plan_describe(self.handle, text, size)
        return text.value.decode("utf-8", "replace")

    def parts(self, kv_len, q_tokens=None, *, q_offsets=None):
        """The work split for lengths on the host (a sequence of ints, or an array on the CPU): a list of `Part`. q_offsets: ragged queries,
        as in `update`, but on the host; a request without a query token has no part."""
        operation = "plan_parts" if q_offsets is None else "plan_parts_ragged"
        lengths = _host_numbers(operation, "kv_len", kv_len, "a sequence of lengths")
        if q_offsets is None:
            q_tokens = whole_number(operation, "q_tokens", self.problem.max_q_tokens if q_tokens is None else q_tokens, -(2**31), 2**31 - 1)
            call, arguments = lib.flashmla_plan_parts, (lengths, len(lengths), q_tokens)
        else:
            if q_tokens is not None:
                raise invalid(operation, "q_tokens", q_tokens, "None (q_offsets say how many each request has)")
            offsets = _host_numbers(operation, "q_offsets", q_offsets, "a sequence of offsets")
            if len(offsets) != len(lengths) + 1:
                raise invalid(operation, "q_offsets", f"{len(offsets)} offsets", f"{len(lengths) + 1} (batch + 1)")
            call, arguments = lib.flashmla_plan_parts_ragged, (lengths, offsets, len(lengths))
        count, capacity = ctypes.c_int64(0), 0
        while True:
            room = (_abi.Part * capacity)()
            count.value = capacity
            status = call(self.handle, *arguments, room, ctypes.byref(count))
            if status != _abi.Status.INVALID_ARGUMENT or count.value <= capacity:
                break
            capacity = count.value
        check(status)
        return [Part(*(getattr(p, name) for name in Part._fields)) for p in room[: count.value]]

    def new_schedule(self, like=None, *, where=("new_schedule", "like")):
        """Another schedule for this plan, on its device. `like`: any array on that device, whose framework allocates the memory; needless
        on the CPU. where: (operation, argument) that an Error about `like` names."""
        buffer = Buffer.make(self.schedule_bytes, self.device, like, where, self.scratch.lasting)
        schedule = Schedule(buffer.memory)
        ctypes.memmove(schedule.address, buffer.address, ctypes.sizeof(_abi.View))
        return schedule

    def update(self, kv_len, *, q_tokens=None, q_offsets=None, schedule=None, stream=None):
        """Enqueues: makes the schedule of a step from its lengths.

        kv_len: int32 [batch] on the plan's device, contiguous: tokens in the cache, the new ones among them. q_tokens: query tokens of
        every request, by default max_q_tokens. q_offsets: int32 [batch + 1] on the device, contiguous: ragged queries (cu_seqlens), request r
        having the query tokens q_offsets[r] .. q_offsets[r + 1]; q_tokens then is the most that one may have. schedule: a `Schedule`, or any 256-byte aligned array of `schedule_bytes` bytes on the
        device; by default the plan's own. stream: a raw stream or stream object, by default torch's current one;
        for arrays of other frameworks the default stream, which DLPack orders after theirs.
        A schedule for earlier lengths or offsets costs balance, not correctness; one for another batch or q_tokens is an error in `run`.
        """
        q_tokens = whole_number("plan_update", "q_tokens", self.problem.max_q_tokens if q_tokens is None else q_tokens, -(2**31), 2**31 - 1)
        lengths = _abi.Lengths(q_tokens=q_tokens)
        adapter = adapter_of(kv_len, ("plan_update", "kv_len"))
        raw = self._stream("plan_update", adapter, stream)
        keep = [adapter.fill(lengths.kv_len, kv_len, ("plan_update", "kv_len"), False, raw)]
        if q_offsets is not None:
            keep.append(fill(lengths.q_offsets, q_offsets, ("plan_update", "q_offsets"), stream=raw))
        if schedule is None:
            if self._schedule is None:
                self._schedule = self.new_schedule(kv_len, where=("plan_update", "kv_len"))
            schedule = self._schedule
        schedule = _as_schedule(schedule, "plan_update", raw)
        check(lib.flashmla_plan_update(self.handle, ctypes.addressof(lengths), schedule.address, raw or None))
        schedule.batch, schedule.q_tokens = lengths.kv_len.size[0], q_tokens if q_offsets is None else 0
        settle((kv_len, q_offsets), self.device, raw)
        del keep

    def run(self, q, cache, page_table, kv_len, *, q_offsets=None, out=None, lse=None, visible_len=None, sink=None, schedule=None,
            workspace=None, stream=None, dtype=None):  # fmt: skip
        """Enqueues: attention of one layer. Returns (out, lse).

        q: [batch, q_tokens, h_q, 576], any strides but the last, which is 1; or the pair (q_nope [.., 512], q_pe [.., 64]).
        cache: [num_pages, page_tokens, h_kv, 576], h_kv left out when it is 1; or the pair (ckv [.., 512], kpe [.., 64]).
        With kv_format bf16_320 or bf16_288 a key has 320 or 288 numbers, 256 of them latent, and a value, so a row of out, 256.
        page_table: int32 [batch, max_pages], any row stride; entries past a length may hold anything. kv_len: int32 [batch].
        out: [batch, q_tokens, h_q, 512] of out_dtype, last stride 1; new by default. lse: float32 in the plan's lse_layout; new by
        default, False for none. Outputs may not overlap anything else. visible_len: int32 [batch * q_tokens], the keys that each query
        token sees, instead of the causal rule. q_offsets: as in `update`; then q, out and visible_len have no batch dimension, [total_q, ..],
        and lse is [h_q, total_q] or, in the layout of tokens and heads, [total_q, h_q]. Rows of q that no request has are not read, and
        theirs of out and lse not written. sink: float32 [h_q]: out *= exp(lse) / (exp(lse) + exp(sink)).
        schedule, stream: as in `update`. workspace: an array of `workspace_bytes` bytes that `reset` has cleared; by default the
        plan's own for the stream. dtype: "bf16" when bfloat16 arrives as uint16 (NumPy without ml_dtypes).
        All arrays lie on the plan's device and must stay valid until the work has finished. Lengths and page ids out of range are
        masked; `fault()` reports them.
        """
        if stream is not None:
            stream = raw_stream("decode", stream)
        schedule = self._schedule if schedule is None else _as_schedule(schedule, "decode", stream)
        if schedule is None:
            raise invalid("decode", "schedule", "none", "update(kv_len) before the first run")
        if workspace is not None and not isinstance(workspace, Buffer):
            workspace = Buffer.wrap(workspace, ("decode", "workspace"), stream)
        if q_offsets is None and visible_len is None and sink is None and dtype is None and stream is None:
            runner = self._runner
            if runner is None and type(q[0] if isinstance(q, tuple) and q else q).__module__ == "torch":
                runner = self.torch_runner()
            if runner is not None:
                result = runner.run(schedule, workspace, q, cache, page_table, kv_len, out=out, lse=lse)
                if result is not None:
                    return result
        arrays = {"page_table": page_table, "lengths.kv_len": kv_len, "lengths.q_offsets": q_offsets, "visible_len": visible_len,
                  "sink": sink, "out": out, "lse": lse}  # fmt: skip
        arrays |= parts_of("decode", "q", ("q_nope", "q_pe"), q) | parts_of("decode", "cache", ("ckv", "kpe"), cache)
        return self.run_arrays(arrays, schedule, workspace, stream, parse_as_bf16("decode", dtype))

    def run_arrays(self, arrays, schedule, workspace, stream, as_bf16):
        """`run` for any mix of frameworks: `arrays` by the names of flashmla_decode_args; absent ones are None."""
        args = _abi.DecodeArgs()
        main = "q" if "q" in arrays else "q_nope"
        query = arrays[main]
        adapter = adapter_of(query, ("decode", main))
        shape = tuple(getattr(query, "shape", ()))
        is_ragged = arrays["lengths.q_offsets"] is not None
        rank, words = (3, "[total_q, h_q, dim]") if is_ragged else (4, "[batch, q_tokens, h_q, dim]")
        if len(shape) != rank:
            raise invalid("decode", main, f"rank {len(shape)}", f"rank {rank}: {words}")
        kv_len_shape = tuple(getattr(arrays["lengths.kv_len"], "shape", ()))
        rows = ((*kv_len_shape, 0) if is_ragged else shape)[:2]
        if schedule.rows not in (None, rows) and len(rows) == 2:
            raise stale_schedule(schedule.rows, rows)
        if arrays["out"] is None:
            arrays["out"] = adapter.empty(query, (*shape[:-1], self.problem.v_dim), self.problem.element_of_out, ("decode", "out"))
        if arrays["lse"] is None:
            arrays["lse"] = adapter.empty(query, self.lse_shape(*shape[:-1]), DType.FP32, ("decode", "lse"))
        args.lengths.q_tokens = 0 if is_ragged else shape[1]  # 0: no request has more than max_q_tokens
        raw = self._stream("decode", adapter, stream)
        keep = []
        for name, array in arrays.items():
            if array is None or array is False:
                continue
            short = name.removeprefix("lengths.")
            view = getattr(args, name) if name == short else getattr(args.lengths, short)
            put = fill_output if name in ("out", "lse") else fill
            keep.append(put(view, array, ("decode", short), as_bf16, raw))
        with self.workspace_for(workspace, raw, query) as address:
            check(lib.flashmla_plan_run(self.handle, ctypes.addressof(args), schedule.address, address, raw or None))
        settle(arrays.values(), self.device, raw)
        return arrays["out"], None if arrays["lse"] is False else arrays["lse"]

    @contextlib.contextmanager
    def workspace_for(self, workspace, raw_stream, like):
        """The address of the given workspace's view, or that of the plan's own one for the stream, held until the call is enqueued."""
        if workspace is not None:
            yield workspace.address
            return
        scratch = self.scratch.acquire(raw_stream, like)
        try:
            yield scratch.address
        finally:
            self.scratch.release(scratch)

    def reset(self, workspace, *, stream=None):
        """Enqueues: clears a workspace of the caller's: the fault record and what runs expect to find. Once after it was allocated, and again if a
        plan of another problem or target has used it since."""
        raw = self._stream("plan_reset", adapter_of(workspace, ("plan_reset", "workspace")), stream)
        buffer = Buffer.wrap(workspace, ("plan_reset", "workspace"), raw)
        check(lib.flashmla_plan_reset(self.handle, buffer.address, raw or None))

    def fault(self, workspace=None, *, stream=None):
        """Synchronises, returns the first `Fault` recorded since the last call and clears it; None when there was none.

        workspace: the caller's, with the stream it was used on; by default all workspaces of the plan are asked. Runs of other threads
        must have returned. A graph's runs count once it has been replayed and has finished.
        """
        record = _abi.Fault()
        if workspace is not None:
            raw = self._stream("plan_fault", adapter_of(workspace, ("plan_fault", "workspace")), stream)
            asked = [(Buffer.wrap(workspace, ("plan_fault", "workspace"), raw), raw)]
        else:
            asked = [(scratch.workspace, scratch.stream) for scratch in self.scratch.all if scratch.capture is not None]
        first = None
        for buffer, raw in asked:
            check(lib.flashmla_plan_fault(self.handle, buffer.address, raw or None, ctypes.byref(record)))
            # The workspace of a graph that was never replayed holds anything at all.
            known = record.code in FaultCode._value2member_map_
            if known and record.code and first is None:
                first = Fault(FaultCode(record.code), record.request, record.position, record.value)
        return first

    def torch_runner(self):
        """The quick path for torch tensors; imports flashmla.torch, whose torch the caller has imported already."""
        if self._runner is None:
            from flashmla.torch import Runner

            self._runner = Runner(self)
        return self._runner

    def lse_shape(self, *rows):
        """Of (batch, q_tokens, h_q), or ragged (total_q, h_q)."""
        *_, tokens, h_q = rows
        batch = rows[0] if len(rows) == 3 else 1
        if self.problem.lse_layout == LseLayout.TOKENS_HEADS:
            return (batch * tokens, h_q)
        return (batch, h_q, tokens)[3 - len(rows) :]

    def _stream(self, operation, adapter, stream):
        if self.device[0] == DeviceKind.CPU:
            return 0
        return adapter.stream(self.device[1]) if stream is None else raw_stream(operation, stream)


def _problem_of(fields):
    try:
        return Problem(**fields)
    except TypeError as error:
        raise Error(f"plan_create: problem: got fields {sorted(fields)}, expected those of flashmla.Problem ({error})") from None


def _host_numbers(operation, argument, value, expected):
    """A sequence of ints, or an array on the CPU, as an array of int32 for C."""
    numbers = sequence(operation, argument, value.tolist() if hasattr(value, "tolist") else value, expected)
    numbers = [whole_number(operation, f"{argument}[{i}]", n, -(2**31), 2**31 - 1) for i, n in enumerate(numbers)]
    return (ctypes.c_int32 * len(numbers))(*numbers)


def _as_schedule(schedule, operation, raw):
    if isinstance(schedule, Schedule):
        return schedule
    wrapped = Schedule(schedule)
    put = fill_output if operation == "plan_update" else fill
    put(wrapped.view, schedule, (operation, "schedule"), stream=raw)
    return wrapped


def stale_schedule(got, expected):
    one, other = (f"batch {batch} and " + (f"q_tokens {q_tokens}" if q_tokens else "q_offsets") for batch, q_tokens in (got, expected))
    return invalid("decode", "schedule", f"one for {one}", f"{other} (call update with this step's lengths)")


def raw_stream(operation, stream):
    """A raw stream from an int, torch.cuda.Stream (cuda_stream), cupy.cuda.Stream (ptr) or an object with __cuda_stream__()."""
    for name in ("cuda_stream", "ptr"):
        if hasattr(stream, name):
            return getattr(stream, name)
    if hasattr(stream, "__cuda_stream__"):
        return stream.__cuda_stream__()[1]
    return whole_number(operation, "stream", stream, 0, 2**64 - 1)


def parse_device(operation, device):
    """(DeviceKind, index) from a name, a torch.device or such a pair."""
    if isinstance(device, tuple) and len(device) == 2:
        return member(operation, "device", device[0], DeviceKind), whole_number(operation, "device", device[1], 0, _INT32_MAX)
    name = str(device)
    if name in ("cpu", "cpu:0"):
        return HOST
    name, _, ordinal = name.partition(":")
    if name != "cuda" or (ordinal and not (ordinal.isdecimal() and int(ordinal) <= _INT32_MAX)):
        raise invalid(operation, "device", repr(device), '"cpu", "cuda" or "cuda:N"')
    if ordinal:
        return DeviceKind.CUDA, int(ordinal)
    torch = sys.modules.get("torch")
    return DeviceKind.CUDA, torch.cuda.current_device() if torch is not None and torch.cuda.is_available() else 0
