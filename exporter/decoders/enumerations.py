"""Decoders of numbers with names: enum (the kernel's BTF), map, errno (errno(3), include/linux/errno.h)."""

from __future__ import annotations

import errno

from exporter.decoders.declaration import DecodeFunction, Decoder, Input
from exporter.decoders.names import Names
from exporter.spec import DecodeStep

NO_SUCH_ENUM = "none"  # for every value of an enum that this kernel does not have

# include/linux/errno.h: internal errnos of the kernel, which probes see at function returns.
_KERNEL_ERRNO = {
    512: "ERESTARTSYS",
    513: "ERESTARTNOINTR",
    514: "ERESTARTNOHAND",
    515: "ENOIOCTLCMD",
    516: "ERESTART_RESTARTBLOCK",
    517: "EPROBE_DEFER",
    518: "EOPENSTALE",
    519: "ENOPARAM",
    521: "EBADHANDLE",
    522: "ENOTSYNC",
    523: "EBADCOOKIE",
    524: "ENOTSUPP",
    525: "ETOOSMALL",
    526: "ESERVERFAULT",
    527: "EBADTYPE",
    528: "EJUKEBOX",
    529: "EIOCBQUEUED",
    530: "ERECALLCONFLICT",
    531: "ENOGRACE",
}
# Python has the last alias of a number; these are the names that the kernel uses.
_ERRNO = {**errno.errorcode, **_KERNEL_ERRNO, 11: "EAGAIN", 35: "EDEADLK", 95: "EOPNOTSUPP", 0: "none"}


def _enum_argument(step: DecodeStep) -> str | None:
    if step.argument is not None and not (isinstance(step.argument, str) and step.argument):
        return "decoder enum: the argument is the name of a kernel enum, as in {enum: skb_drop_reason}"
    strip = step.options.get("strip")
    if strip is not None and not isinstance(strip, str):
        return "decoder enum: strip is a text, as in {enum: skb_drop_reason, strip: SKB_DROP_REASON_}"
    return None


def _enum_fits(step: DecodeStep, given: Input) -> str | None:
    if step.argument is not None:
        return None
    if given.source is None:
        return f"decoder enum without an argument must come first ({given.before} before it)"
    if given.source.kind != "enum":
        spelled = given.source.spelling
        return f"decoder enum: the field is {spelled}, not an enum (name one, as in {{enum: skb_drop_reason}})"
    return None


def _enum(step: DecodeStep, given: Input, names: Names) -> DecodeFunction:
    """Decode a value of the field's enum, or of the kernel enum in the argument."""
    if step.argument is not None:
        values = names.enums.values(step.argument)
        if values is None:
            return lambda _: None
        if not values:
            return lambda _: NO_SUCH_ENUM
    else:
        values = {}
        for name, value in given.source.values if given.source is not None else ():
            values.setdefault(value, name)  # of aliases the first
    strip = step.options.get("strip") or ""
    return {value: name.removeprefix(strip) for value, name in values.items()}.get


def _map_argument(step: DecodeStep) -> str | None:
    table = step.argument
    if not isinstance(table, dict) or not table:
        return "decoder map: the argument is a table, as in {map: {0: read, 1: write}}"
    for key, value in table.items():
        if isinstance(key, bool) or not isinstance(key, int | str):
            return f"decoder map: key {key!r} is neither a number nor a text"
        if isinstance(value, bool) or not isinstance(value, int | str):
            return f"decoder map: value {value!r} of key {key!r} is not a text"
    if len({type(key) for key in table}) > 1:
        return "decoder map: keys are all numbers or all texts"
    return None


def _map_fits(step: DecodeStep, given: Input) -> str | None:
    source = f"{given.before} gives" if given.before else "the field is"
    key = next(iter(step.argument))
    if given.shape == "int" and isinstance(key, str):
        return f"decoder map: key {key!r} is a text, but {source} a number"
    if given.shape == "text" and isinstance(key, int):
        return f"decoder map: key {key} is a number, but {source} a text (write '{key}' in quotes)"
    return None


def _map(step: DecodeStep, _given: Input, _names: Names) -> DecodeFunction:
    return {key: str(value) for key, value in step.argument.items()}.get


def _errno(_step: DecodeStep, given: Input, _names: Names) -> DecodeFunction:
    """Decode an errno: ENOENT for 2 and for -2, "none" for 0. A negative number in a u32 or u64 counts as negative."""
    top = 1 << 8 * given.source.size if given.source is not None and not given.source.signed else 0

    def run(number: int) -> str | None:
        if number >= 1 << 31 and top:
            number -= top
        return _ERRNO.get(abs(number))

    return run


DECODERS = (
    Decoder(
        "enum",
        takes=("int",),
        gives="text",
        bind=_enum,
        argument=_enum_argument,
        fits=_enum_fits,
        options=("strip",),
    ),
    Decoder("map", takes=("int", "text"), gives="text", bind=_map, argument=_map_argument, fits=_map_fits),
    Decoder("errno", takes=("int",), gives="text", bind=_errno),
)
