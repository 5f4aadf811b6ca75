#!/usr/bin/env python3
"""tests/cross/aarch64.py OUT [STRIDE]: compiles the CPU side for AArch64 into OUT and runs smoke.cpp under qemu-user.

STRIDE (default 8) takes every so many checks of the smoke tier, since emulation is slow; 1 takes all. Needs
aarch64-linux-gnu-g++ (Debian's g++-aarch64-linux-gnu) and qemu-aarch64 (qemu-user). Exit code 77 says what is missing.
"""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
ROOMS = ("core", "cpu", "api", "reference", "conformance")
DEFINES = ['-DFLASHMLA_VERSION="0"', "-DFLASHMLA_WITH_CUDA=0", '-DFLASHMLA_CUDA_TOOLKIT=""']
FLAGS = ["-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-restrict", f"-I{ROOT}/include", f"-I{ROOT}/src", *DEFINES]
SKIPPED = 77


def compile_one(compiler: str, source: Path, out: Path) -> Path:
    target = out / (str(source.relative_to(ROOT)).replace("/", "_") + ".o")
    subprocess.run([compiler, *FLAGS, "-c", source, "-o", target], check=True)
    return target


def main() -> int:
    out, stride = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "8"
    compiler, emulator = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64")
    if not compiler or not emulator:
        print("skipped: no " + ("aarch64-linux-gnu-g++" if not compiler else "qemu-aarch64"))
        return SKIPPED
    out.mkdir(parents=True, exist_ok=True)
    sources = [path for room in ROOMS for path in sorted((ROOT / "src" / room).rglob("*.cpp"))]
    sources.append(ROOT / "tests" / "cross" / "smoke.cpp")
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        objects = list(pool.map(lambda source: compile_one(compiler, source, out), sources))
    program = out / "smoke"
    subprocess.run([compiler, "-static", *objects, "-pthread", "-o", program], check=True)
    return subprocess.run([emulator, "-cpu", "max", program, stride]).returncode


if __name__ == "__main__":
    sys.exit(main())
