"""What conditional fidelity claims, from rows whose verdicts are known."""

import pytest

from hilbound.experiments.conditional_fidelity import (
    DECODERS,
    EXPERIMENT,
    FidelitySettings,
    decoder_cell,
    encoder_cell,
)

SETTINGS = FidelitySettings(centers=(1, 10))
GOOD = {
    "lost": 0.001,
    "distance": 60.0,
    "precision": 0.95,
    "recall": 0.8,
    "agreement": 0.5,
    "tightness_1": 0.5,
    "floor_1": 0.3,
    "tightness_10": 0.8,
    "floor_10": 0.8,
    "seconds": 100.0,
}


def rows_with(**changes):
    rows = [{"decoder": "none", "seed": 0, "steps": 3}]
    for name in DECODERS:
        own = GOOD | (changes if name == "slices" else {})
        rows.append({"decoder": name, "seed": 0, **own, "real": dict(GOOD)})
    return rows


def verdicts(rows):
    return [claim.holds for claim in EXPERIMENT.claims(SETTINGS, rows)]


def test_decoders_wait_for_their_encoder():
    none = list(EXPERIMENT.cells(SETTINGS, [0, 1], []))
    assert none == [encoder_cell(0), encoder_cell(1)]
    some = list(EXPERIMENT.cells(SETTINGS, [0, 1], rows_with()[:1]))
    assert some[2:] == [decoder_cell(name, 0) for name in DECODERS]


def test_everything_good_holds():
    assert verdicts(rows_with()) == [True] * 5


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        ({"lost": 0.02}, 0),
        ({"distance": 40.0}, 1),
        ({"precision": 0.9}, 2),
        ({"recall": 0.6}, 3),
        ({"tightness_10": 0.7}, 4),
        ({"precision": None, "recall": None, "distance": None}, None),
    ],
)
def test_each_claim_has_its_own_figure(change, failing):
    found = verdicts(rows_with(**change))
    expected = [True, False, False, False, True]
    if failing is not None:
        expected = [i != failing for i in range(5)]
    assert found == expected


def test_tables_name_every_decoder_and_real_images():
    quality, tight = EXPERIMENT.tables(SETTINGS, rows_with())
    assert [line[0] for line in quality.rows] == [
        *(title for title, _ in DECODERS.values()),
        "real images with the feature",
    ]
    assert tight.rows[-1][1:] == ("0.50 / 0.30", "0.80 / 0.80")
