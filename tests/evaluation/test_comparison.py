"""Comparisons: what belongs together, means over seeds, and what is absent."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilbound.errors import InputError
from hilbound.evaluation.comparison import (
    Data,
    Member,
    compare,
    member_of,
    title_of,
    write_mean,
)
from hilbound.evaluation.evaluate import evaluate
from support.tiny_runs import train

POINTS = Data("points", "/data/points.npy", "a0", "seed 0", "[2, 300]")


def member(objective="nuclear", seed=0, data=POINTS, **values):
    settings = {"model": "m", "objective": objective, "variance": "median", "steps": 5}
    own = replace(data, fingerprint=f"{data.fingerprint}-{seed}", key=f"seed {seed}")
    return Member(
        f"{objective}-{seed}", seed, settings, own, values, measured="100 test rows" * bool(values)
    )


def names(comparison):
    return [[m.name for m in group.members] for group in comparison.groups]


def test_runs_that_differ_in_their_seed_alone_are_a_group_with_mean_and_deviation():
    values = [0.1, 0.4, 0.7]
    runs = [member(seed=s, coverage=v) for s, v in enumerate(values)]
    (comparison,) = compare([*runs, member("scalar", coverage=0.5)])
    assert names(comparison) == [["nuclear-0", "nuclear-1", "nuclear-2"], ["scalar-0"]]
    assert comparison.telling == comparison.differing == ("objective",)
    told = comparison.plain()["groups"][0]["values"]["coverage"]
    assert told["mean"] == pytest.approx(np.mean(values), abs=1e-12)
    assert told["deviation"] == pytest.approx(np.std(values, ddof=1), abs=1e-12)
    assert told["values"] == values
    assert comparison.plain()["groups"][1]["values"]["coverage"]["deviation"] is None


def test_what_a_run_lacks_is_absent_and_never_a_zero():
    runs = [member(seed=0, coverage=0.4), member(seed=1), member("scalar", recall=0.5)]
    (comparison,) = compare(runs)
    first, second = (group["values"] for group in comparison.plain()["groups"])
    assert comparison.columns() == ("recall", "coverage")
    assert first["recall"] is None
    assert second["coverage"] is None
    assert first["coverage"]["values"] == [0.4]
    assert write_mean("recall", comparison.groups[0].values("recall")) == "–"


@pytest.mark.parametrize(
    "changed",
    [
        {"place": "/data/other.npy", "fingerprint": "b1"},
        {"fingerprint": "b1"},  # the file was changed between two runs with one seed
        {"shape": "[2, 299]"},
        {"shape": "[3, 300]", "fingerprint": "b1"},
    ],
)
def test_different_data_stand_apart(changed):
    other = member("scalar", data=replace(POINTS, **changed))
    assert list(map(names, compare([member(), other]))) == [[["nuclear-0"]], [["scalar-0"]]]


def test_data_that_were_moved_are_known_by_their_fingerprint():
    moved = replace(POINTS, place="/elsewhere/points.npy")
    runs = [member(), member("scalar", data=moved), member("scalar", seed=1, data=moved)]
    (comparison,) = compare(runs)
    assert names(comparison) == [["nuclear-0"], ["scalar-0", "scalar-1"]]


def test_values_of_different_rows_stand_apart():
    chosen = replace(member("scalar", coverage=0.4), measured="100 validation rows")
    assert len(compare([member(coverage=0.5), chosen])) == 2
    # What was not measured at all can stand beside either.
    assert len(compare([member(coverage=0.5), member("scalar")])) == 1


def test_the_same_run_twice_is_no_deviation():
    again = replace(member(coverage=0.4), name="again")
    (comparison,) = compare([member(coverage=0.4), again])
    assert names(comparison) == [["nuclear-0"], ["again"]]
    assert [group.setting for group in comparison.groups] == [
        {"run": "nuclear-0"},
        {"run": "again"},
    ]


def test_few_options_tell_settings_apart_and_all_are_listed():
    runs = [member(o) for o in ("nuclear", "scalar")]
    runs[1] = replace(runs[1], settings={**runs[1].settings, "steps": 9, "width": 3})
    (comparison,) = compare(runs)
    assert comparison.telling == ("objective",)
    assert comparison.differing == ("objective", "steps", "width")
    assert comparison.plain()["groups"][0]["options"] == {
        "objective": "nuclear",
        "steps": 5,
        "width": None,
    }


def test_floors_count_once_for_each_seed():
    runs = [
        replace(member(o, s, coverage=0.1), floors={"real data": {"coverage": 0.9 + s / 100}})
        for o in ("nuclear", "scalar")
        for s in (0, 1)
    ]
    (comparison,) = compare(runs)
    assert comparison.floors() == {"real data": {"coverage": [0.9, 0.91]}}


def test_several_targets_have_columns_of_their_own():
    runs = [member(**{"price/rmse": 2.0, "rent/rmse": 3.0, "rent/crps": 1.0})]
    (comparison,) = compare(runs)
    assert comparison.columns() == ("price/rmse", "rent/crps", "rent/rmse")
    assert title_of("price/rmse") == "price: RMSE"


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(0, 2), st.sampled_from(["x", "y"])),
        min_size=1,
        max_size=12,
    )
)
def test_every_run_is_in_one_group_of_one_comparison(drawn):
    runs = [
        member(objective, seed, replace(POINTS, place=place, fingerprint=place))
        for objective, seed, place in drawn
    ]
    found = compare(runs)
    listed = [m for comparison in found for m in comparison.members]
    assert sorted(m.name for m in listed) == sorted(m.name for m in runs)
    assert len(found) == len({place for _, _, place in drawn})
    for comparison in found:
        labels = [json.dumps(dict(group.setting)) for group in comparison.groups]
        repeated = len({(m.name) for m in comparison.members}) < len(comparison.members)
        assert repeated or len(set(labels)) == len(labels)
        for group in comparison.groups:
            assert len({m.seed for m in group.members}) == len(group.members)


def test_a_run_tells_its_metrics_its_bound_and_its_floors(tmp_path):
    run = train(tmp_path / "run")
    lacking = member_of(run)
    assert (lacking.note, lacking.measured, dict(lacking.floors)) == ("not measured", "", {})
    assert 0 < lacking.values["bound_tightness"] < 1
    measured = evaluate(run)
    whole = member_of(run, "mine")
    assert whole.name == "mine"
    assert whole.values["coverage"] == measured["metrics"]["coverage"]["model"]
    assert whole.floors["real data"]["coverage"] == measured["metrics"]["coverage"]["real"]
    assert whole.values["held_out_tightness"] == measured["batch_bound"]["tightness"]
    assert whole.values["real_tightness"] == measured["batch_bound"]["real_tightness"]
    last = [row for row in run.read_bounds() if row["split"] == "validation"][-1]
    assert whole.values["cost"] == pytest.approx(np.exp(last["log_value"]))
    assert whole.values["limit"] == pytest.approx(np.exp(last["log_limit"]))
    assert whole.values["cost"] < whole.values["limit"]


@pytest.mark.parametrize(
    "content",
    [
        {"metrics": [1]},
        {"metrics": {"coverage": 3}},
        {"samples": "many"},
        {"batch_bound": {"tightness": "high"}},
        {"latent": {"log_likelihood": {}}},
    ],
)
def test_damaged_metrics_are_refused_in_words(tmp_path, content):
    run = train(tmp_path / "run", steps=2)
    whole = {"split": "test", "samples": 9, "features": "x", "metrics": {}}
    run.write_json("metrics.json", whole | content)
    with pytest.raises(InputError, match="is damaged"):
        member_of(run)
