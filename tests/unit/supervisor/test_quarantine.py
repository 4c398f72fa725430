"""Programs that were young when the host died: what is on disk before they are attached, and what the next boot makes
of it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from structlog.testing import capture_logs

from exporter.commands import quarantine as clearing
from exporter.loading import cache_key
from exporter.program import Reason, State
from exporter.spec import AttachSpec, MetricSpec, ProgramSpec, VariantSpec
from exporter.supervisor import quarantine
from exporter.supervisor.crash_record import Content, CrashRecord, DamagedError, Suspect, seen_from
from exporter.supervisor.managed_program import ManagedProgram
from exporter.supervisor.quarantine import CrashGuard, Quarantine

ONE, TWO = "boot-one", "boot-two"
SUSPECT = Suspect("tcp", since=1795248834.5, began=25036.25)


def spec(name: str = "tcp", text: str = "int x;") -> ProgramSpec:
    return ProgramSpec(name=name, variants=[], metrics=[], source=Path("x.c"), text=text)


class Exporter:
    """A quarantine with programs as a supervisor has them; `attach` is what a loader does."""

    def __init__(self, directory: Path, boot: str, *specs: ProgramSpec) -> None:
        self.programs = [ManagedProgram.of(each) for each in specs]
        self.loading = set(self.programs)
        self.again: list[ManagedProgram] = []
        self.quarantine = Quarantine(
            CrashGuard(CrashRecord(directory), boot, lambda program: cache_key.of_text(program, "header")),
            self,
        )

    # managed_program.Programs

    def __iter__(self) -> Iterator[ManagedProgram]:
        return iter(self.programs)

    def is_loading(self, managed: ManagedProgram) -> bool:
        return managed in self.loading

    def load_again(self, managed: ManagedProgram) -> None:
        self.again.append(managed)

    def stop(self, managed: ManagedProgram, state: State, reason: Reason, text: str) -> None:
        raise AssertionError(managed, state, reason, text)

    def send(self, managed: ManagedProgram) -> None: ...

    def admit(self) -> list[str]:
        return [managed.spec.name for managed in self.quarantine.admit(self.programs)]

    def attach(self) -> None:
        for managed in self.programs:
            managed.fds.links.append(os.open("/dev/null", os.O_RDONLY))
            self.loading.discard(managed)
        self.quarantine.work()

    def detach(self) -> None:
        for managed in self.programs:
            managed.detach()


@pytest.fixture
def crashed(tmp_path: Path) -> Callable[..., Path]:
    """A state directory as a host leaves it that died right after these programs were attached."""

    def make(*specs: ProgramSpec) -> Path:
        exporter = Exporter(tmp_path, ONE, *specs)
        assert exporter.admit() == [each.name for each in specs]
        exporter.attach()
        exporter.detach()  # for this process; nobody is told
        return tmp_path

    return make


def young(directory: Path) -> list[str]:
    return sorted(suspect.program for suspect in CrashRecord(directory).read().young.values())


def test_a_program_is_on_disk_before_it_may_be_loaded(tmp_path: Path) -> None:
    order = []
    sync, rename = os.fsync, os.rename

    def synced(descriptor: int) -> None:
        order.append(f"fsync {os.path.basename(os.readlink(f'/proc/self/fd/{descriptor}'))}")
        sync(descriptor)

    def renamed(old: Path, new: Path) -> None:
        order.append(f"rename {old.name} {new.name}")
        rename(old, new)

    state = tmp_path / "state"
    exporter = Exporter(state, ONE, spec())
    with patch("os.fsync", synced), patch("os.rename", renamed):
        assert exporter.admit() == ["tcp"]
    assert order == [
        f"fsync {tmp_path.name}",  # the directory was made
        "fsync crash-record.new",
        "rename crash-record.new crash-record.json",
        "fsync state",
    ]
    assert young(state) == ["tcp"]


def test_many_programs_are_one_write(tmp_path: Path) -> None:
    exporter = Exporter(tmp_path, ONE, *(spec(f"p{i}", f"int x{i};") for i in range(25)))
    with patch("os.rename", wraps=os.rename) as rename:
        assert len(exporter.admit()) == 25
        exporter.attach()
    assert rename.call_count == 1
    assert len(young(tmp_path)) == 25
    exporter.detach()


def test_after_a_crash_of_the_host_it_is_quarantined_and_the_reason_says_what_to_do(
    crashed: Callable[..., Path],
) -> None:
    state = crashed(spec())
    exporter = Exporter(state, TWO, spec(), spec("other", "int y;"))
    assert exporter.admit() == ["other"]
    program = exporter.programs[0].program
    assert (program.state, program.reason) == (State.QUARANTINED, Reason.CRASH)
    assert program.text.startswith("tcp: attach: this host died within five minutes of 20")
    assert program.text.endswith("or clear it: bpf-exporter quarantine --clear tcp)")


def test_all_that_were_young_are_suspects(crashed: Callable[..., Path]) -> None:
    pair = spec("a", "int a;"), spec("b", "int b;")
    assert Exporter(crashed(*pair), TWO, *pair).admit() == []


def test_it_stays_so_over_more_starts_and_boots(crashed: Callable[..., Path]) -> None:
    state = crashed(spec())
    for boot in (TWO, TWO, "boot-three"):
        exporter = Exporter(state, boot, spec())
        assert exporter.admit() == []
        exporter.quarantine.end()


def test_another_text_is_another_program(crashed: Callable[..., Path]) -> None:
    state = crashed(spec())
    assert Exporter(state, TWO, spec(text="int x = 1;")).admit() == ["tcp"]


def test_where_only_the_exporter_died_nobody_is_suspected(crashed: Callable[..., Path]) -> None:
    assert Exporter(crashed(spec()), ONE, spec()).admit() == ["tcp"]


def test_an_orderly_end_clears(tmp_path: Path) -> None:
    exporter = Exporter(tmp_path, ONE, spec())
    exporter.admit()
    exporter.attach()
    exporter.detach()
    exporter.quarantine.end()
    assert Exporter(tmp_path, TWO, spec()).admit() == ["tcp"]


def test_what_failed_to_load_is_cleared(tmp_path: Path) -> None:
    exporter = Exporter(tmp_path, ONE, spec())
    exporter.admit()
    assert young(tmp_path) == ["tcp"]
    exporter.loading.clear()
    exporter.quarantine.work()
    assert young(tmp_path) == []


def test_five_minutes_of_life_clear(tmp_path: Path) -> None:
    exporter = Exporter(tmp_path, ONE, spec())
    exporter.admit()
    exporter.attach()
    now = time.monotonic()
    assert [time - now for time in exporter.quarantine.due()] == [pytest.approx(quarantine.SETTLED, abs=60)]
    with patch("time.monotonic", return_value=now + quarantine.SETTLED + 1):
        exporter.quarantine.work()
        exporter.quarantine.work()  # and does not become young again
    assert young(tmp_path) == []
    assert exporter.quarantine.due() == []
    exporter.detach()


@pytest.mark.parametrize(("age", "left"), [(100, ["tcp"]), (400, [])])
def test_what_another_process_left_attached_keeps_its_age(tmp_path: Path, age: float, left: list[str]) -> None:
    before = Exporter(tmp_path, ONE, spec())
    before.admit()
    before.attach()
    before.quarantine.end()
    before.detach()
    after = Exporter(tmp_path, ONE, spec())
    with patch("time.monotonic", return_value=time.monotonic() + age):
        after.attach()  # taken over: never admitted
        after.quarantine.work()
    assert [each.suspect.program for each in after.quarantine._young.values()] == left
    after.detach()


def test_what_grew_old_while_nobody_looked_is_not_suspected_at_the_next_boot(
    crashed: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The supervisor was killed young, as by its watchdog, and the next one took its programs over later."""
    directory = crashed(spec())
    later = time.monotonic() + quarantine.SETTLED + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    after = Exporter(directory, ONE, spec())
    after.attach()
    assert young(directory) == []
    after.detach()
    assert Exporter(directory, TWO, spec()).admit() == ["tcp"]


def test_what_a_person_clears_is_loaded_again(crashed: Callable[..., Path]) -> None:
    state = crashed(spec(), spec("b", "int b;"))
    exporter = Exporter(state, TWO, spec(), spec("b", "int b;"))
    exporter.admit()
    with patch.object(clearing, "boot_id", return_value=TWO):
        assert clearing.clear(CrashRecord(state), ["tcp"])[0].startswith("tcp: cleared, attached again within")
        with patch("time.monotonic", return_value=time.monotonic() + quarantine.CHECK_INTERVAL):
            exporter.quarantine.work()
        assert exporter.again == [exporter.programs[0]]
        assert exporter.admit() == ["tcp"]
        assert [line.split()[0] for line in clearing.listing(CrashRecord(state))] == ["b"]
        with pytest.raises(LookupError, match=r"^tcp is not quarantined \(b is\)$"):
            clearing.clear(CrashRecord(state), ["tcp", "b"])
        clearing.clear(CrashRecord(state), None)
        assert clearing.listing(CrashRecord(state)) == ["no program is quarantined"]
    assert young(state) == ["tcp"]  # nothing of the running exporter's is lost by it


def test_it_can_be_cleared_before_the_exporter_has_seen_it(crashed: Callable[..., Path]) -> None:
    state = crashed(spec())
    with patch.object(clearing, "boot_id", return_value=TWO):
        assert [line.split()[0] for line in clearing.listing(CrashRecord(state))] == ["tcp"]
        clearing.clear(CrashRecord(state), None)
    assert Exporter(state, TWO, spec()).admit() == ["tcp"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\x00",
        b"[]",
        b'{"format": 2, "boot": "", "ended": false, "young": {}, "quarantined": {}}',
        b'{"format": 1, "boot": "", "ended": false, "young": [], "quarantined": {}}',
        b'{"format": 1, "boot": "", "ended": false, "young": {"k": 7}, "quarantined": {}}',
        b'{"format": 1, "boot": "", "ended": false, "young": {"k": {"program": "x"}}, "quarantined": {}}',
        b'{"format": 1, "boot": 0, "ended": false, "young": {}, "quarantined": {}}',
        b'{"format": 1, "boot": "", "ended": false, "young": {"k": {"program": "x", "since": 1e300, "began": 1}}, '
        b'"quarantined": {}}',
        b'{"format": 1, "boot": "", "ended": false, "young": {"k": {"program": "x", "since": NaN, "began": 1}}, '
        b'"quarantined": {}}',
        b"[" * 100_000,
    ],
)
def test_a_torn_or_foreign_file_is_told_and_written_anew(tmp_path: Path, content: bytes) -> None:
    path = CrashRecord(tmp_path).path
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(DamagedError):
        CrashRecord(tmp_path).read()
    with capture_logs() as said:
        assert Exporter(tmp_path, ONE, spec()).admit() == ["tcp"]
    assert {line["event"] for line in said} == {"crash record starts anew"}
    assert young(tmp_path) == ["tcp"]


def test_a_file_that_is_damaged_while_the_exporter_runs_releases_nobody(crashed: Callable[..., Path]) -> None:
    state = crashed(spec())
    exporter = Exporter(state, TWO, spec(), spec("b", "int b;"))
    assert exporter.admit() == ["b"]
    path = CrashRecord(state).path
    for content, mode in ((path.read_text(), 0o666), ("{", 0o600)):
        path.write_text(content)
        path.chmod(mode)
        assert exporter.admit() == ["b"]
        with patch("time.monotonic", return_value=time.monotonic() + quarantine.CHECK_INTERVAL):
            exporter.quarantine.work()
        assert exporter.again == []
        assert [suspect.program for suspect in CrashRecord(state).read().quarantined.values()] == ["tcp"]
        assert young(state) == ["b"]


def test_a_file_that_others_can_write_is_not_believed(crashed: Callable[..., Path]) -> None:
    state = crashed(spec())
    CrashRecord(state).path.chmod(0o666)
    assert Exporter(state, TWO, spec()).admit() == ["tcp"]
    assert CrashRecord(state).path.stat().st_mode & 0o777 == 0o600


def test_a_link_in_its_place_is_replaced_and_its_target_untouched(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    CrashRecord(tmp_path).path.symlink_to(target)
    assert Exporter(tmp_path, ONE, spec()).admit() == ["tcp"]
    assert target.read_text() == "precious"
    assert young(tmp_path) == ["tcp"]


def test_without_a_place_to_write_programs_run_and_the_log_says_once_what_that_means(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with capture_logs() as said:
        exporter = Exporter(tmp_path / "file" / "state", ONE, spec())
        assert exporter.admit() == ["tcp"]
        exporter.attach()
        exporter.detach()
        exporter.quarantine.work()
    hint = "a program that crashes this host will be loaded again after it (--state.dir)"
    assert [(line["event"], line["error"]) for line in said] == [(f"crash record not kept: {hint}", "Not a directory")]
    assert not exporter.quarantine.armed


def test_a_file_system_that_became_read_only_still_keeps_suspects_away(crashed: Callable[..., Path]) -> None:
    state = crashed(spec())
    with patch.object(CrashRecord, "_write", side_effect=OSError(30, "Read-only file system")):
        exporter = Exporter(state, TWO, spec(), spec("other", "int y;"))
        assert exporter.admit() == ["other"]
        assert exporter.admit() == ["other"]


def test_a_kernel_that_does_not_say_which_boot_it_is_quarantines_nobody(crashed: Callable[..., Path]) -> None:
    exporter = Exporter(crashed(spec()), "", spec())
    assert exporter.admit() == ["tcp"]
    assert not exporter.quarantine.armed


def test_the_key_is_what_the_kernel_runs_and_not_what_is_shown_of_it() -> None:
    def key(header: str = "header", **changes: object) -> str:
        return cache_key.of_text(spec().model_copy(update=changes), header)

    point = AttachSpec(kind="kprobe", targets=["tcp_sendmsg"], function="on_send")
    metric = MetricSpec(name="x", type="gauge", help="", map="m")
    assert key(metrics=[metric], name="other", source=Path("y.c"), line=7, budget=0.1) == key()
    other = [
        key("another header"),
        key(text="int y;"),
        key(defines={"N": 1}),
        key(variants=[VariantSpec(attach=[point])]),
        key(variants=[VariantSpec(attach=[point.model_copy(update={"targets": ["tcp_recvmsg"]})])]),
    ]
    assert len({key(), *other}) == 6


def test_what_is_young_is_seen_from_another_boot_as_suspect_unless_it_ended() -> None:
    content = Content(ONE, ended=False, young={"k": SUSPECT}, quarantined={"old": SUSPECT})
    assert seen_from(content, ONE) is content
    assert seen_from(content, TWO) == Content(TWO, quarantined={"k": SUSPECT, "old": SUSPECT})
    ended = Content(ONE, ended=True, young={"k": SUSPECT}, quarantined={"old": SUSPECT})
    assert seen_from(ended, TWO) == Content(TWO, quarantined={"old": SUSPECT})


def test_the_record_is_json_that_a_person_can_read(tmp_path: Path) -> None:
    content = Content(ONE, young={"k": SUSPECT})
    assert CrashRecord(tmp_path).change(lambda _: content) == content
    assert CrashRecord(tmp_path).read() == content
    assert json.loads(CrashRecord(tmp_path).path.read_text())["young"]["k"]["program"] == "tcp"
