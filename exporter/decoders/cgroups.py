"""Decoders of cgroups and what their paths tell: cgroup, systemd_unit, container, pod."""

from __future__ import annotations

import re
from functools import partial

from exporter.decoders.declaration import DecodeFunction, Decoder, Input
from exporter.decoders.names import Names
from exporter.spec import DecodeStep

NONE = "none"

# systemd.unit(5): name, optional @instance, one of the types that have a cgroup. cg_escape() in systemd's
# src/basic/cgroup-util.c puts "_" in front of a name that could be mistaken for a file of the kernel's.
_UNIT = re.compile(r"_?([A-Za-z0-9:_.\\@-]{1,249}\.(?:service|scope|socket|mount|swap))")
_SLICE = re.compile(r"_?[A-Za-z0-9:_.\\-]{1,249}\.slice")

# A directory that is a container's own: 64 hex digits, alone or behind the runtime's name.
#   docker-ID.scope  /docker/ID  cri-containerd-ID.scope  /kubepods/.../podUID/ID  SLICE:cri-containerd:ID
#   crio-ID.scope  crio-ID  libpod-ID.scope  libpod-payload-ID  nerdctl-ID.scope  /default/ID (containerd)
_CONTAINER = re.compile(r"(?:([a-z][a-z0-9-]*)-|[^/]*:([a-z][a-z0-9-]*):)?([0-9a-f]{64})(?:\.scope)?")

# A directory that is a pod's own, by kubelet's two cgroup drivers: podUID (cgroupfs) and, with "_" for "-",
# kubepods-burstable-podUID.slice (systemd). The uid of a static pod is 32 hex digits without a "-".
_POD = re.compile(
    r"(?:kubepods(?:-[a-z]+)?-)?pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})(?:\.slice)?"
)


_CONTROLLER = re.compile(r"[a-z][a-z0-9_]*|name=\S+")


def unit(path: str) -> str:
    """The systemd unit that a cgroup path belongs to, "none" if it is in no unit.

    The system manager's unit, as systemd's cg_path_get_unit() has it: the first directory below the slices. So all of
    a user's services are user@1000.service, and what runs inside a container is the container's scope.
    """
    for part in path.strip("/").split("/"):
        if _SLICE.fullmatch(part):
            continue
        match = _UNIT.fullmatch(part)
        return match[1] if match else NONE
    return NONE


def container(path: str) -> str:
    """The first 12 characters of the container's id as `docker ps` and `crictl ps` show it, "none" outside containers.

    Of containers inside containers it is the innermost. The monitor beside a container (conmon) is not in it.
    """
    for part in reversed(path.split("/")):
        match = _CONTAINER.fullmatch(part)
        if match:
            runtime = match[1] or match[2] or ""
            if not runtime.endswith("conmon"):
                return match[3][:12]
    return NONE


def pod_uid(path: str) -> str | None:
    """The uid of the pod that a cgroup path belongs to, as Kubernetes writes it; None outside of pods."""
    for part in reversed(path.split("/")):
        # nerdctl and the containerd of old hosts: podUID.slice:cri-containerd:ID as one directory
        match = _POD.fullmatch(part.partition(":")[0])
        if match:
            return match[1].replace("_", "-")
    return None


def _cgroup_argument(step: DecodeStep) -> str | None:
    if step.argument is None or (isinstance(step.argument, str) and _CONTROLLER.fullmatch(step.argument)):
        return None
    return "decoder cgroup: the argument is a controller of version 1 whose ids these are, as in {cgroup: pids}"


def _cgroup(step: DecodeStep, _given: Input, names: Names) -> DecodeFunction:
    """With a controller the id is what task->cgroups->subsys[CONTROLLER_cgrp_id]->cgroup->kn->id says, which is right
    wherever that controller is: in version 1, or in version 2. From now on cgroups are learned as they are made."""
    names.hierarchy(step.argument).watch()
    return partial(names.cgroup_path, controller=step.argument)


def _systemd_unit(_step: DecodeStep, _given: Input, _names: Names) -> DecodeFunction:
    return unit


def _container(_step: DecodeStep, _given: Input, _names: Names) -> DecodeFunction:
    return container


def _pod(_step: DecodeStep, _given: Input, names: Names) -> DecodeFunction:
    def run(path: str) -> str | None:
        uid = pod_uid(path)
        return NONE if uid is None else names.pod(uid)

    return run


DECODERS = (
    Decoder("cgroup", takes=("int",), gives="text", bind=_cgroup, argument=_cgroup_argument, volatile=True),
    Decoder("systemd_unit", takes=("text",), gives="text", bind=_systemd_unit, unknown=None),
    Decoder("container", takes=("text",), gives="text", bind=_container, unknown=None),
    Decoder("pod", takes=("text",), gives="text", bind=_pod, volatile=True),
)
