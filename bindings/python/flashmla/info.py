"""What this machine and this build of the library can do."""

import ctypes
import typing

from flashmla import _abi
from flashmla._abi import DeviceKind, Isa
from flashmla._library import check, lib


class DeviceInfo(typing.NamedTuple):
    """name: what DecodePlan(device=...) takes. usable: whether plans can be made there, with the reason if not. num_units:
    multiprocessors, or cores this process may use. capability: 10 * major + minor on CUDA, the best `Isa` on the CPU."""

    device: str
    name: str
    usable: bool
    reason: str
    num_units: int
    capability: int
    memory_bytes: int


class DriverInfo(typing.NamedTuple):
    """CUDA driver versions as 1000 * major + 10 * minor, `found` 0 where there is none; `built`: the library has its CUDA part."""

    built: bool
    found: int
    needed: int
    reason: str


class KernelInfo(typing.NamedTuple):
    """A row of the kernel table: the problems it serves in words, and why this machine cannot run it, if so."""

    name: str
    device_kind: DeviceKind
    isa: Isa
    serves: str
    usable: bool
    reason: str


def devices():
    """The CPU first, then CUDA devices by ordinal: a list of `DeviceInfo`."""
    rows = []
    for index in range(lib.flashmla_num_devices()):
        row = _abi.DeviceInfo()
        check(lib.flashmla_get_device_info(index, ctypes.byref(row)))
        device = "cpu" if row.device.kind == DeviceKind.CPU else f"cuda:{row.device.index}"
        numbers = (row.num_units, row.capability, row.memory_bytes)
        rows.append(DeviceInfo(device, row.name.decode(), bool(row.usable), row.reason.decode(), *numbers))
    return rows


def driver():
    """The CUDA driver found and needed: a `DriverInfo`."""
    row = _abi.DriverInfo()
    check(lib.flashmla_get_driver_info(ctypes.byref(row)))
    return DriverInfo(bool(row.built), row.found, row.needed, row.reason.decode())


def kernels():
    """The kernel table in the order in which plans try its rows: a list of `KernelInfo`."""
    rows = []
    for index in range(lib.flashmla_num_kernels()):
        row = _abi.KernelInfo()
        check(lib.flashmla_get_kernel_info(index, ctypes.byref(row)))
        kind, isa = DeviceKind(row.device_kind), Isa(row.isa)
        rows.append(KernelInfo(row.name.decode(), kind, isa, row.serves.decode(), bool(row.usable), row.reason.decode()))
    return rows


def build_info():
    """One line: compiler, CUDA toolkit or "cuda off", targets."""
    return lib.flashmla_build_info().decode()
