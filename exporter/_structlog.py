"""Imports structlog without what only tracebacks on terminals and coroutines want of it: rich, pygments, asyncio, ssl.

They are 130 modules and 8 MB in the memory of roles that live for months. structlog does without rich where that is not
installed; asyncio it gets when it asks for something in it.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


def _import_structlog() -> None:
    for_now: dict[str, ModuleType | None] = {"rich": None, "asyncio": _on_use("asyncio")}  # None: an ImportError
    for name in sorted(for_now.keys() & sys.modules.keys()):
        del for_now[name]  # somebody has it already
    sys.modules.update(for_now)  # type: ignore[arg-type]
    try:
        importlib.import_module("structlog")
    finally:
        for name, stand_in in for_now.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]


def _on_use(name: str) -> ModuleType:
    """What stands for a module that is imported when an attribute of it is asked for."""

    def attribute(of: str) -> Any:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]
        return getattr(importlib.import_module(name), of)

    stand_in = ModuleType(name)
    stand_in.__getattr__ = attribute  # type: ignore[method-assign]
    return stand_in


_import_structlog()
