"""What dashboards and rules ask of Prometheus: panel queries with variables filled in, rules and their selectors."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS = {  # by the module that prints it
    "grafana.dashboard": ROOT / "grafana/bpf-exporter.json",
    "grafana.host": ROOT / "grafana/bpf-exporter-host.json",
}
RECORDING = ROOT / "prometheus/recording.yaml"
ALERTS = ROOT / "prometheus/alerts.yaml"

_SELECTOR = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(\{[^}]*\})?(?!\s*\(|[a-zA-Z0-9_:])")
_KEYWORDS = {"and", "or", "unless", "offset", "bool", "inf", "nan"}


@dataclass(frozen=True)
class PanelQuery:
    """A query of a panel as it stands in a dashboard's JSON, Grafana's variables and all."""

    panel: str
    ref: str
    expr: str

    def filled(self, job: str, instance: str, rate_interval: str) -> str:
        """The expression as Grafana would send it with these values chosen."""
        return self.expr.replace("$__rate_interval", rate_interval).replace("$job", job).replace("$instance", instance)


@dataclass(frozen=True)
class Rule:
    """A recording or alerting rule; `source` is its entry in the YAML."""

    name: str
    expr: str
    alert: bool
    source: dict[str, Any]


def dashboards() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in DASHBOARDS.values()]


def panels() -> Iterator[dict[str, Any]]:
    """Every panel of every dashboard that is not a row, also those inside collapsed rows."""
    for dashboard in dashboards():
        for panel in dashboard["panels"]:
            if panel["type"] == "row":
                yield from panel.get("panels", ())
            else:
                yield panel


def panel_queries() -> list[PanelQuery]:
    return [
        PanelQuery(panel["title"], target["refId"], target["expr"]) for panel in panels() for target in panel["targets"]
    ]


def rules(path: Path) -> list[Rule]:
    document = yaml.safe_load(path.read_text())
    return [
        Rule(entry.get("alert") or entry["record"], entry["expr"], "alert" in entry, entry)
        for group in document["groups"]
        for entry in group["rules"]
    ]


def selectors(expr: str) -> list[str]:
    """The vector selectors of a PromQL expression, without ranges and offsets: `up{job="x"}`, `a:b:rate5m`."""
    text = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", expr)
    text = re.sub(r"\[[^\]]*\]", " ", text)
    text = re.sub(r"\boffset\s+-?\w+", " ", text)
    found = []
    for match in _SELECTOR.finditer(text):
        name, matchers = match.group(1), match.group(2) or ""
        before = text[match.start() - 1 : match.start()]
        if name.lower() not in _KEYWORDS and not re.match(r"[\w:.]", before):
            found.append(name + matchers)
    return list(dict.fromkeys(found))
