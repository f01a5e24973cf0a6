"""UCI regression: what is measured, by known answers, and how goals are judged."""

import math
import os

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from hilbound.errors import DataError
from hilbound.experiments.uci_regression import experiment, methods
from hilbound.experiments.uci_regression.experiment import EXPERIMENT, _goal, split_of
from hilbound.experiments.uci_regression.settings import GOALS, UciSettings


def rows_of(nll, method="default", name="concrete"):
    return [{"set": name, "method": method, "seed": i, "nll": v} for i, v in enumerate(nll)]


@pytest.mark.parametrize(("nll", "holds"), [([2.7, 2.8], True), ([2.7, 2.81], False)])
def test_a_goal_is_judged_by_the_mean_over_splits(nll, holds):
    claim = _goal(rows_of(nll), "concrete", "default")
    assert claim.holds is holds
    assert "over 2 splits" in claim.outcome


def test_high_effort_has_a_goal_of_its_own():
    rows = rows_of([2.7], "high")
    assert not _goal(rows, "concrete", "high").holds
    assert GOALS["concrete"]["high"] == 2.6


def test_the_scores_of_gaussians():
    mean, deviation, target = np.array([0.0]), np.array([2.0]), np.array([1.5])
    found = methods._of_gaussians(mean, deviation, target)
    below = quad(lambda z: norm.cdf(z, 0, 2) ** 2, -40, 1.5)[0]
    above = quad(lambda z: norm.sf(z, 0, 2) ** 2, 1.5, 40)[0]
    assert found["crps"] == pytest.approx(below + above, rel=1e-9)
    assert found["nll"] == pytest.approx(0.5 * (1.5 / 2) ** 2 + math.log(2 * math.sqrt(2 * np.pi)))
    assert found["coverage"] == 1


def test_integers_have_probabilities():
    split = split_of("made", 0)
    whole = methods.Split(split.x, split.y.round(), split.new, split.target.round(), 0)
    row = methods.measure("default", whole, UciSettings(max_epochs=3))
    # A probability, while the density may be above one.
    assert row["integer_nll"] > 0
    assert "integer_nll" not in methods.measure("default", split, UciSettings(max_epochs=3))


def test_the_scores_of_quantiles():
    mean, target = np.zeros(2), np.array([0.3, -2.5])
    quantiles = np.tile(norm.ppf(methods._LEVELS), (2, 1))
    found = methods._of_quantiles(quantiles[:, ::-1], mean, target)
    exact = methods._of_gaussians(mean, np.ones(2), target)
    assert found["crps"] == pytest.approx(exact["crps"], rel=0.03)
    assert found["coverage"] == exact["coverage"] == 0.5
    assert found["rmse"] == exact["rmse"]


@pytest.mark.parametrize("method", ["quantiles", "forest"])
def test_quantiles_of_trees_are_calibrated_on_a_made_table(method):
    if not methods.is_installed(method):
        pytest.skip(f"pip install {methods.LIBRARIES[method]} to run this")
    row = methods.measure(method, split_of("made", 0), UciSettings())
    assert "nll" not in row
    assert 0.1 < row["crps"] < 0.5  # 0.17 for the truth, 0.6 for one Gaussian
    assert row["coverage"] >= 0.5


def test_slow_methods_are_measured_on_the_first_splits():
    settings = UciSettings(few={"high": 2, "process": 1})
    cells = list(EXPERIMENT.cells(settings, range(4), []))
    seeds = {
        m: {c.options["seed"] for c in cells if c.options["method"] == m} for m in settings.methods
    }
    assert seeds["default"] == {0, 1, 2, 3}
    assert (seeds["high"], seeds["process"]) == ({0, 1}, {0})


def test_who_is_ahead_is_told_by_the_splits_that_both_have():
    def row(method, seed, crps):
        return {"set": "energy", "method": method, "seed": seed, "crps": crps}

    rows = [row("default", seed, 1.0 + seed) for seed in range(4)]  # 1.5 on the first two
    rows += [row("forest", 0, 1.3), row("forest", 1, 1.5), row("network", 1, 2.1)]
    settings = UciSettings()
    expected = "quantile regression forest on energy (1.400 against 1.500 on 2)"
    assert experiment._lower(settings, rows) == expected
    assert expected in EXPERIMENT.notes(settings, rows)
    assert experiment._lower(settings, rows[:4]) == ""


def test_rows_stay_valid_where_only_their_number_changes():
    def kept(method, **options):
        before, after = (
            EXPERIMENT.identity(UciSettings(**some), {"method": method}) for some in ({}, options)
        )
        return before == after

    assert kept("default", few={}, methods=("default",), sets=("energy",), process_rows=7)
    assert not kept("default", max_epochs=3)
    assert not kept("process", process_rows=7)


def test_a_table_that_is_missing_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("HILBOUND_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"needs the file uci/concrete\.npz: set HILBOUND_DATA"):
        split_of("concrete", 0)


@pytest.mark.data
@pytest.mark.skipif("HILBOUND_DATA" not in os.environ, reason="HILBOUND_DATA names no folder")
def test_splits_do_not_mix():
    split = split_of("concrete", 3)
    assert (len(split.y), len(split.target)) == (927, 103)
    assert split.x.shape[1] == split.new.shape[1] == 8
