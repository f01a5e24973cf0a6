"""What was measured of samples, printed as tables."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from hilbound.evaluation.quality import METRICS, RECONSTRUCTION, MetricInfo, format_metric


def print_metrics(measured: dict[str, Any], out: Console, err: Console) -> None:
    """Print samples, and reconstructions where there are some, with real data beside them."""
    title = f"{measured['samples']:,} samples against held-out rows"
    _print_table(out, title, METRICS, measured["metrics"])
    if "far_from_data" in measured:
        err.print(f"[bold yellow]warning:[/] {measured['far_from_data']}", highlight=False)
    if "reconstruction" in measured:
        block = measured["reconstruction"]
        title = f"{block['reconstructions']} reconstructions of {block['inputs']:,} held-out rows"
        _print_table(out, title, RECONSTRUCTION, block["metrics"])
    if "conditional_bound" in measured:
        bound = measured["conditional_bound"]
        out.print(
            f"conditional bound on {bound['rows']:,} held-out rows: "
            f"{100 * bound['tightness']:.1f} % of its limit, gap {bound['gap']:.4g} nats"
            f"{_of_real_rows(bound)}",
            highlight=False,
        )


def _of_real_rows(bound: dict[str, Any]) -> str:
    # Runs that were measured by an earlier version do not have it.
    real = bound.get("real_tightness")
    if real is None:
        return ""
    k = bound["centers"]
    rows = "1 real row" if k == 1 else f"{k} real rows"
    return f"; {rows} in the place of the centres: {100 * real:.1f} %"


def _print_table(
    out: Console, title: str, infos: Mapping[str, MetricInfo], entries: dict[str, Any]
) -> None:
    table = Table(title=title)
    table.add_column("metric")
    for column in ("model", "real data", "better"):
        table.add_column(column, justify="right")
    for name, entry in entries.items():
        values = (format_metric(name, entry[side]) for side in ("model", "real"))
        table.add_row(infos[name].title, *values, entry["better"])
    out.print(table)
