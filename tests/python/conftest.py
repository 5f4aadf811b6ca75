"""Fixtures shared by the Python tests. The library under test is FLASHMLA_LIBRARY, the installed package's, or build/lib's."""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
try:
    import flashmla  # noqa: F401  (an installed wheel)
except ImportError:
    sys.path.insert(0, str(ROOT / "bindings" / "python"))
