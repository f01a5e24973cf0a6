"""Draw the picture of ``docs/tables.md``: densities of held-out patients, and how intervals hold.

python docs/scripts/tables_page.py
"""

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split

from hilbound.estimators import ConditionalDensityEstimator
from hilbound.reports.drawing import PALETTE, canvas, tidy

PICTURE = Path(__file__).resolve().parents[1] / "images" / "tables.png"
SHOWN = 6
LEVELS = np.linspace(0.05, 0.95, 19)


def main() -> None:
    """Fit on three quarters of the patients and draw the rest."""
    X, y = load_diabetes(return_X_y=True, as_frame=True, scaled=False)
    X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
    model = ConditionalDensityEstimator(random_state=0).fit(X_train, y_train)
    figure, _ = canvas(9.0, 3.8)
    figure.clear()
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))

    # Patients from the lowest mean to the highest, each on a line of its own.
    order = np.argsort(model.predict(X_test))[:: len(X_test) // SHOWN][:SHOWN]
    q = model.predict_distribution(X_test.iloc[order])
    grid = torch.linspace(0, 400, 400, dtype=torch.float64)
    density = q.log_prob(grid[:, None, None].expand(-1, SHOWN, 1)).exp().numpy()
    height = 0.9 / density.max()
    for i in range(SHOWN):
        color = PALETTE[0]
        left.fill_between(grid, i, i + height * density[:, i], color=color, alpha=0.35, lw=0)
        left.plot(grid, i + height * density[:, i], color=color, lw=1)
        came = float(y_test.iloc[order[i]])
        label = "what came" if i == 0 else None
        left.plot([came, came], [i, i + 0.55], color=PALETTE[1], lw=2, label=label)
    left.set_yticks(range(SHOWN), [f"patient {i + 1}" for i in range(SHOWN)])
    left.set_xlabel("progression of the disease after a year")
    left.legend(frameon=False, loc="upper right")

    inside = []
    for level in LEVELS:
        low, high = model.predict_interval(X_test, coverage=float(level)).T
        inside.append(float(((y_test >= low) & (y_test <= high)).mean()))
    error = np.sqrt(LEVELS * (1 - LEVELS) / len(y_test))
    right.fill_between(LEVELS, LEVELS - 2 * error, LEVELS + 2 * error, color="#dddddd", lw=0)
    right.plot(LEVELS, LEVELS, color="#888888", lw=1)
    right.plot(LEVELS, inside, "o-", color=PALETTE[0], ms=4, lw=1)
    right.set_xlabel("coverage that was asked for")
    right.set_ylabel(f"share of {len(y_test)} held-out patients inside")
    right.set_title("grey: two standard errors", fontsize=9, color="#666666")
    for ax in (left, right):
        tidy(ax)
    figure.savefig(PICTURE, dpi=110)
    print(f"mean log density {model.score(X_test, y_test):.3f}, on {len(y_test)} patients")


if __name__ == "__main__":
    main()
