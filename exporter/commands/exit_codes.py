"""Exit codes of the command."""

from __future__ import annotations

EXIT_OK = 0
EXIT_RUNTIME = 1
EXIT_USAGE = 2
EXIT_CONFIG = 3
EXIT_RIGHTS = 4  # missing rights, or bcc is missing where a program must be compiled
EXIT_LOAD = 5  # `check --load` or `check --btf` found a program that does not run
