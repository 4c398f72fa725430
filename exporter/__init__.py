"""bpf-exporter: eBPF programs declared in YAML, compiled by bcc, served as Prometheus metrics."""

__version__ = "0.1.0"
