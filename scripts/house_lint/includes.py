"""The direction of dependencies: which folder may include which, checked over `#include` lines.

    tests ─> anything            src/api ─> core, the front doors of the backends
    tools, bench ─> include, conformance ─> reference ─> core ─> include <─ examples
    src/cpu ─> generic ─> isa    src/cuda ─> kernels ─> device ─> tile ─> ptx    (both ─> core)
"""

import re
from collections.abc import Iterator

from .source import Finding, Source

INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[ \t]*([<\"])([^>\"]+)[>\"]", re.MULTILINE)

# Folder -> folders of this repository that it may include, besides itself. The longest match of a path counts.
ALLOWED = {
    "include": (),
    "examples": ("include",),
    "bindings": ("include",),
    "tools": ("include", "src/conformance"),
    "bench": ("include", "src/conformance"),
    "src/core": ("include",),
    "src/reference": ("include", "src/core"),
    "src/conformance": ("include", "src/core", "src/reference"),
    "src/cpu": ("include", "src/core", "src/cpu/generic", "src/cpu/isa"),
    "src/cpu/generic": ("include", "src/core", "src/cpu/isa"),
    "src/cpu/isa": ("include",),
    "src/cuda": ("include", "src/core", "src/cuda/kernels", "src/cuda/device", "src/cuda/tile"),
    "src/cuda/kernels": ("include", "src/core", "src/cuda/device", "src/cuda/tile", "src/cuda/ptx"),
    "src/cuda/device": ("include", "src/core", "src/cuda/tile", "src/cuda/ptx"),
    "src/cuda/tile": ("src/core", "src/cuda/ptx"),
    "src/cuda/ptx": (),
    "src/api": ("include", "src/core"),
}
# Single files that a folder may include although their folder is closed to it.
ALLOWED_FILES = {
    "tools": ("bench/cpu_ceilings.hpp",),  # the CLI judges its figures by the ceilings that bench uses
    "src/api": ("src/cpu/backend.hpp", "src/cuda/backend.hpp"),
    "src/cuda/kernels": ("src/cuda/errors.hpp", "src/cuda/launch.hpp", "src/cuda/tensor_map.hpp"),  # what a launcher needs of the host side
}

# Headers from outside the repository that belong to some folders only.
EXTERNAL = (
    (re.compile(r"^(cuda|cuda_.*|cudaTypedefs|cuda/.*|cooperative_groups.*|nv/.*|mma)(\.h|$)|^cuda/"), ("src/cuda", "tools", "tests", "bench")),
    (re.compile(r"^(\w*mmintrin|immintrin|x86intrin|arm_neon|arm_sve|cpuid)\.h$"), ("src/cpu/isa", "bench", "tests")),
    (re.compile(r"^gtest/|^gmock/"), ("tests",)),
    (re.compile(r"^CLI/|^nlohmann/"), ("tools", "bench", "tests")),
    (re.compile(r"^(iostream|fstream)$"), ("tools", "bench", "tests", "examples")),
    (re.compile(r"^(torch|ATen|c10|cutlass|cute)/"), ()),
)


def folder_of(path: str, folders: dict) -> str | None:
    matches = [folder for folder in folders if path.startswith(folder + "/")]
    return max(matches, key=len, default=None)


def repository_path(source: Source, included: str) -> str | None:
    """The file of this repository that an include line names, or None for one from outside."""
    if included.startswith("flashmla/"):
        return "include/" + included
    folder = source.path.rsplit("/", 1)[0]
    for candidate in (f"{folder}/{included}", f"src/{included}", f"tests/{included}", included):
        if (source.root / candidate).is_file():
            return re.sub(r"[^/]+/\.\./", "", candidate)
    return None


def check_internal(source: Source, line: int, target: str) -> Iterator[Finding]:
    owner, target_owner = folder_of(source.path, ALLOWED), folder_of(target, ALLOWED)
    if owner is None or target_owner == owner or target.rsplit("/", 1)[0] == source.path.rsplit("/", 1)[0]:
        return
    if target_owner in ALLOWED[owner] or target in ALLOWED_FILES.get(owner, ()):
        return
    allowed = ", ".join(ALLOWED[owner] + ALLOWED_FILES.get(owner, ())) or "nothing of this repository"
    yield source.finding(line, "include", f"{owner} includes {target}, expected one of: {allowed}")


def check_external(source: Source, line: int, included: str) -> Iterator[Finding]:
    for pattern, folders in EXTERNAL:
        if pattern.search(included) and not source.under(*folders):
            yield source.finding(line, "include", f"<{included}> belongs in {' or '.join(folders) or 'no file here'}")


def includes(source: Source) -> Iterator[Finding]:
    if not source.is_c or source.under("tests"):
        return
    for match in INCLUDE.finditer(source.without_comments):
        line, included = source.line_of(match.start()), match[2]
        target = repository_path(source, included)
        yield from check_internal(source, line, target) if target else check_external(source, line, included)
        if target is None and match[1] == '"' and not source.under("bench"):
            yield source.finding(line, "include", f'"{included}" is no file of this repository; write it from src/, or with <> if it is foreign')
