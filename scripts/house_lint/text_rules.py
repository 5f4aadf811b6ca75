"""Rules that read one file: what may be written where, and how long it may be."""

import re
from collections.abc import Iterator

from .source import Finding, Function, Source, closing_parenthesis

CODE_FOLDERS = ("include", "src", "tools", "bench", "tests", "examples", "bindings", "scripts")
KERNEL_HEADINGS = ("Math", "Roles", "Timeline", "Shared memory", "Barriers", "Registers", "Limits")
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 80
MAX_ROLE_LINES = 120
MAX_KERNEL_LINES = 40
MAX_PARAMETERS = 6


def enclosing(source: Source, line: int) -> str:
    for function in source.functions:
        if function.first_line <= line <= function.last_line:
            return function.name
    return "-"


def assembly(source: Source) -> Iterator[tuple[Finding, str]]:
    """`asm` stands in src/cuda/ptx alone, volatile and with a "memory" clobber: without them the compiler may move a
    wait or a copy across the loads that it orders."""
    for match in re.finditer(r"\b(?:asm|__asm__|__asm)\b([\s\w]*)\(", source.code):
        line = source.line_of(match.start())
        where = enclosing(source, line)
        if not source.under("src/cuda/ptx"):
            yield source.finding(line, "asm", "inline assembly, expected it in src/cuda/ptx only"), where
            continue
        end = closing_parenthesis(source.code, match.end() - 1)
        statement = source.without_comments[match.start() : end]
        if "volatile" not in match[1]:
            yield source.finding(line, "asm", f"`{where}` is not volatile"), where
        if '"memory"' not in statement:
            yield source.finding(line, "asm", f'`{where}` has no "memory" clobber'), where


FORBIDDEN_CALLS = re.compile(
    r"\b(?P<call>_?exit|quick_exit|_Exit|abort|terminate|printf|vprintf|fprintf|vfprintf|puts|fputs|putchar|perror|assert|__trap)\s*\("
    r"|\bstd\s*::\s*(?P<stream>cerr|cout|clog)\b"
)


def silence(source: Source) -> Iterator[Finding]:
    """The library never prints, exits or aborts."""
    if not source.is_c or not source.under("include", "src"):
        return
    for match in FORBIDDEN_CALLS.finditer(source.code):
        name = match["call"] or f"std::{match['stream']}"
        yield source.finding(source.line_of(match.start()), "silence", f"`{name}`: a library never prints, exits or aborts; throw core::Error")


def using_namespace(source: Source) -> Iterator[Finding]:
    if source.is_header:
        for match in re.finditer(r"\busing\s+namespace\b", source.code):
            yield source.finding(source.line_of(match.start()), "using-namespace", "in a header it reaches every includer")


def include_guard(source: Source) -> Iterator[Finding]:
    if source.is_header and "#pragma once" not in source.code and not re.search(r"#ifndef \w+_H_\n#define", source.text):
        yield source.finding(1, "include-guard", "no `#pragma once`")


def story(source: Source) -> Iterator[Finding]:
    """Every file opens by saying what it is for; an a.cpp that opens with a.hpp has its story there."""
    if not source.is_c or not source.under("include", "src", "tools", "bench", "examples") or source.text.lstrip().startswith(("//", "/*")):
        return
    stem = re.escape(source.path.rsplit("/", 1)[1].split(".")[0])
    if source.is_header or not re.match(rf'#include "(?:\S+/)?{stem}\.(?:hpp|cuh|h)"', source.text):
        yield source.finding(1, "story", "the file does not open with a comment that says what it is for")


INSTRUCTION_SETS = re.compile(r"^[ \t]*#[ \t]*(?:if|ifdef|ifndef|elif)\b[^\n]*\b__(?:AVX|SSE|FMA|F16C|BMI|ARM_|aarch64|x86_64|amd64|i386)", re.MULTILINE)


def isa_conditions(source: Source) -> Iterator[Finding]:
    if source.is_c and source.under("include", "src") and not source.under("src/cpu/isa"):
        for match in INSTRUCTION_SETS.finditer(source.code):
            yield source.finding(source.line_of(match.start()), "isa-condition", "#if on an instruction set, expected it in src/cpu/isa only")


LEFTOVER_WORDS = ("TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK")
LEFTOVERS = re.compile(r"\b(?:" + "|".join(LEFTOVER_WORDS) + r")\b|\bnot " + r"implemented\b", re.IGNORECASE)


def leftovers(source: Source) -> Iterator[Finding]:
    if source.under(*CODE_FOLDERS):
        for match in LEFTOVERS.finditer(source.text):
            yield source.finding(source.line_of(match.start()), "leftover", f"`{match[0]}`: finish it, or answer kUnsupported")


def whitespace(source: Source) -> Iterator[Finding]:
    for number, line in enumerate(source.text.splitlines(), 1):
        if line != line.rstrip():
            yield source.finding(number, "whitespace", "trailing white space")
    if source.text and not source.text.endswith("\n"):
        yield source.finding(source.text.count("\n") + 1, "whitespace", "no newline at the end of the file")


def kernel_headings(source: Source) -> Iterator[Finding]:
    """A kernel's file opens with its diagram, under fixed headings, in order."""
    if not source.under("src/cuda/kernels") or source.suffix != ".cuh" or "__global__" not in source.code:
        return
    opening = re.match(r"(?:\s*//[^\n]*\n|\s*/\*.*?\*/)*", source.text, re.DOTALL)[0]
    position = 0
    for heading in KERNEL_HEADINGS:
        match = re.compile(rf"^\s*(?://|\*|/\*)?\s*\**{heading}\b", re.MULTILINE).search(opening, position)
        if not match:
            yield source.finding(1, "kernel-heading", f"no heading `{heading}` in its place in the opening comment")
        else:
            position = match.end()


def file_length(source: Source) -> Iterator[Finding]:
    lines = source.text.count("\n")
    if (source.is_c or source.is_python) and lines > MAX_FILE_LINES:
        yield source.finding(MAX_FILE_LINES + 1, "file-length", f"got {lines} lines, expected at most {MAX_FILE_LINES}")


def line_limit(source: Source, function: Function) -> int:
    if function.is_kernel:
        return MAX_KERNEL_LINES
    return MAX_ROLE_LINES if source.under("src/cuda/kernels") and source.suffix == ".cuh" else MAX_FUNCTION_LINES


def function_shape(source: Source) -> Iterator[tuple[Finding, str]]:
    for function in source.functions:
        limit = line_limit(source, function)
        if function.length > limit:
            message = f"`{function.name}`: got {function.length} lines, expected at most {limit}"
            yield source.finding(function.first_line, "function-length", message), function.name
        if function.num_parameters > MAX_PARAMETERS:
            message = f"`{function.name}`: got {function.num_parameters} parameters, expected at most {MAX_PARAMETERS}; pass a struct"
            yield source.finding(function.first_line, "parameters", message), function.name


PLAIN_RULES = (silence, using_namespace, include_guard, story, isa_conditions, leftovers, whitespace, kernel_headings, file_length)
NAMED_RULES = (assembly, function_shape)  # yield (finding, function), so that scripts/lint_allow.txt can name the function
