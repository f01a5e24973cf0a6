"""Write ``docs/experiments/README.md``: every experiment with its verdicts, from the results kept.

    python docs/scripts/index.py

Run it after ``hilbound experiment NAME -o docs/experiments/NAME``.
"""

import json
from pathlib import Path

from hilbound.experiments import EXPERIMENTS, get_experiment
from hilbound.experiments.pages import markdown_table
from hilbound.experiments.runner import RESULT
from hilbound.reports.page import Table

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "experiments"
VERDICTS = {True: "hold", False: "fail", None: "not shown"}
TEXT = """# Experiments

The paper's experiments, and those on its open questions. One command reruns each of them. A page
says what was claimed, what came out, and whether the claim holds. A claim that fails is shown as
failed, with the reason that was tested. What is proved (that no cost passes its limit) is no
finding: it is listed apart and not counted. `result.json` beside the page has every number with
its seed, the settings, the machine and the versions.

```
hilbound list                                    # what can be run
hilbound experiment mechanism-isolation --quick  # seconds: shows that everything runs
HILBOUND_DATA=path/to/data hilbound experiment generation -o docs/experiments/generation
```

A full run takes minutes, and goes on where it was stopped. Its cells run side by side
(`--workers`). `--reuse` keeps the rows of a `result.json`, measures what is missing and writes the
page anew. Each cell has one thread, so figures do not depend on how many run at once. Three seeds
are weak evidence: a difference within its deviation says nothing.

Only one of CIFAR-10's five training batches was at hand, and its images had been stored as JPEG.
Figures on it are of 9,000 training, 1,000 validation and 5,000 test images. CelebA was not at hand.
"""


def line(name: str) -> tuple[str, str, str, str]:
    """Return an experiment's line of the table."""
    path = FOLDER / name / RESULT
    if not path.exists():
        return name, EXPERIMENTS.describe(name), "not run", ""
    result = json.loads(path.read_text(encoding="utf-8"))
    # What is proved is checked, and no finding.
    findings = [claim for claim in result["claims"] if not claim.get("theorem")]
    counts = {
        word: sum(claim["holds"] is holds for claim in findings) for holds, word in VERDICTS.items()
    }
    verdicts = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    theorems = len(result["claims"]) - len(findings)
    if theorems:
        verdicts += f"; {theorems} proved and checked"
    title = get_experiment(name).title
    minutes = f"{result['seconds'] / 60:.0f}"
    return f"[{title}]({name}/README.md)", EXPERIMENTS.describe(name), verdicts, minutes


def main() -> None:
    """Write the page."""
    columns = ("experiment", "what is asked", "claims", "minutes of one process")
    rows = tuple(line(name) for name in EXPERIMENTS)
    table = markdown_table(Table(columns, rows, "All experiments"))
    (FOLDER / "README.md").write_text(f"{TEXT}\n{table}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
