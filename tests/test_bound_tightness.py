"""What bound tightness claims, from rows whose verdicts are known."""

import pytest
from scipy.stats import spearmanr

from hilbound.experiments.bound_tightness import (
    EXPERIMENT,
    QUALITIES,
    TightnessSettings,
    rank_correlation,
)
from hilbound.experiments.yardstick import MEASURES

SETTINGS = TightnessSettings(centers=(1, 5), lengths=(10, 100))


def rows_with(change=lambda _: {}):
    """The gap falls with steps and with K, and every quality follows it."""
    rows = []
    for steps in SETTINGS.lengths:
        for k in SETTINGS.centers:
            for seed in range(3):
                gap = 1.0 - 0.005 * steps - 0.01 * k + 0.001 * seed
                row = {"steps": steps, "centers": k, "seed": seed, "test_gap": gap,
                       "test_tightness": 0.5}  # fmt: skip
                row |= {name: 1 - m.better * gap / 2 for name, m in MEASURES.items()}
                rows.append(row | change(row))
    return rows


def verdicts(rows):
    return [claim.holds for claim in EXPERIMENT.claims(SETTINGS, rows)]


def test_all_hold_where_quality_follows_the_gap():
    assert verdicts(rows_with()) == [True] * (1 + 2 * len(QUALITIES))


def test_a_quality_that_falls_with_k_fails_across_k_only():
    def change(row):
        return {"sure": 0.9 - 0.1 * row["centers"] + 0.001 * row["steps"] - 0.0001 * row["seed"]}

    found = verdicts(rows_with(change))
    i = QUALITIES.index("sure")
    assert found[1 + i]
    assert not found[1 + len(QUALITIES) + i]
    assert sum(not holds for holds in found) == 1


def test_a_gap_that_grows_with_k_fails():
    assert not verdicts(rows_with(lambda row: {"test_gap": 0.1 * row["centers"]}))[0]


def test_the_rank_correlation_is_spearmans():
    rows = rows_with(lambda row: {"best": 0.05 + (row["seed"] * 7 + row["steps"]) % 5})
    gaps, errors = ([row[name] for row in rows] for name in ("test_gap", "best"))
    assert rank_correlation(rows, "best") == pytest.approx(spearmanr(gaps, errors)[0], abs=1e-3)


def test_cells_are_trainings_of_all_lengths():
    cells = list(EXPERIMENT.cells(SETTINGS, [0, 1], []))
    assert len({cell.name for cell in cells}) == len(cells) == 8


def test_trainings_without_reconstructions_to_measure_do_not_count():
    rows = rows_with(lambda row: {"sure": None} if row["steps"] == 10 else {})
    assert rank_correlation(rows, "sure") == rank_correlation(rows[6:], "sure")
    assert rank_correlation(rows[:6], "sure") is None
    assert verdicts([row | {"sure": None} for row in rows])[1 + QUALITIES.index("sure")] is False
