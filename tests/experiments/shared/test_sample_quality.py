"""How good samples are: known answers."""

import pytest
import torch

from hilbound.datasets import Dataset
from hilbound.evaluation.parzen import parzen_log_likelihood
from hilbound.evaluation.spaces import MetricSpace
from hilbound.experiments.shared.sample_quality import (
    novelty,
    parzen_row,
    sample_quality,
    training_rows,
)

PLAIN = MetricSpace(transform=lambda x: x, description="the rows themselves")


@pytest.fixture(scope="module")
def dataset():
    draws = torch.Generator().manual_seed(0)
    train, validation, test = torch.randn(3, 400, 6, generator=draws)
    return Dataset(name="normal", train=train, validation=validation, test=test)


def test_copies_have_no_novelty(dataset):
    assert novelty(dataset.train, dataset.test, dataset.train[:100]) == 0


def test_fresh_samples_are_as_new_as_held_out_rows(dataset):
    fresh = torch.randn(400, 6, generator=torch.Generator().manual_seed(1))
    assert novelty(dataset.train, dataset.test, fresh) == pytest.approx(1, abs=0.1)


def test_a_blur_is_not_taken_for_copies(dataset):
    blur = 0.1 * torch.randn(400, 6, generator=torch.Generator().manual_seed(2))
    assert novelty(dataset.train, dataset.test, blur) > 0.7  # what the diagnostic warns below


def test_samples_that_lean_on_training_rows_lie_between(dataset):
    noise = torch.randn(400, 6, generator=torch.Generator().manual_seed(3))
    assert 0.05 < novelty(dataset.train, dataset.test, dataset.train + 0.1 * noise) < 0.7


def test_the_test_rows_themselves_are_perfect(dataset):
    found = sample_quality(dataset, PLAIN, dataset.test)
    assert found["coverage"] == found["recall"] == found["precision"] == 1
    assert found["frechet_distance"] == pytest.approx(0, abs=1e-9)


def test_other_held_out_rows_can_be_named(dataset):
    found = sample_quality(dataset, PLAIN, dataset.validation, held_out=dataset.validation)
    assert found["frechet_distance"] == pytest.approx(0, abs=1e-9)


def test_training_rows_are_drawn_without_repetition(dataset):
    rows = training_rows(dataset, 400, seed=5)
    assert torch.equal(rows.sort(0).values, dataset.train.sort(0).values)
    assert not torch.equal(rows, training_rows(dataset, 400, seed=6))


def test_the_window_is_chosen_on_validation_rows(dataset):
    row = parzen_row(dataset, dataset.train)
    direct = parzen_log_likelihood(dataset.train, dataset.test, dataset.validation)
    assert (row["parzen"], row["parzen_error"], row["parzen_variance"]) == tuple(direct)
