"""The ctypes declarations against the C header: every struct's size and offsets, every enum value, every function."""

import ctypes
import re
import shutil
import subprocess

import pytest
from conftest import ROOT

from flashmla import _abi
from flashmla._library import lib

HEADER = ROOT / "include" / "flashmla" / "flashmla.h"
STRUCTS = {
    "flashmla_device": _abi.Device, "flashmla_view": _abi.View, "flashmla_problem": _abi.Problem, "flashmla_target": _abi.Target, "flashmla_executor": _abi.Executor,
    "flashmla_lengths": _abi.Lengths, "flashmla_decode_args": _abi.DecodeArgs, "flashmla_merge_args": _abi.MergeArgs,
    "flashmla_append_args": _abi.AppendArgs, "flashmla_page_copy": _abi.PageCopy, "flashmla_copy_pages_args": _abi.CopyPagesArgs,
    "flashmla_fault": _abi.Fault, "flashmla_part": _abi.Part,
    "flashmla_device_info": _abi.DeviceInfo, "flashmla_driver_info": _abi.DriverInfo, "flashmla_kernel_info": _abi.KernelInfo,
}  # fmt: skip
ENUMS = {
    _abi.Status: "FLASHMLA_", _abi.DType: "FLASHMLA_", _abi.DeviceKind: "FLASHMLA_", _abi.KvFormat: "FLASHMLA_KV_",
    _abi.LseBase: "FLASHMLA_LSE_", _abi.LseLayout: "FLASHMLA_LSE_", _abi.EmptyRow: "FLASHMLA_EMPTY_LSE_", _abi.Isa: "FLASHMLA_ISA_",
    _abi.FaultCode: "FLASHMLA_FAULT_",
}  # fmt: skip


def run_c(tmp_path, lines):
    """Compiles a program of those statements over the header; returns what it prints, as {name: number}."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    source = tmp_path / "layout.c"
    body = "\n  ".join(lines)
    source.write_text(f"#include <stdio.h>\n#include <flashmla/flashmla.h>\nint main(void) {{\n  {body}\n  return 0;\n}}\n")
    program = tmp_path / "layout"
    subprocess.run([compiler, "-std=c99", "-I", str(HEADER.parents[1]), str(source), "-o", str(program)], check=True)
    output = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
    return {name: int(number) for name, number in (line.split() for line in output.splitlines())}


def test_struct_layouts(tmp_path):
    lines, expected = [], {}
    for name, struct in STRUCTS.items():
        lines.append(f'printf("{name} %zu\\n", sizeof({name}));')
        expected[name] = ctypes.sizeof(struct)
        for field, *_ in struct._fields_:
            lines.append(f'printf("{name}.{field} %zu\\n", offsetof({name}, {field}));')
            lines.append(f'printf("sizeof:{name}.{field} %zu\\n", sizeof((({name}*)0)->{field}));')
            descriptor = getattr(struct, field)
            expected[f"{name}.{field}"] = descriptor.offset
            expected[f"sizeof:{name}.{field}"] = descriptor.size
    assert run_c(tmp_path, lines) == expected


def test_no_struct_or_field_is_missing():
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.S)
    declared = dict(re.findall(r"typedef struct (\w+) \{(.*?)\}", text, flags=re.S))
    assert set(declared) == set(STRUCTS)
    for name, body in declared.items():
        fields = re.findall(r"(\w+)(?:\[\d+\])?;", body)
        assert fields == [field for field, *_ in STRUCTS[name]._fields_], name


def test_enums_and_flags(tmp_path):
    expected = {prefix + member.name: int(member) for kind, prefix in ENUMS.items() for member in kind if member.name != "NONE"}
    for flag in ("CAUSAL", "HAS_SCALE", "BATCH_INVARIANT"):
        expected[f"FLASHMLA_PROBLEM_{flag}"] = getattr(_abi, f"PROBLEM_{flag}")
    expected["FLASHMLA_ABI_VERSION"] = _abi.ABI_VERSION
    assert run_c(tmp_path, [f'printf("{name} %d\\n", (int){name});' for name in expected]) == expected


def test_every_function_is_declared_and_exported():
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.S)
    declared = {name: arguments for name, arguments in re.findall(r"FLASHMLA_API [^;]*?(flashmla_\w+)\(([^)]*)\);", text)}
    assert set(declared) == set(_abi.PROTOTYPES)
    for name, arguments in declared.items():
        count = 0 if arguments.strip() in ("", "void") else arguments.count(",") + 1
        assert len(_abi.PROTOTYPES[name][1]) == count, name
        assert getattr(lib, name)
