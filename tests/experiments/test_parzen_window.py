"""The Parzen window: polishing against the mixture by hand, means of neighbours, verdicts."""

import pytest
import torch

from hilbound.experiments.parzen_window import (
    EXPERIMENT,
    MEANS,
    PLAIN,
    POLISHED,
    REAL,
    WindowSettings,
    means_of_neighbours,
    polish,
)
from hilbound.models.autoencoders import Autoencoder, MixtureDecoder
from hilbound.models.encoder import Encoder
from hilbound.models.networks import MLP

SETTINGS = WindowSettings(polish_rows=20, polish_centers=60, polish_steps=60, polish_variance=0.1)


@pytest.fixture
def rows():
    """Points on a circle."""
    angles = 6.2832 * torch.rand(200, generator=torch.Generator().manual_seed(0))
    return torch.stack([angles.cos(), angles.sin()], -1)


@pytest.fixture
def model():
    """An autoencoder that nothing has trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = Encoder(MLP(2, 2, 8, 1), 2, standardized=2)
        return Autoencoder(encoder, MixtureDecoder(MLP(2, 2, 8, 1), 2, 0, 0.1), variance_y=0.05)


def likelihood(model, rows):
    """The mean log-likelihood of rows under Gaussians around decoded rows, by hand."""
    with torch.no_grad():
        centers = model.decode(model.encode(rows), 1).means.squeeze(1)
    squared = (rows.unsqueeze(1) - centers).square().sum(-1)
    logs = -squared / 0.2 - torch.log(torch.tensor(2 * torch.pi * 0.1))
    return float(logs.logsumexp(1).mean() - torch.log(torch.tensor(float(len(rows)))))


def test_polishing_makes_rows_likely_and_leaves_the_encoder_alone(rows, model):
    model.eval()
    before, encoder = likelihood(model, rows), model.encoder.state_dict()
    encoder = {name: value.clone() for name, value in encoder.items()}
    polish(model, rows, SETTINGS, seed=0)
    assert likelihood(model, rows) > before + 0.3
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(encoder[name], value), name


def test_no_row_is_compared_with_its_own_reconstruction(rows, model, monkeypatch):
    seen = []
    perturb = type(model).perturb

    def watched(self, features, generator):
        seen.append(features.clone())
        return perturb(self, features, generator)

    monkeypatch.setattr(type(model), "perturb", watched)
    compared = []
    monkeypatch.setattr(
        "hilbound.experiments.parzen_window.Likelihood",
        lambda: lambda p, q: compared.append(p.means) or q.means.sum(),
    )
    polish(model, rows, SETTINGS.model_copy(update={"polish_steps": 3}), seed=0)
    model.eval()
    for codes, x in zip(seen, compared, strict=True):
        with torch.no_grad():
            own = model.encode(x)
        assert torch.cdist(own, codes).min() > 0


def test_means_of_neighbours_by_hand():
    rows = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [9.0, 9.0]])
    found = means_of_neighbours(rows[[0, 3]], rows, 3)
    assert torch.allclose(found, torch.tensor([[1 / 3, 2 / 3], [10 / 3, 11 / 3]]))


def found_with(polished, real=243.0, means=300.0):
    """Rows with these figures; the plain autoencoder has 330."""
    of = {REAL: [real], MEANS: [means], PLAIN: [330.0] * 3, POLISHED: polished}
    return [
        {"method": method, "seed": seed, "parzen": value}
        for method, values in of.items()
        for seed, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("polished", "means", "expected"),
    [
        ([341.0, 345.0, 350.0], 300.0, [True, True, True]),
        ([339.0, 345.0, 350.0], 240.0, [None, True, False]),
        ([320.0, 321.0, 322.0], 300.0, [False, False, True]),
    ],
)
def test_verdicts(polished, means, expected):
    claims = EXPERIMENT.claims(WindowSettings(), found_with(polished, means=means))
    assert [claim.holds for claim in claims] == expected
    assert "243" in claims[0].outcome


def test_what_is_polished_waits_for_its_autoencoder():
    first = list(EXPERIMENT.cells(WindowSettings(), [0, 1], []))
    assert [cell.name for cell in first] == [
        "training-images-0",
        "means-of-training-images-0",
        "autoencoder-0",
        "autoencoder-1",
    ]
    later = list(EXPERIMENT.cells(WindowSettings(), [0, 1], [{"method": PLAIN, "seed": 1}]))
    assert later[-1].name == "autoencoder-polished-1"
