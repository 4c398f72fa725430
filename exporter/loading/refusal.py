"""An error of the kernel or the compiler -> a reason, and a sentence with the cause and what would work."""

from __future__ import annotations

import errno
import re
import resource

from exporter.kernel import bpf, rights
from exporter.kernel.features import Kernel
from exporter.program import Reason

# From 5.11 on maps and programs are charged to the memory cgroup and not to RLIMIT_MEMLOCK (3ac1f01b43b6).
MEMCG_ACCOUNTING = (5, 11)
LOG_LINES = 15  # of a verifier log: its end names the instruction and the registers

# Lines of a verifier log that trace the program, and lines of statistics (kernel/bpf/verifier.c, log.c).
_STEP = re.compile(r"\d+: |; |from \d+ to |\s*R\d+(?:_\w+)?=|last_idx|parent |regs=|mark_precise|caller:|callee:")
_ASIDE = re.compile(r"processed \d+ insns|(?:cur|old) state:|verification time|stack depth|func '\w+' arg\d+ has|\s*$")

_INDEX = "compare the index with the array's length before it is used, both unsigned"
_LOOP = "a loop needs a limit that can be seen, and a small one: for (int i = 0; i < 16; i++)"
_HINTS = (
    (
        r"invalid mem access '(?:scalar|inv)'",
        "a kernel pointer read directly: bcc turns p->x into bpf_probe_read_kernel() in function bodies, but not inside"
        " the arguments of a macro; use an inline function or call it yourself",
    ),
    (r"_or_null'", "lookup() gives NULL where there is no entry: ask before it is used, if (!value) return 0"),
    (r"math between map_value pointer|unbounded memory access, make sure|outside of the array range", _INDEX),
    (
        r"invalid access to map value",
        f"outside the value: {_INDEX}; or the pointer is of another type than the map's value",
    ),
    (
        r"value is negative, either use unsigned|unbounded memory access, use",
        "a length needs a limit: if (n > sizeof(buffer)) n = sizeof(buffer), with n unsigned",
    ),
    (r"infinite loop|program is too large|jumps is too complex|back-edge", _LOOP),
    (r"cannot use helper|unknown func", "not for this kind of attach point, or not on this kernel: see bpf-helpers(7)"),
    (r"doesn't have \d+-th argument", "the function or event has fewer arguments on this kernel: see variants"),
    (
        r"invalid bpf_context access",
        "ctx is not what this kind of attach point gives, has no such field, or is written to",
    ),
    (r"only read is supported", "a program may only read the kernel's memory"),
    (r"GPL-restricted", "leave BPF_LICENSE out: the licence is GPL then"),
    (
        r"invalid (?:variable-offset )?(?:indirect )?(?:read from|access to) stack",
        "a key or value that was not written as a whole, or shorter than the map's: declare it with the map's type"
        " and = {}",
    ),
    (r"R0 !read_ok", "the function ends without return"),
)


class RefusedError(Exception):
    """A program or variant could not be compiled, loaded or attached. `text` is "step target: cause (hint)"."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


def refused(step: str, error: OSError, kernel: Kernel, otherwise: Reason = Reason.INTERNAL) -> RefusedError:
    """Return the refusal for an OSError of bpf(2), perf_event_open(2) or a file. Its reason is `otherwise` where the
    errno is neither of rights nor of support."""
    cause = str(error.strerror or error)
    if isinstance(error, bpf.VerifierError):
        return _by_verifier(step, error)
    if error.errno in (errno.EPERM, errno.EACCES):
        return _by_rights(step, cause, kernel)
    if error.errno in (bpf.ENOTSUPP, errno.EOPNOTSUPP, errno.ENODEV, errno.ENOSYS):
        return RefusedError(Reason.UNSUPPORTED, f"{step}: {cause}")
    return RefusedError(otherwise, f"{step}: {cause}")


def _by_verifier(step: str, error: bpf.VerifierError) -> RefusedError:
    lines = error.log.strip().splitlines()
    if (
        error.errno == errno.ENOENT
    ):  # bpf_check_attach_target(): in BTF, but "The address of function ... cannot be found"
        return RefusedError(Reason.MISSING, f"{step}: {lines[0]}")
    verdict = _verdict(lines)
    hint = next((f" ({hint})" for words, hint in _HINTS if re.search(words, verdict)), "")
    tail = "\n".join(lines[-LOG_LINES:])
    said = f": {verdict}" if verdict else ""
    return RefusedError(Reason.VERIFIER, f"{step}: the verifier refused it{said}{hint}; the end of its log:\n{tail}")


def _verdict(lines: list[str]) -> str:
    """Return what the verifier's log says behind the last instruction, in one line, without its statistics."""
    said: list[str] = []
    for line in reversed(lines):
        if _STEP.match(line):
            break
        if not _ASIDE.match(line):
            said.append(line.strip().rstrip("."))
    return "; ".join(reversed(said))


def _by_rights(step: str, cause: str, kernel: Kernel) -> RefusedError:
    missing = rights.missing_to_load(kernel.proc)
    if missing:
        return RefusedError(Reason.PERMISSION, f"{step}: {cause} (run as root, or give {', '.join(missing)})")
    if (mode := rights.lockdown(kernel.sysfs)) != "none":
        return RefusedError(
            Reason.PERMISSION, f"{step}: {cause} (the kernel is locked down: {mode}, see kernel_lockdown(7))"
        )
    if kernel.version < MEMCG_ACCOUNTING and (limit := resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]) >= 0:
        hint = f"RLIMIT_MEMLOCK is {limit} bytes: LimitMEMLOCK=infinity in the unit, or ulimit -l unlimited"
        return RefusedError(Reason.PERMISSION, f"{step}: {cause} ({hint})")
    # The process has every capability that the kernel asks for, so no setting of the exporter would help.
    return RefusedError(
        Reason.UNSUPPORTED, f"{step}: {cause} (this kernel refuses it even with {', '.join(rights.TO_LOAD)})"
    )
