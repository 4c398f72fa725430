"""A dashboard out of rows of panels: what all of ours have in common, and how they are printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as m

from grafana.panels import DATASOURCE, Panel


def build(
    uid: str,
    title: str,
    description: str,
    *,
    tags: Sequence[str],
    alerts: str,
    rows: Sequence[tuple[str, Sequence[Panel]]],
) -> m.Dashboard:
    """`alerts`: names of alerts that are drawn into the panels, a regular expression."""
    board = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(list(tags))
        .timezone("browser")
        .editable()
        .refresh("30s")
        .time("now-1h", "now")
        .tooltip(m.DashboardCursorSync.CROSSHAIR)
        .annotation(
            dashboard.AnnotationQuery()
            .name("Alerts")
            .datasource(DATASOURCE)
            .enable(True)
            .icon_color("red")
            .expr(f'ALERTS{{alertstate="firing", alertname=~"{alerts}", instance=~"$instance"}}')
        )
    )
    _variables(board)
    for row, panels in rows:
        board.with_row(dashboard.Row(row))
        for panel in panels:
            board.with_panel(panel)
    built = board.build()
    for number, panel_or_row in enumerate(built.panels or (), 1):
        panel_or_row.id_val = number
    return built


def write(built: m.Dashboard) -> None:
    """Print it. Sorted, so that a change of the SDK's order of fields is no change of the file."""
    json.dump(built, sys.stdout, cls=JSONEncoder, indent=2, sort_keys=True)
    sys.stdout.write("\n")


def _variables(board: dashboard.Dashboard) -> None:
    board.with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    for name, label, query in (
        ("job", "Job", "label_values(bpf_exporter_build_info, job)"),
        ("instance", "Instance", 'label_values(bpf_exporter_build_info{job=~"$job"}, instance)'),
    ):
        board.with_variable(
            dashboard.QueryVariable(name)
            .label(label)
            .query({"query": query, "refId": "StandardVariableQuery"})
            .datasource(DATASOURCE)
            .refresh(m.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(m.VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .all_value(".+")
            .current(m.VariableOption(selected=True, text=["All"], value=["$__all"]))
        )
