"""bpf-exporter: eBPF programs declared in YAML, compiled by bcc, served as Prometheus metrics."""

from exporter import _structlog  # noqa: F401  (before any module here imports structlog)

__version__ = "0.1.0"
