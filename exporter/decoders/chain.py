"""The `decode:` steps of a label and the type of its field -> one function from bytes to text.

Three stages: `check_chain` needs the configuration only, `chain` also the field's type, `Chain.bind` the host's names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from exporter.decoders import (
    addresses,
    cgroups,
    devices,
    dns,
    enumerations,
    integers,
    network,
    prefixes,
    processes,
    strings,
)
from exporter.decoders.declaration import Decoder, Input, Shape, byte_order, is_bool, is_char_array, is_number
from exporter.decoders.names import Names
from exporter.kernel.near import did_you_mean
from exporter.program import Type
from exporter.spec import DecodeStep

KEEP, DROP = "keep", "drop"
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"  # replaces bytes that are not UTF-8

# One module per family; a new family is added here.
_FAMILIES = (
    integers,
    strings,
    enumerations,
    network,
    prefixes,
    dns,
    addresses,
    cgroups,
    processes,
    devices,
)
_DECODERS: Mapping[str, Decoder] = {decoder.name: decoder for family in _FAMILIES for decoder in family.DECODERS}


class ChainError(ValueError):
    """A chain that cannot decode its field; the text has the cause and what would work."""


def all_decoders() -> Mapping[str, Decoder]:
    """Return every decoder by name."""
    return _DECODERS


def check_chain(steps: Sequence[DecodeStep]) -> list[str]:
    """Return the mistakes of a chain that do not depend on the field, one text each."""
    if not steps:
        return ["decode is empty: leave it out for the decoder that fits the field's type"]
    found: list[str] = []
    before: Decoder | None = None
    for step in steps:
        decoder = _DECODERS.get(step.name)
        if decoder is None:
            found.append(f"no decoder {step.name!r} ({did_you_mean(step.name, _DECODERS, otherwise='one of')})")
            before = None
            continue
        wrong = _wrong_in_itself(decoder, step)
        found += wrong
        if before is not None:
            given = Input(before.gives, before=before.name)
            misfit = _misfit(decoder, step, given, argument_is_right=not wrong)
            if misfit:
                found.append(misfit)
        before = decoder
    return found


def _wrong_in_itself(decoder: Decoder, step: DecodeStep) -> list[str]:
    found: list[str] = []
    wrong = decoder.argument(step)
    if wrong:
        found.append(wrong)
    for option in step.options:
        if option not in decoder.options:
            has = f"it has {', '.join(decoder.options)}" if decoder.options else "it has none"
            found.append(f"decoder {decoder.name} has no option {option!r} ({has})")
    if step.unknown is not None:
        if decoder.unknown is None:
            found.append(f"decoder {decoder.name} always has an answer: leave out `unknown`")
        elif not step.unknown:
            found.append(f"decoder {decoder.name}: unknown is keep, drop or a text that is not empty")
    return found


def _misfit(decoder: Decoder, step: DecodeStep, given: Input, argument_is_right: bool) -> str | None:
    if given.shape not in decoder.takes:
        takes = " or ".join(decoder.takes)
        return f"decoder {decoder.name} takes {takes}, but {given.before} before it gives {given.shape}"
    return decoder.fits(step, given) if argument_is_right else None


@dataclass(frozen=True, slots=True)
class ChainStep:
    decoder: Decoder
    decode: DecodeStep
    given: Input

    @property
    def unknown(self) -> str | None:
        return self.decode.unknown if self.decode.unknown is not None else self.decoder.unknown


@dataclass(frozen=True, slots=True)
class Chain:
    """Checked steps for a field of a known type."""

    type: Type
    steps: tuple[ChainStep, ...]

    @property
    def volatile(self) -> bool:
        """True if the text of the same bytes can change with time: callers decode again after a minute."""
        return any(step.decoder.volatile for step in self.steps)

    @property
    def kernel_enums(self) -> tuple[str, ...]:
        """The kernel enums that the chain looks up: an argument of Names.open."""
        asked = (step.decode for step in self.steps if step.decoder.name == "enum")
        return tuple(decode.argument for decode in asked if decode.argument is not None)

    @property
    def stack_maps(self) -> tuple[str, ...]:
        """The maps of stack traces that the chain reads."""
        asked = (step.decode for step in self.steps if step.decoder.name == "kstack")
        return tuple(decode.argument for decode in asked if decode.argument is not None)

    def bind(self, names: Names, length: int | None = None) -> Callable[[bytes], str | None]:
        """Return the chain as one function: the bytes of the field -> label text, None to drop the series.

        length  cuts the text to so many bytes of UTF-8, at a character

        A bit-field is passed as the bytes of its declared type with the value in host order. The function never raises.
        A step without an answer ends the chain with its `unknown` and counts in `names.errors` by decoder, unless the
        configuration sets `unknown` to a text or keep. Text that is cut or not UTF-8 counts under the last decoder.
        """
        read = _reader(self.type, self.steps[0].given.shape)
        runs = [
            (step.decoder.name, step.decoder.bind(step.decode, step.given, names), step.unknown, step.decode.unknown)
            for step in self.steps
        ]
        errors = names.errors

        def decode(raw: bytes) -> str | None:
            value = read(raw)
            for name, run, unknown, configured in runs:
                answer = run(value)
                if answer is None:
                    if configured in (None, DROP):
                        errors[name] += 1
                    if unknown == DROP:
                        return None
                    value = value if unknown == KEEP else unknown or "unknown"
                    break
                value = answer
            text = _as_text(value)
            shown = clean(text, length)
            if shown != text or REPLACEMENT in shown:
                errors[name] += 1
            return shown

        return decode


def chain(field: Type, steps: Sequence[DecodeStep] | None) -> Chain:
    """Return the chain for a field of this type; `steps` None selects the decoder by type. ChainError."""
    decodes = [DecodeStep(name=_default(field))] if steps is None else list(steps)
    wrong = check_chain(decodes)
    if wrong:
        raise ChainError("; ".join(wrong))
    made: list[ChainStep] = []
    for index, decode in enumerate(decodes):
        decoder = _DECODERS[decode.name]
        if index == 0:
            given = Input(_first_shape(decoder, field), source=field)
            misfit = decoder.fits(decode, given)
            if misfit:
                raise ChainError(misfit)
        else:
            given = Input(made[-1].decoder.gives, before=made[-1].decoder.name)
        made.append(ChainStep(decoder, decode, given))
    return Chain(field, tuple(made))


def _default(field: Type) -> str:
    """Return the decoder of a type: string for char[], enum, bool, hex for pointers, int or uint for other integers."""
    if is_char_array(field):
        return "string"
    if field.kind == "enum":
        return "enum"
    if field.kind == "pointer":
        return "hex"
    if is_bool(field):
        return "bool"
    if field.kind == "int":
        return "int" if field.signed else "uint"
    if field.kind in ("struct", "union"):
        raise ChainError(f"the field is {field.spelling}, which has no text of its own: name one of its members")
    if field.kind == "array":
        hint = "name an element, as in field[0], or decode it by hex, inet or string"
        raise ChainError(f"the field is {field.spelling}: {hint}")
    if field.kind == "float":
        raise ChainError(
            f"the field is {field.spelling}, a floating-point number: BPF programs have none (use an integer)"
        )
    raise ChainError(f"the field is {field.spelling}, which cannot be a label")


def _first_shape(decoder: Decoder, field: Type) -> Shape:
    offered: tuple[Shape, ...]
    if is_number(field):
        offered = ("int", "bytes")
        is_a = f"the field is a number ({field.spelling})"
    elif is_char_array(field):
        offered = ("bytes", "text")
        is_a = f"the field is {field.spelling}"
    else:
        offered = ("bytes",)
        is_a = f"the field is {field.spelling}"
    for shape in decoder.takes:
        if shape in offered:
            return shape
    hint = ""
    if decoder.name in ("systemd_unit", "container", "pod") and is_number(field):
        hint = " (put cgroup before it)"
    raise ChainError(f"decoder {decoder.name} takes {' or '.join(decoder.takes)}, but comes first and {is_a}{hint}")


def _reader(field: Type, shape: Shape) -> Callable[[bytes], int | bytes | str]:
    """Return the function from the field's bytes to the shape that the first decoder takes."""
    if shape == "int":
        return partial(int.from_bytes, byteorder=byte_order(field), signed=field.signed)
    if shape == "text":
        return strings.text
    return bytes


def _as_text(value: int | bytes | str) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def clean(text: str, length: int | None = None) -> str:
    """Return the text as valid UTF-8 of at most `length` bytes, cut at a character."""
    if text.isascii():
        return text if length is None else text[:length]
    raw = text.encode("utf-8", "replace")  # lone surrogates, from file names that are not UTF-8
    return raw.decode() if length is None else raw[:length].decode("utf-8", "ignore")
