"""The panels that show how the exporter itself is doing."""

from __future__ import annotations

from grafana.panels import RED_IF_ANY, Panel, Query, falling_short, gauge, gauge_matching, graph, number, rate, states

# The order is that of exporter.program.State; the number of a state on the panel is its place here, from 1.
STATES = (
    ("loading", "blue"),
    ("running", "green"),
    ("skipped", "text"),
    ("disabled", "text"),
    ("failed", "red"),
    ("over_budget", "orange"),
    ("ended", "text"),
    ("quarantined", "dark-red"),
)


def panels() -> list[Panel]:
    state = "bpf_exporter_program_state"
    numbered = " or ".join(f"{gauge(state, state=name)} * {i}" for i, (name, _) in enumerate(STATES, 1))
    fill = (
        f"{gauge('bpf_exporter_map_entries')} / {gauge('bpf_exporter_map_max_entries')}"
        " * on (job, instance, program, map) group_left (type) "
        + gauge_matching("bpf_exporter_map_info", type=".*hash")
    )
    return [
        states(
            "Program states",
            "State of each program at the scrape. skipped: this kernel lacks what the program requires.",
            Query(f"sum by (instance, program) ({numbered})", "{{instance}} {{program}}"),
            STATES,
        ),
        graph(
            "Scrape and collect duration",
            "scrape: measured by Prometheus. The rest: the time that the exporter spent on each program's maps.",
            [
                Query(f"max by (instance) ({gauge('scrape_duration_seconds')})", "{{instance}} scrape"),
                Query(
                    f"max by (instance, program) ({gauge('bpf_exporter_program_collect_duration_seconds')})",
                    "{{instance}} {{program}}",
                ),
            ],
            "s",
        ),
        graph(
            "Map fill ratio",
            "Entries of hash maps divided by their capacity. A full hash accepts no new key; an LRU map evicts others.",
            [Query(f"topk(10, {fill})", "{{instance}} {{program}} {{map}} ({{type}})")],
            "percentunit",
            top=1,
            steps=((None, "green"), (0.9, "red")),
        ),
        graph(
            "Lost updates",
            "Events per second that a program could not count because a map accepted no new key. Above 0, other panels "
            "of this page show too low numbers.",
            [
                Query(
                    f"sum by (instance, program, map) ({rate('bpf_exporter_map_insert_failures_total')})",
                    "{{instance}} {{program}} {{map}}",
                )
            ],
            "cps",
            steps=((None, "green"), (0.001, "red")),
        ),
        graph(
            "Decoder errors",
            "Label values per second that a decoder could not decode (a cgroup that ended, a number without a name).",
            [
                Query(
                    f"sum by (instance, program, decoder) ({rate('bpf_exporter_decoder_errors_total')})",
                    "{{instance}} {{program}} {{decoder}}",
                )
            ],
            "cps",
        ),
        graph(
            "Series shown and folded",
            "Label sets of each metric. Those above max_series are summed into one whose labels are all `other`.",
            [
                Query(
                    f"topk(10, {gauge('bpf_exporter_metric_series')})",
                    "{{instance}} {{program}} {{metric}} shown",
                ),
                Query(
                    f"topk(10, {gauge('bpf_exporter_metric_folded_series')})",
                    "{{instance}} {{program}} {{metric}} folded",
                ),
            ],
            "short",
        ),
        graph(
            "Memory of the server",
            "Resident memory of the unprivileged server. The supervisor adds its own, which is mostly shared with it.",
            [Query(gauge("process_resident_memory_bytes"), "{{instance}}")],
            "bytes",
        ),
        graph(
            "CPU of the server",
            "CPU seconds per second of the unprivileged server, without the cost of the eBPF programs.",
            [Query(rate("process_cpu_seconds_total"), "{{instance}}")],
            "percentunit",
        ),
        graph(
            "CPU of the eBPF programs",
            "CPU seconds per second over all CPUs in the last window (1 s of 30 s), including the traps of uprobes: "
            "the cost of the programs on the host. A program above its `budget` is detached.",
            [Query(f"topk(10, {gauge('bpf_exporter_program_cpu_ratio')})", "{{instance}} {{program}}")],
            "percentunit",
        ),
        graph(
            "Missed runs",
            "Events per second that a program missed, because it or another one was running on that CPU.",
            [
                Query(
                    f"sum by (instance, program) ({rate('bpf_exporter_program_missed_runs_total')})",
                    "{{instance}} {{program}}",
                )
            ],
            "cps",
        ),
        number(
            "Servers with a privilege",
            "Instances whose server keeps CAP_BPF, which kernels before 5.19 need to read maps. 0 on newer kernels.",
            falling_short("bpf_exporter_server_unprivileged"),
            "none",
            width=6,
            steps=((None, "green"), (1, "orange")),
        ),
        number(
            "Server restarts",
            "Server processes that died and were restarted by their supervisor, in the last hour.",
            f"sum(increase({gauge('bpf_exporter_server_restarts_total')}[1h]))",
            "none",
            width=6,
            steps=RED_IF_ANY,
            decimals=0,
        ),
        number(
            "Collections failed",
            "Programs whose maps could not be read at the last scrape.",
            falling_short("bpf_exporter_program_collect_success"),
            "none",
            width=6,
            steps=RED_IF_ANY,
        ),
        number(
            "Attach points missing",
            "Optional attach points that this kernel does not have. The exporter's landing page names them.",
            falling_short("bpf_exporter_program_attached"),
            "none",
            width=6,
            steps=((None, "green"), (1, "orange")),
        ),
    ]
