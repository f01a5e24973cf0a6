"""The density of features: fitted, chosen, drawn from, by class, and kept in a state."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from hilbound.errors import InputError
from hilbound.models import feature_mixture
from hilbound.models.feature_mixture import FeatureMixture, choose_mixture


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def clusters(n=600, seed=0, centres=((-4.0, 0.0), (4.0, 0.0), (0.0, 6.0))):
    """Rows around three far centres, in turn, and the number of the centre of each."""
    labels = torch.arange(n) % len(centres)
    noise = torch.randn(n, 2, generator=seeded(seed), dtype=torch.float64)
    return torch.tensor(centres, dtype=torch.float64)[labels] + noise, labels


def fitted(y, labels=None, *, components=3, classes=1):
    density = FeatureMixture(y.shape[1], components=components, classes=classes).to(y.dtype)
    density.fit(y, labels=labels, generator=seeded())
    return density


def test_three_clusters_are_found_with_their_covariances():
    y, labels = clusters(6000)
    q = fitted(y).mixture()
    order = [int((q.means - y[labels == k].mean(0)).square().sum(1).argmin()) for k in range(3)]
    assert sorted(order) == [0, 1, 2]
    for k, at in enumerate(order):
        own = y[labels == k]
        torch.testing.assert_close(q.means[at], own.mean(0), atol=0.02, rtol=0)
        # The shrinkage is fifteen rows' worth, the ridge .005.
        expected = own.T.cov(correction=0) + 0.005 * torch.eye(2).double()
        torch.testing.assert_close(q.component_covariance[at], expected, atol=0.02, rtol=0)
        assert float(q.weights[at]) == pytest.approx(1 / 3, abs=1e-3)


def test_the_number_of_components_is_that_of_the_highest_held_out_density(monkeypatch):
    monkeypatch.setattr(feature_mixture, "COUNTS", (1, 2, 3, 12))
    y, _ = clusters(600)
    held_out, _ = clusters(300, seed=1)
    means = {}
    for count in (1, 2, 3, 12):
        parts = feature_mixture.fit_mixture(y, count, seeded(), steps=20)
        means[count] = np.log(
            sum(
                math.exp(w) * multivariate_normal(m, s).pdf(held_out)
                for m, s, w in zip(parts.means, parts.spread, parts.log_weights, strict=True)
            )
        ).mean()
    assert len(choose_mixture(y, held_out, seeded()).means) == max(means, key=means.get) == 3
    # Without held-out rows a part of the rows is set aside.
    assert len(choose_mixture(y, None, seeded()).means) == 3
    density = FeatureMixture(2).double()
    density.fit(y, held_out, generator=seeded())
    assert len(density.means) == 3


def test_few_rows_try_few_components(monkeypatch):
    tried = []
    real = feature_mixture.fit_mixture

    def spy(y, count, *rest, **options):
        tried.append(count)
        return real(y, count, *rest, **options)

    monkeypatch.setattr(feature_mixture, "fit_mixture", spy)
    y, _ = clusters(100)
    choose_mixture(y, y[:20], seeded())
    assert tried == [1]


def test_draws_have_the_moments_of_the_mixture_and_even_counts():
    y, _ = clusters()
    density = fitted(y)
    q, drawn = density.mixture(), density.draw(20_000, generator=seeded(1))
    torch.testing.assert_close(drawn.mean(0), q.mean, atol=0.05, rtol=0)
    torch.testing.assert_close(drawn.T.cov(), q.covariance, atol=0.3, rtol=0)
    # 300 draws from three clusters of equal weight: a hundred of each, give or take rounding.
    nearest = torch.cdist(density.draw(300, generator=seeded(2)), q.means).argmin(1)
    assert (nearest.bincount(minlength=3) - 300 * q.weights).abs().max() < 2
    # The order says nothing of the component.
    assert (nearest[:100].bincount(minlength=3) > 15).all()
    assert torch.equal(drawn, density.draw(20_000, generator=seeded(1)))


def test_a_single_draw_has_every_component_by_its_weight():
    y, labels = clusters()
    y = y[(labels != 0) | (torch.arange(len(y)) % 6 == 0)]
    density = fitted(y)
    q = density.mixture()
    draws = torch.cat([density.draw(1, generator=seeded(i)) for i in range(3000)])
    shares = torch.cdist(draws, q.means).argmin(1).bincount(minlength=3) / 3000
    torch.testing.assert_close(shares.double(), q.weights, atol=0.03, rtol=0)


def test_every_class_has_its_own_mixture_and_share():
    y, labels = clusters(900)
    labels = (labels == 2).long()
    density = fitted(y, labels, components=3, classes=2)
    assert density.counts.tolist() == [2.0, 1.0]
    own = density.mixture(1)
    torch.testing.assert_close(own.mean, y[labels == 1].mean(0), atol=1e-6, rtol=0)
    torch.testing.assert_close(own.weights.sum(), torch.tensor(1.0).double())
    # p(y) is the sum of p(y|c) by the shares of the classes.
    points = y[:50]
    parts = [density.mixture(c).log_prob(points).exp() for c in (0, 1)]
    both = density.mixture().log_prob(points).exp()
    torch.testing.assert_close(2 / 3 * parts[0] + 1 / 3 * parts[1], both)
    drawn = density.draw(200, 1, seeded())
    assert float(torch.cdist(drawn, own.mean.unsqueeze(0)).max()) < 6
    for label in (-1, 2):
        with pytest.raises(InputError, match=f"label must lie between 0 and 1, got {label}"):
            density.draw(1, label)


def test_a_rough_fit_can_be_drawn_from():
    y, labels = clusters(300)
    density = FeatureMixture(2, classes=3).double()
    density.fit_roughly(y, labels, generator=seeded())
    assert density.fitted
    assert density.draw(10, 2, seeded()).shape == (10, 2)
    alone = FeatureMixture(2, components=4).double()
    alone.fit_roughly(y, generator=seeded())
    assert len(alone.means) <= 4


def test_the_state_holds_the_mixture_whatever_its_size():
    y, labels = clusters(300)
    source = fitted(y, labels, components=9, classes=3)
    target = FeatureMixture(2, classes=3).double()
    target.load_state_dict(source.state_dict())
    assert torch.equal(target.draw(7, 1, seeded()), source.draw(7, 1, seeded()))
    with pytest.raises(RuntimeError, match="size mismatch"):
        FeatureMixture(5).load_state_dict(source.state_dict())


def test_equal_features_give_one_component():
    density = FeatureMixture(2, components=3).double()
    density.fit(torch.ones(40, 2).double(), generator=seeded())
    assert len(density.means) == 1
    torch.testing.assert_close(
        density.covariance, 0.005 * torch.eye(2).double().unsqueeze(0), atol=1e-9, rtol=0
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"components": 0}, "components must be at least 1, got 0"),
        ({"classes": 0}, "classes must be at least 1, got 0"),
    ],
)
def test_numbers_below_one_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        FeatureMixture(2, **options)


def test_wrong_rows_are_refused():
    y, labels = clusters(30)
    density = FeatureMixture(2, components=31).double()
    with pytest.raises(InputError, match="components must be at most the 30 rows that they are"):
        density.fit(y, generator=seeded())
    for method in ("fit", "fit_roughly"):
        with pytest.raises(InputError, match="at least 2 rows, got \\(1, 2\\)"):
            getattr(density, method)(y[:1], generator=seeded())
        with pytest.raises(InputError, match="features of 1 of 30 rows are not finite"):
            getattr(density, method)(
                y.where(torch.arange(30).unsqueeze(1) != 3, torch.nan), generator=seeded()
            )
    with pytest.raises(InputError, match="not fitted yet"):
        density.draw(3)
    of_classes = FeatureMixture(2, classes=4).double()
    of_classes.fit(y, labels=labels, generator=seeded())
    assert of_classes.counts[3] == 0
    with pytest.raises(InputError, match="class 3 has no density: no training row was of this"):
        of_classes.draw(5, 3)
    with pytest.raises(InputError, match="one for each row, got none"):
        of_classes.fit(y, generator=seeded())
