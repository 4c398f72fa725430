"""The running programs and a new configuration -> which programs to keep, bind, load, disable and detach.

This module only plans. A program is known by its name. If a name disappears, and a new name has the same C text, attach
points and everything else that the kernel sees, the program was renamed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from exporter.program import State
from exporter.spec import ProgramSpec
from exporter.supervisor.managed_program import ManagedProgram


class Action(StrEnum):
    KEEP = "keep"  # nothing that it does has changed
    BIND = "bind"  # the kernel's part stays as it is, metrics, map options or the name are others
    LOAD = "load"  # new, changed in the kernel, or to be tried again; what runs goes on until this one does
    DISABLE = "disable"


@dataclass(frozen=True, slots=True)
class Step:
    """One program of the new configuration. `managed`: the program that runs for it now, None for a new one."""

    action: Action
    spec: ProgramSpec
    managed: ManagedProgram | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """steps     in the order of the new configuration
    gone      programs that are in it no more
    replaced  those of them with a metric that a program to be loaded will have: they run until it does
    """

    steps: tuple[Step, ...]
    gone: tuple[ManagedProgram, ...]
    replaced: tuple[ManagedProgram, ...] = ()


def plan(programs: Sequence[ManagedProgram], wanted: Sequence[ProgramSpec], *, bind_all: bool = False) -> Plan:
    """Return the plan. `bind_all`: something outside of the programs changed that all metrics depend on."""
    known = {managed.spec.name: managed for managed in programs}
    names = {spec.name for spec in wanted}
    gone = [managed for managed in programs if managed.spec.name not in names]
    steps = []
    for spec in wanted:
        managed = known.get(spec.name) or next((e for e in gone if _renamed(e, spec)), None)
        if managed in gone:
            gone.remove(managed)
        steps.append(Step(_action(managed, spec, bind_all), spec, managed))
    coming = {metric for step in steps if step.action is Action.LOAD for metric in _metrics(step.spec)}
    return Plan(tuple(steps), tuple(gone), tuple(managed for managed in gone if coming & _metrics(managed.spec)))


def _renamed(managed: ManagedProgram, spec: ProgramSpec) -> bool:
    return spec.enabled and managed.program.state is State.RUNNING and same_in_kernel(managed.spec, spec)


def _action(managed: ManagedProgram | None, spec: ProgramSpec, bind_all: bool) -> Action:
    if not spec.enabled:
        return Action.DISABLE
    if managed is None:
        return Action.LOAD
    same = same_meaning(managed.spec, spec)
    match managed.program.state:
        case State.RUNNING if same and not bind_all:
            return Action.KEEP
        case State.RUNNING if same_in_kernel(managed.spec, spec):
            return Action.BIND
        # The part of the loop that stopped these starts them again; another text is another program.
        case State.LOADING | State.ENDED | State.OVER_BUDGET | State.QUARANTINED if same:
            return Action.KEEP
    # Failed and skipped ones too: whoever installed a module or an update of bcc sends SIGHUP for them.
    return Action.LOAD


def same_meaning(one: ProgramSpec, other: ProgramSpec) -> bool:
    """Return whether two specs mean the same, wherever they are written."""
    return _anywhere(one) == _anywhere(other)


def _anywhere(spec: ProgramSpec) -> ProgramSpec:
    return replace(spec, source=Path(), line=0, indent=0)


def same_in_kernel(one: ProgramSpec, other: ProgramSpec) -> bool:
    """Return whether the kernel would be given the same, whatever the names of the program and its metrics are."""
    return _in_kernel(one) == _in_kernel(other)


def _in_kernel(spec: ProgramSpec) -> tuple[object, ...]:
    # A map is seeded before attaching; one that is drained has its counts in the totals of its first metrics.
    maps = {name: (options.seed, options.drain) for name, options in spec.maps.items() if options.seed or options.drain}
    return spec.text, spec.defines, spec.requires, spec.variants, maps


def same_series(one: ProgramSpec, other: ProgramSpec) -> bool:
    """Return whether the totals of one are right for the other: the same label sets count the same."""
    metrics = [[replace(metric, help="") for metric in spec.metrics] for spec in (one, other)]
    return metrics[0] == metrics[1] and one.maps == other.maps


def staying(replaced: Sequence[ManagedProgram], tried: Mapping[str, ManagedProgram]) -> dict[str, str]:
    """Return those of `replaced` that stay, by name, with the error of the program that should have their metric."""
    return {
        managed.spec.name: new.program.text
        for managed in replaced
        for new in tried.values()
        if runs(managed) and _is_broken(new) and _metrics(managed.spec) & _metrics(new.spec)
    }


def refusals(
    steps: Sequence[Step],
    tried: Mapping[str, ManagedProgram],
    unbound: Mapping[str, str],
    stay: Sequence[ManagedProgram] = (),
) -> dict[str, str]:
    """Return the steps that are not carried out, by the program's name, with the error: their programs stay.

    tried    what became of those that were loaded, by name
    unbound  steps whose metrics do not fit the maps, by name, with the error
    stay     programs that are in the configuration no more, and stay
    """
    refused = dict(unbound)
    for step in steps:
        new = tried.get(step.spec.name)
        if new and runs(step.managed) and _is_broken(new):
            refused[step.spec.name] = new.program.text
    harmless = {name for name, new in tried.items() if _is_broken(new)}
    while True:
        # No metric in two programs, also not in the previous text of one of them.
        previous = [step.managed for step in steps if step.spec.name in refused and step.managed and runs(step.managed)]
        owners = {metric: managed.spec.name for managed in (*stay, *previous) for metric in _metrics(managed.spec)}
        clashing = {
            step.spec.name: f"{step.spec.name}: metric {metric} is still that of {owners[metric]}, which has a mistake"
            for step in steps
            if step.action in (Action.LOAD, Action.BIND)
            and step.spec.name not in refused
            and step.spec.name not in harmless
            for metric in sorted(_metrics(step.spec) & owners.keys())
        }
        if not clashing:
            return refused
        refused |= clashing


def _is_broken(new: ManagedProgram) -> bool:
    return new.program.state in (State.FAILED, State.QUARANTINED)


def runs(managed: ManagedProgram | None) -> bool:
    """Return whether the program runs, or is about to."""
    return managed is not None and managed.program.state in (State.RUNNING, State.LOADING)


def _metrics(spec: ProgramSpec) -> set[str]:
    return {metric.name for metric in spec.metrics if metric.enabled}
