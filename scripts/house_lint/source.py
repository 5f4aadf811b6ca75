"""Source files as the rules see them: text with comments or strings blanked out, and the functions inside.

Blanking keeps every newline and column, so that an offset in any of the texts is an offset in the file.
"""

import ast
import re
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

C_SUFFIXES = {".h", ".hpp", ".c", ".cpp", ".cu", ".cuh"}
HEADER_SUFFIXES = {".h", ".hpp", ".cuh"}

TOKEN = re.compile(
    r"""(?P<comment>//[^\n]*|/\*.*?\*/)
      | (?P<raw>R"(?P<tag>[^()\\\s]{0,16})\(.*?\)(?P=tag)")
      | (?P<string>"(?:\\.|[^"\\\n])*")
      | (?P<char>(?<![0-9a-zA-Z_])'(?:\\.|[^'\\\n])+')""",
    re.DOTALL | re.VERBOSE,
)


@dataclass(frozen=True)
class Finding:
    path: str
    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.message}"


@dataclass(frozen=True)
class Function:
    name: str
    first_line: int
    last_line: int
    num_parameters: int
    is_kernel: bool = False  # __global__

    @property
    def length(self) -> int:
        return self.last_line - self.first_line + 1


def blank(text: str) -> str:
    return re.sub(r"[^\n]", " ", text)


@dataclass
class Source:
    """One file. `path` is relative to the root, with forward slashes."""

    path: str
    text: str
    root: Path = field(default=Path("."), repr=False)

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.path).suffix

    @property
    def is_c(self) -> bool:
        return self.suffix in C_SUFFIXES

    @property
    def is_header(self) -> bool:
        return self.suffix in HEADER_SUFFIXES

    @property
    def is_python(self) -> bool:
        return self.suffix == ".py" or self.text.startswith("#!/usr/bin/env python3")

    def under(self, *folders: str) -> bool:
        return any(self.path.startswith(folder + "/") for folder in folders)

    @cached_property
    def without_comments(self) -> str:
        return TOKEN.sub(lambda m: blank(m[0]) if m["comment"] else m[0], self.text)

    @cached_property
    def code(self) -> str:
        """Neither comments nor the insides of strings."""
        return TOKEN.sub(lambda m: blank(m[0]) if m["comment"] else m[0][0] + blank(m[0][1:-1]) + m[0][-1], self.text)

    @cached_property
    def line_starts(self) -> list[int]:
        return [0] + [m.end() for m in re.finditer("\n", self.text)]

    def line_of(self, offset: int) -> int:
        return bisect_right(self.line_starts, offset)

    @cached_property
    def functions(self) -> list[Function]:
        if self.is_c:
            return c_functions(self)
        return python_functions(self) if self.is_python else []

    def finding(self, line: int, rule: str, message: str) -> Finding:
        return Finding(self.path, line, rule, message)


# ---------------------------------------------------------------- functions --

NOT_A_FUNCTION = re.compile(r"^(?:if|for|while|switch|catch|do|else|return|namespace|class|struct|union|enum|extern)\b")
AFTER_PARAMETERS = re.compile(
    r"^(?:\s|const\b|noexcept\b(?:\s*\([^()]*\))?|override\b|final\b|mutable\b|volatile\b|&&?|requires\b.*|->.*|try\b|:[^:].*|__attribute__\s*\(\(.*?\)\))*$", re.DOTALL
)


def closing_parenthesis(code: str, opening: int) -> int:
    depth = 0
    for position in range(opening, len(code)):
        if code[position] == "(":
            depth += 1
        elif code[position] == ")":
            depth -= 1
            if depth == 0:
                return position
    return -1


def count_parameters(parameters: str) -> int:
    """Commas at the top level, where <>, (), [] and {} nest."""
    parameters = parameters.replace("->", "  ")
    if parameters.strip() in ("", "void"):
        return 0
    depth, commas = 0, 0
    for character in parameters:
        depth += (character in "<([{") - (character in ">)]}")
        commas += character == "," and depth == 0
    return commas + 1


def parse_signature(head: str) -> tuple[int, str, int] | None:
    """What stands before a `{`: (offset of the declaration, function name, number of parameters), or None."""
    start = len(head) - len(head.lstrip())
    declaration = head[start:]
    while template := re.match(r"template\s*<", declaration):
        depth = 0
        for position in range(template.end() - 1, len(declaration)):
            depth += (declaration[position] == "<") - (declaration[position] == ">")
            if depth == 0:
                break
        rest = declaration[position + 1 :]
        declaration = rest.lstrip()
    if NOT_A_FUNCTION.match(declaration) and not declaration.startswith("extern"):
        return None
    for match in re.finditer(r"(operator\s*(?:\(\s*\)|[^\s\w(]+|\w[\w\s*&]*)|[A-Za-z_~][\w:~<>, ]*?)\s*\(", declaration):
        name = match[1].split()[-1] if not match[1].startswith("operator") else match[1]
        if re.fullmatch(r"__launch_bounds__|__attribute__|alignas|noexcept|decltype|requires|__cluster_dims__|explicit", name):
            continue
        opening = match.end() - 1
        closing = closing_parenthesis(declaration, opening)
        if closing < 0 or "=" in declaration[:opening] and "operator" not in match[1]:
            return None
        if AFTER_PARAMETERS.match(declaration[closing + 1 :]):
            return start, name, count_parameters(declaration[opening + 1 : closing])
    return None


def c_functions(source: Source) -> list[Function]:
    """Every function definition outside another function. Lambdas count as part of the function they stand in."""
    code = re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", lambda m: blank(m[0]), source.code, flags=re.MULTILINE)
    functions, head_start, position = [], 0, 0
    while position < len(code):
        character = code[position]
        if character in ";}":
            head_start = position + 1
        elif character == "(":
            position = max(closing_parenthesis(code, position), position)
        elif character == "{":
            head = code[head_start:position]
            signature = parse_signature(head)
            if signature:
                offset, name, num_parameters = signature
                end = closing_brace(code, position)
                first, last = source.line_of(head_start + offset), source.line_of(end)
                functions.append(Function(name, first, last, num_parameters, "__global__" in head))
                position = end
            head_start = position + 1
        position += 1
    return functions


def closing_brace(code: str, opening: int) -> int:
    """The `}` that ends a body. A constructor's `: a_{x} {` begins at the initialiser, so bodies that follow belong to it."""
    depth = 0
    for position in range(opening, len(code)):
        depth += (code[position] == "{") - (code[position] == "}")
        if depth == 0:
            rest = code[position + 1 : position + 200].lstrip()
            if rest[:1] in ("{", ",") and not code[opening + 1 : position].count(";"):
                continue
            return position
    return len(code) - 1


def python_functions(source: Source) -> list[Function]:
    try:
        tree = ast.parse(source.text)
    except SyntaxError:
        return []
    return [
        Function(node.name, node.lineno, node.end_lineno, count_python_parameters(node.args))
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]


def count_python_parameters(arguments: ast.arguments) -> int:
    """Positional parameters; keyword-only ones name themselves at the call."""
    positional = arguments.posonlyargs + arguments.args
    return len([a for a in positional if a.arg not in ("self", "cls")])
