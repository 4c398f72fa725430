"""The dashboard of TCP as code: `python -m grafana.dashboard > grafana/bpf-exporter.json` from the root.

Read from the top: is anything wrong (numbers), resets, sends, latency, and last the exporter itself. A test keeps the
JSON file equal to what this module prints.
"""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as m

from grafana import board, health
from grafana.panels import (
    RED_IF_ANY,
    Panel,
    Query,
    falling_short,
    gauge,
    graph,
    heat,
    number,
    quantile,
    quantiles,
    rate,
)

UID = "bpf-exporter"


def overview() -> list[Panel]:
    return [
        number(
            "Exporters down",
            "Targets of the selected job whose last scrape failed.",
            falling_short("up"),
            "none",
            steps=RED_IF_ANY,
        ),
        number(
            "Programs running",
            "eBPF programs that are attached and counting, over all selected instances.",
            f"sum({gauge('bpf_exporter_program_state', state='running')})",
            "none",
        ),
        number(
            "Programs failed",
            "eBPF programs for which no variant compiled, loaded and attached. The exporter's landing page shows why.",
            f"sum({gauge('bpf_exporter_program_state', state='failed')})",
            "none",
            steps=RED_IF_ANY,
        ),
        number(
            "Resets sent",
            "TCP resets that the selected hosts send per second. TcpResetStorm starts at 50 a second.",
            f"sum({rate('ebpf_tcp_resets_total', direction='sent')})",
            "cps",
            steps=((None, "green"), (10, "orange"), (50, "red")),
            decimals=1,
        ),
        number(
            "TCP bytes sent",
            "Bytes per second that tcp_sendmsg() accepted from applications.",
            f"sum({rate('ebpf_tcp_sendmsg_bytes_total')})",
            "Bps",
        ),
        number(
            "Response p90, as client",
            "Nine in ten responses to these hosts arrived within this time (role client only: for a server this is the "
            "pause of the peer before its next request).",
            quantile(0.9, "ebpf_tcp_response_seconds", role="client"),
            "s",
            steps=((None, "green"), (0.5, "orange"), (1, "red")),
        ),
    ]


def resets() -> list[Panel]:
    total = "ebpf_tcp_resets_total"
    return [
        graph(
            "Resets by direction and state",
            "State of the socket when the reset was decided. none: no socket listens; listen: a stray segment for "
            "a listening port; sent in established or close_wait: closed with unread data or with SO_LINGER 0.",
            [Query(f"sum by (direction, state) ({rate(total)})", "{{direction}} {{state}}")],
            "cps",
            stacked=True,
        ),
        graph(
            "Resets by port, the ten highest",
            "Local port if a socket listens on it, else `ephemeral`.",
            [Query(f"topk(10, sum by (direction, port) ({rate(total)}))", "{{direction}} {{port}}")],
            "cps",
        ),
        graph(
            "Resets sent by kind and reason",
            "active: a socket of this host aborted a connection; reply: the answer to a segment of no connection. "
            "The reason comes from the kernel (enum sk_rst_reason); kernels before 6.10 have none.",
            [
                Query(
                    f"sum by (kind, reason) ({rate(total, direction='sent')})",
                    "{{kind}} {{reason}}",
                )
            ],
            "cps",
            stacked=True,
        ),
        graph(
            "Resets by host",
            "The ten instances that send or receive most resets.",
            [Query(f"topk(10, sum by (instance, direction) ({rate(total)}))", "{{instance}} {{direction}}")],
            "cps",
        ),
    ]


def sends() -> list[Panel]:
    by_owner = "sum by (unit, container)"
    owner = "{{unit}} {{container}}"
    calls, errors = "ebpf_tcp_sendmsg_calls_total", "ebpf_tcp_sendmsg_errors_total"
    return [
        graph(
            "Bytes sent by unit, the ten highest",
            "Bytes that tcp_sendmsg() accepted, by systemd unit and container of the sending process.",
            [Query(f"topk(10, {by_owner} ({rate('ebpf_tcp_sendmsg_bytes_total')}))", owner)],
            "Bps",
            stacked=True,
        ),
        graph(
            "Calls by unit, the ten highest",
            "Calls of tcp_sendmsg() per second. Many calls with few bytes are small writes: see the sizes below.",
            [Query(f"topk(10, {by_owner} ({rate(calls)}))", owner)],
            "cps",
            stacked=True,
        ),
        graph(
            "Share of calls that failed",
            "Calls of a unit that returned an error, as a share of all its calls. EAGAIN of a non-blocking socket with "
            "a full buffer is included, so a busy bulk sender has some.",
            [Query(f"topk(10, {by_owner} ({rate(errors)}) / ({by_owner} ({rate(calls)}) > 0))", owner)],
            "percentunit",
            steps=((None, "green"), (0.05, "red")),
        ),
        graph(
            "Send size",
            "Median and tail of bytes per call, from the histogram; the mean is exact.",
            [
                *quantiles("ebpf_tcp_sendmsg_size_bytes"),
                Query(
                    f"sum({rate('ebpf_tcp_sendmsg_size_bytes_sum')})"
                    f" / sum({rate('ebpf_tcp_sendmsg_size_bytes_count')})",
                    "mean",
                ),
            ],
            "bytes",
            log=True,
        ),
        heat(
            "Send size, heat map",
            "Calls per second in each size range.",
            "ebpf_tcp_sendmsg_size_bytes",
            "bytes",
            width=24,
        ),
    ]


def latency() -> list[Panel]:
    response = (
        "From the last send on a connection to the next data received on it, on connections that these hosts opened: "
        "the response time of the peer."
    )
    connect = "From the first SYN to established, on connections that these hosts opened."
    srtt = "The kernel's own estimate (srtt_us), sampled whenever data arrives."
    return [
        heat("Response time as client", response, "ebpf_tcp_response_seconds", "s", role="client"),
        graph(
            "Response time as client, p50, p90, p99",
            response,
            quantiles("ebpf_tcp_response_seconds", role="client"),
            "s",
            log=True,
        ),
        heat("Connect time", connect, "ebpf_tcp_connect_seconds", "s"),
        graph("Connect time, p50, p90, p99", connect, quantiles("ebpf_tcp_connect_seconds"), "s", log=True),
        heat("Smoothed round trip time", srtt, "ebpf_tcp_srtt_seconds", "s"),
        graph("Smoothed round trip time, p50, p90, p99", srtt, quantiles("ebpf_tcp_srtt_seconds"), "s", log=True),
        graph(
            "Response p90 by role and port, the ten highest",
            "client: these hosts opened the connection, from an ephemeral port. server: they listen on that port, and "
            "the time is the pause of the peer before its next request.",
            [
                Query(
                    f"topk(10, {quantile(0.9, 'ebpf_tcp_response_seconds', by='role, port')})",
                    "{{role}} {{port}}",
                )
            ],
            "s",
            log=True,
        ),
        graph(
            "Responses by role and port, the ten highest",
            "Response times measured per second: the number of samples behind the quantiles beside it.",
            [
                Query(
                    f"topk(10, sum by (role, port) ({rate('ebpf_tcp_response_seconds_count')}))",
                    "{{role}} {{port}}",
                )
            ],
            "cps",
        ),
    ]


def build() -> m.Dashboard:
    return board.build(
        UID,
        "BPF exporter: TCP of the live kernel",
        "TCP resets, sends and latency, counted in the kernel by bpf-exporter, and the health of the exporter.",
        tags=["bpf-exporter", "ebpf", "tcp"],
        alerts="Tcp.*|BpfExporter.*",
        rows=(
            ("At a glance", overview()),
            ("TCP resets", resets()),
            ("TCP sends", sends()),
            ("TCP latency", latency()),
            ("Health of the exporter", health.panels()),
        ),
    )


if __name__ == "__main__":
    board.write(build())
