"""Estimators fitted in two threads at once are those that are fitted one after the other."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest

from hilbound.estimators import ConditionalDensityEstimator, MixtureDensityEstimator
from hilbound.estimators.autoencoder import MixtureAutoencoder

X = np.random.default_rng(0).normal(size=(60, 3))
FITS = {
    "density": (
        lambda seed: MixtureDensityEstimator(random_state=seed).fit(X + seed),
        lambda model: model.score_samples(X),
    ),
    "coder": (
        lambda seed: MixtureAutoencoder(1, max_steps=20, random_state=seed).fit(X + seed),
        lambda model: model.transform(X),
    ),
    "conditional": (
        lambda seed: ConditionalDensityEstimator(max_epochs=15, random_state=seed).fit(
            X[:, :2] + seed, X[:, 2]
        ),
        lambda model: model.score_samples(X[:, :2], X[:, 2]),
    ),
}


@pytest.mark.parametrize("name", FITS)
def test_two_threads_at_once_fit_what_one_does_after_the_other(name):
    fit, read = FITS[name]
    expected = [read(fit(seed)) for seed in (0, 1)]
    assert not np.array_equal(*expected)
    together = Barrier(2)

    def work(seed):
        together.wait()
        return read(fit(seed))

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(work, (0, 1)))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
