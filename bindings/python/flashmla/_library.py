"""Finds, loads and checks the shared library. Calls through it release the GIL (ctypes.CDLL does)."""

import ctypes
import os
import pathlib

from flashmla import _abi
from flashmla._errors import Error

_NAME = "libflashmla.so"


def _candidates():
    """Where the library may lie, in order: FLASHMLA_LIBRARY alone when set; beside the package (a wheel); the build tree (a checkout)."""
    override = os.environ.get("FLASHMLA_LIBRARY")
    if override:
        return [pathlib.Path(override)]
    package = pathlib.Path(__file__).resolve().parent
    found = [package / _NAME]
    checkout = package.parents[2]
    if (checkout / "include" / "flashmla" / "flashmla.h").is_file():
        found.append(checkout / "build" / "lib" / _NAME)
    return found


def _load():
    candidates = _candidates()
    for path in candidates:
        if path.is_file():
            break
    else:
        tried = ", ".join(str(p) for p in candidates)
        raise ImportError(f"import flashmla: library: got no file at {tried}, expected {_NAME} (run `make build`, or set FLASHMLA_LIBRARY)")
    try:
        library = ctypes.CDLL(str(path))
        library.flashmla_abi_version.restype = ctypes.c_uint32
        version = library.flashmla_abi_version()
    except (OSError, AttributeError) as error:
        raise ImportError(f"import flashmla: library: got {path}, which does not load, expected {_NAME} ({error})") from error
    if version != _abi.ABI_VERSION:
        raise ImportError(f"import flashmla: library: got {path} with ABI {version}, expected ABI {_abi.ABI_VERSION}")
    for name, (result, arguments) in _abi.PROTOTYPES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library, path


lib, path = _load()


def check(status):
    """Raises flashmla.Error with the library's own message unless `status` is OK. Call it on the thread that made the call."""
    if status:
        raise Error(lib.flashmla_last_error().decode("utf-8", "replace"), status)
