"""Samples of perf events on every CPU, by frequency and by period."""

from __future__ import annotations

import mmap
import os
import struct
import threading
import time

import pytest

from exporter.kernel import bpf, cpus, perf_event, perf_names, sysctl
from exporter.kernel.features import Kernel
from exporter.loading.attaching import cpu_hotplug
from exporter.program import Descriptors, Reason, State
from exporter.spec import AttachSpec, ProgramSpec
from tests.kernel.loaded import Load
from tests.kernel.programs import spec
from tests.waiting import until

pytestmark = pytest.mark.alone

COUNT_SAMPLES = """
BPF_HASH(of_process, u32, u64, 10240);
BPF_HASH(of_cpu, u32, u64, 1024);

int on_sample(struct bpf_perf_event_data *ctx)
{
	u32 process = bpf_get_current_pid_tgid() >> 32, cpu = bpf_get_smp_processor_id();
	u64 zero = 0;

	add(of_process.lookup_or_try_init(&process, &zero), 1, LOST(of_process));
	add(of_cpu.lookup_or_try_init(&cpu, &zero), 1, LOST(of_cpu));
	return 0;
}
"""


def sampled(target: str, period: int | None = None, frequency: int | None = None) -> ProgramSpec:
    at = AttachSpec(kind="perf_event", targets=[target], function="on_sample", period=period, frequency=frequency)
    return spec(COUNT_SAMPLES, [at], name="sampled")


def number(descriptors: Descriptors, name: str, key: int) -> int:
    value = bpf.map_lookup(descriptors.readonly[name], struct.pack("=I", key), 8)
    return struct.unpack("=Q", value)[0] if value else 0


def busy_on(cpu: int, seconds: float) -> None:
    """Use that CPU for so much of its time, whoever else wants it."""

    def work() -> None:
        os.sched_setaffinity(0, {cpu})  # of this thread
        while time.thread_time() < seconds:
            pass

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_every_online_cpu_is_sampled_at_the_frequency(load: Load) -> None:
    outcome, descriptors = load(sampled("cpu-clock", frequency=99))
    assert outcome.state is State.RUNNING, outcome.text
    (attachment,) = outcome.attachments
    assert list(attachment.cpus) == cpus.online()
    assert attachment.sites == len(descriptors.links) == len(cpus.online())
    before = number(descriptors, "of_process", os.getpid())
    for cpu in cpus.online():
        seen = number(descriptors, "of_cpu", cpu)
        busy_on(cpu, 1.0)
        assert number(descriptors, "of_cpu", cpu) > seen
    rise = number(descriptors, "of_process", os.getpid()) - before
    assert 80 * len(cpus.online()) <= rise <= 110 * len(cpus.online())


def test_each_page_fault_of_a_period_of_one_is_counted(load: Load) -> None:
    outcome, descriptors = load(sampled("page-faults", period=1))
    assert outcome.state is State.RUNNING, outcome.text
    pages = 1009
    with mmap.mmap(-1, pages * mmap.PAGESIZE) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        before = number(descriptors, "of_process", os.getpid())
        for page in range(pages):
            memory[page * mmap.PAGESIZE] = 1
        rise = number(descriptors, "of_process", os.getpid()) - before
    assert pages <= rise <= pages + 50  # Python's own


def test_a_period_of_many_runs_the_program_once_in_so_many(load: Load) -> None:
    outcome, descriptors = load(sampled("task-clock", period=10_000_000))  # nanoseconds
    assert outcome.state is State.RUNNING, outcome.text
    before = number(descriptors, "of_process", os.getpid())
    busy_on(cpus.online()[0], 1.0)
    assert 80 <= number(descriptors, "of_process", os.getpid()) - before <= 120


@pytest.mark.parametrize("name", ["1:0", "0x1:0x0"])
def test_an_event_may_be_given_in_numbers(load: Load, name: str) -> None:
    assert load(sampled(name, frequency=9))[0].state is State.RUNNING


def test_what_cannot_be_sampled_is_told(load: Load) -> None:
    limit = sysctl.read("kernel.perf_event_max_sample_rate")
    assert limit
    for program, reason, said in (
        (sampled("cpu-clok", frequency=9), Reason.MISSING, "no such event (near: cpu-clock"),
        (sampled("qqqq", frequency=9), Reason.MISSING, "a name that `perf list` prints, or TYPE:CONFIG in numbers"),
        (sampled("cpu-clock", frequency=limit + 1), Reason.LIMIT, f"{limit + 1} Hz is above {limit}, the most"),
        (sampled("1:99", frequency=9), Reason.UNSUPPORTED, "this CPU does not count that event"),
    ):
        outcome, descriptors = load(program)
        assert (outcome.state, outcome.reason) == (State.FAILED, reason), outcome.text
        assert said in outcome.text
        assert descriptors == Descriptors()


def test_a_hardware_event_counts_or_says_that_there_is_none(load: Load) -> None:
    outcome, _ = load(sampled("instructions", period=1_000_000))
    if outcome.state is not State.RUNNING:
        assert outcome.reason is Reason.UNSUPPORTED
        assert "virtual machines often have no counters" in outcome.text


def test_names_are_those_of_perf_list() -> None:
    assert perf_names.parse("L1-dcache-load-misses") == (3, 0x10000)
    assert perf_names.parse("LLC-stores") == (3, 0x0102)
    assert perf_names.parse("node-prefetch-misses") == (3, 0x10206)
    assert perf_names.parse("cycles") == perf_names.parse("cpu-cycles") == (0, 0)
    assert perf_names.parse("4:0x01c2") == (4, 0x1C2)
    assert perf_names.parse("4:") is None


def test_a_cpu_whose_event_is_gone_gets_a_new_one(load: Load) -> None:
    """A CPU that comes online, without taking one away from everybody: tests/matrix does that."""
    program = sampled("cpu-clock", frequency=99)
    outcome, descriptors = load(program)
    watch = cpu_hotplug.CpuHotplugWatch(program, Kernel())
    assert watch.update(outcome, descriptors) is outcome, "all is well"
    last = cpus.online()[-1]
    os.close(descriptors.links.pop())
    (attachment,) = outcome.attachments
    without = cpu_hotplug.replace_links(outcome, attachment, attachment.links[:-1], attachment.cpus[:-1])
    renewed = watch.update(without, descriptors)
    assert list(renewed.attachments[0].cpus) == cpus.online()
    seen = number(descriptors, "of_cpu", last)
    busy_on(last, 0.3)
    assert number(descriptors, "of_cpu", last) > seen


def test_time_of_an_event_goes_on_while_its_cpu_is_online() -> None:
    fd = perf_event.open_sampling(1, 0, cpus.online()[0], 0, 9)
    try:
        code = struct.pack("=BBhi", 0xB7, 0, 0, 0) + struct.pack("=BBhi", 0x95, 0, 0, 0)
        program = bpf.prog_load(bpf.BPF_PROG_TYPE_PERF_EVENT, code, "GPL", "empty")
        perf_event.set_bpf(fd, program)
        os.close(program)
        first = perf_event.time_enabled(fd)
        until(lambda: perf_event.time_enabled(fd) > first)
    finally:
        os.close(fd)
