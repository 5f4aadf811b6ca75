"""`import flashmla` needs the standard library alone, finds its library, and refuses a wrong one."""

import json
import os
import subprocess
import sys

import flashmla
import flashmla._library as library

PACKAGE_PARENT = os.path.dirname(os.path.dirname(flashmla.__file__))


def run_python(code, **environment):
    """Runs code in a bare interpreter: no site-packages, no environment but what is given."""
    bare = f"import sys; sys.path.insert(0, {PACKAGE_PARENT!r})\n{code}"
    environment = {"FLASHMLA_LIBRARY": str(library.path), "PATH": os.environ["PATH"]} | environment
    return subprocess.run([sys.executable, "-S", "-s", "-B", "-c", bare], capture_output=True, text=True, env=environment)


def test_imports_the_standard_library_alone():
    code = """
import json
import flashmla
foreign = sorted({m.partition('.')[0] for m in sys.modules} - set(sys.stdlib_module_names) - {'flashmla', '__main__'})
pool = flashmla.PagePool(2)
print(json.dumps([foreign, pool.allocate(2), [d.device for d in flashmla.devices()], sorted(m for m in sys.modules if 'flashmla.' in m)]))
"""
    result = run_python(code)
    assert result.returncode == 0, result.stderr
    foreign, pages, devices, modules = json.loads(result.stdout)
    assert foreign == []
    assert pages == [0, 1]
    assert devices[0] == "cpu"
    assert not {"flashmla.torch", "flashmla._numpy", "flashmla._dlpack", "flashmla.compat"} & set(modules)


def test_compat_package_imports_no_framework():
    result = run_python("import flashmla.compat; assert 'torch' not in sys.modules and 'flash_mla' not in sys.modules")
    assert result.returncode == 0, result.stderr


def test_missing_library_is_an_import_error():
    result = run_python("import flashmla", FLASHMLA_LIBRARY="/nowhere/libflashmla.so")
    assert result.returncode == 1
    assert "ImportError: import flashmla: library: got no file at /nowhere/libflashmla.so, expected libflashmla.so" in result.stderr


def test_file_that_is_no_library_is_an_import_error(tmp_path):
    path = tmp_path / "libflashmla.so"
    path.write_text("not a library")
    result = run_python("import flashmla", FLASHMLA_LIBRARY=str(path))
    assert result.returncode == 1
    assert "ImportError: import flashmla: library: got" in result.stderr


def test_version_and_introspection():
    assert flashmla.__version__ == library.lib.flashmla_version().decode()
    assert flashmla.build_info()
    cpu = flashmla.devices()[0]
    assert (cpu.device, cpu.usable, cpu.reason) == ("cpu", True, "")
    assert cpu.num_units >= 1 and cpu.memory_bytes > 0 and flashmla.Isa(cpu.capability) in flashmla.Isa
    rows = flashmla.kernels()
    assert any(row.device_kind == flashmla.DeviceKind.CPU and row.usable for row in rows)
    assert all(row.usable or row.reason for row in rows)
    driver = flashmla.driver()
    assert driver.built == any(row.device_kind == flashmla.DeviceKind.CUDA for row in rows)


def test_error_is_both_kinds():
    error = flashmla.Error("a: b: got c, expected d", flashmla.Status.UNSUPPORTED)
    assert isinstance(error, ValueError) and isinstance(error, RuntimeError)
    assert error.status is flashmla.Status.UNSUPPORTED
