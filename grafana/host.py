"""The dashboard of the host as code: `python -m grafana.host > grafana/bpf-exporter-host.json` from the root.

Read from the top: is anything wrong (numbers), CPU, disks and memory, network. Each panel names the bundled program
that counts for it; one that is not loaded, or that a kernel cannot run, leaves its panels empty. A test keeps the JSON
file equal to what this module prints.
"""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as m

from grafana import board
from grafana.panels import RED_IF_ANY, Panel, Query, gauge, graph, heat, number, quantile, quantiles, rate

UID = "bpf-exporter-host"

RUN_QUEUE = "ebpf_run_queue_latency_seconds"
BLOCK = "ebpf_bio_latency_seconds"
RETRANSMITS = "ebpf_tcp_retransmit_packets_total"
BACKLOG = "ebpf_tcp_syn_backlog"
OOM_KILLS = "ebpf_oom_kills_total"


def overview() -> list[Panel]:
    return [
        number(
            "Wait for a CPU, p99",
            "99 of 100 runnable tasks got a CPU within this time. Program runqlat.",
            quantile(0.99, RUN_QUEUE),
            "s",
            steps=((None, "green"), (0.01, "orange"), (0.1, "red")),
        ),
        number(
            "Block I/O, p99",
            "99 of 100 block requests took less, including time in queues. Program biolatency.",
            quantile(0.99, BLOCK),
            "s",
            steps=((None, "green"), (0.1, "orange"), (1, "red")),
        ),
        number(
            "OOM kills",
            "Processes that the kernel killed when memory ran out, since the exporters started. Program oomkill.",
            f"sum({gauge(OOM_KILLS)}) or vector(0)",
            "none",
            steps=RED_IF_ANY,
        ),
        number(
            "System calls",
            "System calls per second of the selected hosts. Program syscalls.",
            f"sum({rate('ebpf_syscalls_total')})",
            "cps",
        ),
        number(
            "TCP retransmissions",
            "Segments per second, tail loss probes included. Program tcp_retransmit.",
            f"sum({rate(RETRANSMITS)})",
            "cps",
            decimals=1,
        ),
        number(
            "Packets dropped",
            "Packets per second that the kernel dropped, for any reason. Program kfree_skb.",
            f"sum({rate('ebpf_kfree_skb_total')})",
            "cps",
            decimals=1,
        ),
    ]


def cpu() -> list[Panel]:
    waits = "From the time a task becomes runnable until it runs. Program runqlat."
    return [
        heat("Wait for a CPU", waits, RUN_QUEUE, "s"),
        graph("Wait for a CPU, p50, p90, p99", waits, quantiles(RUN_QUEUE), "s", log=True),
        graph(
            "CPU time in softirqs",
            "CPU seconds per second that each kind of softirq runs, over all CPUs of the selected hosts. Program "
            "softirq_latency.",
            [Query(f"sum by (kind) ({rate('ebpf_softirq_service_latency_seconds_sum')})", "{{kind}}")],
            "percentunit",
            stacked=True,
        ),
        graph(
            "Wait of softirqs, p99 by kind",
            "From raising a softirq to its start. Milliseconds mean that ksoftirqd runs it. Program softirq_latency.",
            [Query(quantile(0.99, "ebpf_softirq_entry_latency_seconds", by="kind"), "{{kind}}")],
            "s",
            log=True,
        ),
        graph(
            "System calls, the ten most frequent",
            "Calls per second by name. Program syscalls.",
            [Query(f"topk(10, sum by (syscall) ({rate('ebpf_syscalls_total')}))", "{{syscall}}")],
            "cps",
            stacked=True,
        ),
        graph(
            "System calls that failed, the ten most frequent",
            "Failures per second. EAGAIN of non-blocking sockets and ENOENT of a search in PATH are normal; "
            "EMFILE, ENOSPC and ENOMEM are not. Program syscalls.",
            [
                Query(
                    f"topk(10, sum by (syscall, errno) ({rate('ebpf_syscall_errors_total')}))",
                    "{{syscall}} {{errno}}",
                )
            ],
            "cps",
        ),
    ]


def disks_and_memory() -> list[Panel]:
    block = "From the allocation of a block request to its completion. Program biolatency."
    operations = "ebpf_page_cache_ops_total"
    added = f"sum by (instance) ({rate(operations, operation='page_add_lru')})"
    dirtied = f"sum by (instance) ({rate(operations, operation='page_mark_dirties')})"
    accessed = f"sum by (instance) ({rate(operations, operation='cache_access')})"
    written = f"sum by (instance) ({rate(operations, operation='cache_writes')})"
    return [
        heat("Block I/O latency", block, BLOCK, "s"),
        graph(
            "Block I/O latency, p99 by device and operation, the ten highest",
            block,
            [Query(f"topk(10, {quantile(0.99, BLOCK, by='device, operation')})", "{{device}} {{operation}}")],
            "s",
            log=True,
        ),
        graph(
            "Block requests by device and operation",
            "Completed requests per second, equal to those of iostat. Program biolatency.",
            [
                Query(
                    f"topk(10, sum by (device, operation) ({rate(BLOCK + '_count')}))",
                    "{{device}} {{operation}}",
                )
            ],
            "cps",
            stacked=True,
        ),
        graph(
            "OOM kills by unit and container",
            "Processes killed since the exporters started. Program oomkill.",
            [Query(f"topk(10, sum by (unit, container) ({gauge(OOM_KILLS)})) or vector(0)", "{{unit}} {{container}}")],
            "none",
        ),
        graph(
            "Page cache operations",
            "Operations per second on pages of files. Program cachestat.",
            [Query(f"sum by (operation) ({rate(operations)})", "{{operation}}")],
            "cps",
        ),
        graph(
            "Page cache hit rate",
            "An estimate: the share of read accesses for which no page had to be read in. Program cachestat.",
            [Query(f"1 - ({added} - {dirtied}) / ({accessed} - {written})", "{{instance}}")],
            "percentunit",
            top=1,
        ),
    ]


def network() -> list[Panel]:
    return [
        graph(
            "TCP retransmissions by type",
            "syn, syn_ack: the peer does not answer, or the path loses packets; tail_loss_probe: a precaution, "
            "harmless; retransmit: after a timeout or a reported loss. Program tcp_retransmit.",
            [Query(f"sum by (type) ({rate(RETRANSMITS)})", "{{type}}")],
            "cps",
            stacked=True,
        ),
        graph(
            "TCP retransmissions by port, the ten highest",
            "Local port if a socket listens on it, else `ephemeral`. Program tcp_retransmit.",
            [Query(f"topk(10, sum by (port) ({rate(RETRANSMITS)}))", "{{port}}")],
            "cps",
        ),
        graph(
            "Retransmissions per send",
            "Per call of tcp_sendmsg(), which may send many segments: compare a host with its own past. Programs "
            "tcp_retransmit and tcp_sendmsg.",
            [
                Query(
                    f"sum by (instance) ({rate(RETRANSMITS)})"
                    f" / sum by (instance) ({rate('ebpf_tcp_sendmsg_calls_total')})",
                    "{{instance}}",
                )
            ],
            "percentunit",
        ),
        graph(
            "Accept queue length, p90 by port",
            "Connections in the queue when another one completes its handshake. Above the listener's backlog (128 to "
            "4096) the kernel drops new ones. Program tcp_syn_backlog.",
            [Query(f"topk(10, {quantile(0.9, BACKLOG, by='port')})", "{{port}}")],
            "none",
        ),
        heat(
            "Accept queue length",
            "The same over time, all ports together. Program tcp_syn_backlog.",
            BACKLOG,
            "none",
        ),
        graph(
            "Wait for accept(), p99 by port",
            "From the handshake to accept(). Program accept_latency.",
            [Query(f"topk(10, {quantile(0.99, 'ebpf_accept_latency_seconds', by='port')})", "{{port}}")],
            "s",
            log=True,
        ),
        graph(
            "UDP datagrams dropped, by port",
            "Dropped at the socket per second. receive_buffer: the process reads too slowly; memory: net.ipv4.udp_mem "
            "is used up. Program udp_drops.",
            [
                Query(
                    f"topk(10, sum by (local_port, reason) ({rate('ebpf_udp_fail_queue_rcv_skbs_total')}))",
                    "{{local_port}} {{reason}}",
                )
            ],
            "cps",
        ),
        graph(
            "Packets dropped by reason, the ten highest",
            "The kernel's drop reasons (enum skb_drop_reason). NOT_SPECIFIED: the kernel gives no reason. Program "
            "kfree_skb.",
            [
                Query(
                    f"topk(10, sum by (reason, eth_proto) ({rate('ebpf_kfree_skb_total')}))",
                    "{{reason}} {{eth_proto}}",
                )
            ],
            "cps",
        ),
    ]


def build() -> m.Dashboard:
    return board.build(
        UID,
        "BPF exporter: CPU, disks, memory and network of the live kernel",
        "Latency of CPUs, disks and accept(), system calls, OOM kills and lost packets, counted in the kernel by "
        "bpf-exporter.",
        tags=["bpf-exporter", "ebpf", "latency"],
        alerts="OomKills|TcpAcceptQueueLong|TcpRetransmitStorm",
        rows=(
            ("At a glance", overview()),
            ("CPU", cpu()),
            ("Disks and memory", disks_and_memory()),
            ("Network", network()),
        ),
    )


if __name__ == "__main__":
    board.write(build())
