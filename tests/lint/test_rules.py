"""Each rule of scripts/lint against a planted violation, and against code that looks like one but is not."""

import shutil
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
sys.dont_write_bytecode = True

from house_lint import documents, includes, text_rules, tools  # noqa: E402
from house_lint.allow import AllowList  # noqa: E402
from house_lint.source import Finding, Source  # noqa: E402


def lines(rule, path, text, root=Path("/nonexistent")):
    """Line numbers at which `rule` complains about `text`."""
    found = list(rule(Source(path, text, root)))
    return [(f[0] if isinstance(f, tuple) else f).line for f in found]


def messages(rule, path, text):
    return " ".join(str(f[0] if isinstance(f, tuple) else f) for f in rule(Source(path, text)))


class Blanking(unittest.TestCase):
    def test_comments_and_strings_keep_their_columns(self):
        text = 'int a; // asm("x")\nchar const* b = "asm(";  /* exit(1)\n */ int c = 1\'000;\nauto d = R"(exit(1))";\n'
        source = Source("src/core/a.cpp", text)
        self.assertEqual(len(source.code), len(text))
        self.assertNotIn("asm", source.code)
        self.assertNotIn("exit", source.code)
        self.assertIn('"asm("', source.without_comments)
        self.assertIn("1'000", source.code)


class Assembly(unittest.TestCase):
    def test_outside_ptx(self):
        self.assertEqual(lines(text_rules.assembly, "src/cuda/kernels/a.cuh", 'void f() {\n  asm volatile("nop;" ::: "memory");\n}\n'), [2])

    def test_must_be_volatile(self):
        text = 'void wait() {\n  asm("bar.sync 0;" ::: "memory");\n}\n'
        self.assertEqual(lines(text_rules.assembly, "src/cuda/ptx/a.cuh", text), [2])
        self.assertIn("`wait` is not volatile", messages(text_rules.assembly, "src/cuda/ptx/a.cuh", text))

    def test_must_clobber_memory(self):
        text = 'void wait() {\n  asm volatile("bar.sync 0;");  // "memory"\n}\n'
        self.assertIn('no "memory" clobber', messages(text_rules.assembly, "src/cuda/ptx/a.cuh", text))

    def test_good_statement_and_mere_words(self):
        text = 'void wait() { asm volatile("bar.sync %0;" ::"r"(f(1)) : "memory"); }\n// asm(\nint asm_count(int);\n'
        self.assertEqual(lines(text_rules.assembly, "src/cuda/ptx/a.cuh", text), [])


class Silence(unittest.TestCase):
    def test_planted(self):
        for call in ("exit(1)", "std::abort()", 'printf("x")', 'fprintf(stderr, "x")', 'std::cerr << "x"', "assert(a)", "__trap()"):
            with self.subTest(call=call):
                self.assertEqual(lines(text_rules.silence, "src/core/a.cpp", f"void f() {{\n  {call};\n}}\n"), [2])

    def test_look_alikes(self):
        text = 'static_assert(true);\nint n = snprintf(b, 1, "x");\n// exit(1)\nauto s = "abort()";\nvoid on_exit_(int);\n'
        self.assertEqual(lines(text_rules.silence, "src/core/a.cpp", text), [])
        self.assertEqual(lines(text_rules.silence, "tools/flashmla/main.cpp", 'int f() { printf("x"); }\n'), [])


class Headers(unittest.TestCase):
    def test_using_namespace(self):
        self.assertEqual(lines(text_rules.using_namespace, "src/core/a.hpp", "int a;\nusing namespace std;\n"), [2])
        self.assertEqual(lines(text_rules.using_namespace, "src/core/a.cpp", "using namespace std;\n"), [])

    def test_include_guard(self):
        self.assertEqual(lines(text_rules.include_guard, "src/core/a.hpp", "int a;\n"), [1])
        self.assertEqual(lines(text_rules.include_guard, "src/core/a.hpp", "// #pragma once\n"), [1])
        self.assertEqual(lines(text_rules.include_guard, "src/core/a.hpp", "#pragma once\n"), [])

    def test_story(self):
        self.assertEqual(lines(text_rules.story, "src/core/a.hpp", "#pragma once\n"), [1])
        self.assertEqual(lines(text_rules.story, "src/core/a.hpp", "// What it is for.\n#pragma once\n"), [])
        self.assertEqual(lines(text_rules.story, "src/core/a.cpp", '#include "core/a.hpp"\n'), [])
        self.assertEqual(lines(text_rules.story, "src/core/a.cpp", '#include "core/b.hpp"\n'), [1])

    @unittest.skipUnless(shutil.which("c++"), "no C++ compiler")
    def test_header_alone(self):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            (root / "src/core").mkdir(parents=True)
            planted = {"src/core/bad.hpp": "#pragma once\nstd::vector<int> f();\n", "src/core/good.hpp": "#pragma once\n#include <vector>\nstd::vector<int> f();\n"}
            for path, text in planted.items():
                (root / path).write_text(text)
            findings = tools.headers_compile([Source(path, text, root) for path, text in planted.items()], 2)
        self.assertEqual([f.path for f in findings], ["src/core/bad.hpp"])


class Places(unittest.TestCase):
    def test_isa_condition(self):
        self.assertEqual(lines(text_rules.isa_conditions, "src/cpu/generic/a.hpp", "int a;\n#if defined(__AVX512F__)\n#endif\n"), [2])
        self.assertEqual(lines(text_rules.isa_conditions, "src/cpu/isa/a.hpp", "#if defined(__AVX512F__)\n#endif\n"), [])
        self.assertEqual(lines(text_rules.isa_conditions, "src/core/a.hpp", "#if defined(__CUDACC__)\n#endif\n"), [])

    def test_leftovers(self):
        word = "TO" + "DO"
        self.assertEqual(lines(text_rules.leftovers, "src/core/a.hpp", f"int a;\n// {word}: later\n"), [2])
        self.assertEqual(lines(text_rules.leftovers, "src/core/a.hpp", "// not " + "implemented\n"), [1])
        self.assertEqual(lines(text_rules.leftovers, "src/core/a.hpp", "// a method\nint todos;\n"), [])

    def test_whitespace(self):
        self.assertEqual(lines(text_rules.whitespace, "docs/a.md", "a \nb\nc"), [1, 3])
        self.assertEqual(lines(text_rules.whitespace, "docs/a.md", "a\nb\n"), [])

    def test_kernel_headings(self):
        headings = "".join(f"// {heading}: text\n" for heading in text_rules.KERNEL_HEADINGS)
        kernel = "#pragma once\n__global__ void k() {}\n"
        self.assertEqual(lines(text_rules.kernel_headings, "src/cuda/kernels/a.cuh", headings + kernel), [])
        self.assertIn("`Barriers`", messages(text_rules.kernel_headings, "src/cuda/kernels/a.cuh", headings.replace("// Barriers", "// Waits") + kernel))
        self.assertEqual(len(lines(text_rules.kernel_headings, "src/cuda/kernels/a.cuh", kernel)), len(text_rules.KERNEL_HEADINGS))


class Sizes(unittest.TestCase):
    def test_file_length(self):
        self.assertEqual(lines(text_rules.file_length, "src/core/a.cpp", "int a;\n" * 501), [501])
        self.assertEqual(lines(text_rules.file_length, "src/core/a.cpp", "int a;\n" * 500), [])
        self.assertEqual(lines(text_rules.file_length, "docs/a.md", "a\n" * 501), [])

    def test_function_length(self):
        def function(head, body):
            return f"namespace a {{\n{head} {{\n" + "  g();\n" * body + "}\n}  // namespace a\n"

        shape = text_rules.function_shape
        self.assertEqual(lines(shape, "src/core/a.cpp", function("void f()", 78)), [])
        self.assertEqual(lines(shape, "src/core/a.cpp", function("void f()", 79)), [2])
        self.assertEqual(lines(shape, "src/core/a.cpp", function("template <class T, int N = (1 > 0)>\nauto A<T>::f(T a) const noexcept -> int", 79)), [2])
        self.assertEqual(lines(shape, "src/core/a.cpp", function("A::A(int a) : a_(a), b_{1}", 79)), [2])
        self.assertEqual(lines(shape, "src/core/a.cpp", function("struct A", 79)), [])
        self.assertEqual(lines(shape, "src/core/a.cpp", function("int const a[] =", 79)), [])
        self.assertEqual(lines(shape, "src/cuda/kernels/a.cuh", function("__device__ void role(int a)", 100)), [])
        self.assertEqual(lines(shape, "src/cuda/kernels/a.cuh", function("__device__ void role(int a)", 119)), [2])
        self.assertEqual(lines(shape, "src/cuda/kernels/a.cuh", function("__global__ void __launch_bounds__(kThreads, 1) k(int a)", 39)), [2])

    def test_methods_are_found(self):
        body = "  g();\n" * 79
        self.assertIn("`run`", messages(text_rules.function_shape, "src/core/a.hpp", "class A final : public B {\n public:\n  int run() const override {\n" + body + "}\n};\n"))

    def test_parameters(self):
        shape = text_rules.function_shape
        self.assertEqual(lines(shape, "src/core/a.cpp", "int f(int a, int b, int c, int d, int e, int f) { return 0; }\n"), [])
        self.assertEqual(lines(shape, "src/core/a.cpp", "int f(int a, int b, int c, int d, int e, int f, int g) { return 0; }\n"), [1])
        self.assertEqual(lines(shape, "src/core/a.cpp", "int f(std::map<int, std::pair<int, int>> a, int (*b)(int, int), int c, int d, int e, int f) { return 0; }\n"), [])

    def test_python_functions(self):
        self.assertEqual(lines(text_rules.function_shape, "bindings/a.py", "def f():\n" + "    g()\n" * 80), [1])
        self.assertEqual(lines(text_rules.function_shape, "bindings/a.py", "def f(a, b, c, d, e, f, g):\n    pass\n"), [1])
        self.assertEqual(lines(text_rules.function_shape, "bindings/a.py", "def f(self, a, b, c, d, e, f, *, g):\n    pass\n"), [])


class Includes(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.root = Path(self.folder.name)
        for path in ("src/core/a.hpp", "src/core/b.hpp", "src/cpu/backend.hpp", "src/cpu/threads.hpp", "src/cuda/ptx/tma.cuh", "src/reference/decode.hpp"):
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).touch()

    def check(self, path, text):
        return lines(includes.includes, path, text, self.root)

    def test_core_never_includes_a_backend(self):
        self.assertEqual(self.check("src/core/a.hpp", '#include <vector>\n#include "cpu/backend.hpp"\n'), [2])
        self.assertEqual(self.check("src/core/a.hpp", '#include <flashmla/flashmla.h>\n#include "core/b.hpp"\n'), [])

    def test_backends_do_not_share_code_with_the_reference(self):
        self.assertEqual(self.check("src/cpu/threads.hpp", '#include "reference/decode.hpp"\n'), [1])

    def test_api_sees_front_doors_only(self):
        self.assertEqual(self.check("src/api/a.cpp", '#include "cpu/backend.hpp"\n#include "cpu/threads.hpp"\n'), [2])

    def test_layers_point_down(self):
        self.assertEqual(self.check("src/cuda/kernels/a.cuh", '#include "cuda/ptx/tma.cuh"\n'), [])
        self.assertEqual(self.check("src/cuda/ptx/a.cuh", '#include "core/a.hpp"\n'), [1])

    def test_foreign_headers(self):
        self.assertEqual(self.check("src/core/a.cpp", "#include <cuda_runtime.h>\n#include <immintrin.h>\n#include <iostream>\n"), [1, 2, 3])
        self.assertEqual(self.check("src/cuda/a.cpp", "#include <cuda_runtime.h>\n#include <cuda/ptx>\n"), [])
        self.assertEqual(self.check("src/cpu/isa/a.hpp", "#include <immintrin.h>\n"), [])

    def test_unknown_file(self):
        self.assertEqual(self.check("src/core/a.cpp", '#include "core/none.hpp"\n// #include "x.hpp"\n'), [1])


class Documents(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.root = Path(self.folder.name)
        (self.root / "a.cpp").write_text("int a;\nint b;\n")

    def test_snippets(self):
        text = "<!-- snippet: a.cpp -->\n```cpp\nint b;\n```\n\n<!-- snippet: a.cpp -->\n```cpp\nint c;\n```\n"
        self.assertEqual(lines(documents.snippets, "README.md", text, self.root), [6])

    def test_links(self):
        text = "[a](a.cpp) [site](https://example.org/x)\n[none](none.md#part)\n"
        self.assertEqual(lines(documents.links, "README.md", text, self.root), [2])


class Exceptions(unittest.TestCase):
    finding = Finding("src/a.cpp", 3, "asm", "text")

    def test_a_reason_is_required(self):
        self.assertEqual([f.line for f in AllowList("list", "# comment\n\nasm src/a.cpp f:\n").problems()], [3])

    def test_permits_the_named_function_only(self):
        allow = AllowList("list", "asm src/a.cpp f: a pure function of its operand\n")
        self.assertFalse(allow.permits(self.finding, "g"))
        self.assertTrue(allow.permits(self.finding, "f"))
        self.assertEqual(allow.problems(), [])

    def test_stale_lines_are_findings(self):
        self.assertEqual(len(AllowList("list", "asm src/b.cpp -: a pure function of its operand\n").problems()), 1)


@unittest.skipUnless(tools.find_clang_format(ROOT), f"no clang-format {tools.CLANG_FORMAT_VERSION}")
class Formatting(unittest.TestCase):
    def test_format(self):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            shutil.copy(ROOT / ".clang-format", root)
            (root / "a.cpp").write_text("int  a;\n")
            (root / "b.cpp").write_text("int b;\n")
            sources = [Source(name, (root / name).read_text(), root) for name in ("a.cpp", "b.cpp")]
            clang_format = tools.find_clang_format(ROOT)
            self.assertEqual([(f.path, f.line) for f in tools.formatting(sources, clang_format, root)], [("a.cpp", 1)])
            tools.formatting(sources, clang_format, root, fix=True)
            self.assertEqual((root / "a.cpp").read_text(), "int a;\n")


if __name__ == "__main__":
    unittest.main()
