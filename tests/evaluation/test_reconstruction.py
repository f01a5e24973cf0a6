"""Reconstructions of a run: what the model makes of an input, as arrays and as a picture."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from hilbound.datasets import load
from hilbound.engine.seeding import stream
from hilbound.errors import InputError
from hilbound.evaluation.reconstruction import (
    Reconstructions,
    reconstruct,
    reconstruction_errors,
    rows_with_features,
)
from hilbound.models.autoencoders import Autoencoder, EncoderMixtureDecoder, MixtureDecoder
from hilbound.models.encoder import Encoder
from hilbound.reports.reconstructions import draw_reconstructions, write_reconstructions
from hilbound.training.runs import Run
from support.tiny_runs import train, write_table

pytest_plugins = ["support.fixtures_runs"]

EMD = {"model": "encoder-mixture-decoder", "centers": 3, "features": 1}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    path = tmp_path_factory.mktemp("digits") / "run"
    return train(path, data="digits", samples=64, steps=2, **EMD)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    return train(folder / "run", data=write_table(folder / "t.csv"), steps=2, **EMD)


@pytest.fixture(scope="module")
def planar(tmp_path_factory):
    return train(tmp_path_factory.mktemp("planar") / "run", steps=2, **EMD)


def in_rows(rows, x):
    """The indices of rows that equal the rows of x."""
    return [int((rows == row).all(1).nonzero()) for row in x]


# What is reconstructed


@pytest.mark.parametrize("split", ["test", "validation", "train"])
def test_a_table_comes_in_the_users_units_and_is_what_the_model_makes_by_hand(
    table, tmp_path, split
):
    result = reconstruct(table, 5, 4, split=split, seed=3)
    path = write_reconstructions(table, result, tmp_path / "deep" / "r.npz")
    arrays = np.load(path)
    assert set(arrays.files) == {"x", "features", "reconstructions"}
    assert arrays["x"].shape == (5, 3)
    assert arrays["features"].shape == (5, 1)
    assert arrays["reconstructions"].shape == (5, 4, 3)
    # Rows of the user's own file.
    own = np.loadtxt(table.config.data, delimiter=",", skiprows=1)
    distances = np.abs(arrays["x"][:, None] - own).max(-1)
    assert distances.min(1) == pytest.approx([0] * 5, abs=1e-5)

    rows = getattr(load(table.config.data), split)
    facts = table.read_json("run.json")["data"]
    z = torch.tensor((arrays["x"] - facts["offset"]) / facts["scale"], dtype=torch.float32)
    nearest = torch.cdist(z, rows).argmin(1)
    assert len(set(nearest.tolist())) == 5
    z, model = rows[nearest], table.load_model()
    torch.testing.assert_close(torch.tensor(arrays["features"]), model.encode(z).detach())
    expected = model.reconstruct(z, 4, stream(3, "reconstructions")).double().numpy()
    expected = expected * facts["scale"] + facts["offset"]
    assert arrays["reconstructions"] == pytest.approx(expected, rel=1e-9)


def test_images_keep_their_shape(digits, tmp_path):
    result = reconstruct(digits, 3, 2)
    arrays = np.load(write_reconstructions(digits, result, tmp_path / "r.npz"))
    assert arrays["x"].shape == (3, 1, 8, 8)
    assert arrays["reconstructions"].shape == (3, 2, 1, 8, 8)
    test = load("digits").test
    x = torch.tensor(arrays["x"]).flatten(1)
    assert len(set(in_rows(test, x))) == 3
    drawn = digits.load_model().reconstruct(x, 2, stream(0, "reconstructions"))
    torch.testing.assert_close(torch.tensor(arrays["reconstructions"]).flatten(2), drawn)


def test_a_seed_names_inputs_and_reconstructions(table):
    one, again, other = (reconstruct(table, 6, 2, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.x, again.x)
    assert torch.equal(one.reconstructions, again.reconstructions)
    assert not torch.equal(one.x, other.x)


def test_loaded_data_are_taken_as_they_are(table, monkeypatch):
    expected, opened = reconstruct(table), Run.open(table.path)
    opened.keep(load(table.config.data))
    monkeypatch.setattr("hilbound.training.runs.load_dataset", None)
    result = reconstruct(opened)
    assert torch.equal(result.x, expected.x)
    assert torch.equal(result.reconstructions, expected.reconstructions)


@pytest.mark.parametrize("model", ["autoencoder", "vae"])
def test_the_baselines_reconstruct_too(tmp_path, model):
    run = train_baseline(tmp_path, model)
    result = reconstruct(run, 4, 3)
    same = bool((result.reconstructions == result.reconstructions[:, :1]).all())
    assert same == (model == "autoencoder")
    assert result.reconstructions.shape == (4, 3, 2)


def train_baseline(folder, model):
    from hilbound import fit
    from support.tiny_runs import write_points

    return fit(
        folder / "run",
        quiet=True,
        data=write_points(folder / "p.npy"),
        model=model,
        features=1,
        width=8,
        depth=1,
        steps=2,
        batch_size=32,
        tensorboard=False,
    )


def test_wide_precision_stays(tmp_path):
    run = train(tmp_path / "run", steps=2, precision="64-true", **EMD)
    result = reconstruct(run, 2, 2)
    assert result.features.dtype == result.reconstructions.dtype == torch.float64


# Pictures


def test_a_picture_of_images_shows_each_input_before_its_reconstructions(digits):
    result = reconstruct(digits, 4, 6)
    (ax,) = draw_reconstructions(result).axes
    (image,) = ax.images
    seen = np.asarray(image.get_array())
    assert seen.shape == (4 * 9 - 1, 8 + 4 + 6 * 9 - 1, 3)
    np.testing.assert_allclose(seen[9:17, :8, 0], result.x[1].reshape(8, 8))
    third = seen[9:17, 12 + 18 : 12 + 26, 0]
    np.testing.assert_allclose(third, result.reconstructions[1, 2].reshape(8, 8), rtol=1e-6)
    assert "input" in [text.get_text() for text in ax.texts]


def test_pictures_are_written(digits, planar, tmp_path):
    for run in (digits, planar):
        path = write_reconstructions(run, reconstruct(run, 3, 2), tmp_path / f"{id(run)}.PNG")
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert np.asarray(image.convert("L")).std() > 5


def test_points_of_the_plane_become_a_scatter_in_the_users_units(planar):
    result = reconstruct(planar, 3, 5)
    (ax,) = draw_reconstructions(result).axes
    clouds = [np.asarray(c.get_offsets()) for c in ax.collections if len(c.get_offsets())]
    assert [len(c) for c in clouds] == [5, 1] * 3
    np.testing.assert_allclose(np.concatenate(clouds[1::2]), result.x)
    np.testing.assert_allclose(np.stack(clouds[::2]), result.reconstructions)
    own = np.load(planar.config.data)
    assert np.abs(result.x.numpy()[:, None] - own).max(-1).min(1) == pytest.approx(0, abs=1e-4)


# Wrong input


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n": 0}, "n must be at least 1, got 0"),
        ({"m": 0}, "m must be at least 1, got 0"),
        ({"n": 21}, "the test split has 20 rows, got n=21"),
        ({"split": "tset"}, "split must be one of test, validation, train, got 'tset'"),
    ],
)
def test_wrong_numbers_and_splits_are_refused(table, options, words):
    with pytest.raises(InputError, match=words):
        reconstruct(table, **options)


def test_a_model_without_an_encoder_is_named_with_the_remedy(trained):
    words = "mixture-density-network, which has no encoder .*--model encoder-mixture-decoder"
    with pytest.raises(InputError, match=words):
        reconstruct(trained)


def test_files_that_cannot_be_written_are_refused(table, tmp_path):
    result = reconstruct(table, 2, 2)
    for name in ("x.csv", "x", "x.jpg"):
        with pytest.raises(InputError, match=r"must end in one of \.png, \.npz"):
            write_reconstructions(table, result, tmp_path / name)
    with pytest.raises(InputError, match=r"3 coordinates make no picture; write a \.npz"):
        write_reconstructions(table, result, tmp_path / "x.png")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="cannot be written"):
        write_reconstructions(table, result, tmp_path / "file" / "x.npz")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(InputError, match="cannot be written: Is a directory"):
        write_reconstructions(table, result, tmp_path / "folder.npz")
    assert {f.name for f in tmp_path.iterdir()} == {"file", "folder.npz"}


# Numbers


def test_errors_agree_with_their_definitions(generator):
    x = torch.randn(7, 3, generator=generator)
    r = torch.randn(7, 5, 3, generator=generator)
    values = reconstruction_errors(x, r)
    a, b = x.double().numpy(), r.double().numpy()
    assert values["error_of_mean"] == pytest.approx(((a - b.mean(1)) ** 2).mean())
    best = [min(((a[i] - own) ** 2).mean() for own in b[i]) for i in range(7)]
    assert values["error_of_best"] == pytest.approx(np.mean(best))
    pairs = [((u - v) ** 2).mean() for own in b for u, v in itertools.combinations(own, 2)]
    assert values["pairwise_distance"] == pytest.approx(np.mean(pairs))
    # The decomposition of the module's docstring.
    single = ((a[:, None] - b) ** 2).mean()
    assert single == pytest.approx(values["error_of_mean"] + 4 / 10 * values["pairwise_distance"])


def test_one_reconstruction_differs_from_none(generator):
    x = torch.randn(4, 2, generator=generator)
    values = reconstruction_errors(x, x.unsqueeze(1) + 1)
    assert values == {
        "error_of_mean": pytest.approx(1, abs=1e-6),
        "error_of_best": pytest.approx(1, abs=1e-6),
        "pairwise_distance": 0,
    }


def emd(variance_y):
    """A model whose feature is the first coordinate."""
    linear = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(linear.weight)
    linear.weight.data[0, 0] = 1.0
    decoder = MixtureDecoder(nn.Linear(2, 2), feature_dim=1, noise_dim=1, variance=0.5)
    encoder = Encoder(linear, 2, standardized=None)
    return EncoderMixtureDecoder(encoder, decoder, variance_y=variance_y, centers=2).eval()


def test_rows_with_features_are_as_frequent_as_their_weights(generator):
    rows = torch.tensor([[0.0, 5.0], [0.3, 6.0], [2.0, 7.0]])
    drawn = rows_with_features(emd(0.05), torch.tensor([[0.1, 0.0]]), rows, 20_000, generator)
    shares = [(drawn[0, :, 1] == value).double().mean() for value in (5, 6, 7)]
    w = np.exp(-(np.array([0.1, 0.2, 1.9]) ** 2) / 0.1)
    assert shares == pytest.approx((w / w.sum()).tolist(), abs=0.015)
    assert drawn.shape == (1, 20_000, 2)


def test_features_without_noise_are_shared_by_none(generator):
    decoder = MixtureDecoder(nn.Linear(1, 2), feature_dim=1, noise_dim=0, variance=0.5)
    model = Autoencoder(emd(0.1).encoder, decoder)
    with pytest.raises(InputError, match="no noise"):
        rows_with_features(model, torch.zeros(1, 2), torch.zeros(3, 2), 2, generator)


def test_a_result_without_an_image_shape_has_rows():
    result = Reconstructions(torch.zeros(2, 3), torch.zeros(2, 1), torch.zeros(2, 4, 3))
    assert {k: tuple(v.shape) for k, v in result.arrays().items()} == {
        "x": (2, 3),
        "features": (2, 1),
        "reconstructions": (2, 4, 3),
    }
