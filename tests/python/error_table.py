"""The error matrix of tests/api/errors/matrix.txt (its form is explained there) for the Python tests: rows, and calls made from them."""

import ctypes
import dataclasses
import re

import numpy as np
from conftest import ROOT

import flashmla
from flashmla import _abi
from flashmla._arrays import HostMemory

PATH = ROOT / "tests" / "api" / "errors" / "matrix.txt"


@dataclasses.dataclass
class Row:
    line: int
    changes: list  # (path, value)
    status: str
    message: str

    def __str__(self):
        return f"{self.line}: " + "; ".join(f"{path} = {value}" for path, value in self.changes)


@dataclasses.dataclass
class Block:
    function: str
    good: list = dataclasses.field(default_factory=list)
    rows: list = dataclasses.field(default_factory=list)


def assignment(text):
    path, _, value = text.partition("=")
    return path.strip(), value.strip()


def read():
    """(blocks, {path of `any` lines: reason})"""
    blocks, anything = [], {}
    for number, line in enumerate(PATH.read_text().splitlines(), 1):
        line = line.strip()
        if line.startswith("call "):
            blocks.append(Block(line[5:].strip()))
        elif line.startswith("any "):
            path, _, reason = line[4:].partition(":")
            anything[path.strip()] = reason.strip()
        elif line.startswith("- "):
            changes, status, message = (part.strip() for part in line[2:].split("|", 2))
            blocks[-1].rows.append(Row(number, [assignment(c) for c in changes.split(";")], status, message))
        elif line and not line.startswith("#"):
            blocks[-1].good.append(assignment(line))
    return blocks, anything


WORDS = {m.name: int(m) for kind in (_abi.DType, _abi.KvFormat, _abi.LseLayout, _abi.DeviceKind) for m in kind} | {
    "INT32_MAX": 2**31 - 1, "INT32_MIN": -(2**31), "INT64_MAX": 2**63 - 1, "INT64_MIN": -(2**63), "UINT32_MAX": 2**32 - 1,
    "HAS_SCALE": _abi.PROBLEM_HAS_SCALE, "BATCH_INVARIANT": _abi.PROBLEM_BATCH_INVARIANT,
}  # fmt: skip

_CODES = {"BF16": (4, 16), "FP16": (2, 16), "FP32": (2, 32), "FP64": (2, 64), "INT32": (0, 32), "INT64": (0, 64), "UINT8": (1, 8)}
_DLPACK_DEVICES = {0: 1, 1: 2}


class _Tensor(ctypes.Structure):
    """A DLManagedTensor."""

    _fields_ = [
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32), ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16), ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)), ("byte_offset", ctypes.c_uint64), ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    ]  # fmt: skip


_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype, _new_capsule.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)


class Array:
    """An array of some framework whose every property can be wrong: it shows DLPack and nothing else."""

    def __init__(self, dtype, sizes):
        self.dtype, self.rank = dtype, len(sizes)
        self.size = [*sizes, 0, 0, 0, 0]
        self.stride = [int(np.prod(sizes[i + 1 :])) for i in range(len(sizes))] + [0] * 4
        self.num_bytes = int(np.prod(sizes)) * _CODES[dtype][1] // 8
        self.memory = HostMemory(self.num_bytes)
        self.data = self.memory.address
        self.device = [0, 0]
        if dtype[:3] != "INT":
            ctypes.memset(self.data, 0x5A, self.num_bytes)

    @property
    def shape(self):
        return tuple(self.size[: self.rank])

    def bytes(self):
        return ctypes.string_at(self.memory.address, self.num_bytes)

    def __dlpack_device__(self):
        return _DLPACK_DEVICES[self.device[0]], self.device[1]

    def __dlpack__(self, *, stream=None):
        code, bits = _CODES[self.dtype]
        self._sizes = (ctypes.c_int64 * 8)(*self.shape)
        self._strides = (ctypes.c_int64 * 8)(*self.stride[: self.rank])
        kind, index = self.__dlpack_device__()
        self._tensor = _Tensor(self.data, kind, index, self.rank, code, bits, 1, self._sizes, self._strides, 0, None, None)
        return _new_capsule(ctypes.addressof(self._tensor), b"dltensor", None)


class Call:
    """The arguments of a function by their paths in the table: numbers and Arrays."""

    def __init__(self, block, changes):
        self.function = block.function.removeprefix("flashmla_")
        self.values = {}
        self._plan = None
        ordered = [*block.good, *changes]
        handles = ("plan.", "pool.")
        for path, value in [a for a in ordered if a[0].startswith(handles)]:
            self.values[path] = self.number(value, self.values.get(path, 0))
        for path, value in [a for a in ordered if not a[0].startswith(handles)]:
            self.assign(path, value)

    @property
    def plan(self):
        if self._plan is None:
            fields = {path.removeprefix("plan."): value for path, value in self.values.items() if path.startswith("plan.")}
            self._plan = flashmla.DecodePlan(**fields, num_threads=2)
        return self._plan

    def number(self, word, before=0):
        if word.startswith("+"):
            return before + self.number(word[1:])
        if word in WORDS:
            return WORDS[word]
        if word in ("schedule_bytes", "workspace_bytes"):
            return getattr(self.plan, word)
        return float(word) if word in ("nan", "inf", "-inf") else int(word)

    def assign(self, path, value):
        view = re.fullmatch(r"(\w+) \[(.*)\]", value)
        if view:
            self.values[path] = Array(view[1], [self.number(word.strip()) for word in view[2].split(",")])
            return
        owner, _, field = path.rpartition(".")
        owner, _, device = owner.partition(".device")
        array = self.values.get(path.rpartition(".device.")[0] or owner)
        if not isinstance(array, Array):
            self.values[path] = self.number(value, self.values.get(path, 0))
        elif ".device." in path:
            array.device[("kind", "index").index(field)] = self.number(value)
        elif field == "dtype":
            array.dtype = value
        elif field == "rank":
            array.rank = self.number(value)
        elif field == "data":
            array.data = self.address(value, array.data)
        else:
            name, index = re.fullmatch(r"(size|stride)\[(\d)\]", field).groups()
            entries = getattr(array, name)
            entries[int(index)] = self.number(value, entries[int(index)])

    def address(self, value, before):
        if value == "null":
            return 0
        source = re.fullmatch(r"@(.+)\.data(?:\+(\d+))?", value)
        return self.values[source[1]].data + int(source[2] or 0) if source else before + int(value[1:])

    def get(self, path, default=None):
        return self.values.get(path, default)

    def under(self, prefix):
        """Values below a path, by what is left of theirs."""
        return {path.removeprefix(prefix): value for path, value in self.values.items() if path.startswith(prefix)}

    def bytes(self):
        return [array.bytes() for array in self.values.values() if isinstance(array, Array)]

    def make(self):
        """Makes the call through the package."""
        return globals()[f"_{self.function}"](self)


def _pair(arguments, fused, pair):
    return arguments[fused] if fused in arguments else tuple(arguments.get(name) for name in pair)


def _plan_create(call):
    fields, target = call.under("problem."), call.under("target.")
    flags = fields.pop("flags", 0)
    scale = fields.pop("scale", None)
    device = (_abi.DeviceKind(target.pop("device.kind", 0)), target.pop("device.index", 0))
    fields["batch_invariant"] = bool(flags & _abi.PROBLEM_BATCH_INVARIANT)
    flashmla.DecodePlan(**fields, **target, scale=scale, device=device)


def _plan_update(call):
    lengths = {name: call.get(f"lengths.{name}") for name in ("q_tokens", "q_offsets")}
    call.plan.update(call.get("lengths.kv_len"), **lengths, schedule=call.get("schedule"))


def _plan_reset(call):
    call.plan.reset(call.get("workspace"))


def _plan_fault(call):
    call.plan.fault(call.get("workspace"))


def _plan_run(call):
    args = call.under("args.")
    optional = {name: args.get(name) for name in ("out", "lse", "visible_len", "sink")}
    optional["q_offsets"] = args.get("lengths.q_offsets")
    q, cache = _pair(args, "q", ("q_nope", "q_pe")), _pair(args, "cache", ("ckv", "kpe"))
    call.plan.run(q, cache, args["page_table"], args["lengths.kv_len"], **optional, schedule=call.get("schedule"), workspace=call.get("workspace"))


def _plan_parts(call):
    lengths = [call.get(f"kv_len[{i}]", 0) for i in range(call.get("batch"))]
    call.plan.parts(lengths, call.get("q_tokens"))


def _plan_parts_ragged(call):
    batch = call.get("batch")
    lengths = [call.get(f"kv_len[{i}]", 0) for i in range(batch)]
    call.plan.parts(lengths, q_offsets=[call.get(f"q_offsets[{i}]", 0) for i in range(batch + 1)])


def _merge(call):
    args = call.under("args.")
    flashmla.merge(args.pop("partial_out"), args.pop("partial_lse"), **args)


def _append(call):
    args = call.under("args.")
    kv = _pair(args, "kv", ("ckv", "kpe"))
    flashmla.append(kv, args["cache"], args["slot_mapping"], kv_format=args["kv_format"], fault=args.get("fault"))


def _copy_pages(call):
    copies = [(call.get(f"copies[{i}].source"), call.get(f"copies[{i}].target")) for i in range(2)]
    flashmla.copy_pages([call.get("caches[0]"), call.get("caches[1]")], copies)


def _page_pool_create(call):
    flashmla.PagePool(call.get("num_pages"))


def _unchanged(call, use):
    pool = flashmla.PagePool(call.get("pool.num_pages"))
    pool.allocate(call.get("pool.held"))
    before = [pool.num_free, *(pool.references(i) for i in range(pool.num_pages))]
    try:
        use(pool)
    except flashmla.Error:
        assert before == [pool.num_free, *(pool.references(i) for i in range(pool.num_pages))]
        raise


def _ids(call, count):
    return [call.get(f"page_ids[{i}]", 0) for i in range(count)]


def _page_pool_allocate(call):
    _unchanged(call, lambda pool: pool.allocate(call.get("count")))


def _page_pool_retain(call):
    _unchanged(call, lambda pool: pool.retain(_ids(call, call.get("count"))))


def _page_pool_free(call):
    _unchanged(call, lambda pool: pool.free(_ids(call, call.get("count"))))


def _page_pool_fork(call):
    _unchanged(call, lambda pool: pool.fork(_ids(call, 4), call.get("tokens"), call.get("page_tokens")))
