"""The tables and figures of docs/engine.md, from what the benchmarks have stored.

    python docs/scripts/engine_page.py

Reads what the benchmarks have left in ``benchmarks/results``, and writes the tables between the
marks of ``docs/engine.md`` and the two figures: milliseconds against n with the floor of three
products, and the error of the value against milliseconds.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from marks import fill

from hilbound.reports import plots
from hilbound.reports.drawing import canvas

HERE = Path(__file__).resolve().parents[2]
DOCS = HERE / "docs"
Rows = dict[str, Any]


def stored(name: str) -> Rows:
    """Return the content of a file of results."""
    content: Rows = json.loads(
        (HERE / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8")
    )
    return content


def squares(rows: Rows, perturbation: float) -> dict[int, Rows]:
    """Return the rows of square matrices by their size."""
    pattern = re.compile(rf"square (\d+), perturbed by {perturbation}")
    found = {int(m[1]): row for name, row in rows.items() if (m := pattern.fullmatch(name))}
    return dict(sorted(found.items()))


def clouds(rows: Rows, variance: float) -> dict[int, Rows]:
    """Return the rows of points in the plane by their number."""
    pattern = re.compile(rf"plane (\d+), variance {variance}")
    found = {int(m[1]): row for name, row in rows.items() if (m := pattern.fullmatch(name))}
    return dict(sorted(found.items()))


def large(rows: Rows, variance: float) -> dict[int, Rows]:
    """Return the rows of sets that no matrix holds by their size."""
    pattern = re.compile(rf"large (\d+), variance {variance}")
    found = {int(m[1]): row for name, row in rows.items() if (m := pattern.fullmatch(name))}
    return dict(sorted(found.items()))


def draw_times(rows: Rows) -> None:
    """Draw milliseconds against n for every method."""
    figure, ax = canvas(6.4, 4.2)
    dense = squares(rows, 0.3)
    for number, (name, label) in enumerate(
        (("svd", "SVD (LAPACK, float32)"), ("eigen", "eigen, tail kept"))
    ):
        times = [row["milliseconds"][name] for row in dense.values()]
        ax.plot(list(dense), times, marker="o", color=plots.PALETTE[number], label=label)
    floor = [row["milliseconds"]["three products"] for row in dense.values()]
    ax.plot(list(dense), floor, color="0.5", linestyle="--", label="floor: three products")
    plane = {n: row["milliseconds"]["tolerance 0.0001"] for n, row in clouds(rows, 1.4).items()}
    plane |= {n: 1000 * row["seconds"] for n, row in large(rows, 1.4).items()}
    ax.plot(
        list(plane),
        list(plane.values()),
        marker="s",
        color=plots.PALETTE[2],
        label="low rank, plane, certified to 1e-4",
    )
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("n points against n centres")
    ax.set_ylabel("milliseconds, value and gradient")
    ax.legend(frameon=False)
    figure.savefig(DOCS / "images" / "engine_time.png", dpi=160)


def draw_errors(rows: Rows) -> None:
    """Draw the error of the value against the time that it takes."""
    figure, ax = canvas(6.4, 4.2)
    for number, (n, row) in enumerate(clouds(rows, 1.4).items()):
        found = [
            (row["milliseconds"][name], entry["error"], entry["certificate"])
            for name, entry in row.items()
            if name.startswith("tolerance") and "low rank" in entry["plan"]
        ]
        times, errors, certificates = zip(*sorted(found), strict=True)
        color = plots.PALETTE[number]
        ax.plot(times, errors, marker="s", color=color, label=f"low rank, plane, n = {n:,}")
        ax.plot(times, certificates, color=color, linestyle=":", linewidth=1)
    for number, n in enumerate((1024, 2048)):
        row = squares(rows, 0.3)[n]
        for name, marker in (("svd", "o"), ("eigen", "D")):
            ax.plot(
                row["milliseconds"][name],
                row[f"{name}, error of the value"],
                marker=marker,
                color=plots.PALETTE[3 + number],
                linestyle="none",
                label=f"{name}, MNIST, n = {n:,} (relative)",
            )
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("milliseconds, value and gradient")
    ax.set_ylabel("error of the value (dotted: certificate)")
    ax.legend(frameon=False, fontsize=8)
    figure.savefig(DOCS / "images" / "engine_error.png", dpi=160)


def nuclear_table(rows: Rows) -> list[tuple[str, str, str, str]]:
    """Return the rows of the table about nuclear norms."""
    lines = []
    for variance, hint, goal in ((1.4, "median", 50), (0.3, "a fifth of it", 30)):
        row = clouds(rows, variance)[2048]
        entry = row["tolerance 0.0001"]
        lines.append(
            (
                f"fidelity, 2,048 points in the plane, variance {variance} ({hint})",
                "float32 SVD + UVᵀ",
                f"≥ {goal}×",
                (
                    f"**{entry['svd / factors']:.0f}×** ("
                    f"{row['milliseconds']['tolerance 0.0001']:.0f} ms);"
                    f" certificate {entry['certificate']:.0e}, error {entry['error']:.0e}, of the "
                    f"gradient {entry['error of the gradient']:.0e}"
                ),
            )
        )
    for variance in (1.4, 0.3):
        row = large(rows, variance)[100_000]
        lines.append(
            (
                f"the same, 100,000 points, variance {variance}",
                "nothing else runs it",
                "≤ 10 s, ≤ 2 GB",
                (
                    f"**{row['seconds']:.1f} s, {row['peak, MB'] / 1000:.1f} GB** in all (rank "
                    f"{row['rank']}); certificate {row['certificate']:.0e}"
                ),
            )
        )
    for n in (1024, 2048):
        for perturbation in (0.1, 0.3):
            row = squares(rows, perturbation)[n]
            value, centres = "error of the value", "error of the gradient to the centres"
            lines.append(
                (
                    f"MNIST, {n:,} images against their copy + {perturbation} noise",
                    "float32 SVD + UVᵀ",
                    "≥ 2×, value ≤ 1e-5, gradient no worse",
                    (
                        f"**{row['svd / eigen']:.2f}×** "
                        f"({row['milliseconds']['eigen']:.0f} ms); value "
                        f"{row[f'eigen, {value}']:.0e} (SVD {row[f'svd, {value}']:.0e}), centres "
                        f"{row[f'eigen, {centres}']:.0e} (SVD {row[f'svd, {centres}']:.0e})"
                    ),
                )
            )
    small, big = rows["rectangle 2048 x 256"], squares(rows, 0.3)[2048]
    fast = min(small["milliseconds"][name] for name in ("svd", "eigen"))
    lines.append(
        (
            "2,048 images against 256 centres",
            "the square of 2,048",
            "≥ 5×",
            f"**{big['milliseconds']['eigen'] / fast:.0f}×** the square's best ({fast:.0f} ms)",
        )
    )
    return lines


def sums_table(parts: Rows) -> list[tuple[str, str, str, str]]:
    """Return the rows of the table about pair sums and inverse forms."""
    full, few, plane = (
        parts[name] for name in ("scalar_cost", "scalar_cost_of_few", "scalar_cost_of_the_plane")
    )
    ratio, memory, bound = full["ratio to three products"], parts["memory"], parts["full_bound"]
    lines = [
        (
            "scalar cost, 10,000 × 10,000, d = 784",
            "three bare GEMMs",
            "≤ 1.5×",
            f"**{ratio['scalar cost']:.2f}×** ({full['seconds']['scalar cost']:.1f} s; floor "
            f"1.17×); plain sums {ratio['scalar cost, recomputed']:.1f}×" + _others(ratio, "×"),
        ),
        (
            "its memory above the inputs",
            "",
            "≤ 300 MB",
            (
                f"**{memory['MB above the inputs, scalar cost']:.0f} MB** (likelihood "
                f"{memory['MB above the inputs, likelihood']:.0f} MB)"
            ),
        ),
    ]
    for title, part in (("1,000 × 1,000, d = 784", few), ("10,000 × 10,000, d = 2", plane)):
        seconds = part["seconds"]
        lines.append(
            (
                f"scalar cost, {title}",
                "other libraries",
                "faster",
                f"**{seconds['scalar cost']:.3f} s**; plain sums "
                f"{seconds['scalar cost, recomputed']:.3f} s" + _others(seconds, " s"),
            )
        )
    lines.append(
        (
            "one bound of all of MNIST, 60,000 × 60,000",
            "GEMMs of the tiles it needs",
            "≤ 1.5×",
            f"**{bound['ratio to products']:.2f}×** ({bound['seconds']['bound']:.0f} s)",
        )
    )
    forms = parts["inverse_forms"]
    for name, row in ((name, forms[name]) for name in forms if name.startswith("M =")):
        seconds = row["seconds"]
        lines.append(
            (
                f"inverse form, {name}",
                "torch through the factor; eigenvectors",
                "faster",
                (
                    f"**{seconds['ours']:.3f} s**; {seconds['torch, through the factor']:.3f} s; "
                    f"{seconds['eigenvectors']:.3f} s"
                ),
            )
        )
    return lines


def _others(values: Rows, unit: str) -> str:
    named = {
        name: value
        for name, value in values.items()
        if name.startswith(("geomloss", "keops", "pykeops"))
    }
    return "".join(f"; {name} {value:.2f}{unit}" for name, value in named.items())


def markdown(head: tuple[str, ...], rows: list[tuple[str, ...]], texts: int) -> str:
    """Return a table. All columns but the first ``texts`` hold numbers, and end at the right."""
    marks = ["---"] * texts + ["--:"] * (len(head) - texts)
    lines = [head, tuple(marks), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def each_row(content: Rows, write: Callable[[Rows], tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return the names of the rows, each with what is written of it."""
    return [(name, *write(row)) for name, row in content["rows"].items()]


def spectra_table(content: Rows) -> str:
    """Return how much faster the library is than LAPACK for every spectrum of the zoo."""
    errors = ("error of the value", "error of the gradient", "error of the gradient, svd")
    rows = each_row(
        content,
        lambda row: (
            f"{row['milliseconds']['svd']:.0f}",
            f"**{row['svd / ours']:.2f}×**",
            *(f"{row[error]:.0e}" for error in errors),
        ),
    )
    head = ("spectrum", "SVD, ms", "ours", "value", "gradient", "of the SVD")
    ratios = [row["svd / ours"] for row in content["rows"].values()]
    range_ = f"n = {content['size']:,}; ratios from {min(ratios):.2f} to {max(ratios):.2f}; "
    return markdown(head, rows, 1) + made_by(content, "spectra", range_)


def blocks_table(content: Rows) -> str:
    """Return how much faster batches of small matrices are."""
    ways = ("one after another", "library")
    rows = each_row(
        content,
        lambda row: (
            *(f"{row['milliseconds'][way]:.0f}" for way in ways),
            f"**{row['times as fast']:.2f}×**",
        ),
    )
    head = ("matrices", "one after another, ms", "ours, ms", "ratio")
    return markdown(head, rows, 1) + made_by(content, "small_blocks")


def floors_table(content: Rows) -> str:
    """Return what the parts of every method take on one core, and what they leave to gain."""
    names = ("svd", "eigen-decomposition", "eigen-decomposition in float64", "product")
    least = "svd / (eigen-decomposition and three products)"
    rows = each_row(
        content,
        lambda row: (
            *(f"{row[name]:.3g}" for name in names),
            f"{row['svd / product']:.0f}",
            f"**{row[least]:.2f}×**",
        ),
    )
    head = ("matrix", "SVD, ms", "eigen, ms", "in float64", "product", "products in an SVD", "most")
    return markdown(head, rows, 1) + made_by(content, "floors")


def passes_table(content: Rows) -> str:
    """Return the nanoseconds that a pair takes in each pass."""
    found = content["nanoseconds of a pair"]
    head = ("", *found)
    row = ("nanoseconds of a pair", *(f"{value:.2f}" for value in found.values()))
    return markdown(head, [row], 1) + made_by(content, "floors")


def below_table(content: Rows) -> str:
    """Return how fast fewer than a thousand points in the plane are, and a training with them."""
    parts = {**content["rows"], "moons, 40 steps of 256": content["moons, steps of 256"]}
    rows = [
        (
            name,
            f"{row['milliseconds']['svd']:.3g}",
            f"{row['milliseconds']['library']:.3g}",
            f"**{row['times as fast, library']:.2f}×**",
            row.get("plan", "").split(":")[0],
        )
        for name, row in parts.items()
    ]
    most = content["moons, steps of 256"]["times as fast, no norm"]
    head = ("work", "SVD, ms", "ours, ms", "ratio", "first method")
    more = f"with a norm that takes no time, the steps would be {most:.2f} times as fast; "
    return markdown(head, rows, 1) + made_by(content, "below_thousand", more)


def step_shares(content: Rows) -> str:
    """Return what a training step takes, in words."""
    parts = content["milliseconds"]
    norm, whole = parts["nuclear norm and polar factor"], sum(parts.values())
    return (
        f"A training step on MNIST with {content['batch_size']:,} images takes {whole:.0f} ms. The "
        f"nuclear norm takes {norm:.0f} of them, and network, Gram matrix and optimiser "
        f"{whole - norm:.0f}. So a step takes {whole / (whole - norm):.1f} times as long as one "
        "whose nuclear norm takes no time. The goal was 1.3.\n"
    ) + made_by(content, "training_step")


def overhead_table(content: Rows) -> str:
    """Return what a training step costs beyond its network and objective."""
    rows = each_row(
        content,
        lambda row: tuple(
            f"{row[f'{unit} {what}']:.1f}"
            for unit in ("milliseconds", "core milliseconds")
            for what in ("of a step, plain loop", "of a step, fit", "beyond")
        ),
    )
    head = ("training", "plain loop, ms", "`fit`", "beyond", "in core ms", "`fit`", "beyond")
    return markdown(head, rows, 1) + made_by(content, "step_overhead")


def threads_table(content: Rows) -> str:
    """Return the milliseconds of a step by threads, way of waiting, and neighbours."""
    found = content["milliseconds of a step"]
    ways = list(next(iter(next(iter(found.values())).values())))
    rows = [
        (name, neighbours, *(f"{cells[way]:.1f}" for way in ways))
        for name, cases in found.items()
        for neighbours, cells in cases.items()
    ]
    return markdown(("training", "beside", *ways), rows, 2) + made_by(content, "threads")


def quality_table(content: Rows) -> str:
    """Return after how many seconds samples covered the data, for every method and data set."""
    measured = {key.partition(": ")[0] for key in content["rows"]}
    lines = {data: goals for data, goals in content["lines"].items() if data in measured}
    found: dict[str, dict[str, Rows]] = {}
    for key, row in content["rows"].items():
        data, _, method = key.rpartition(", seed")[0].partition(": ")
        found.setdefault(method, {}).setdefault(data, row)
    head = ["method"]
    for data, goals in lines.items():
        head += [f"{data} {goal:.2f}" for goal in goals]
    head += ["mnist: best", "precision", "recall"]
    rows = []
    for method, of_data in found.items():
        cells = [
            _seconds(of_data.get(data), goal) for data, goals in lines.items() for goal in goals
        ]
        mnist = of_data.get("mnist", {})
        names = ("best", "precision", "recall")
        cells += [f"{mnist[name]:.2f}" if name in mnist else "–" for name in names]
        rows.append((method, *cells))
    return markdown(tuple(head), rows, 1) + made_by(content, "time_to_quality")


def _seconds(row: Rows | None, goal: float) -> str:
    if row is None:
        return "–"
    reached = row["reached"].get(f"{goal:g}")
    return "not" if reached is None else f"{reached:.1f}"


def made_by(content: Rows, name: str, more: str = "") -> str:
    """Return the line below a table: what made it, and where."""
    threads = f", threads: {content['threads']}" if "threads" in content else ""
    return (
        f"\n*{more}{content['processor']}{threads}; `benchmarks/{name}.py`, "
        f"`benchmarks/results/{name}.json`.*\n"
    )


def main() -> None:
    """Write tables and figures."""
    nuclear, sums = stored("nuclear_norm"), stored("pair_sums")
    draw_times(nuclear["rows"])
    draw_errors(nuclear["rows"])
    lines = ["| work | against | goal | measured |", "|---|---|---|---|"]
    lines += ["| " + " | ".join(row) + " |" for row in nuclear_table(nuclear["rows"])]
    lines += ["| " + " | ".join(row) + " |" for row in sums_table(sums)]
    fill(DOCS / "engine.md", "table", "\n".join(lines) + "\n")
    fill(DOCS / "engine.md", "spectra", spectra_table(stored("spectra")))
    fill(DOCS / "engine.md", "blocks", blocks_table(stored("small_blocks")))
    fill(DOCS / "engine.md", "floors", floors_table(stored("floors")))
    fill(DOCS / "engine.md", "passes", passes_table(stored("floors")))
    fill(DOCS / "engine.md", "below", below_table(stored("below_thousand")))
    fill(DOCS / "engine.md", "step", step_shares(stored("training_step")))
    fill(DOCS / "engine.md", "overhead", overhead_table(stored("step_overhead")))
    fill(DOCS / "engine.md", "threads", threads_table(stored("threads")))
    fill(DOCS / "engine.md", "quality-time", quality_table(stored("time_to_quality")))


if __name__ == "__main__":
    main()
