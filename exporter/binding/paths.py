"""Paths such as `a.b` or `a[2]` in the C type of a key or value -> type and offset (Documentation/bpf/btf.rst)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from exporter.decoders.declaration import BIG_ENDIAN, LITTLE_ENDIAN
from exporter.program import Member, Type

Order = Literal["=", ">", "<"]

ORDERS: dict[str, Order] = {**dict.fromkeys(BIG_ENDIAN, ">"), **dict.fromkeys(LITTLE_ENDIAN, "<")}


class LayoutError(Exception):
    """A path or type does not fit; each argument is a text with the mistake and what exists instead."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number of `width` bytes (1, 2, 4 or 8) at `offset`; `order` as in numpy and struct: "=" for host order, ">" and
    "<" for the kernel's __be and __le types.

    A bit-field is `bits` wide and begins `shift` bits (0 to 7) after the start of the byte at `offset`, counted from
    the lowest bit on a little-endian machine and from the highest on a big-endian one, as in BTF; in a packed struct it
    can reach into a ninth byte. `width` is that of its declared type.
    """

    offset: int
    width: int
    signed: bool
    order: Order = "="
    bits: int = 0
    shift: int = 0


@dataclass(frozen=True, slots=True)
class FieldLayout:
    """A field of a key or value; `bits` and `shift` of a bit-field as in Number."""

    type: Type
    offset: int
    bits: int = 0
    shift: int = 0


def resolve(root: Type, path: str, root_name: str) -> FieldLayout:
    """Return the field at `path` (a.b, a[2], a[1][2], `key`, `key.a`, union.member) in a key or value of type
    `root`."""
    if path == root_name and (root.kind != "struct" or not any(m.name == path for m in visible(root))):
        return FieldLayout(root, 0)
    rest = path
    if path.startswith((f"{root_name}.", f"{root_name}[")):
        rest = path[len(root_name) :].removeprefix(".")
    found, offset, width = root, 0, 0
    for step in rest.replace("[", ".[").lstrip(".").split("."):
        if step.startswith("["):
            found, offset = _index(found, offset, step)
        else:
            member = _member(found, step, root_name, found is root)
            found, offset, width = member.type, offset + member.offset, member.bits
    return FieldLayout(found, offset // 8, width, offset % 8)


def _index(array: Type, bits: int, step: str) -> tuple[Type, int]:
    text = step[1:-1]
    if not step.endswith("]") or not text.isdecimal():
        raise LayoutError(f"{step}: an index is a number in brackets, as in a[2]")
    if array.kind != "array" or array.element is None:
        raise LayoutError(f"{step}: {array.spelling} is no array")
    if len(text) > 9 or int(text) >= array.count:  # int() refuses thousands of digits
        raise LayoutError(f"{step}: the array has {array.count} elements, numbered from 0")
    return array.element, bits + int(text) * array.element.size * 8


def _member(owner: Type, name: str, root_name: str, at_root: bool) -> Member:
    if owner.kind not in ("struct", "union"):
        hint = f'the {root_name} is no struct: write "{root_name}"' if at_root else "it is no struct"
        raise LayoutError(f'no field "{name}" in {owner.spelling} ({hint})')
    for member in visible(owner):
        if member.name == name:
            return member
    raise LayoutError(f'no field "{name}" in {owner.spelling} (it has: {listed([m.name for m in visible(owner)])})')


def visible(owner: Type) -> list[Member]:
    """Return the members that C can name directly, including those of anonymous inner structs and unions."""
    members = []
    for member in owner.members:
        if member.name:
            members.append(member)
        else:
            members.extend(
                Member(inner.name, member.offset + inner.offset, inner.type, inner.bits)
                for inner in visible(member.type)
            )
    return members


def leaves(owner: Type, path: tuple[str, ...], base: int) -> list[tuple[tuple[str, ...], FieldLayout]]:
    """Return (path, field) of all fields of a struct and its nested structs; `base` is the struct's offset in bits."""
    fields: list[tuple[tuple[str, ...], FieldLayout]] = []
    for member in owner.members:
        inner = (*path, member.name) if member.name else path
        offset = base + member.offset
        if member.type.kind == "union":
            raise LayoutError(
                f"labels: {'.'.join(inner) or 'the key'} is a union, and only its reader knows which member counts "
                "(list the labels)"
            )
        if member.type.kind == "struct":
            fields.extend(leaves(member.type, inner, offset))
        elif member.name:  # a bit-field without a name is padding
            fields.append((inner, FieldLayout(member.type, offset // 8, member.bits, offset % 8)))
    return fields


def number(field: FieldLayout, what: str) -> Number:
    """Return the field as a number. LayoutError, which begins with `what`, for other types."""
    found = field.type
    if found.kind in ("int", "enum") and found.size in (1, 2, 4, 8):
        # The C text assigns numbers in host order to a bit-field, whatever its type is called.
        order = "=" if field.bits else ORDERS.get(found.name, "=")
        return Number(field.offset, found.size, found.signed, order, field.bits, field.shift)
    if found.kind == "float":
        raise LayoutError(
            f"{what}: {found.spelling} is a floating-point number, and BPF programs have none (use an integer)"
        )
    if found.kind == "struct":
        raise LayoutError(
            f"{what}: {found.spelling} is no number (its members: {listed([m.name for m in visible(found)])})"
        )
    raise LayoutError(f"{what}: {found.spelling} is no number of 8 to 64 bits")


def listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "nothing"
