"""Names that look like a name that does not exist, for the hint in its error message."""

from __future__ import annotations

from collections.abc import Iterable


def near(name: str, names: Iterable[str], *, cutoff: float = 0.7) -> list[str]:
    """Return up to three of `names` that look like `name`, best first, in an order that is the same in every run.
    A lower cutoff than 0.7 finds names that look less like it (difflib.get_close_matches)."""
    import difflib  # 0.5 MB that a long-lived role needs only where something is wrong

    return difflib.get_close_matches(name, sorted(names), n=3, cutoff=cutoff)


def did_you_mean(name: str, names: Iterable[str], *, otherwise: str = "the names are") -> str:
    """Return the hint for an unknown name: the known names that look like it, else all of them after `otherwise`."""
    known = sorted(names)
    if found := near(name, known):
        return "did you mean " + " or ".join(f'"{each}"' for each in found) + "?"
    return f"{otherwise} " + ", ".join(known) if known else "there are none"
