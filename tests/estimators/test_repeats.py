"""Components for values that rows share exactly, against direct counting and a known density."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from hilbound.engine.expectation.algorithm import (
    Regularisation,
    fit_components,
    start_components,
)
from hilbound.engine.expectation.components import Components, log_density
from hilbound.estimators import MixtureDensityEstimator
from hilbound.estimators.mixtures.repeats import split_repeats

FLOOR = 1e-4


def with_zeros(n=400, seed=0):
    """A column that varies, and one that is zero in seven rows of ten."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    x[rng.random(n) < 0.7, 1] = 0.0
    return x


def fitted(x, count=1, *, full=True):
    x, rule = torch.as_tensor(x), Regularisation(ridge=1e-3)
    generator = torch.Generator().manual_seed(0)
    return fit_components(x, start_components(x, count, rule, full=full, generator=generator), rule)


@pytest.mark.parametrize("full", [True, False])
def test_rows_that_share_a_value_have_a_component_of_their_own(full):
    x = with_zeros()
    one = fitted(x, full=full)
    split = split_repeats(one, torch.from_numpy(x), FLOOR)
    zeros = int((x[:, 1] == 0).sum())
    assert len(split.means) == 2
    # Laplace's rule: both levels have one row more than they have.
    np.testing.assert_allclose(
        split.log_weights.exp(), np.array([400 - zeros + 1, zeros + 1]) / 402, rtol=1e-12
    )
    wide, narrow = split.spread
    assert torch.equal(wide, one.spread[0])
    assert torch.equal(split.means[0], one.means[0])
    assert split.means[1].tolist() == [float(one.means[0, 0]), 0.0]
    expected = torch.tensor([float(wide[0, 0] if full else wide[0]), FLOOR], dtype=wide.dtype)
    assert torch.equal(narrow, expected.diag() if full else expected)


def test_levels_are_nested_and_their_weights_sum_to_one():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 4))
    depth = rng.integers(0, 4, 300)  # how many of the first three columns hold a common value
    for column in range(3):
        x[depth > column, column] = column
    split = split_repeats(fitted(x), torch.from_numpy(x), FLOOR)
    narrow = [(s.diagonal() == FLOOR).nonzero().squeeze(1).tolist() for s in split.spread]
    assert narrow == [[], [0], [0, 1], [0, 1, 2]]
    counts = [int((depth >= level).sum()) for level in range(4)]
    expected = (np.array(counts) - [*counts[1:], 0] + 1) / 304
    np.testing.assert_allclose(split.log_weights.exp(), expected, rtol=1e-12)


@pytest.mark.parametrize("full", [True, False])
def test_the_split_mixture_predicts_new_rows_as_the_truth_does(full):
    x, new = with_zeros(2000), with_zeros(2000, seed=1)
    zero = new[:, 1] == 0
    # An atom, as narrow as it may be, beside the measure.
    narrow, wide = norm.pdf(new[:, 1], 0, FLOOR**0.5), norm.pdf(new[:, 1])
    truth = norm.logpdf(new[:, 0]) + np.log(0.7 * narrow + 0.3 * wide)
    one = fitted(x, full=full)
    rows = torch.from_numpy(new)
    split = log_density(split_repeats(one, torch.from_numpy(x), FLOOR), rows).numpy()
    # What is left is the spread of the wide component, which is fitted to all rows: variance .3
    # where that of the rows without a zero is 1. Its mean log density there is lower by .5 / .3 -
    # .5 + .5 log .3 = .56 nats, in three rows of ten.
    assert (truth - split)[zero].mean() == pytest.approx(0, abs=0.02)
    assert (truth - split)[~zero].mean() == pytest.approx(0.56, abs=0.15)
    assert split.mean() > log_density(one, rows).numpy().mean() + 2


def test_without_repeated_values_nothing_changes():
    x = np.random.default_rng(0).normal(size=(200, 3))
    x[:4, 0] = 0.0  # too few to matter
    c = fitted(x, 3)
    assert split_repeats(c, torch.from_numpy(x), FLOOR) is c
    x[:5, 0] = x[195:, 1] = 0.0
    some = split_repeats(c, torch.from_numpy(x), FLOOR)
    assert float(some.log_weights.logsumexp(0)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("full", [True, False])
def test_gaps_are_no_values(full):
    """Rows with a gap share nothing there, and a column of gaps alone is left as it is."""
    x = np.random.default_rng(0).normal(size=(60, 3))
    c = fitted(x, full=full)
    x[:30, 0] = x[:, 2] = np.nan
    assert split_repeats(c, torch.from_numpy(x), FLOOR) is c
    x[30:50, 0] = 1.0
    split = split_repeats(c, torch.from_numpy(x), FLOOR)
    assert len(split.means) == 2
    assert split.means[1, 0] == 1.0
    assert not split.means.isnan().any()
    expected = np.array([60 - 20 + 1, 20 + 1]) / 62
    np.testing.assert_allclose(split.log_weights.exp(), expected, rtol=1e-12)


def test_a_component_without_rows_stays():
    x = torch.zeros(10, 1, dtype=torch.float64)
    c = Components(
        torch.tensor([[0.0], [50.0]]).double(),
        torch.ones(2, 1).double(),
        x.new_full((2,), 0.5).log(),
    )
    split = split_repeats(c, x, FLOOR)
    assert split.means.squeeze(1).tolist() == [50.0, 0.0, 0.0]
    assert float(split.log_weights[0].exp()) == 0.5


def test_the_estimator_takes_them_where_they_help():
    new = with_zeros(400, seed=1)
    model = MixtureDensityEstimator(random_state=0).fit(with_zeros(300))
    assert any("values repeat" in name for name in model.members_)
    truth = norm.logpdf(new[:, 0]) + np.where(
        new[:, 1] == 0, np.log(0.7), np.log(0.3) + norm.logpdf(new[:, 1])
    )
    zero = new[:, 1] == 0
    # The atom's own height is that of the least variance, and beside the point.
    deviation = 1e-3 * model.scale_[1]
    truth[zero] += norm.logpdf(0, 0, deviation)
    assert model.score(new) == pytest.approx(truth.mean(), abs=0.2)
