"""Documents of attach points and variants -> AttachSpec and VariantSpec: defines replaced, functions named."""

from __future__ import annotations

import re
from collections.abc import Mapping

from exporter.config import document
from exporter.config.findings import Findings, quoted
from exporter.config.nodes import KeyPath, key_at
from exporter.config.validate import ProgramReport, Valid
from exporter.kernel.near import did_you_mean
from exporter.spec import ATTACH_KINDS, AttachSpec, Requirements, VariantSpec

# * and ? make a glob. Functions can have a suffix of the compiler: tcp_v4_rcv.isra.0
_FUNC = r"[A-Za-z_*?][A-Za-z0-9_.*?]*"
_EVENT = r"[A-Za-z_*?][A-Za-z0-9_*?]*"
_FUNCTION_TARGET = (re.compile(rf"([A-Za-z0-9_-]+:)?{_FUNC}"), "write FUNC or MODULE:FUNC, like tcp_sendmsg")
_EVENT_TARGET = (re.compile(_EVENT), "write EVENT without its category, like sock_send_length")
# A path has no colon, and the name of a library or program neither a colon nor a slash.
_FILE = r"(/[^:]+|[A-Za-z0-9_][A-Za-z0-9_.+-]*)"
_SYMBOL = r"[A-Za-z_*?$.][A-Za-z0-9_*?$.@]*"
_USDT_NAME = r"[A-Za-z_][A-Za-z0-9_-]*"
_FUNCTION_IN_FILE = (
    re.compile(rf"{_FILE}:({_SYMBOL}(\+(0x[0-9a-fA-F]+|[0-9]+))?|0x[0-9a-fA-F]+)"),
    "write FILE:SYMBOL or FILE:0xOFFSET, like libssl.so.3:SSL_read, FILE a name or an absolute path",
)
_SPELLING = {
    "kprobe": _FUNCTION_TARGET,
    "kretprobe": _FUNCTION_TARGET,
    "fentry": _FUNCTION_TARGET,
    "fexit": _FUNCTION_TARGET,
    "tracepoint": (re.compile(rf"{_EVENT}:{_EVENT}"), 'write CATEGORY:EVENT, like "tcp:tcp_send_reset"'),
    "raw_tracepoint": _EVENT_TARGET,
    "tp_btf": _EVENT_TARGET,
    "uprobe": _FUNCTION_IN_FILE,
    "uretprobe": (
        re.compile(rf"{_FILE}:({_SYMBOL}|0x[0-9a-fA-F]+)"),
        "write FILE:SYMBOL or FILE:0xOFFSET of a function's start, like libssl.so.3:SSL_read",
    ),
    "usdt": (
        re.compile(rf"{_FILE}:{_USDT_NAME}:{_USDT_NAME}"),
        "write FILE:PROVIDER:PROBE, like libc.so.6:libc:setjmp, FILE a name or an absolute path",
    ),
    "perf_event": (
        re.compile(r"[A-Za-z][A-Za-z0-9-]*|(0x[0-9a-fA-F]+|[0-9]+):(0x[0-9a-fA-F]+|[0-9]+)"),
        "write an event as `perf list` prints it, like cpu-clock, or TYPE:CONFIG in numbers",
    ),
}
_DEFINE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


def variants(
    entry: Valid[document.ProgramDocument], defines: Mapping[str, int | str], findings: Findings
) -> list[VariantSpec]:
    """Return the variants of a program, one without a name for `attach:`, without the attach points with mistakes."""
    program, node = entry.document, entry.node
    report = ProgramReport(program.name, node, findings)
    if program.variants is not None and program.attach is not None:
        mark = max(key_at(node, ["attach"]), key_at(node, ["variants"]), key=lambda m: (m.line, m.column))
        findings.error(mark, f"{program.name}: attach and variants exclude each other; move attach into a variant")
        return []
    if program.attach is not None:
        if entry.wrote_empty("attach"):
            report.error(["attach"], "attach is an empty list; write at least one attach point")
        return [VariantSpec(name="", attach=_points(program.attach, ("attach",), defines, report))]
    if program.variants is None:
        if not entry.wrote("attach") and not entry.wrote("variants"):
            report.error((), "neither attach nor variants; write attach: with at least one attach point")
        return []
    if entry.wrote_empty("variants"):
        report.error(["variants"], "variants is an empty list; write at least one")
    found: list[VariantSpec] = []
    macros: dict[str, str] = {}
    for index, variant in enumerate(program.variants):
        path: KeyPath = ("variants", index)
        if not variant.attach:
            report.error((*path, "attach"), "attach is an empty list; write at least one attach point")
        points = _points(variant.attach, (*path, "attach"), defines, report)
        macro = re.sub("[^A-Z0-9_]", "_", variant.name.upper())
        if macro in macros:
            wrong = f"the C text would see VARIANT_{macro} for {macros[macro]} too; give each variant another name"
            report.error((*path, "name"), wrong)
        macros[macro] = variant.name
        found.append(VariantSpec(name=variant.name, requires=requires(variant.requires), attach=points))
    return found


def requires(written: document.RequiresDocument) -> Requirements:
    return Requirements(
        kernel=written.kernel,
        arch=["aarch64" if name == "arm64" else name for name in written.arch],
        module=[name.replace("-", "_") for name in written.module],
        member=list(written.member),
        tracepoint_field=list(written.tracepoint_field),
    )


def _points(
    points: list[document.AttachDocument], path: KeyPath, defines: Mapping[str, int | str], report: ProgramReport
) -> list[AttachSpec]:
    found: list[AttachSpec] = []
    seen: set[tuple[str, str, str]] = set()
    for index, point in enumerate(points):
        resolved = _point(point, (*path, index), defines, report)
        if resolved is None:
            continue
        found.append(resolved)
        for target in resolved.targets:
            attachment = (resolved.kind, target, resolved.function)
            if attachment in seen:
                wrong = f"{resolved.function} is attached to {target} a second time and would count twice; keep one"
                report.error((*path, index), wrong)
            seen.add(attachment)
    return found


def _point(
    point: document.AttachDocument, path: KeyPath, defines: Mapping[str, int | str], report: ProgramReport
) -> AttachSpec | None:
    kinds = [kind for kind in ATTACH_KINDS if getattr(point, kind) is not None]
    if len(kinds) != 1:
        wrong = f"{' and '.join(kinds)} in one attach point" if kinds else "no KIND: TARGET"
        right = "write one point for each" if kinds else f"write one of {', '.join(ATTACH_KINDS)}"
        report.error(path, f"{wrong}; {right}")
        return None
    kind = kinds[0]
    if not _has_its_rate(point, kind, path, report):
        return None
    targets: list[str] = []
    for written in getattr(point, kind):
        unknown = [name for name in _DEFINE.findall(written) if name not in defines]
        if unknown:
            hint = did_you_mean(unknown[0], defines, otherwise="the defines are")
            report.error((*path, kind), f"{{{unknown[0]}}} in the target is no define of this program; {hint}")
            return None
        target = _DEFINE.sub(lambda match: str(defines[match[1]]), written)
        spelling, right = _SPELLING[kind]
        if not spelling.fullmatch(target):
            report.error((*path, kind), f"{quoted(target)} is no target of a {kind}; {right}")
            return None
        targets.append(target)
    function = point.function or _function_of_macro(kind, targets)
    if function is None:
        why = "several targets" if len(targets) > 1 or _is_glob(targets) else f"a {kind}"
        report.error(path, f'"function" is missing; with {why} write function: NAME_IN_THE_C_TEXT')
        return None
    return AttachSpec(
        kind=kind,
        targets=targets,
        function=function,
        optional=point.optional,
        period=point.period,
        frequency=point.frequency,
    )


def _has_its_rate(point: document.AttachDocument, kind: str, path: KeyPath, report: ProgramReport) -> bool:
    """Report a perf_event without exactly one of `period` and `frequency`, and another kind with one of them; return
    False then."""
    written = [name for name in ("period", "frequency") if getattr(point, name) is not None]
    if kind != "perf_event" and written:
        report.error((*path, written[0]), f"{written[0]} belongs to perf_event; take it out")
        return False
    if kind == "perf_event" and len(written) != 1:
        report.error(path, "period and frequency exclude each other; keep one" if written else _NO_RATE)
        return False
    return True


_NO_RATE = 'neither "period" nor "frequency"; write frequency: 99 (times a second) or period: 1000 (events)'


def _function_of_macro(kind: str, targets: list[str]) -> str | None:
    """Return the name that bcc's macro or prefix gives the function (src/cc/export/helpers.h); None where none does."""
    if len(targets) != 1 or _is_glob(targets):
        return None
    module, _, name = targets[0].rpartition(":")
    match kind:
        case "kprobe" | "kretprobe":
            return f"{kind}__{name}"
        case "fentry":
            return f"kfunc__{module or 'vmlinux'}__{name}"
        case "fexit":
            return f"kretfunc__{module or 'vmlinux'}__{name}"
        case "tracepoint":
            return f"tracepoint__{module}__{name}"
        case "raw_tracepoint":
            return f"raw_tracepoint__{name}"
    return None


def _is_glob(targets: list[str]) -> bool:
    return any("*" in target or "?" in target for target in targets)
