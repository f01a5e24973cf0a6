"""Tables with a target, and runs on them that take a second."""

from pathlib import Path

import numpy as np
import pandas as pd

from support.tiny_runs import ask


def houses(n: int = 120, seed: int = 0) -> pd.DataFrame:
    """A table of numbers, texts and missing cells with two targets."""
    rng = np.random.default_rng(seed)
    area = rng.uniform(30, 200, n)
    city = rng.choice(["Oslo", "Rome", "=Bonn"], n)
    price = 3 * area + 100 * (city == "Oslo") + rng.normal(0, 10 + area / 10)
    table = pd.DataFrame({"area": area.round(1), "rooms": 1 + area // 30, "city": city})
    table.loc[::7, "rooms"] = np.nan
    table.loc[3, "city"] = None
    return table.assign(price=price.round(2), rent=(price / 200 + rng.normal(size=n)).round(3))


def write(frame: pd.DataFrame, path: Path) -> Path:
    frame.to_csv(path, index=False)
    return path


def fit_quickly(table: Path, run: Path, *options: object, targets: tuple[str, ...] = ("price",)):
    """Ask for a fit of a few passes; the result has exit_code, stdout and stderr."""
    words = [word for target in targets for word in ("--target", target)]
    return ask("fit", table, *words, "--max-epochs", 3, "-o", run, *options)
