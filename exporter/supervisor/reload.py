"""Another configuration while everything runs: read and checked as a whole, loaded beside the old one, then exchanged.

What has not changed is not touched. What changed is loaded while the old version counts, and then all of it takes the
place of the old at once, so that no scrape sees half of it. A version that cannot be loaded leaves the old one running,
and the reload counts as not successful: what runs is not what the files say.
"""

from __future__ import annotations

import os
import selectors
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from exporter import log
from exporter.binding.bind import BindingError, bind_all
from exporter.config import sources
from exporter.ipc.protocol import ConfigRead, ReloadReport
from exporter.program import Reason, State
from exporter.spec import Config, ProgramSpec, Sources
from exporter.supervisor.config_reader import ConfigReader
from exporter.supervisor.loaders import Loaders
from exporter.supervisor.managed_program import ManagedProgram, failed
from exporter.supervisor.reload_plan import Action, Plan, Step, plan, refusals, runs, same_series, staying
from exporter.systemd import notify


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


class Running(Protocol):
    """What runs: the supervisor."""

    @property
    def entries(self) -> Sequence[ManagedProgram]: ...

    @property
    def announced(self) -> bool:
        """Whether the service manager knows that it is ready: not before is it told of reloads."""

    def exchange(self, entries: Sequence[ManagedProgram], news: Sequence[ManagedProgram] = ()) -> None:
        """These are the programs from now on; the server is told of `news` among them. Others are detached."""

    def stop_program(self, entry: ManagedProgram, state: State, reason: Reason, text: str) -> None: ...

    def new_totals(self, entry: ManagedProgram) -> None:
        """Give it another memory of its totals; they start at what the maps hold."""

    def limit(self, config: Config) -> None:
        """These limits hold for what is loaded, and for series, from now on."""

    def reloaded(self) -> None:
        """The report is another one."""


class Reload:
    """A part of the supervisor's loop: reads when asked, and when files have changed."""

    def __init__(
        self, source: ConfigSource, selector: selectors.BaseSelector, loaders: Loaders, running: Running
    ) -> None:
        self._source = source
        self._loaders = loaders
        self._running = running
        self._label_length = (source.first.config or Config()).limits.label_length
        self._files = source.first.sources  # of the last configuration that was read, also of a wrong one
        self._asked = False
        self._look = time.monotonic() + source.interval
        self._reader = ConfigReader(selector, source.read, ConfigRead, self._on_read)
        self._pending: _Pending | None = None
        self.report = ReloadReport(sources.digest(self._files), time.time(), True, is_disabled(source))
        if self.report.disabled:
            self._say_disabled()
            for entry in running.entries:
                entry.program = replace(entry.program, text=self._why_disabled(entry))

    def ask(self) -> None:
        """Somebody wants the files to be read. What is under way is finished first, with the newest of them."""
        self._asked = True

    def due(self) -> list[float]:
        """When `work` has to be called at the latest, by the monotonic clock."""
        times = [self._look] if self._source.interval else []
        if self._reader.is_reading:
            return [*times, *self._reader.due()]
        return [0.0] if self._asked or self._is_loaded() else times

    def work(self) -> None:
        now = time.monotonic()
        if self._source.interval and now >= self._look:
            self._look = now + self._source.interval
            changed = is_disabled(self._source) != self.report.disabled or sources.changed(self._files)
            self._asked = self._asked or changed
        self._reader.work()
        if self._asked and not self._reader.is_reading:
            self._asked = False
            self._begin()
        if not self._reader.is_reading and self._pending is not None and self._is_loaded():
            if any(step.do is Action.BIND and not _is_running(step.entry) for step in self._pending.plan.steps):
                # A lifetime or a budget ended it while others were loaded: there are no maps to bind to any more.
                self._load(self._pending.config, self._pending.files, outdated=self._pending.outdated)
            else:
                self._exchange()

    def end(self) -> None:
        self._reader.end()
        self._drop_pending()

    # Reading

    def _begin(self) -> None:
        if self._running.announced:
            notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        self._switch(is_disabled(self._source))  # first, and whatever the files say
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
        log.get().error("configuration not reloaded: what runs goes on as it is", mistakes=len(mistakes))
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
        self._say_disabled()
        self._drop_pending()
        for entry in self._running.entries:
            if entry.program.state is not State.DISABLED:
                self._running.stop_program(entry, State.DISABLED, Reason.NONE, self._why_disabled(entry))
            entry.spec = entry.spec.model_copy(update={"enabled": False})

    def _say_disabled(self) -> None:
        hint = "remove it and send SIGHUP"
        log.get().warning("disabled: nothing is attached", file=str(self._source.disable_file), hint=hint)

    def _why_disabled(self, entry: ManagedProgram) -> str:
        return f"{entry.spec.name}: disabled by {self._source.disable_file} (remove it and send SIGHUP)"

    # Loading, and the exchange

    def _load(self, config: Config, files: Sources, *, outdated: bool = False) -> None:
        """Take away what is to go, and start loading what is to come."""
        self._running.limit(config)
        specs = allowed(config.programs, self.report.disabled)
        planned = plan(self._running.entries, specs, bind_all=config.limits.label_length != self._label_length)
        before = {} if self._pending is None else self._pending.tried
        tried = {step.spec.name: self._candidate(step, before) for step in planned.steps if step.do is Action.LOAD}
        for entry in before.values():
            if entry not in tried.values():
                self._abandon(entry)
        self._pending = _Pending(planned, tried, config, files, outdated)
        for entry in tried.values():
            if entry not in before.values():
                self._loaders.add(entry)
        for step in planned.steps:
            if step.do is Action.DISABLE and step.entry is not None:
                if step.entry.program.state is not State.DISABLED:
                    text = f"{step.spec.name}: enabled: false"
                    self._running.stop_program(step.entry, State.DISABLED, Reason.NONE, text)
                step.entry.spec = step.spec
        going = set(planned.gone) - set(planned.replaced)
        if going:
            self._running.exchange([entry for entry in self._running.entries if entry not in going])

    def _candidate(self, step: Step, before: dict[str, ManagedProgram]) -> ManagedProgram:
        """The one that is being loaded for the configuration before this one, where that wanted the same."""
        candidate = before.get(step.spec.name)
        return candidate if candidate is not None and candidate.spec == step.spec else ManagedProgram.of(step.spec)

    def _is_loaded(self) -> bool:
        tried = None if self._pending is None else self._pending.tried.values()
        return tried is not None and all(entry.program.state is not State.LOADING for entry in tried)

    def _exchange(self) -> None:
        pending, self._pending = self._pending, None
        assert pending is not None
        steps, tried = pending.plan.steps, pending.tried
        unbound = {step.spec.name: why for step in steps if (why := _unbound(step))}
        kept = staying(pending.plan.replaced, tried)
        stay = [entry for entry in pending.plan.replaced if entry.spec.name in kept]
        refused = refusals(steps, tried, unbound, stay)
        length = pending.config.limits.label_length
        anew, self._label_length = length != self._label_length, length
        entries, news = [], []
        for step in steps:
            entry, is_news = self._take(step, tried.get(step.spec.name), refused.get(step.spec.name, ""), anew=anew)
            entries.append(entry)
            news += [entry] if is_news else []
        for entry in stay:
            entry.program = replace(entry.program, text=f"goes on until it is replaced: {kept[entry.spec.name]}")
        self._running.exchange([*entries, *stay], [*news, *stay])
        for name, why in kept.items():
            log.get().error("program goes on: what takes its metrics over was not loaded", program=name, why=why)
        for name, why in refused.items():
            log.get().error("program goes on with its previous text", program=name, why=why)
        counts = {str(do): sum(step.do is do for step in steps) for do in Action}
        left = len(refused) + len(stay)
        say, how = (log.get().error, " in part") if left else (log.get().info, "")
        say("configuration reloaded" + how, **counts, gone=len(pending.plan.gone) - len(stay), refused=left)
        if left or pending.outdated:
            self._finish(replace(self.report, successful=False))
        else:
            digest = sources.digest(pending.files)
            self._finish(replace(self.report, sha256=digest, timestamp=time.time(), successful=True))

    def _take(
        self, step: Step, candidate: ManagedProgram | None, refused: str, *, anew: bool
    ) -> tuple[ManagedProgram, bool]:
        """The entry that a step comes to, and whether the server has to be told of it."""
        entry = step.entry
        if refused and entry is not None and runs(entry):
            if candidate is not None:
                self._abandon(candidate)
            text = f"goes on with its previous text: {refused}"
            entry.program = replace(entry.program, text=text)
            if anew and entry.program.state is State.RUNNING:
                self._running.new_totals(entry)
            return entry, True
        if candidate is not None:
            if refused:
                candidate.detach()
                candidate.program = failed(candidate.spec, Reason.BINDING, refused)
            elif candidate.program.state is State.RUNNING:
                self._running.new_totals(candidate)
            return candidate, True
        if entry is None:  # one that is disabled
            new = ManagedProgram.of(step.spec)
            if self.report.disabled:
                new.program = replace(new.program, text=self._why_disabled(new))
            return new, True
        was, entry.spec = entry.spec, step.spec
        if step.do is Action.BIND:
            entry.program = replace(entry.program, name=step.spec.name, text="")
            if anew or not same_series(was, step.spec):
                self._running.new_totals(entry)
            return entry, True
        if entry.program.state is State.RUNNING and entry.program.text:
            entry.program = replace(entry.program, text="")  # of a version that was refused, and is gone again
            return entry, True
        return entry, False

    def _abandon(self, entry: ManagedProgram) -> None:
        self._loaders.drop(entry)
        entry.detach()

    def _drop_pending(self) -> None:
        if self._pending is not None:
            for entry in self._pending.tried.values():
                self._abandon(entry)
            self._pending = None

    def _finish(self, report: ReloadReport) -> None:
        failures = report.failures + (not report.successful)
        self.report = replace(report, reloads=report.reloads + 1, failures=failures)
        self._running.reloaded()
        running = sum(entry.program.state is State.RUNNING for entry in self._running.entries)
        if self._running.announced:
            notify("READY=1", f"STATUS={running} of {len(self._running.entries)} programs running")


@dataclass(slots=True)
class _Pending:
    """A configuration whose programs are being loaded; `tried`: these, by name. `outdated`: the files are others by
    now, and have mistakes."""

    plan: Plan
    tried: dict[str, ManagedProgram]
    config: Config
    files: Sources
    outdated: bool = False


def is_disabled(source: ConfigSource) -> bool:
    return os.path.lexists(source.disable_file)


def allowed(programs: Sequence[ProgramSpec], disabled: bool) -> list[ProgramSpec]:
    """The programs as they may run: none while everything is disabled."""
    return [program.model_copy(update={"enabled": False}) if disabled else program for program in programs]


def _is_running(entry: ManagedProgram | None) -> bool:
    return entry is not None and entry.program.state is State.RUNNING


def _unbound(step: Step) -> str:
    """Why the new metrics do not fit the maps that stay; "" if they do."""
    if step.do is not Action.BIND or step.entry is None:
        return ""
    try:
        bind_all(step.spec.metrics, step.entry.program.maps, step.spec.maps)
    except BindingError as error:
        return f"{step.spec.name}: {'; '.join(error.messages)}"
    return ""
