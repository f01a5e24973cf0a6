"""The precision-recall experiment: how it judges rows, and what it measures on."""

import torch

from hilbound import datasets
from hilbound.experiments import precision_recall
from hilbound.experiments.base import Cell
from hilbound.experiments.precision_recall import EXPERIMENT, MapSettings

SETTINGS = MapSettings(
    weights=(0.2, 0.5), powers=(0.7, 1.0), variances=(1.0,), batches=(), data=("digits", "moons")
)


def point(objective, number, recall, precision, variance=1.0, batch=512):
    return {
        "part": "map",
        "objective": objective,
        "number": number,
        "variance": variance,
        "batch": batch,
        "seed": 0,
        "recall": recall,
        "precision": precision,
        "coverage": 0.8,
        "frechet_distance": 20.0,
    }


def candidate(name, data, seed, quality):
    return {
        "part": "default",
        "data": data,
        "candidate": name,
        "seed": seed,
        "coverage": quality / 2,
        "recall": quality / 2,
        "precision": 0.9,
        "frechet_distance": 20.0,
    }


def rows(points, qualities):
    return points + [
        candidate(name, data, seed, value)
        for name, by_data in qualities.items()
        for data, values in by_data.items()
        for seed, value in enumerate(values)
    ]


BOUGHT = [
    point("debiased", 0.2, 0.6, 0.95),
    point("debiased", 0.5, 0.95, 0.85),
    point("schatten", 0.7, 0.94, 0.86),
    point("schatten", 1.0, 0.6, 0.95),
]
PLAIN = {"digits": [1.0, 1.1], "moons": [1.0, 1.2]}
BETTER = {"digits": [1.5, 1.6], "moons": [1.4, 1.5]}
MIXED = {"digits": [1.5, 1.6], "moons": [1.1, 1.5]}
WORSE = {"digits": [1.5, 1.6], "moons": [0.8, 0.9]}


def verdicts(points, debiased, calibrated):
    qualities = {"nuclear": PLAIN, "debiased": debiased, "calibrated": calibrated}
    return [claim.holds for claim in EXPERIMENT.claims(SETTINGS, rows(points, qualities))]


def test_recall_is_bought_where_it_rises_and_precision_falls():
    assert verdicts(BOUGHT, BETTER, BETTER)[:2] == [True, True]
    free = [
        point("debiased", 0.2, 0.6, 0.9),
        point("debiased", 0.5, 0.95, 0.95),
        point("schatten", 0.7, 0.5, 0.86),
        point("schatten", 1.0, 0.6, 0.95),
    ]
    assert verdicts(free, BETTER, BETTER)[:2] == [False, False]


def test_both_at_once_needs_one_setting_that_has_both():
    assert verdicts(BOUGHT, BETTER, BETTER)[2] is False
    both = [*BOUGHT, point("schatten", 0.85, 0.92, 0.93)]
    assert verdicts(both, BETTER, BETTER)[2] is True


def test_a_default_must_win_everywhere_and_in_every_seed():
    assert verdicts(BOUGHT, BETTER, WORSE)[3:] == [True, False]
    assert verdicts(BOUGHT, MIXED, BETTER)[3:] == [None, True]


def test_candidates_are_measured_on_rows_that_they_were_not_trained_on(monkeypatch, tmp_path):
    seen = {}

    def quality(dataset, _space, _samples, *, held_out):
        seen["train"], seen["held_out"] = dataset.train, held_out
        return {}

    monkeypatch.setattr(precision_recall, "sample_quality", quality)
    settings = EXPERIMENT.settings(quick=True)
    EXPERIMENT.measure(
        settings,
        Cell.of(part="default", data="digits", candidate="nuclear", seed=2).options,
        tmp_path,
    )
    assert torch.equal(seen["train"], datasets.load("digits", seed=2).train)
    same = (seen["held_out"][:, None] == seen["train"][None]).all(-1).any()
    assert not bool(same)
