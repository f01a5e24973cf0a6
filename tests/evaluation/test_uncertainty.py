"""Standard errors of metrics: the closed form of a mean, and the spread over fresh data."""

import numpy as np
import pytest
import torch

from hilbound.evaluation.evaluate import evaluate
from hilbound.evaluation.metrics import precision_recall_density_coverage
from hilbound.evaluation.quality import format_entry
from hilbound.evaluation.uncertainty import MOST_ROWS, standard_errors
from hilbound.reports.run_report import write_report
from support.tiny_runs import ask, train, write_points, write_table

pytest_plugins = ["support.fixtures_runs"]


def test_of_a_mean_it_is_that_of_the_groups_means():
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(120, 2)))
    found = standard_errors(lambda x, y: {"a": float(x[:, 0].mean()), "b": float(y.sum())}, x, x)
    groups = np.stack([x[g::10, 0].mean() for g in range(10)])
    assert found["a"] == pytest.approx(groups.std(ddof=1) / np.sqrt(10))
    sums = np.stack([x[g::10].sum() for g in range(10)])
    assert found["b"] == pytest.approx(np.sqrt(0.9 * sums.var() * 10))


def test_it_is_the_spread_over_fresh_data_for_metrics_of_neighbours():
    """The truth is measured: the deviation over independent draws of both sets."""
    draws = torch.Generator().manual_seed(0)

    def measure(x, y):
        return vars(precision_recall_density_coverage(x, y))

    values, errors = [], []
    for _ in range(80):
        x, y = torch.randn(2, 40, 3, generator=draws)
        values.append(measure(x, y + 0.4))
        errors.append(standard_errors(measure, x, y + 0.4))
    for name in values[0]:
        truth = np.std([v[name] for v in values], ddof=1)
        assert 0.75 < np.mean([e[name] for e in errors]) / truth < 1.6, name


def test_few_rows_come_with_errors_everywhere_and_many_do_not(tmp_path):
    table = write_table(tmp_path / "t.csv")
    run = train(tmp_path / "run", data=table)
    entries = evaluate(run)["metrics"]
    assert all(entry["model_error"] >= 0 <= entry["real_error"] for entry in entries.values())
    shown = format_entry("coverage", entries["coverage"], "model")
    assert " ± " in shown
    assert shown in ask("evaluate", run.path).stdout
    html = write_report(run).read_text(encoding="utf-8")
    assert shown in html
    assert "behind ± stands one standard error" in html
    points = write_points(tmp_path / "points.npy", n=10 * MOST_ROWS + 20)
    many = train(tmp_path / "many", data=points)
    entries = evaluate(many)["metrics"]
    assert not any("model_error" in entry for entry in entries.values())
    assert "±" not in write_report(many).read_text(encoding="utf-8")
