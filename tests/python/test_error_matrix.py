"""The error matrix (tests/api/errors/matrix.txt): no argument of flashmla.h is left out of it, and Python answers its rows as C does.

Python's own checks come before the library's: then the text up to `, expected` must be the same, and the rest may be in its own words.
"""

import re

import error_table
import pytest
from conftest import ROOT

import flashmla
from flashmla import Status

HEADER = re.sub(r"/\*.*?\*/", "", (ROOT / "include" / "flashmla" / "flashmla.h").read_text(), flags=re.S)
FUNCTIONS = {
    name: [] if arguments.strip() == "void" else [" ".join(a.split()) for a in arguments.split(",")]
    for name, arguments in re.findall(r"FLASHMLA_API [^;]*?(flashmla_\w+)\(([^)]*)\);", HEADER)
}
STRUCTS = {
    name: re.findall(r"([\w *]+?)\b(\w+)(?:\[\d+\])?;", body) for name, body in re.findall(r"typedef struct (\w+) \{(.*?)\}", HEADER, flags=re.S)
}
BLOCKS, ANYTHING = error_table.read()
# Structs that a function fills in: their size is all that it reads.
FILLED_IN = ("flashmla_device_info", "flashmla_driver_info", "flashmla_kernel_info", "flashmla_fault", "flashmla_part")
# How a view can be wrong: the field that a row has to change. Every view; then the ones that are written; then the required ones.
WAYS = ("rank", "dtype", "size", "stride", "device.kind", "device.index", "data = null", "data = +1")


def rows_of(function):
    return [row for block in BLOCKS if block.function == function for row in block.rows]


def changes_of(function):
    """Every `path = value` of the rows of a function, without indices of arrays."""
    return [re.sub(r"\[\d\]", "", f"{path} = {value}") for row in rows_of(function) for path, value in row.changes]


def is_refused_whole(function, path):
    return any(row.status == "UNSUPPORTED" and row.changes[0][0] == path and "[" in row.changes[0][1] for row in rows_of(function))


def missing_of_view(function, path):
    changes = changes_of(function)
    if is_refused_whole(function, path):
        return []
    missing = []
    for way in WAYS:
        wanted = f"{path}.{way}"
        if not any(c == wanted or c.startswith((wanted + " ", wanted + "[")) for c in changes):
            missing.append(wanted)
    short = path.split(".")[-1]
    is_output = short in ("out", "lse", "fault", "workspace", "caches") or (short, function) in (
        ("schedule", "flashmla_plan_update"), ("cache", "flashmla_append"),
    )  # fmt: skip
    if is_output and function not in ("flashmla_plan_reset", "flashmla_plan_fault"):
        name = "caches[1]" if short == "caches" else short
        if not any(f": {name}: got memory shared with" in row.message for row in rows_of(function)):
            missing.append(f"{path}: memory shared with another view")
    return missing


def missing_of_struct(function, path, struct):
    if struct == "flashmla_view":
        return missing_of_view(function, path)
    changes = changes_of(function)
    missing = []
    for kind, name in STRUCTS[struct]:
        kind, field = kind.replace("const", "").strip(), f"{path}.{name}"
        if (struct in FILLED_IN and name != "struct_size") or f"{function}.{field}" in ANYTHING:
            continue
        if kind in ("flashmla_view", "flashmla_lengths"):
            missing += missing_of_struct(function, field, kind)
        elif kind.endswith("*"):
            entry = kind.rstrip("* ")
            missing += [] if f"{field} = null" in changes else [f"{field} = null"]
            missing += missing_of_struct(function, name, entry)
        elif not any(c.startswith((f"{field} ", f"{field}.")) for c in changes):
            missing.append(field)
    return missing


def missing_of(function):
    """What has neither a row nor a reason to have none."""
    missing = []
    for argument in FUNCTIONS[function]:
        kind, name = re.fullmatch(r"(.*?)(\w+)", argument).groups()
        if {name, f"{function}.{name}"} & set(ANYTHING):
            continue
        is_handle = any(h in kind for h in ("flashmla_plan", "flashmla_page_pool "))
        struct = kind.replace("const", "").strip(" *")
        if "*" in kind and f"{name} = null" not in changes_of(function):
            missing.append(f"{name} = null")
        elif "*" not in kind and not any(c.startswith(f"{name} ") for c in changes_of(function)):
            missing.append(name)
        if struct in STRUCTS and struct not in ("flashmla_fault", "flashmla_part", "flashmla_page_copy") and not is_handle:
            missing += missing_of_struct(function, name, struct)
    return missing


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_argument_is_left_out(function):
    assert missing_of(function) == []


def test_the_check_sees_what_is_left_out(monkeypatch):
    monkeypatch.setitem(STRUCTS, "flashmla_problem", [*STRUCTS["flashmla_problem"], ("int32_t ", "window")])
    monkeypatch.setitem(STRUCTS, "flashmla_merge_args", [*STRUCTS["flashmla_merge_args"], ("flashmla_view ", "bias")])
    monkeypatch.setitem(FUNCTIONS, "flashmla_split", ["flashmla_plan const* plan", "int32_t parts"])
    assert missing_of("flashmla_plan_create") == ["problem.window"]
    assert missing_of("flashmla_merge") == [f"args.bias.{way}" for way in WAYS]
    assert missing_of("flashmla_split") == ["plan = null", "parts"]


def test_reasons_are_about_arguments_that_exist():
    names = {f"{function}.{a.split()[-1].split('*')[-1]}" for function, arguments in FUNCTIONS.items() for a in arguments}
    names |= {f"flashmla_plan_create.target.{name}" for _, name in STRUCTS["flashmla_target"]}
    assert set(ANYTHING) - {"stream"} <= names


# What the package has no way to say: a pattern of `path = value`, and why.
UNSAYABLE = {
    r"\w+ = null": "no argument is a pointer",
    r"args\.(caches|copies) = null": "no argument is a pointer",
    r".*(struct_size|past_the_end|reserved) = .*": "the package fills in what every struct begins and ends with",
    r"(args|target|lengths|args\.lengths)\.flags = .*": "no flags are known",
    r"problem\.flags = 256": "flags are keywords",
    r"problem\.scale = .*": "a scale that is given is flagged, and -1 is written -1.0",
    r"problem\.(topk|extra_\w+) = .*": "not built, and no keyword yet",
    r"(problem|args)\.(kv_format|lse_base) = NONE": "0 is no member",
    r"target\.device\.kind = (2|-1)": "a device has a name",
    r"target\.device\.index = 1": "a device has a name",
    r"target\.device\.index = -1": "a device has a name",
    r".*\.device\.(kind = 7|index = -?1)": "the CPU has one index, and DLPack other devices",
    r".*\.dtype = (NONE|99)": "an array has a dtype",
    r".*\.rank = -1": "an array has a rank",
    r".* = absent": "None: in the package's own words, or an output that it makes",
    r"args\.lengths\.q_tokens = .*": "q has them in its shape",
    r"args\.q(_nope)?\.size\[1\] = .*": "q has the number of query tokens in its shape",
    r"args\.(q_nope|q_pe|q|ckv|kpe|cache|kv) = .*": "either an array or a tuple is given",
    r"(args\.)?lengths\.(topk_len|extra_topk_len) = .*": "not built, and no keyword yet",
    r"args\.(indices|extra_\w+|q_scale|kv_scale) = .*": "not built, and no keyword yet",
    r"args\.num_\w+ = .*": "a list has its length",
    r"batch = (-1|INT64_MAX)": "a list has its length",
    r"count = (-1|0|1|INT64_MIN)": "a list has its length",
    r"(info|index).*": "devices() and kernels() return all rows",
}
GRAMMAR = re.compile(r"^[a-z_]+: [\w\[\].]+: got [^\n]+, expected [^\n]+$")


def reason_not_to_say(function, row):
    for path, value in row.changes:
        change = f"{path} = {value}"
        if function == "flashmla_page_pool_allocate" and path == "count":
            continue
        if "problem.flags = HAS_SCALE" in str(row) and path == "problem.scale" and value != "-1":
            continue
        for pattern in UNSAYABLE:
            if re.fullmatch(pattern, change):
                return pattern
    return None


ALL = [(block, row) for block in BLOCKS for row in block.rows]
SAID = [(block, row) for block, row in ALL if reason_not_to_say(block.function, row) is None]


def without_prefix(message):
    return message.replace("lengths.", "")


def matches(text, pattern):
    return re.fullmatch(".*?".join(re.escape(piece) for piece in pattern.split("...")), text) is not None


@pytest.mark.parametrize("block, row", SAID, ids=[f"{block.function}-{row}" for block, row in SAID])
def test_row(block, row):
    call = error_table.Call(block, row.changes)
    before = call.bytes()
    with pytest.raises(flashmla.Error) as refused:
        call.make()
    text, wanted = without_prefix(str(refused.value)), without_prefix(row.message)
    assert refused.value.status is Status[row.status], text
    assert GRAMMAR.match(text), text
    assert matches(text.split(", expected ")[0], wanted.split(", expected ")[0]), f"{text}\n{wanted}"
    assert call.bytes() == before


@pytest.mark.parametrize("block", BLOCKS, ids=[block.function for block in BLOCKS])
def test_good_call(block):
    if "_info" not in block.function:
        error_table.Call(block, []).make()


def test_most_rows_can_be_said():
    assert len(SAID) > 0.6 * len(ALL)
    used = {reason_not_to_say(block.function, row) for block, row in ALL}
    assert set(UNSAYABLE) <= used, "patterns that match no row"
