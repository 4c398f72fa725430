"""A dashboard's JSON is what its code prints, is laid out for a person, and asks what Prometheus can parse."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.program import State
from tests.e2e.queries import DASHBOARDS, ROOT, dashboards, panel_queries, panels, selectors

GRID_COLUMNS = 24


each_dashboard = pytest.mark.parametrize("dashboard", dashboards(), ids=lambda dashboard: str(dashboard["uid"]))


@pytest.mark.parametrize("module", DASHBOARDS)
def test_json_is_what_the_code_prints(module: str) -> None:
    printed = subprocess.run(
        [sys.executable, "-m", module], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    file = DASHBOARDS[module]
    assert printed == file.read_text(), f"run: python -m {module} > {file.relative_to(ROOT)}"


def test_each_has_its_file_and_uid() -> None:
    assert set(DASHBOARDS.values()) == set((ROOT / "grafana").glob("*.json"))
    assert {dashboard["uid"] for dashboard in dashboards()} == {path.stem for path in DASHBOARDS.values()}


@each_dashboard
def test_ids_are_unique(dashboard: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))


@each_dashboard
def test_titles_are_unique(dashboard: dict[str, Any]) -> None:
    titles = [panel["title"] for panel in dashboard["panels"]]
    assert len(titles) == len(set(titles))


@each_dashboard
def test_panels_stay_on_the_grid_and_do_not_overlap(dashboard: dict[str, Any]) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        assert at["w"] > 0
        assert at["h"] > 0
        assert at["x"] + at["w"] <= GRID_COLUMNS, panel["title"]
        for cell in itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])):
            assert cell not in taken, f"{panel['title']} lies over {taken[cell]}"
            taken[cell] = panel["title"]


@each_dashboard
def test_lines_of_panels_are_filled_to_the_right_edge(dashboard: dict[str, Any]) -> None:
    """A gap is a panel that somebody removed and a layout that nobody looked at."""
    widths: dict[int, int] = {}
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        for y in range(at["y"], at["y"] + at["h"]):
            widths[y] = widths.get(y, 0) + at["w"]
    assert set(widths.values()) == {GRID_COLUMNS}
    assert sorted(widths) == list(range(len(widths)))


@pytest.mark.parametrize("panel", list(panels()), ids=lambda panel: str(panel["title"]))
def test_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    assert panel["datasource"] == chosen
    assert panel["description"].endswith(".")
    assert panel["targets"]
    for target in panel["targets"]:
        assert target["datasource"] == chosen
        assert target["expr"]
    refs = [target["refId"] for target in panel["targets"]]
    assert len(refs) == len(set(refs))
    axis = panel["options"]["yAxis"] if panel["type"] == "heatmap" else panel["fieldConfig"]["defaults"]
    assert axis["unit"]


def test_every_selector_obeys_the_variables() -> None:
    for dashboard in dashboards():
        assert [v["name"] for v in dashboard["templating"]["list"]] == ["datasource", "job", "instance"]
    for query in panel_queries():
        for selector in selectors(query.expr):
            assert 'job=~"$job", instance=~"$instance"' in selector, query.panel


def test_only_variables_that_exist_are_used() -> None:
    for query in panel_queries():
        used = set(re.findall(r"\$\{?(\w+)", query.expr))
        assert used <= {"job", "instance", "__rate_interval"}, query.panel


def test_prometheus_parses_every_query(tmp_path: Path) -> None:
    """promtool has no check of a bare expression; as a recording rule each is parsed and type-checked."""
    rules = [
        {"record": f"panel:query:{i}", "expr": query.filled(job=".+", instance=".+", rate_interval="1m")}
        for i, query in enumerate(panel_queries())
    ]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    checked = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    assert f"{len(rules)} rules found" in checked.stdout


def test_state_numbers_of_the_panel_are_those_of_the_exporter() -> None:
    """Each state has a number, a word and a colour; a state that the exporter gets later must get its own."""
    (panel,) = (p for p in panels() if p["title"] == "Program states")
    expr = panel["targets"][0]["expr"]
    mapping = panel["fieldConfig"]["defaults"]["mappings"][0]["options"]
    shown = {int(value): result["text"] for value, result in mapping.items()}
    asked = {int(number): state for state, number in re.findall(r'state="(\w+)"\} \* (\d+)', expr)}
    assert shown == asked == dict(enumerate(map(str, State), 1))


def test_provisioning_examples_are_yaml() -> None:
    examples = sorted((ROOT / "grafana/provisioning").rglob("*.yaml"))
    assert [e.parent.name for e in examples] == ["dashboards", "datasources"]
    for example in examples:
        assert yaml.safe_load(example.read_text())["apiVersion"] == 1
