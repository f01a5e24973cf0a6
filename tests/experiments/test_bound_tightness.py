"""What bound tightness claims, from rows whose verdicts are known."""

import pytest

from hilbound.experiments.bound_tightness import (
    EXPERIMENT,
    QUALITIES,
    TightnessSettings,
    changes,
    limit_ranges,
)
from hilbound.experiments.shared.yardstick import MEASURES

SETTINGS = TightnessSettings(centers=(1, 5, 10), steps=100, lengths=(10, 50, 100))
# Two claims about the gap and one about real rows come first.
FIRST = 3


def row_of(protocol, k, seed, steps):
    """The gap falls with steps and with K, and every quality follows it; seeds differ by more."""
    gap = 1.0 - 0.005 * steps - 0.01 * k + 0.1 * seed
    row = {
        "protocol": protocol,
        "centers": k,
        "seed": seed,
        "test_gap": gap,
        "test_tightness": 0.5,
        "test_real_tightness": 0.4,
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
    assert verdicts(rows_with()) == [True] * (FIRST + len(QUALITIES) + 1)


def test_rows_of_earlier_versions_say_nothing_of_real_rows():
    old = [{k: v for k, v in row.items() if k != "test_real_tightness"} for row in rows_with()]
    assert len(claims(old)) == len(claims(rows_with())) - 1


def test_every_quality_with_a_good_side_is_judged():
    """Those that get worse must not be left out: diversity alone has no good side of its own."""
    assert set(QUALITIES) == set(MEASURES) - {"distance", "kinds"}


@pytest.mark.parametrize("name", QUALITIES)
def test_a_quality_that_gets_worse_with_k_fails_alone(name):
    better = MEASURES[name].better

    def change(row):
        return {name: 0.5 - better * (0.01 * row["centers"] - 0.001 * row.get("steps", 0))}

    found = claims(rows_with(change))
    failed = [i for i, claim in enumerate(found) if not claim.holds]
    assert failed == [FIRST + QUALITIES.index(name)]
    assert "better in 0 of 3 seeds" in found[failed[0]].outcome


def test_a_quality_that_falls_with_training_is_named():
    def change(row):
        worse = row["centers"] == 5
        return {"best": 0.1 + worse * 0.001 * row.get("steps", 0) - 0.005 * row["centers"]}

    last = claims(rows_with(change))[-1]
    assert not last.holds
    assert last.outcome == "worse in best one's error per pixel for K = 5"


def test_seeds_do_not_mix():
    # Encoders whose features leave less open have a larger gap and better reconstructions.
    rows = rows_with(lambda row: {"best": row["test_gap"] / 2 - 5 * row["seed"]})
    assert verdicts(rows) == [True] * len(verdicts(rows))


def test_better_in_the_mean_but_not_in_every_seed_is_not_shown():
    def change(row):
        return {"best": 0.5 - 0.01 * row["centers"] * (-1 if row["seed"] == 1 else 2)}

    assert verdicts(rows_with(change))[FIRST] is None


def test_claims_about_quality_know_nothing_of_joint_trainings():
    def change(row):
        wrong = dict.fromkeys(QUALITIES, 0.5) | {"test_gap": 7.0 - 0.1 * row["centers"]}
        return wrong if row["protocol"] == "joint" else {}

    with_joint, without = claims(rows_with(change)), claims(rows_with())
    assert with_joint[FIRST:] == without[FIRST:]


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
    rows = [row | {"sure": None} if row["seed"] == 0 else row for row in rows_with()]
    own = [row for row in rows if row.get("steps") == 100]
    assert len(changes(own, "sure", "centers", (1, 10))) == 2
    none = verdicts([row | {"sure": None} for row in rows_with()])
    assert none[FIRST + QUALITIES.index("sure")] is None
