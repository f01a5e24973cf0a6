"""The experiment of blocks: which trainings it asks for, and how it judges rows."""

from hilbound.experiments.block_generation.experiment import EXPERIMENT
from hilbound.experiments.block_generation.settings import BlockSettings

SETTINGS = BlockSettings(steps=100, pilot_steps=10)
GOOD = {
    "coverage": 0.93,
    "precision": 0.94,
    "recall": 0.95,
    "frechet_distance": 5.0,
    "vendi_score": 4.0,
    "novelty": 1.0,
    "parzen": 150.0,
}
WEAK = GOOD | {"coverage": 0.7, "precision": 0.8, "frechet_distance": 30.0}


def row(method, seed=0, steps=100, seconds=50.0, **values):
    return {
        "cell": f"{method}-{seed}-{steps}",
        "method": method,
        "seed": seed,
        "steps": steps,
        "training_seconds": seconds,
        **values,
    }


def pilots(method, first, second):
    return [
        row(method, steps=10, seconds=first, pilot=True),
        row(method, steps=20, seconds=second, pilot=True),
    ]


def all_rows(clusters=GOOD, unconditional=WEAK):
    return [
        row("real", **GOOD),
        row("clusters", **clusters),
        row("unconditional", **unconditional),
    ]


def verdicts(rows):
    return [claim.holds for claim in EXPERIMENT.claims(SETTINGS, rows)]


def test_the_floor_the_reference_and_the_pilots_come_first():
    cells = list(EXPERIMENT.cells(SETTINGS, [0], []))
    assert [(c.options["method"], c.options.get("steps")) for c in cells] == [
        ("real", None),
        ("clusters", 100),
        ("unconditional", 10),
        ("unconditional", 20),
    ]


def test_the_others_get_the_seconds_of_the_reference():
    # A step of the first takes 0.2 s, beside 1 s that does not grow with the steps.
    rows = [row("clusters", seconds=51.0, **GOOD), *pilots("unconditional", 3.0, 5.0)]
    cells = EXPERIMENT.cells(SETTINGS, [0], rows)
    final = [c for c in cells if c.options["method"] == "unconditional"][-1]
    assert "pilot" not in final.options
    assert final.options["steps"] == 250
    without = [row for row in rows if row["method"] == "clusters"]
    cells = EXPERIMENT.cells(SETTINGS, [0], without)
    assert all(c.options.get("pilot") for c in cells if c.options["method"] == "unconditional")


def test_claims_hold_where_clusters_help_and_fail_where_they_do_not():
    assert verdicts(all_rows()) == [True, True]
    assert verdicts(all_rows(WEAK, GOOD)) == [False, False]
    # Ahead in one of both is not ahead.
    assert verdicts(all_rows(GOOD | {"precision": 0.7})) == [False, False]
    reason = EXPERIMENT.claims(SETTINGS, all_rows(WEAK))[0].reason
    assert "coverage by 0.200" in reason
    assert "Fréchet distance by 24.0" in reason


def test_pilots_are_no_results():
    rows = all_rows() + pilots("unconditional", 3.0, 5.0)
    (table,) = EXPERIMENT.tables(SETTINGS, rows)
    assert [line[0] for line in table.rows] == [
        "training rows",
        "unconditional",
        "clusters",
    ]
    assert table.rows[1][1] == "0.700"
