"""What bound tightness claims, from rows whose verdicts are known."""

import pytest
from scipy.stats import spearmanr

from hilbound.experiments.bound_tightness import (
    EXPERIMENT,
    QUALITIES,
    TightnessSettings,
    correlations,
    limit_ranges,
    rank_correlation,
)
from hilbound.experiments.shared.yardstick import MEASURES

SETTINGS = TightnessSettings(centers=(1, 5, 10), steps=100, lengths=(10, 50, 100))
ACROSS, WITHIN = 2, 2 + len(QUALITIES)


def row_of(protocol, k, seed, steps):
    """The gap falls with steps and with K, and every quality follows it; seeds differ by more."""
    gap = 1.0 - 0.005 * steps - 0.01 * k + 0.1 * seed
    row = {
        "protocol": protocol,
        "centers": k,
        "seed": seed,
        "test_gap": gap,
        "test_tightness": 0.5,
        "test_log_limit": -2.0 + 0.2 * seed,
    }
    if protocol == "frozen":
        row["steps"] = steps
    else:
        row["test_log_limit"] += 0.03 * k
    return row | {name: 1 - m.better * gap / 2 for name, m in MEASURES.items()}


def rows_with(change=lambda _: {}):
    cells = [("joint", 100), *(("frozen", steps) for steps in SETTINGS.lengths)]
    rows = [
        row_of(protocol, k, seed, steps)
        for protocol, steps in cells
        for k in SETTINGS.centers
        for seed in range(3)
    ]
    return [row | change(row) for row in rows]


def claims(rows):
    return EXPERIMENT.claims(SETTINGS, rows)


def verdicts(rows):
    return [claim.holds for claim in claims(rows)]


def test_all_hold_where_quality_follows_the_gap():
    assert verdicts(rows_with()) == [True] * (2 + 2 * len(QUALITIES))


def test_a_quality_that_falls_with_k_fails_across_k_only():
    def change(row):
        return {"sure": 0.9 - 0.05 * row["centers"] + 0.001 * row.get("steps", 0)}

    found = verdicts(rows_with(change))
    i = QUALITIES.index("sure")
    assert not found[ACROSS + i]
    assert found[WITHIN + i]
    assert sum(not holds for holds in found) == 1


def test_a_quality_that_falls_with_training_fails_within_k_only():
    def change(row):
        return {"best": 0.1 + 0.001 * row.get("steps", 0) - 0.005 * row["centers"]}

    found = verdicts(rows_with(change))
    assert [i for i, holds in enumerate(found) if not holds] == [WITHIN + QUALITIES.index("best")]


def test_seeds_do_not_mix():
    # Encoders whose features leave less open have a larger gap and better reconstructions.
    rows = rows_with(lambda row: {"best": row["test_gap"] / 2 - 5 * row["seed"]})
    assert rank_correlation([row for row in rows if row["protocol"] == "frozen"], "best") < 0
    assert verdicts(rows) == [True] * len(verdicts(rows))


def test_claims_about_quality_know_nothing_of_joint_trainings():
    def change(row):
        wrong = dict.fromkeys(QUALITIES, 0.5) | {"test_gap": 7.0 - 0.1 * row["centers"]}
        return wrong if row["protocol"] == "joint" else {}

    with_joint, without = claims(rows_with(change)), claims(rows_with())
    assert with_joint[ACROSS:] == without[ACROSS:]


@pytest.mark.parametrize(("claim", "protocol"), [(0, "frozen"), (1, "joint")])
def test_a_gap_that_grows_with_k_in_one_seed_fails(claim, protocol):
    def change(row):
        grows = (row["protocol"], row["seed"]) == (protocol, 1)
        return {"test_gap": 0.1 * row["centers"]} if grows else {}

    found = verdicts(rows_with(change))[:2]
    assert not found[claim]
    assert found[1 - claim]


def test_limits_of_each_seed_are_compared_within_it():
    outcome = claims(rows_with())[1].outcome
    assert "lie up to 0.27 nats apart (encoder frozen: 0)" in outcome
    assert limit_ranges(rows_with()) == pytest.approx([0.3] * 3)


def test_the_rank_correlation_is_spearmans():
    # Of one seed no gap is there twice: nothing depends on how rounding orders equal ones.
    rows = rows_with(lambda row: {"best": 0.05 + (row.get("steps", 0) // 10 + row["centers"]) % 7})
    rows = [row for row in rows if (row["protocol"], row["seed"]) == ("frozen", 0)]
    gaps, errors = ([row[name] for row in rows] for name in ("test_gap", "best"))
    assert rank_correlation(rows, "best") == pytest.approx(spearmanr(gaps, errors)[0], abs=1e-3)


def test_decoders_wait_for_the_encoder():
    first = list(EXPERIMENT.cells(SETTINGS, [0, 1], []))
    assert [cell.options["protocol"] for cell in first] == ["joint"] * 6
    rows = [dict(cell.options) for cell in first if cell.options["seed"] == 1]
    after = list(EXPERIMENT.cells(SETTINGS, [0, 1], rows))[6:]
    assert {cell.options["seed"] for cell in after} == {1}
    assert len({cell.name for cell in after}) == len(after) == 9


def test_settings_are_consistent_in_both_forms():
    for quick in (False, True):
        settings = EXPERIMENT.settings(quick=quick)
        # The encoder is one of the joint trainings, and both protocols train for as long.
        assert settings.encoder_centers in settings.centers
        assert settings.lengths[-1] == settings.steps


def test_trainings_without_reconstructions_to_measure_do_not_count():
    own = [row for row in rows_with() if (row["protocol"], row["seed"]) == ("frozen", 0)]
    some = [row | {"sure": None} if row["steps"] == 10 else row for row in own]
    assert rank_correlation(some, "sure") == rank_correlation(own[3:], "sure")
    assert rank_correlation(own[:2], "sure") is None
    assert correlations(own[:2], "sure") == []


def test_what_could_not_be_measured_is_not_shown():
    across, within = (first + QUALITIES.index("sure") for first in (ACROSS, WITHIN))
    none = verdicts([row | {"sure": None} for row in rows_with()])
    assert (none[across], none[within]) == (None, None)
    one_k = verdicts(rows_with(lambda row: {"sure": None} if row["centers"] == 1 else {}))
    assert one_k[within] is None
    # What is known may be enough to fail.
    worse = {1: {"sure": None}, 5: {"sure": 0.5}, 10: {}}
    against = rows_with(lambda row: worse[row["centers"]] or {"sure": row["test_gap"] / 3})
    assert verdicts(against)[within] is False
