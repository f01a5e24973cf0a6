"""A bound stands beside what real data and a single point reach: figures from independent sums."""

import math

import numpy as np
import pytest
import torch

from hilbound.engine.seeding import stream
from hilbound.evaluation.evaluate import evaluate
from hilbound.evaluation.floors import batch_bound, floors_text, is_too_wide, tracked_bound
from hilbound.evaluation.quality import percent
from hilbound.mixture import GaussianMixture
from hilbound.reports.run_report import write_report
from support import oracles
from support.conditional import oracle
from support.tiny_runs import ask, flags, train, write_points

pytest_plugins = ["support.fixtures_runs"]

COSTS = {
    "nuclear": oracles.fidelity,
    "scalar": lambda p, q: math.exp(oracles.log_tightness(p, q)),
}


@pytest.mark.parametrize("objective", COSTS)
def test_all_three_are_the_costs_of_batches_of_held_out_rows(tmp_path, objective):
    """From the draws that are documented: rows by 'evaluation-batch', then the model's noise."""
    run = train(tmp_path / "run", objective=objective, batch_size=16, variance=0.8, eval_centers=9)
    held_out, rows = run.dataset.test, run.dataset.train
    expected = {"tightness": [], "real_tightness": [], "point_tightness": []}
    for i, batch in enumerate(held_out[:32].split(16)):
        draws = stream(0, "evaluation-batch", i)
        real = rows[torch.randperm(len(rows), generator=draws)[:9]]
        p = oracles.dense(batch.numpy(), 0.4)
        for side, means in (
            ("real_tightness", real.numpy()),
            ("point_tightness", rows.mean(0, keepdim=True).numpy()),
            ("tightness", run.model.draw(9, draws).means.detach().numpy()),
        ):
            expected[side].append(COSTS[objective](p, oracles.dense(means, 0.4)))
    block = batch_bound(run, held_out[:39])
    assert (block["rows"], block["batches"]) == (16, 2)
    for side, values in expected.items():
        assert block[side] == pytest.approx(np.mean(values), rel=1e-5), side


def test_the_floor_of_a_conditional_bound_are_rows_that_share_a_feature(tmp_path):
    run = train(
        tmp_path / "run",
        model="encoder-mixture-decoder",
        centers=5,
        features=1,
        bound_rows=30,
        variance=0.8,
        variance_y=0.05,
    )
    model = run.model
    test = run.dataset.test
    block = tracked_bound(run, test, "test")
    order = torch.randperm(len(test), generator=stream(0, "reconstructed", "test"))
    x, rows = test[order[:30]], run.dataset.train
    # Real rows: none of the bound's own, and none of training.
    others = torch.cat([test[order[30:]], run.dataset.validation])
    real = model.real_bound(x, others, 0.4, generator=stream(0, "evaluation-bound"))
    assert block["real_tightness"] == pytest.approx(float(real.tightness), rel=1e-6)
    # One point: the sums over all pairs in numpy, at the same feature points.
    features = model.features_of(x)
    points = model.perturb(features, stream(0, "evaluation-bound"))
    q = GaussianMixture(rows.mean(0).expand(30, 1, 2).double(), 0.4)
    value, limit = oracle(x, features, points, q, variance_p=0.4, variance_y=0.05)
    assert block["point_tightness"] == pytest.approx(math.exp(value - limit), rel=1e-4)
    assert block["log_limit"] == pytest.approx(limit, rel=1e-5)
    assert block["point_tightness"] < block["real_tightness"] < 1


@pytest.mark.parametrize(("variance", "wide"), [("1e6", True), ("0.1*median", False)])
def test_a_kernel_to_which_all_is_tight_is_told(tmp_path, variance, wide):
    points, path = write_points(tmp_path / "points.npy"), tmp_path / "run"
    result = ask("fit", points, *flags(variance=variance), "-o", path)
    assert result.exit_code == 0, result.stderr
    run = train(tmp_path / "again", variance=variance)
    block = evaluate(run)["batch_bound"]
    assert is_too_wide(block) == wide
    plain = " ".join(result.stdout.split())
    assert f"bound on held-out batches of 32 rows: {percent(block['tightness'])} of its" in plain
    assert floors_text(block) in plain
    warned = " ".join(result.stderr.split())
    assert ("so wide that a single point comes as close to the limit" in warned) == wide
    html = write_report(run).read_text(encoding="utf-8")
    assert floors_text(block).replace("'", "&#39;") in html
    assert ("so wide that this says nothing" in html) == wide


def test_a_report_of_older_metrics_shows_the_bound_without_floors(trained):
    measured = evaluate(trained)
    del measured["batch_bound"]
    trained.write_json("metrics.json", measured)
    html = write_report(trained).read_text(encoding="utf-8")
    assert "Bound reached" in html
    assert "one point:" not in html
