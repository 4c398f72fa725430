"""bpf-exporter: eBPF programs declared in YAML, compiled by bcc, served as Prometheus metrics.

The map of the package. Data flows down this list; a module imports only from its own floor or from floors below.

    cli                    6  arguments of the command line -> one of the commands
    commands/              5  one module per command: run (and supervise), serve, check, compile, doctor, ...
    supervisor/            4  the privileged role: starts loaders and the server, holds every descriptor, reloads
    server/                4  the unprivileged role: answers a scrape with the metrics of every program
    loading/               3  ProgramSpec -> C text -> artifact -> maps, programs and links in the kernel
    collecting/            3  maps of a loaded program -> columns -> series -> exposition text
    web/                   3  HTTP requests -> answers of an application; TLS, passwords and rate limits
    binding/               2  a MetricSpec and a map's types -> offsets and widths to read
    config/                2  YAML files -> spec, or every mistake with its position
    decoders/              1  bytes and numbers of a key or value -> label text
    ipc/                   1  the messages between processes: typed documents and descriptors over a socket
    kernel/                0  the kernel's interfaces: bpf(2), BTF, perf events, cgroups, /proc, /sys
    spec, program          0  what was asked for (ProgramSpec), and what became of it (Program)
    systemd, log           0  systemd's protocols for services; structlog, set up once

Three roles run this code. The supervisor forks a loader for each program, and the server once. A loader sends a Program
and its descriptors to the supervisor, and ends. The server receives map descriptors, and never a program or a link.
docs/architecture.md has the pictures, CONTRIBUTING.md how to add a program, decoder, attach kind, format or command.
"""

__version__ = "0.1.0"
