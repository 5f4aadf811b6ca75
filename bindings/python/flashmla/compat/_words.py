"""Errors in the names that a drop-in's callers know."""

import torch

from flashmla._errors import Error

_OPERATIONS = ("decode", "plan_update", "plan_create")


def renamed(error, operation, arguments):
    """An Error of the library under another operation's name; `arguments` maps the library's names to those of the caller."""
    called, _, rest = str(error).partition(": ")
    argument, colon, tail = rest.partition(": ")
    if not colon or called not in _OPERATIONS:
        return error
    return Error(f"{operation}: {arguments.get(argument, argument)}: {tail}", error.status)


def tensor_text(value):
    """A value as a message shows it."""
    if isinstance(value, torch.Tensor):
        return f"a {value.dtype} tensor {list(value.shape)} on {value.device}"
    if value is None or isinstance(value, (bool, int, float, str, tuple)):
        return repr(value)
    return f"{type(value).__module__}.{type(value).__qualname__}"
