"""Decoders of cgroup ids and paths: cgroup, systemd_unit, container, pod (cgroups(7), systemd.unit(5))."""

from __future__ import annotations

import re
from functools import partial

from exporter.decoders.declaration import DecodeFunction, Decoder, Input
from exporter.decoders.names import Names
from exporter.spec import DecodeStep

NONE = "none"

# systemd.unit(5): name, optional @instance, one of the types that have a cgroup. cg_escape() in systemd's
# src/basic/cgroup-util.c prefixes "_" to a name that could be a file of cgroupfs.
_UNIT = re.compile(r"_?([A-Za-z0-9:_.\\@-]{1,249}\.(?:service|scope|socket|mount|swap))")
_SLICE = re.compile(r"_?[A-Za-z0-9:_.\\-]{1,249}\.slice")

# The directory of a container: 64 hex digits, alone or behind the name of the runtime.
#   docker-ID.scope  /docker/ID  cri-containerd-ID.scope  /kubepods/.../podUID/ID  SLICE:cri-containerd:ID
#   crio-ID.scope  crio-ID  libpod-ID.scope  libpod-payload-ID  nerdctl-ID.scope  /default/ID (containerd)
_CONTAINER = re.compile(r"(?:([a-z][a-z0-9-]*)-|[^/]*:([a-z][a-z0-9-]*):)?([0-9a-f]{64})(?:\.scope)?")

# The directory of a pod, by kubelet's two cgroup drivers: podUID (cgroupfs) and, with "_" for "-",
# kubepods-burstable-podUID.slice (systemd). The uid of a static pod is 32 hex digits without a "-".
_POD = re.compile(
    r"(?:kubepods(?:-[a-z]+)?-)?pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})(?:\.slice)?"
)


_CONTROLLER = re.compile(r"[a-z][a-z0-9_]*|name=\S+")


def unit(path: str) -> str:
    """Return the systemd unit of a cgroup path, "none" if it is in no unit.

    As cg_path_get_unit() of systemd: the unit of the system manager, which is the first directory below the slices. All
    services of a user are user@1000.service, and processes in a container belong to the container's scope.
    """
    for part in path.strip("/").split("/"):
        if _SLICE.fullmatch(part):
            continue
        match = _UNIT.fullmatch(part)
        return match[1] if match else NONE
    return NONE


def container(path: str) -> str:
    """Return the first 12 characters of the container id, as in `docker ps` and `crictl ps`; "none" outside containers.

    Of nested containers the innermost. The monitor process of a container (conmon) is outside.
    """
    for part in reversed(path.split("/")):
        match = _CONTAINER.fullmatch(part)
        if match:
            runtime = match[1] or match[2] or ""
            if not runtime.endswith("conmon"):
                return match[3][:12]
    return NONE


def pod_uid(path: str) -> str | None:
    """Return the uid of the pod of a cgroup path, as Kubernetes writes it; None outside pods."""
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
    """Decode a cgroup2 id, or with a controller task->cgroups->subsys[CONTROLLER_cgrp_id]->cgroup->kn->id, which is the
    id in the hierarchy of that controller in version 1 and 2. Starts the watch of new cgroups."""
    names.hierarchy(step.argument).watch()
    return partial(names.cgroup_path, controller=step.argument)


def _systemd_unit(_step: DecodeStep, _given: Input, _names: Names) -> DecodeFunction:
    return unit


def _container(_step: DecodeStep, _given: Input, _names: Names) -> DecodeFunction:
    return container


def _pod(_step: DecodeStep, _given: Input, names: Names) -> DecodeFunction:
    def run(path: str) -> str | None:
        uid = pod_uid(path)
        return NONE if uid is None else names.pods.name(uid)

    return run


DECODERS = (
    Decoder("cgroup", takes=("int",), gives="text", bind=_cgroup, argument=_cgroup_argument, volatile=True),
    Decoder("systemd_unit", takes=("text",), gives="text", bind=_systemd_unit, unknown=None),
    Decoder("container", takes=("text",), gives="text", bind=_container, unknown=None),
    Decoder("pod", takes=("text",), gives="text", bind=_pod, volatile=True),
)
