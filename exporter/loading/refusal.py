"""What the kernel answers when it loads or attaches, as a reason and a sentence that says what would work."""

from __future__ import annotations

import errno
import resource

from exporter.kernel import bpf, rights
from exporter.kernel.features import Kernel
from exporter.program import Reason

# Since then maps and programs are charged to the memory cgroup and not to RLIMIT_MEMLOCK (3ac1f01b43b6).
MEMCG_ACCOUNTING = (5, 11)
LOG_LINES = 15  # of a verifier log: its end names the instruction and the registers


class RefusedError(Exception):
    """Something could not be loaded or attached. `text` is "step target: cause (hint)"."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


def refused(step: str, error: OSError, kernel: Kernel, otherwise: Reason = Reason.INTERNAL) -> RefusedError:
    """The refusal that an OSError of bpf(2), perf_event_open(2) or a file stands for; `otherwise` if its number says
    nothing of rights or support."""
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
    hint = ""
    if any("invalid mem access 'scalar'" in line or "invalid mem access 'inv'" in line for line in lines):
        hint = (
            " (a kernel pointer read directly: bcc turns p->x into bpf_probe_read_kernel() in function bodies, but not"
            " inside the arguments of a macro; use an inline function or call it yourself)"
        )
    tail = "\n".join(lines[-LOG_LINES:])
    return RefusedError(Reason.VERIFIER, f"{step}: the verifier refused it{hint}; the end of its log:\n{tail}")


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
    # The process holds every capability the kernel asks for, so no setting of ours would help.
    return RefusedError(
        Reason.UNSUPPORTED, f"{step}: {cause} (this kernel refuses it even with {', '.join(rights.TO_LOAD)})"
    )
