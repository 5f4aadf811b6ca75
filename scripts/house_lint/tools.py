"""Rules that need a compiler or clang-format: every header compiles alone, every file is formatted."""

import os
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .source import Finding, Source

CLANG_FORMAT_VERSION = "19.1.7"
FLAGS = ("-Wall", "-Wextra", "-Werror", "-Iinclude", "-Isrc")
MISSING_FOREIGN_HEADER = re.compile(r"fatal error: (\S+): No such file")


def find_nvcc() -> str | None:
    for folder in filter(None, (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda")):
        if (Path(folder) / "bin" / "nvcc").is_file():
            return str(Path(folder) / "bin" / "nvcc")
    return shutil.which("nvcc")


def find_clang_format(root: Path) -> str | None:
    """The one of build/venv or of PATH, whichever has the version that the whole repository is formatted with."""
    for candidate in (str(root / "build" / "venv" / "bin" / "clang-format"), shutil.which("clang-format")):
        if candidate and Path(candidate).is_file():
            version = subprocess.run([candidate, "--version"], capture_output=True, text=True).stdout
            if CLANG_FORMAT_VERSION in version:
                return candidate
    return None


def compile_commands(source: Source, nvcc: str | None, scratch: str) -> list[list[str]]:
    """The ways in which a header must compile; none where this machine lacks the compiler."""
    if source.under("src/cuda") and nvcc is None:
        return []
    if source.suffix == ".cuh":
        output = ["-ptx", "-o", f"{scratch}/{source.path.replace('/', '_')}.ptx"]
        return [[nvcc, "-std=c++20", "-arch=sm_90a", "--expt-relaxed-constexpr", "-Iinclude", "-Isrc", *output, "-x", "cu", "-"]]
    compiler = [os.environ.get("CXX", "c++"), "-std=c++20", "-fsyntax-only", *FLAGS]
    if source.under("src/cuda"):
        toolkit = Path(os.path.realpath(nvcc)).parent.parent / "include"
        compiler += ["-isystem", str(toolkit)] if toolkit.is_dir() else []
    if source.under("tools"):
        compiler += ["-I."]
    if source.under("tests"):
        compiler += ["-Itests"]
    commands = [[*compiler, "-x", "c++", "-"]]
    if source.suffix == ".h" and source.under("include"):
        commands.append([os.environ.get("CC", "cc"), "-std=c99", "-pedantic", "-fsyntax-only", *FLAGS, "-x", "c", "-"])
    return commands


def compile_alone(source: Source, nvcc: str | None, scratch: str) -> list[Finding]:
    folder = source.path.rsplit("/", 1)[0]
    included = source.path.removeprefix("include/").removeprefix("src/")
    if included == source.path:
        included = f"{source.root.resolve()}/{source.path}"
    for command in compile_commands(source, nvcc, scratch):
        process = subprocess.run(command, input=f'#include "{included}"\n', capture_output=True, text=True, cwd=source.root)
        if process.returncode == 0:
            continue
        missing = MISSING_FOREIGN_HEADER.search(process.stderr)
        if missing and missing[1].startswith(("CLI/", "nlohmann/", "gtest/", "cuda")):
            continue  # a foreign library that this machine lacks; the build needs it, lint does not
        first = next((line for line in process.stderr.splitlines() if "error" in line), "the compiler failed")
        return [source.finding(1, "header-alone", f"does not compile alone in {folder}: {first.strip()}")]
    return []


def headers_compile(sources: list[Source], jobs: int) -> list[Finding]:
    # Files of src/cpu/isa and src/cpu/generic compile inside a target region that an .cpp of src/cpu/isa opens.
    headers = [s for s in sources if s.is_header and s.under("include", "src", "tools", "tests") and not s.under("src/cpu/isa", "src/cpu/generic")]
    nvcc = find_nvcc()
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(jobs) as pool:
        return [f for findings in pool.map(lambda s: compile_alone(s, nvcc, scratch), headers) for f in findings]


def formatting(sources: list[Source], clang_format: str, root: Path, fix: bool = False) -> list[Finding]:
    paths = [s.path for s in sources if s.is_c]
    if not paths:
        return []
    if fix:
        subprocess.run([clang_format, "-i", *paths], cwd=root, check=True)
        return []
    process = subprocess.run([clang_format, "--dry-run", *paths], cwd=root, capture_output=True, text=True)
    findings = {}
    for match in re.finditer(r"^(\S+?):(\d+):\d+: warning: code should be clang-formatted", process.stderr, re.MULTILINE):
        findings.setdefault(match[1], Finding(match[1], int(match[2]), "format", f"not as clang-format {CLANG_FORMAT_VERSION} writes it; run `make format`"))
    return list(findings.values())
