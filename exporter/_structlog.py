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
    kept = {name: sys.modules.get(name) for name in ("rich", "asyncio")}
    sys.modules["rich"] = None  # type: ignore[assignment]  # makes `import rich` an ImportError
    sys.modules["asyncio"] = kept["asyncio"] or _on_use("asyncio")
    try:
        importlib.import_module("structlog")
    finally:
        for name, module in kept.items():
            if module:
                sys.modules[name] = module
            else:
                del sys.modules[name]


def _on_use(name: str) -> ModuleType:
    """What stands for a module that is imported when an attribute of it is asked for."""

    def attribute(of: str) -> Any:
        return getattr(importlib.import_module(name), of)

    module = ModuleType(name)
    module.__getattr__ = attribute  # type: ignore[method-assign]
    return module


_import_structlog()
