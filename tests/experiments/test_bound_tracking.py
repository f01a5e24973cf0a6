"""What bound tracking claims, from rows whose verdicts are known."""

from hilbound.experiments.bound_tracking import EXPERIMENT, TrackingSettings

SETTINGS = TrackingSettings(centers=(1, 2, 5), encoder_centers=2, steps=100)


def row(protocol, centers, seed, **changes):
    """A training whose tightness grows with K."""
    joint = protocol == "joint"
    return {
        "protocol": protocol,
        "centers": centers,
        "seed": seed,
        "tracked": 6,
        "excess": -0.4,
        "train_step": [0, 50, 100],
        "train_cost": [-9.0, -3.0, -2.6],
        "train_limit": [-2.0, -2.2 if joint else -2.0, -2.1 if joint else -2.0],
        "train_moved": 0.2 if joint else 0.0,
        "train_tightness": 0.5 + 0.01 * centers + 0.001 * seed,
        "test_tightness": 0.505 + 0.01 * centers,
        "train_real_tightness": 0.45,
        "test_real_tightness": 0.45,
        "train_gap": 0.6,
        "train_log_limit": -2.0,
    } | changes


def rows_with(change=lambda _: {}):
    rows = [
        row(protocol, k, seed)
        for protocol in ("joint", "frozen")
        for seed in range(3)
        for k in SETTINGS.centers
    ]
    return [own | change(own) for own in rows]


def claims(rows):
    return EXPERIMENT.claims(SETTINGS, rows)


def test_all_claims_hold_where_they_should():
    rows = rows_with(lambda own: {"train_tightness": own["train_tightness"] + own["centers"] / 25})
    frozen, joint, real, moves, held_out, never, still, near = claims(rows)
    assert all(claim.holds for claim in (frozen, joint, real, moves, never, still, near))
    assert "tightness 0.751 ± 0.001, 0.200 ± 0.000 above" in near.outcome
    frozen, joint, real, moves, held_out, never, still, near = claims(rows_with())
    assert all(claim.holds for claim in (frozen, joint, real, moves, held_out, never, still))
    assert near.holds is False
    assert "all 108 measurements of 18 trainings" in never.outcome
    assert "by 0.400 nats" in never.outcome
    assert "more in 3 of 3 seeds, by 0.040" in frozen.outcome
    assert "K = 5: 0.551 against 0.450, 1.22 ± 0.00 times that" in real.outcome
    # What is proved is no finding.
    assert [c.theorem for c in (frozen, joint, real, moves, held_out)] == [False] * 5
    assert never.theorem
    assert still.theorem


def test_one_cost_above_its_limit_is_enough():
    rows = rows_with()
    rows[7]["excess"] = 1e-3
    assert claims(rows)[5].holds is False
    assert "1.0e-03 nats above" in claims(rows)[5].outcome


def test_rounding_is_no_cost_above_its_limit():
    rows = rows_with()
    rows[7]["excess"] = 1e-13
    assert claims(rows)[5].holds is True


def test_one_seed_without_gain_fails_one_protocol_only():
    def change(own):
        worse = (own["protocol"], own["centers"], own["seed"]) == ("frozen", 5, 1)
        return {"train_tightness": 0.5} if worse else {}

    frozen, joint, *_ = claims(rows_with(change))
    assert (frozen.holds, joint.holds) == (False, True)
    assert "more in 2 of 3 seeds" in frozen.outcome


def test_one_seed_below_its_real_rows_is_not_as_near():
    rows = rows_with()
    rows[-1]["train_real_tightness"] = 0.9
    assert claims(rows)[2].holds is False
    for own in rows:
        del own["train_real_tightness"]
    assert len(claims(rows)) == 7, "rows of earlier versions say nothing of real rows"


def test_steps_that_go_down_are_told():
    frozen, *_ = claims(
        rows_with(lambda own: {"train_tightness": 0.4} if own["centers"] == 2 else {})
    )
    assert frozen.holds
    assert "the mean falls from 1 to 2" in frozen.outcome


def test_a_limit_that_moves_with_a_frozen_encoder_fails():
    # Too little for the rounded curves to show.
    rows = rows_with()
    rows[-1]["train_moved"] = 4e-5
    still = claims(rows)[6]
    assert still.holds is False
    assert "by at most 4e-05 nats" in still.outcome


def test_rounding_is_no_limit_that_moves():
    rows = rows_with()
    rows[-1]["train_moved"] = 4e-13
    assert claims(rows)[6].holds is True


def test_memorised_rows_are_noticed():
    assert (
        claims(rows_with(lambda own: {"test_tightness": own["train_tightness"] - 0.1}))[4].holds
        is False
    )


def test_frozen_cells_wait_for_the_encoder():
    first = list(EXPERIMENT.cells(SETTINGS, [0, 1], []))
    assert len(first) == 6
    assert {cell.options["protocol"] for cell in first} == {"joint"}
    rows = [dict(cell.options) for cell in first if cell.options["seed"] == 1]
    after = list(EXPERIMENT.cells(SETTINGS, [0, 1], rows))
    frozen = [cell.options for cell in after if cell.options["protocol"] == "frozen"]
    assert [(o["centers"], o["seed"]) for o in frozen] == [(1, 1), (2, 1), (5, 1)]
