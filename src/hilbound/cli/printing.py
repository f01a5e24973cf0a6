"""What was measured of samples, printed as tables."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from hilbound.evaluation.floors import TOO_WIDE, is_too_wide
from hilbound.evaluation.quality import (
    METRICS,
    RECONSTRUCTION,
    MetricInfo,
    format_entry,
    percent,
)


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
    _print_bound(measured, out, err)


def _print_bound(measured: dict[str, Any], out: Console, err: Console) -> None:
    """Print what the bound reached, beside what real data and one point reach."""
    bound = measured.get("conditional_bound") or measured.get("batch_bound")
    if bound is None:
        return
    if "conditional_bound" in measured:
        line = f"conditional bound on {bound['rows']:,} held-out rows"
    else:
        line = f"bound on held-out batches of {bound['rows']:,} rows"
    line += f": {percent(bound['tightness'])} of its limit"
    if "gap" in bound:
        line += f", gap {bound['gap']:.4g} nats"
    if "real" in bound:
        line += f"; real data reach {percent(bound['real'])}, one point {percent(bound['mean'])}"
    out.print(line, highlight=False, soft_wrap=True)
    if is_too_wide(bound):
        err.print(f"[bold yellow]warning:[/] {TOO_WIDE}", highlight=False)


def _print_table(
    out: Console, title: str, infos: Mapping[str, MetricInfo], entries: dict[str, Any]
) -> None:
    table = Table(title=title)
    table.add_column("metric")
    for column in ("model", "real data", "better"):
        table.add_column(column, justify="right")
    for name, entry in entries.items():
        values = (format_entry(name, entry, side) for side in ("model", "real"))
        table.add_row(infos[name].title, *values, entry["better"])
    out.print(table)
