"""Drop-ins for other libraries' modules. Importing this package imports none of them, and no framework."""

import importlib
import sys

from flashmla._errors import invalid

_OFFERED = ("flash_mla", "flash_mla.flash_mla_interface")


def install():
    """Offers flashmla.compat.flash_mla as the module `flash_mla`, for code that imports that name. Off unless called, since other
    wheels use it: an Error when one of them is imported already. Calling it again changes nothing. Returns the module."""
    module = importlib.import_module("flashmla.compat.flash_mla")
    for name in _OFFERED:
        present = sys.modules.get(name)
        if present is not None and present is not module:
            raise invalid("install", name, f"a module imported already from {getattr(present, '__file__', None)}", "none")
    for name in _OFFERED:
        sys.modules[name] = module
    return module
