"""Good runs and estimators, of which the hostile ones are made, and which are fuzzed."""

import numpy as np

import hilbound
from hilbound.config import TableConfig
from hilbound.estimators.autoencoder import MixtureAutoencoder
from hilbound.estimators.conditional import ConditionalDensityEstimator
from hilbound.estimators.density import MixtureDensityEstimator
from hilbound.estimators.table_run import TableRun


def make_good(folder):
    """Write the good runs and estimators, of which the hostile ones are made."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    x = draw.normal(size=(60, 2))
    table = folder / "table.csv"
    np.savetxt(table, x, "%.6f", ",", header="a,b", comments="")
    tiny = {"batch_size": 16, "width": 8, "depth": 1, "noise_dim": 2, "steps": 2}
    hilbound.fit(
        folder / "run", data=table, quiet=True, validate_every=1, tensorboard=False, **tiny
    )
    MixtureDensityEstimator(random_state=0).fit(x).save(folder / "density")
    MixtureAutoencoder(1, max_steps=5, random_state=0).fit(x).save(folder / "coder")
    estimator = ConditionalDensityEstimator(max_epochs=1, random_state=0)
    estimator.fit(x[:, :1], x[:, 1]).save(folder / "conditional")
    config = TableConfig.create(data=str(table), target="b", max_epochs=1)
    TableRun.fit(folder / "table run", config, quiet=True)
