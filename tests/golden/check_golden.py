"""Compares the kernels of a built library with the golden file of its nvcc: check_golden.py LIBRARY NVCC_VERSION.

Exits with 77, which ctest shows as skipped, where there is nothing to compare.
"""

import sys
from pathlib import Path

sys.dont_write_bytecode = True

import resources  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
SKIPPED = 77


def main(library: str, nvcc_version: str) -> int:
    if not nvcc_version:
        print("skipped: the library was built without nvcc")
        return SKIPPED
    golden = resources.read(nvcc_version)
    if golden is None:
        print(f"skipped: no golden file for nvcc {nvcc_version}; scripts/update_golden makes one")
        return SKIPPED
    try:
        measured = resources.measure(Path(library), ROOT)
    except resources.MissingTool as missing:
        print(f"skipped: {missing}")
        return SKIPPED
    lines = resources.differences(golden, measured)
    if lines:
        text = "\n".join(lines)
        return resources.fail(f"{text}\n{len(lines)} differences. If they are meant: `scripts/update_golden`, and say why in the commit.")
    print(f"{len(measured)} kernels as pinned for nvcc {nvcc_version}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
