"""What reconstruction diversity claims, from rows whose verdicts are known."""

import pytest

from hilbound.experiments.reconstruction_diversity import (
    CHANGES,
    EXPERIMENT,
    DiversitySettings,
    changed,
    gains,
    of_k,
)

SETTINGS = DiversitySettings(centers=(1, 10))
FIGURES = {
    "lost": 0.0,
    "distance": 1.0,
    "kinds": 1.0,
    "nearest": 8.0,
    "sure": 0.3,
    "density": 0.5,
    "precision": 0.9,
    "best": 0.05,
    "own_class": 0.3,
    "agreement": 0.4,
    "test_tightness": 0.5,
}
BETTER = {
    "lost": 0.1,
    "distance": 9.0,
    "kinds": 1.5,
    "nearest": 7.5,
    "sure": 0.35,
    "density": 0.55,
    "precision": 0.95,
    "agreement": 0.5,
}


def rows_with(**changes):
    """Three seeds in which ten centres are better, but a tenth is lost."""
    rows = []
    for seed in range(3):
        jitter = {name: value * (1 + 0.001 * seed) for name, value in FIGURES.items()}
        real = FIGURES | {"distance": 80.0, "precision": 0.95, "sure": 0.95}
        average = FIGURES | {"precision": 0.93, "sure": 0.31}
        own = {"protocol": "frozen", "seed": seed}
        rows += [
            jitter
            | {"protocol": "joint", "centers": 10, "seed": seed}
            | {"real": real, "average": average},
            jitter | own | {"centers": 1},
            jitter | BETTER | own | {"centers": 10} | changes,
            *(jitter | own | {"centers": 10, "change": change} for change in CHANGES),
        ]
    return rows


def test_verdicts_follow_the_rows():
    claims = EXPERIMENT.claims(SETTINGS, rows_with())
    assert [c.holds for c in claims] == [True, True, False, True, True, False, False]
    assert "distance² of two 1.0 ± 0.0 with K = 1, 9.0 ± 0.0 with K = 10" in claims[0].outcome


def test_lost_ones_have_the_reason_that_was_tested():
    lost = EXPERIMENT.claims(SETTINGS, rows_with())[2]
    assert "0.000 ± 0.000 with K = 1, 0.100 ± 0.000 with K = 10" in lost.outcome
    assert "which is too wide for it 0.000 ± 0.000 are lost" in lost.reason
    assert "its own rule, median/dim 0.000 ± 0.000 are lost" in lost.reason
    assert "unchanged 0.100 ± 0.000 are lost, distance² of the others 9.0 ± 0.0" in lost.reason


def test_what_holds_needs_no_reason():
    claims = EXPERIMENT.claims(SETTINGS, rows_with(lost=0.0, distance=79.0))[:6]
    assert [c.holds for c in claims] == [True] * 6
    assert all(not c.reason for c in claims)


def test_what_could_not_be_measured_does_not_hold():
    missing = dict.fromkeys(FIGURES) | {"lost": 1.0}
    claims = EXPERIMENT.claims(SETTINGS, rows_with(**missing))
    assert not any(c.holds for c in claims)


def test_a_reason_that_two_share_is_given_once():
    sharper, as_diverse = EXPERIMENT.claims(SETTINGS, rows_with(sure=0.31))[4:6]
    assert "Likely reasons are a short training" in sharper.reason
    assert as_diverse.reason == "As above."
    alone = EXPERIMENT.claims(SETTINGS, rows_with())[5]
    assert "Likely reasons are a short training" in alone.reason


@pytest.mark.parametrize("change", [{"nearest": 8.5}, {"sure": 0.31}])
def test_averages_are_to_be_beaten_by_both_measures(change):
    claim = EXPERIMENT.claims(SETTINGS, rows_with(**change))[4]
    assert claim.holds is False
    assert "with three times the steps lost 0.000" in claim.reason


@pytest.mark.parametrize(
    ("name", "worse"), [("nearest", 9.0), ("sure", 0.2), ("density", 0.4), ("precision", 0.8)]
)
def test_each_measure_of_validity_counts(name, worse):
    assert EXPERIMENT.claims(SETTINGS, rows_with(**{name: worse}))[1].holds is False


def test_the_likelihood_is_compared_at_its_own_variance():
    claim = EXPERIMENT.claims(SETTINGS, rows_with(lost=0.0))[6]
    assert claim.holds is True
    assert "agreement of classes 0.50 ± 0.00 against 0.40 ± 0.00" in claim.outcome
    assert EXPERIMENT.claims(SETTINGS, rows_with(lost=0.1))[6].holds is False
    assert changed(SETTINGS, "likelihood-own") == {
        "objective": "likelihood",
        "variance": "median/dim",
    }


def test_gains_are_positive_where_less_is_better():
    assert gains(SETTINGS, rows_with(), "nearest") == pytest.approx([0.5, 0.508, 0.516])
    assert all(gain < 0 for gain in gains(SETTINGS, rows_with(), "lost"))


def test_changed_trainings_are_not_among_those_of_their_k():
    assert len(of_k(rows_with(), 10)) == 3


def test_every_change_changes_something():
    shared = SETTINGS.model_dump()
    for change in CHANGES:
        options = changed(SETTINGS, change)
        assert options
        assert all(shared.get(name) != value for name, value in options.items())
    assert changed(SETTINGS, "wide-first") == {"variance": "60:15"}
    assert changed(SETTINGS, "narrow") == {"variance": 5.0}


def test_cells_come_in_two_rounds():
    first = list(EXPERIMENT.cells(SETTINGS, [0], []))
    assert [cell.options["centers"] for cell in first] == [10]
    second = list(EXPERIMENT.cells(SETTINGS, [0], [dict(first[0].options)]))
    assert len(second) == 1 + len(SETTINGS.centers) + len(CHANGES)
    assert len({cell.name for cell in second}) == len(second)
