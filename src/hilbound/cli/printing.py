"""What was measured of samples, printed as tables."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from hilbound.evaluation.floors import TOO_WIDE, floors_text, is_too_wide
from hilbound.evaluation.quality import (
    METRICS,
    RECONSTRUCTION,
    MetricInfo,
    format_entry,
    percent,
)

if TYPE_CHECKING:
    from hilbound.reports.page import Table


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
    shares = measured.get("condition", {}).get("agreement")
    if shares is not None:
        real = f" (held-out rows: {percent(shares['real'])})" if "real" in shares else ""
        out.print(
            f"samples in the {measured['condition']['kind']} they were drawn for: "
            f"{percent(shares['model'])}{real}",
            highlight=False,
        )
    _print_bound(measured, out, err)
    if "latent" in measured:
        for line in latent_lines(measured["latent"]):
            out.print(line, highlight=False)


def latent_lines(block: dict[str, Any]) -> list[str]:
    """Return what was measured of a latent mixture, in lines."""
    bound, found = block["feature_bound"], block.get("log_likelihood")
    reached = (
        f"density of features, {block['components']:,} components, on {block['feature_rows']:,} "
        f"held-out rows: {100 * bound['tightness']:.1f} % of its limit (real data: "
        f"{100 * bound['real_tightness']:.1f} %), gap {bound['gap']:.4g} nats"
    )
    lines = [reached]
    if found is not None:
        lines.append(
            f"log-likelihood of {found['rows']:,} held-out rows: {found['mean']:.4g} ± "
            f"{found['standard_error']:.2g} nats (± {found['error_of_draws']:.2g} by the draws)"
        )
    return lines


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
    out.print(line + floors_text(bound), highlight=False, soft_wrap=True)
    if is_too_wide(bound):
        err.print(f"[bold yellow]warning:[/] {TOO_WIDE}", highlight=False)


def print_table(
    page: "Table",
    out: Console,
    *,
    title: str = "",
    caption: str = "",
    fixed: int = 1,
    shown: Sequence[int] | None = None,
) -> None:
    """Print a table of a report.

    Args:
        page: The table.
        out: Where to.
        title: What stands above it.
        caption: What stands below it.
        fixed: How many first columns tell the rows apart, and are never cut.
        shown: Which columns to print; all by default.
    """
    chosen = range(len(page.columns)) if shown is None else shown
    table = RichTable(title=escape(title) or None, caption=caption or None)
    for i in chosen:
        justify: Literal["right", "left"] = "right" if page.numeric[i] else "left"
        table.add_column(escape(page.columns[i]), justify=justify, no_wrap=i < fixed)
    for number, row in enumerate(page.rows):
        style = "bold" if number == page.highlight else None
        cells = (escape(row[i]) if i < fixed else _narrow(row[i]) for i in chosen)
        table.add_row(*cells, style=style)
    out.print(table)


def _narrow(cell: str) -> str:
    """Return a number with its deviation below it, which takes half the width."""
    return cell.replace(" ± ", "\n±\u00a0").replace(" %", "\u00a0%")


def _print_table(
    out: Console, title: str, infos: Mapping[str, MetricInfo], entries: dict[str, Any]
) -> None:
    table = RichTable(title=title)
    table.add_column("metric")
    for column in ("model", "real data", "better"):
        table.add_column(column, justify="right")
    for name, entry in entries.items():
        values = (format_entry(name, entry, side) for side in ("model", "real"))
        table.add_row(infos[name].title, *values, entry["better"])
    out.print(table)
