"""The one exception of the package, and the grammar of its messages: `operation: argument: got X, expected Y (reason)`."""

from flashmla._abi import Status


class Error(ValueError, RuntimeError):
    """A call that was refused. Nothing was enqueued and nothing was changed.

    It is a ValueError, because most refusals are about arguments, and a RuntimeError, which is what callers of other attention
    libraries catch. `status` says which: a `flashmla.Status`.
    """

    def __init__(self, message, status=Status.INVALID_ARGUMENT):
        super().__init__(message)
        self.status = Status(status)


def invalid(operation, argument, got, expected):
    """The Error for an argument that no device could take; raise it."""
    return Error(f"{operation}: {argument}: got {got}, expected {expected}", Status.INVALID_ARGUMENT)


def unsupported(operation, argument, got, nearest):
    """The Error for a legal argument that is not built; `nearest` names what is."""
    return Error(f"{operation}: {argument}: got {got}, expected {nearest}", Status.UNSUPPORTED)


def whole_number(operation, argument, value, low, high):
    """`value` as an int in [low, high]; ctypes would cut a larger one off without a word."""
    try:
        number = value.__index__()
    except (AttributeError, TypeError, ValueError):  # an array of several numbers has the method, and refuses
        raise invalid(operation, argument, f"{value!r} of type {type(value).__name__}", "a whole number") from None
    if not low <= number <= high:
        raise invalid(operation, argument, number, f"{low} .. {high}")
    return number


def sequence(operation, argument, value, expected):
    """`value` as a list; `expected` says of what."""
    try:
        return list(value)
    except TypeError:
        raise invalid(operation, argument, f"{value!r} of type {type(value).__name__}", expected) from None


def member(operation, argument, value, kind):
    """`value` as a member of the enum `kind`: a member, its name in any case, or its number."""
    try:
        if isinstance(value, str):
            return kind[value.upper().replace("-", "_")]
        return kind(value)
    except (KeyError, ValueError):
        names = ", ".join(m.name.lower() for m in kind if m.name != "NONE")
        raise invalid(operation, argument, repr(value), f"one of {names}") from None
