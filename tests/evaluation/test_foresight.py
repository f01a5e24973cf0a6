"""The time of an evaluation is foreseen: nothing for small data, more for more rows."""

import time
from dataclasses import replace

import pytest
import torch

from hilbound.datasets import Dataset
from hilbound.evaluation import foresight
from hilbound.evaluation.foresight import foresee_seconds
from hilbound.evaluation.spaces import fit_space, probe_classifier

pytest_plugins = ["support.fixtures_runs"]


def cloud(n, labels=False):
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(0))
    data = Dataset("cloud", train=x, validation=x[:9], test=x)
    if not labels:
        return data
    y = (x[:, 0] > 0).long()
    return replace(data, train_labels=y, validation_labels=y[:9], test_labels=y)


def test_it_grows_with_the_square_of_the_rows_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(foresight, "_seconds", lambda _: 0.25)
    assert foresee_seconds(cloud(1000)) == 0
    assert foresee_seconds(cloud(4000)) == pytest.approx(2 * 0.25 * 16)
    assert foresee_seconds(cloud(12_000)) == pytest.approx(2 * 0.25 * 100)


def test_the_share_that_is_measured_takes_its_time():
    data = cloud(1001)
    began = time.perf_counter()
    found = foresee_seconds(data)
    assert 0 < found < 3 * (time.perf_counter() - began)


def test_a_classifier_is_foreseen_until_it_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("HILBOUND_CACHE", str(tmp_path))
    data = cloud(200, labels=True)
    before = torch.get_rng_state()
    assert 0 < probe_classifier(data) < 60
    assert torch.equal(torch.get_rng_state(), before)
    assert foresee_seconds(data) > 0
    fit_space(data)
    assert probe_classifier(data) == 0
    assert probe_classifier(cloud(200)) == 0
