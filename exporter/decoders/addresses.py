"""Decoders of kernel addresses: ksym, kstack (bpf-helpers(7), bpf_get_stackid(), bpf_get_stack())."""

from __future__ import annotations

import struct

from exporter.decoders.declaration import DecodeFunction, Decoder, Input
from exporter.decoders.names import Names
from exporter.spec import DecodeStep

NO_SYMBOL = "??"  # a frame in no function: freed init code, or a removed module or BPF program

_ADDRESS = (1 << 64) - 1  # an s64 holds a kernel address as a negative number


def _ksym(_step: DecodeStep, _given: Input, names: Names) -> DecodeFunction:
    """Return the function that contains the address, without offset; a null pointer is "none"."""
    return lambda address: names.symbols.name(address & _ADDRESS) if address else "none"


def stack(frames: bytes, names: Names) -> str | None:
    """Return frames of BPF_MAP_TYPE_STACK_TRACE or bpf_get_stack(), u64 each up to the first 0, as "inner;outer".

    The innermost function comes first, so that cutting a long text drops the outer end. None without frames.
    """
    count = len(frames) // 8
    addresses = struct.unpack(f"={count}Q", frames[: 8 * count])
    found = []
    for address in addresses:
        if not address:
            break
        found.append(names.symbols.name(address) or NO_SYMBOL)
    return ";".join(found) or None


def _kstack_argument(step: DecodeStep) -> str | None:
    if step.argument is not None and not (isinstance(step.argument, str) and step.argument):
        return "decoder kstack: the argument is the name of a BPF_STACK_TRACE map, as in {kstack: stacks}"
    return None


def _kstack_fits(step: DecodeStep, given: Input) -> str | None:
    if step.argument is not None:
        if given.shape == "int":
            return None
        field = given.source.spelling if given.source is not None else given.shape
        return f"decoder kstack: {field} is no id of a stack in {step.argument} (the s64 of its get_stackid())"
    source = given.source
    element = source.element if source is not None else None
    if source is None or element is None or element.kind not in ("int", "pointer") or element.size != 8:
        field = source.spelling if source is not None else f"what {given.before} gives"
        return f"decoder kstack takes the frames, u64[N], but {field} is none (for an id name the map: {{kstack: MAP}})"
    return None


def _kstack(step: DecodeStep, _given: Input, names: Names) -> DecodeFunction:
    """Decode a stack by its id in a map, or its frames. A negative id is an errno of get_stackid() and has no
    answer."""
    if step.argument is None:
        return lambda frames: stack(frames, names)

    def run(number: int) -> str | None:
        frames = names.stack_frames(step.argument, number)
        return None if frames is None else stack(frames, names)

    return run


DECODERS = (
    Decoder("ksym", takes=("int",), gives="text", bind=_ksym, volatile=True),  # a module may come later
    Decoder(
        "kstack",
        takes=("int", "bytes"),
        gives="text",
        bind=_kstack,
        argument=_kstack_argument,
        fits=_kstack_fits,
        volatile=True,
    ),
)
