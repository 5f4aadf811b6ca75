"""What the compiler made of each kernel: registers, stack, spills, static shared memory and matrix instructions.

Read from the library's own machine code with cuobjdump, so it needs no GPU. The counts are pinned in one JSON file for
each version of nvcc, because another version may rightly choose otherwise.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

GOLDENS = Path(__file__).resolve().parent
RESOURCE = re.compile(r"^\s*Function (\S+):\s*\n\s*REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", re.MULTILINE)
SASS_FUNCTION = re.compile(r"^\s*Function : (\S+)\s*$", re.MULTILINE)
# An instruction line is `/*0a10*/   @P0 STL [R1], R2 ;`.
INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9]*)", re.MULTILINE)
COUNTED = {"HGMMA": "wgmma", "STL": "spill_stores", "LDL": "spill_loads", "UTMALDG": "tma_loads"}


class MissingTool(Exception):
    pass


def golden_path(nvcc_version: str) -> Path:
    return GOLDENS / f"kernels-nvcc-{nvcc_version}.json"


def tool_path(root: Path) -> str:
    """PATH with the disassemblers of the pinned Python packages at its end: a toolkit's own come first."""
    packaged = sorted((root / "build" / "venv").glob("lib/python*/site-packages/nvidia/cu*/bin"))
    return os.pathsep.join([os.environ.get("PATH", ""), *map(str, packaged)])


def disassemble(library: Path, root: Path, *options: str) -> str:
    path = tool_path(root)
    cuobjdump = shutil.which("cuobjdump", path=path)
    if not cuobjdump or not shutil.which("nvdisasm", path=path):
        raise MissingTool("no cuobjdump and nvdisasm on PATH or in build/venv (scripts/setup test installs them)")
    process = subprocess.run([cuobjdump, *options, str(library)], env={**os.environ, "PATH": path}, capture_output=True, text=True)
    if process.returncode != 0:
        raise RuntimeError(f"cuobjdump {' '.join(options)} {library.name}: {process.stderr.strip()}")
    return process.stdout


def demangle(names: list[str]) -> dict[str, str]:
    """Readable and stable names: without parameter lists, which change with a struct's name only."""
    process = subprocess.run(["c++filt", "-p"], input="\n".join(names), capture_output=True, text=True, check=True)
    readable = [re.sub(r"\(anonymous namespace\)::", "", name).removeprefix("void ") for name in process.stdout.splitlines()]
    return dict(zip(names, readable))


def parse(resource_text: str, sass_text: str) -> dict[str, dict[str, int]]:
    """Mangled name -> counts."""
    kernels = {}
    for name, registers, stack, shared, local in RESOURCE.findall(resource_text):
        counts = {"registers": int(registers), "stack_bytes": int(stack), "local_bytes": int(local), "static_shared_bytes": int(shared)}
        kernels[name] = {**counts, **dict.fromkeys(COUNTED.values(), 0)}
    pieces = SASS_FUNCTION.split(sass_text)
    for name, body in zip(pieces[1::2], pieces[2::2]):
        for opcode in INSTRUCTION.findall(body):
            if opcode in COUNTED and name in kernels:
                kernels[name][COUNTED[opcode]] += 1
    return kernels


def measure(library: Path, root: Path) -> dict[str, dict[str, int]]:
    kernels = parse(disassemble(library, root, "--dump-resource-usage"), disassemble(library, root, "-sass"))
    names = demangle(sorted(kernels))
    return {names[mangled]: kernels[mangled] for mangled in sorted(kernels, key=names.get)}


def differences(golden: dict[str, dict[str, int]], measured: dict[str, dict[str, int]]) -> list[str]:
    lines = []
    for name in sorted(golden.keys() | measured.keys()):
        if name not in measured:
            lines.append(f"{name}: in the golden file, not in the library")
        elif name not in golden:
            lines.append(f"{name}: in the library, not in the golden file")
        else:
            for count, expected in golden[name].items():
                got = measured[name].get(count)
                if got != expected:
                    lines.append(f"{name}: {count}: got {got}, expected {expected}")
    return lines


def write(nvcc_version: str, measured: dict[str, dict[str, int]]) -> Path:
    path = golden_path(nvcc_version)
    rows = [f"  {json.dumps(name)}: {json.dumps(counts)}" for name, counts in measured.items()]
    path.write_text("{\n" + ",\n".join(rows) + "\n}\n")
    return path


def read(nvcc_version: str) -> dict[str, dict[str, int]] | None:
    path = golden_path(nvcc_version)
    return json.loads(path.read_text()) if path.exists() else None


def fail(text: str) -> int:
    print(text, file=sys.stderr)
    return 1
