"""The kinds of panel that the dashboard is made of: a title, a sentence of what it shows, queries, a unit.

What a reader should find the same on every panel (legend, tooltip, colours, data source) is decided here once;
`dashboard.py` says what is shown. Units are Grafana's ids (packages/grafana-data/src/valueFormats in its source).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    timeseries,
)
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as m_common
from grafana_foundation_sdk.models import dashboard as m
from grafana_foundation_sdk.models import heatmap as m_heatmap
from grafana_foundation_sdk.models import prometheus as m_prometheus

DATASOURCE = m.DataSourceRef(type_val="prometheus", uid="${datasource}")
SELECTOR = 'job=~"$job", instance=~"$instance"'

RED_IF_ANY = ((None, "green"), (1, "red"))

Panel = Builder[m.Panel]
Steps = Sequence[tuple[float | None, str]]  # (from this value on, colour); the first value is None


@dataclass(frozen=True)
class Query:
    """One PromQL expression and how its series are named in the legend (Grafana's `{{label}}`)."""

    expr: str
    legend: str = ""


def rate(metric: str, **labels: str) -> str:
    """Per second, over the window that Grafana takes from the scrape interval and the zoom."""
    return f"rate({metric}{{{_selector(labels)}}}[$__rate_interval])"


def gauge(metric: str, **labels: str) -> str:
    return f"{metric}{{{_selector(labels)}}}"


def gauge_matching(metric: str, **labels: str) -> str:
    """As `gauge`, but the labels are regular expressions."""
    patterns = ", ".join(f'{name}=~"{pattern}"' for name, pattern in labels.items())
    return f"{metric}{{{SELECTOR}, {patterns}}}"


def quantile(q: float, histogram: str, by: str = "", **labels: str) -> str:
    """A quantile of a classic histogram, by the labels of `by` ("role, port") or over all of it."""
    kept = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({kept}) ({rate(histogram + '_bucket', **labels)}))"


def quantiles(histogram: str, **labels: str) -> list[Query]:
    return [Query(quantile(q, histogram, **labels), f"p{q * 100:.0f}") for q in (0.5, 0.9, 0.99)]


def falling_short(gauge_of_0_or_1: str) -> str:
    """How many series of a gauge that is 1 when all is well are not 1."""
    return f"count({gauge(gauge_of_0_or_1)}) - sum({gauge(gauge_of_0_or_1)})"


def graph(
    title: str,
    description: str,
    queries: Sequence[Query],
    unit: str,
    *,
    width: int = 12,
    height: int = 8,
    stacked: bool = False,
    log: bool = False,
    bottom: float | None = 0,
    top: float | None = None,
    steps: Steps = (),
) -> Panel:
    """Lines over time. `steps` draws dashed lines; `log` is a scale of base 10, which has no bottom."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .span(width)
        .height(height)
        .line_width(1)
        .fill_opacity(30 if stacked else 8)
        .show_points(m_common.VisibilityMode.NEVER)
        .color_scheme(dashboard.FieldColor().mode(m.FieldColorModeId.PALETTE_CLASSIC))
        .legend(
            common.VizLegendOptions()
            .display_mode(m_common.LegendDisplayMode.TABLE)
            .placement(m_common.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["mean", "max", "lastNotNull"])
        )
        .tooltip(common.VizTooltipOptions().mode(m_common.TooltipDisplayMode.MULTI).sort(m_common.SortOrder.DESCENDING))
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(m_common.StackingMode.NORMAL).group("A"))
    if log:
        panel.scale_distribution(common.ScaleDistributionConfig().type(m_common.ScaleDistribution.LOG).log(10))
    elif bottom is not None:
        panel.min(bottom)
    if top is not None:
        panel.max(top)
    if steps:
        panel.thresholds(_thresholds(steps))
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(m_common.GraphTresholdsStyleMode.DASHED))
    for target in _targets(queries):
        panel.with_target(target)
    return panel


def number(
    title: str,
    description: str,
    query: str,
    unit: str,
    *,
    width: int = 4,
    steps: Steps = ((None, "blue"),),
    decimals: int | None = None,
) -> Panel:
    """One number of now with its recent past behind it, coloured by `steps`."""
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .span(width)
        .height(4)
        .thresholds(_thresholds(steps))
        .color_mode(m_common.BigValueColorMode.VALUE)
        .graph_mode(m_common.BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    )
    if decimals is not None:
        panel.decimals(decimals)
    for target in _targets([Query(query)]):
        panel.with_target(target)
    return panel


def heat(title: str, description: str, histogram: str, unit: str, *, width: int = 12, **labels: str) -> Panel:
    """A classic histogram over time: a row per bucket, the darker the more events per second."""
    query = (
        prometheus.Dataquery()
        .expr(f"sum by (le) ({rate(histogram + '_bucket', **labels)})")
        .legend_format("{{le}}")
        .format(m_prometheus.PromQueryFormat.HEATMAP)
        .range()
        .ref_id("A")
        .datasource(DATASOURCE)
    )
    return (
        heatmap.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .span(width)
        .height(8)
        .calculate(False)
        .color(
            heatmap.HeatmapColorOptions()
            .mode(m_heatmap.HeatmapColorMode.SCHEME)
            .scheme("Oranges")
            .scale(m_heatmap.HeatmapColorScale.EXPONENTIAL)
            .exponent(0.5)
            .steps(64)
        )
        .rows_frame(heatmap.RowsHeatmapOptions().layout(m_common.HeatmapCellLayout.LE))
        .filter_values(heatmap.FilterValueRange().le(1e-9))
        .cell_gap(1)
        .y_axis(heatmap.YAxisConfig().unit(unit).axis_placement(m_common.AxisPlacement.LEFT))
        .cell_values(heatmap.CellValues().unit("cps"))
        .show_tooltip()
        .show_y_histogram()
        .show_legend()
        .with_target(query)
    )


def states(
    title: str,
    description: str,
    query: Query,
    names: Sequence[tuple[str, str]],
    *,
    width: int = 12,
    height: int = 8,
) -> Panel:
    """A coloured band per series; the value i (from 1) is shown as `names[i - 1]`, a (text, colour) pair."""
    mapping = m.ValueMap(
        {str(i): m.ValueMappingResult(text=text, color=colour, index=i) for i, (text, colour) in enumerate(names, 1)}
    )
    panel = (
        statetimeline.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit("none")
        .span(width)
        .height(height)
        .mappings([mapping])
        .merge_values(True)
        .show_value(m_common.VisibilityMode.AUTO)
        .row_height(0.8)
        .fill_opacity(70)
        .legend(
            common.VizLegendOptions()
            .display_mode(m_common.LegendDisplayMode.LIST)
            .placement(m_common.LegendPlacement.BOTTOM)
            .show_legend(False)
            .calcs([])
        )
    )
    for target in _targets([query]):
        panel.with_target(target)
    return panel


def _selector(labels: Mapping[str, str]) -> str:
    return ", ".join([SELECTOR, *(f'{name}="{value}"' for name, value in labels.items())])


def _targets(queries: Sequence[Query]) -> list[prometheus.Dataquery]:
    return [
        prometheus.Dataquery()
        .expr(query.expr)
        .legend_format(query.legend)
        .range()
        .ref_id("ABCDEFGH"[i])
        .datasource(DATASOURCE)
        for i, query in enumerate(queries)
    ]


def _thresholds(steps: Steps) -> dashboard.ThresholdsConfig:
    return (
        dashboard.ThresholdsConfig()
        .mode(m.ThresholdsMode.ABSOLUTE)
        .steps([m.Threshold(value=value, color=colour) for value, colour in steps])
    )
