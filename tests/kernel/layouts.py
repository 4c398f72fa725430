"""Random C structs with a value for each member, written as C and as what a reader of them must find."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

NUMBERS = ("u8", "u16", "u32", "u64", "s8", "s16", "s32", "s64", "__be16", "__be32", "__be64", "size_t", "char")
BIT_FIELDS = ("u8", "u16", "u32", "u64", "s8", "s32", "s64", "unsigned int", "__be16")
COLORS = {"RED": 0, "GREEN": 1, "BLUE": 77}
ENUM = "enum color { " + ", ".join(f"{name} = {value}" for name, value in COLORS.items()) + " };"


@dataclass(frozen=True, slots=True)
class Written:
    """One member that the C text sets: its path, the C constant, the number there, and its text as a label."""

    path: str
    constant: str
    number: int
    text: str
    bit_field: bool


@dataclass
class Struct:
    name: str
    body: str
    attributes: str
    members: list[Written] = field(default_factory=list)

    @property
    def definition(self) -> str:
        return f"struct {self.name} {{ {self.body} }} {self.attributes};"


Member = Callable[[str, list[Written], int], str]  # path in front, what is written so far, depth left -> declaration


class Maker:
    def __init__(self, random: random.Random) -> None:
        self._random = random
        self._count = 0

    def struct(self, name: str) -> Struct:
        attributes = self._random.choice(
            (
                "",
                "",
                "",
                "__attribute__((packed))",
                "__attribute__((aligned(16)))",
                "__attribute__((packed, aligned(4)))",
            )
        )
        members: list[Written] = []
        return Struct(name, self._body("", members, 2), attributes, members)

    def _body(self, prefix: str, written: list[Written], depth: int) -> str:
        kinds: list[Member] = [
            self._number,
            self._number,
            self._bit_field,
            self._bit_field,
            self._array,
            self._matrix,
            self._enum,
        ]
        if depth:
            kinds += [self._nested, self._nested, self._union, self._union]
        parts = [self._random.choice(kinds)(prefix, written, depth) for _ in range(self._random.randint(1, 5))]
        return " ".join(parts)

    def _name(self) -> str:
        self._count += 1
        return f"m{self._count}"

    def _number(self, prefix: str, written: list[Written], _depth: int) -> str:
        kind, name = self._random.choice((*NUMBERS, "bool")), self._name()
        aligned = self._random.choice(("", "", "", " __attribute__((aligned(8)))", " __attribute__((packed))"))
        self._set(written, prefix + name, kind)
        return f"{kind} {name}{aligned};"

    def _bit_field(self, prefix: str, written: list[Written], _depth: int) -> str:
        parts = []
        for _ in range(self._random.randint(1, 4)):
            kind = self._random.choice((*BIT_FIELDS, "bool"))
            bits = 1 if kind == "bool" else self._random.randint(1, 8 * _size(kind))
            pad = self._random.choice(("", "", "", "u32 :0; ", f"u16 :{self._random.randint(1, 15)}; "))
            name = self._name()
            self._set(written, prefix + name, kind, bits)
            parts.append(f"{pad}{kind} {name}:{bits};")
        return " ".join(parts)

    def _array(self, prefix: str, written: list[Written], _depth: int) -> str:
        kind, name, count = self._random.choice(NUMBERS), self._name(), self._random.randint(1, 4)
        for index in {0, count - 1}:
            self._set(written, f"{prefix}{name}[{index}]", kind)
        return f"{kind} {name}[{count}];"

    def _matrix(self, prefix: str, written: list[Written], _depth: int) -> str:
        kind, name = self._random.choice(NUMBERS), self._name()
        sizes = [self._random.randint(1, 3) for _ in range(self._random.randint(2, 3))]
        for _ in range(2):
            place = "".join(f"[{self._random.randrange(size)}]" for size in sizes)
            if all(w.path != f"{prefix}{name}{place}" for w in written):
                self._set(written, f"{prefix}{name}{place}", kind)
        return f"{kind} {name}{''.join(f'[{size}]' for size in sizes)};"

    def _enum(self, prefix: str, written: list[Written], _depth: int) -> str:
        name, bits = self._name(), self._random.choice(("", "", ":7", ":32"))
        color = self._random.choice(list(COLORS))
        written.append(Written(prefix + name, color, COLORS[color], color, bool(bits)))
        return f"enum color {name}{bits};"

    def _nested(self, prefix: str, written: list[Written], depth: int) -> str:
        """A struct as a member, by name, without one, or an array of it."""
        packed = self._random.choice(("", "", " __attribute__((packed))"))
        name = self._random.choice(("", self._name()))
        if name and self._random.random() < 0.3:
            body = self._body(f"{prefix}{name}[1].", written, depth - 1)
            return f"struct {{ {body} }}{packed} {name}[2];"
        body = self._body(f"{prefix}{name}." if name else prefix, written, depth - 1)
        return f"struct {{ {body} }}{packed} {name};"

    def _union(self, prefix: str, written: list[Written], depth: int) -> str:
        """Only one of its members is written: the others lie over it."""
        name = self._random.choice(("", self._name()))
        inside = f"{prefix}{name}." if name else prefix
        chosen: list[Written] = []
        parts = [self._number(inside, written if not index else chosen, depth) for index in range(2)]
        parts.append(f"struct {{ {self._body('', [], 0)} }} {self._name()};")
        self._random.shuffle(parts)
        return f"union {{ {' '.join(parts)} }} {name};"

    def _set(self, written: list[Written], path: str, kind: str, bits: int = 0) -> None:
        size = _size(kind)
        width = bits or 8 * size
        if kind == "bool":
            written.append(Written(path, "1", 1, "true", bool(bits)))
            return
        raw = self._random.getrandbits(width) | 1  # never 0: what was not written would be right
        signed = (kind.startswith("s") and kind != "size_t") or kind == "char"
        number = raw - (1 << width) if signed and raw >> (width - 1) else raw
        if kind.startswith("__be") and not bits:
            number = int.from_bytes(raw.to_bytes(size, sys.byteorder), "big")
        written.append(Written(path, f"({kind}){raw:#x}ULL", number, str(number), bool(bits)))


def _size(kind: str) -> int:
    if kind in ("bool", "char"):
        return 1
    if kind == "unsigned int":
        return 4
    return 8 if kind == "size_t" else int("".join(filter(str.isdigit, kind))) // 8
