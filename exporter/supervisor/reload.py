"""A new configuration for a running supervisor: read and checked as a whole, loaded beside the old one, then exchanged.

Programs that did not change go on. The others are loaded while their old versions count, and then replace them all at
once, so that no scrape sees half of a reload. Where a new version fails to load, the old one stays, and the reload
counts as not successful.
"""

from __future__ import annotations

import os
import selectors
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from exporter import log
from exporter.binding.bind import BindingError, bind_all
from exporter.config import sources
from exporter.ipc.protocol import ConfigRead, ConfigState, ReloadReport
from exporter.program import Reason, State
from exporter.spec import Config, ProgramSpec, Sources
from exporter.supervisor.config_reader import ConfigReader
from exporter.supervisor.managed_program import ManagedProgram, failed
from exporter.supervisor.programs import ManagedPrograms
from exporter.supervisor.reload_plan import Action, Plan, Step, plan, refusals, runs, same_series, staying
from exporter.supervisor.service_manager import ServiceManager


@dataclass(frozen=True, slots=True)
class ConfigSource:
    """Where the configuration comes from.

    read      reads the files, in a forked child
    first     what was read of them at start
    disable_file  while it exists nothing is attached
    interval  seconds between two checks of the files; 0 for SIGHUP alone
    """

    read: Callable[[], ConfigRead]
    first: ConfigRead
    disable_file: Path
    interval: float = 0.0


class Reload:
    """A part of the supervisor's loop: reads when asked, and when files changed."""

    def __init__(
        self,
        source: ConfigSource,
        selector: selectors.BaseSelector,
        programs: ManagedPrograms,
        service: ServiceManager,
    ) -> None:
        self._source = source
        self._programs = programs
        self._service = service
        self._label_length = (source.first.config or Config()).limits.label_length
        self._files = source.first.sources  # of the last configuration that was read, also of a wrong one
        self._asked = False
        self._check_due = time.monotonic() + source.interval
        self._reader = ConfigReader(selector, source.read, ConfigRead, self._on_read)
        self._pending: _Pending | None = None
        self.report = ReloadReport(sources.digest(self._files), time.time(), True, is_disabled(source))
        if self.report.disabled:
            self._log_disabled()
            for managed in programs:
                managed.program = replace(managed.program, text=self._disabled_text(managed))

    def ask(self) -> None:
        """Read the files. A reload that is under way is finished first, with the newest of them."""
        self._asked = True

    def send_state(self) -> None:
        """Send the report and the limits to the server."""
        self._programs.server.send(ConfigState(self.report, self._programs.limits))

    def due(self) -> list[float]:
        """Return when `work` has to be called at the latest, by the monotonic clock."""
        times = [self._check_due] if self._source.interval else []
        if self._reader.is_reading:
            return [*times, *self._reader.due()]
        return [0.0] if self._asked or self._is_loaded() else times

    def work(self) -> None:
        now = time.monotonic()
        if self._source.interval and now >= self._check_due:
            self._check_due = now + self._source.interval
            changed = is_disabled(self._source) != self.report.disabled or sources.changed(self._files)
            self._asked = self._asked or changed
        self._reader.work()
        if self._asked and not self._reader.is_reading:
            self._asked = False
            self._begin()
        if not self._reader.is_reading and self._pending is not None and self._is_loaded():
            if any(step.action is Action.BIND and not _is_running(step.managed) for step in self._pending.plan.steps):
                # A lifetime or a budget ended it while others were loaded: there are no maps to bind to any more.
                self._load(self._pending.config, self._pending.files, outdated=self._pending.outdated)
            else:
                self._exchange()

    def end(self) -> None:
        self._reader.end()
        self._drop_pending()

    # Reading

    def _begin(self) -> None:
        self._service.begin_reload()
        self._switch(is_disabled(self._source))  # first, and whatever is in the files
        try:
            self._reader.begin()
        except OSError as error:
            self._failed([("configuration", f"no process to read with: {error.strerror or error}")])

    def _on_read(self, read: ConfigRead | None, error: str) -> None:
        if read is None:
            self._failed([("configuration", error)])
            return
        self._files = read.sources
        for place, text in read.warnings:
            log.get().warning("configuration", file=place, warning=text)
        if read.config is None:
            self._failed(read.mistakes)
        else:
            self._load(read.config, read.sources)

    def _failed(self, mistakes: Sequence[tuple[str, str]]) -> None:
        for place, mistake in mistakes:
            log.get().error("mistake in the configuration", file=place, mistake=mistake)
        log.get().error("configuration not reloaded: all programs go on as they are", mistakes=len(mistakes))
        if self._pending is not None:
            self._pending.outdated = True
        self._finish(replace(self.report, successful=False))

    # The switch

    def _switch(self, disabled: bool) -> None:
        if disabled == self.report.disabled:
            return
        self.report = replace(self.report, disabled=disabled)
        if not disabled:
            log.get().warning("no longer disabled", file=str(self._source.disable_file))
            return
        self._log_disabled()
        self._drop_pending()
        for managed in self._programs:
            if managed.program.state is not State.DISABLED:
                self._programs.stop(managed, State.DISABLED, Reason.NONE, self._disabled_text(managed))
            managed.spec = managed.spec.model_copy(update={"enabled": False})

    def _log_disabled(self) -> None:
        hint = "remove it and send SIGHUP"
        log.get().warning("disabled: nothing is attached", file=str(self._source.disable_file), hint=hint)

    def _disabled_text(self, managed: ManagedProgram) -> str:
        return f"{managed.spec.name}: disabled by {self._source.disable_file} (remove it and send SIGHUP)"

    # Loading, and the exchange

    def _load(self, config: Config, files: Sources, *, outdated: bool = False) -> None:
        """Detach what is not in the configuration, and start loading what is new."""
        self._programs.set_limits(config.limits)
        self.send_state()
        specs = allowed(config.programs, self.report.disabled)
        planned = plan(list(self._programs), specs, bind_all=config.limits.label_length != self._label_length)
        before = {} if self._pending is None else self._pending.tried
        tried = {step.spec.name: self._candidate(step, before) for step in planned.steps if step.action is Action.LOAD}
        for managed in before.values():
            if managed not in tried.values():
                self._programs.abandon(managed)
        self._pending = _Pending(planned, tried, config, files, outdated)
        for managed in tried.values():
            if managed not in before.values():
                self._programs.loaders.add(managed)
        for step in planned.steps:
            if step.action is Action.DISABLE and step.managed is not None:
                if step.managed.program.state is not State.DISABLED:
                    text = f"{step.spec.name}: enabled: false"
                    self._programs.stop(step.managed, State.DISABLED, Reason.NONE, text)
                step.managed.spec = step.spec
        going = set(planned.gone) - set(planned.replaced)
        if going:
            self._programs.replace([managed for managed in self._programs if managed not in going])

    def _candidate(self, step: Step, before: dict[str, ManagedProgram]) -> ManagedProgram:
        """Return the program that is being loaded for the configuration before this one, where that wanted the same."""
        candidate = before.get(step.spec.name)
        return candidate if candidate is not None and candidate.spec == step.spec else ManagedProgram.of(step.spec)

    def _is_loaded(self) -> bool:
        tried = None if self._pending is None else self._pending.tried.values()
        return tried is not None and all(managed.program.state is not State.LOADING for managed in tried)

    def _exchange(self) -> None:
        pending, self._pending = self._pending, None
        assert pending is not None
        steps, tried = pending.plan.steps, pending.tried
        unbound = {step.spec.name: error for step in steps if (error := _binding_error(step))}
        errors = staying(pending.plan.replaced, tried)
        stay = [managed for managed in pending.plan.replaced if managed.spec.name in errors]
        refused = refusals(steps, tried, unbound, stay)
        length = pending.config.limits.label_length
        anew, self._label_length = length != self._label_length, length
        programs, changed = [], []
        for step in steps:
            name = step.spec.name
            managed, has_changed = self._apply(step, tried.get(name), refused.get(name, ""), anew=anew)
            programs.append(managed)
            changed += [managed] if has_changed else []
        for managed in stay:
            text = f"goes on until it is replaced: {errors[managed.spec.name]}"
            managed.program = replace(managed.program, text=text)
        self._programs.replace([*programs, *stay], [*changed, *stay])
        for name, error in errors.items():
            log.get().error("kept the old program: its replacement failed to load", program=name, error=error)
        for name, error in refused.items():
            log.get().error("program goes on with its previous text", program=name, error=error)
        counts = {str(action): sum(step.action is action for step in steps) for action in Action}
        left = len(refused) + len(stay)
        write, how = (log.get().error, " in part") if left else (log.get().info, "")
        write("configuration reloaded" + how, **counts, gone=len(pending.plan.gone) - len(stay), refused=left)
        if left or pending.outdated:
            self._finish(replace(self.report, successful=False))
        else:
            digest = sources.digest(pending.files)
            self._finish(replace(self.report, sha256=digest, timestamp=time.time(), successful=True))

    def _apply(
        self, step: Step, candidate: ManagedProgram | None, refused: str, *, anew: bool
    ) -> tuple[ManagedProgram, bool]:
        """Return the program of a step, and whether it has to be sent to the server."""
        managed = step.managed
        if refused and managed is not None and runs(managed):
            if candidate is not None:
                self._programs.abandon(candidate)
            text = f"goes on with its previous text: {refused}"
            managed.program = replace(managed.program, text=text)
            if anew and managed.program.state is State.RUNNING:
                self._programs.renew_totals(managed)
            return managed, True
        if candidate is not None:
            if refused:
                candidate.detach()
                candidate.program = failed(candidate.spec, Reason.BINDING, refused)
            elif candidate.program.state is State.RUNNING:
                self._programs.renew_totals(candidate)
            return candidate, True
        if managed is None:  # one that is disabled
            new = ManagedProgram.of(step.spec)
            if self.report.disabled:
                new.program = replace(new.program, text=self._disabled_text(new))
            return new, True
        was, managed.spec = managed.spec, step.spec
        if step.action is Action.BIND:
            managed.program = replace(managed.program, name=step.spec.name, text="")
            if anew or not same_series(was, step.spec):
                self._programs.renew_totals(managed)
            return managed, True
        if managed.program.state is State.RUNNING and managed.program.text:
            managed.program = replace(managed.program, text="")  # of a version that was refused, and is gone again
            return managed, True
        return managed, False

    def _drop_pending(self) -> None:
        if self._pending is not None:
            for managed in self._pending.tried.values():
                self._programs.abandon(managed)
            self._pending = None

    def _finish(self, report: ReloadReport) -> None:
        failures = report.failures + (not report.successful)
        self.report = replace(report, reloads=report.reloads + 1, failures=failures)
        self.send_state()
        self._service.end_reload()


@dataclass(slots=True)
class _Pending:
    """A configuration whose programs are being loaded.

    tried     these programs, by name
    outdated  the files were read again since, and have mistakes
    """

    plan: Plan
    tried: dict[str, ManagedProgram]
    config: Config
    files: Sources
    outdated: bool = False


def is_disabled(source: ConfigSource) -> bool:
    return os.path.lexists(source.disable_file)


def allowed(programs: Sequence[ProgramSpec], disabled: bool) -> list[ProgramSpec]:
    """Return the specs as they may run: none is enabled while everything is disabled."""
    return [program.model_copy(update={"enabled": False}) if disabled else program for program in programs]


def _is_running(managed: ManagedProgram | None) -> bool:
    return managed is not None and managed.program.state is State.RUNNING


def _binding_error(step: Step) -> str:
    """Return why the new metrics do not fit the maps that stay; "" if they do."""
    if step.action is not Action.BIND or step.managed is None:
        return ""
    try:
        bind_all(step.spec.metrics, step.managed.program.maps, step.spec.maps)
    except BindingError as error:
        return f"{step.spec.name}: {'; '.join(error.messages)}"
    return ""
