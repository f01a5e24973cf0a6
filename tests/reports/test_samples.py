"""Samples as files: what the model drew, in the user's units, in the user's format."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from hilbound.config import RunConfig
from hilbound.engine.seeding import stream
from hilbound.errors import InputError
from hilbound.reports.samples import write_samples
from hilbound.training.runs import Run
from support.tiny_runs import COLUMNS, train, weights, write_table

pytest_plugins = ["support.fixtures_runs"]


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return train(tmp_path_factory.mktemp("digits") / "run", data="digits", samples=64, steps=2)


@pytest.fixture(scope="module")
def planar(tmp_path_factory):
    return train(tmp_path_factory.mktemp("planar") / "run", steps=2, scale="none")


@pytest.mark.parametrize("source", ["centers", "density"])
def test_a_seed_names_the_samples(trained, source):
    one = trained.sample(20, seed=3, source=source)
    assert torch.equal(one, trained.sample(20, seed=3, source=source))
    assert not torch.equal(one, trained.sample(20, seed=4, source=source))


def test_centres_are_what_the_network_makes_of_noise(trained):
    model = trained.load_model()
    with torch.no_grad():
        centers = model.network(model.noise(9, stream(5, "sample"))).double()
    table = np.loadtxt(trained.config.data, delimiter=",", skiprows=1)
    facts = trained.read_json("run.json")["data"]
    # The columns' own means and deviations, from the file: the standardisation is undone.
    assert facts["offset"] == pytest.approx(table.mean(0), abs=1)
    assert facts["scale"] == pytest.approx(table.std(0), rel=0.2)
    expected = centers.numpy() * facts["scale"] + facts["offset"]
    assert trained.sample(9, seed=5).numpy() == pytest.approx(expected, rel=1e-12)


def test_draws_from_the_density_add_the_components_variance(planar):
    centers, draws = planar.sample(4000), planar.sample(4000, source="density")
    component = float(weights(planar)["variance"])
    excess = draws.var(0) - centers.var(0)
    assert excess.tolist() == pytest.approx([component] * 2, rel=0.15)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"n": 0}, "n must be at least 1, got 0"), ({"n": 1, "source": "mean"}, "got 'mean'")],
)
def test_what_cannot_be_drawn_is_refused(trained, arguments, words):
    with pytest.raises(InputError, match=words):
        trained.sample(**arguments)


def test_a_table_has_its_own_header_units_and_digits(trained, tmp_path):
    samples = trained.sample(6)
    path = write_samples(trained, samples, tmp_path / "deep" / "samples.csv")
    with path.open(newline="", encoding="utf-8") as lines:
        header, *rows = csv.reader(lines)
    assert tuple(header) == COLUMNS
    assert np.array(rows, float) == pytest.approx(samples.numpy(), rel=1e-8)
    assert np.array(rows, float).mean(0) == pytest.approx([180, 70, 20_240], rel=0.1)


def test_samples_can_be_trained_on(trained, tmp_path):
    path = write_samples(trained, trained.sample(60), tmp_path / "samples.csv")
    again = train(tmp_path / "again", data=path, steps=1)
    assert again.read_json("run.json")["data"]["columns"] == list(COLUMNS)


@pytest.mark.parametrize(
    "columns", [['say "hi"', "a\nb", "c"], ["", " x ", "é"]], ids=["quotes", "spaces"]
)
def test_any_header_comes_back(trained, tmp_path, columns):
    data = trained.read_json("run.json")["data"] | {"columns": columns}
    trained.update(data=data)
    path = write_samples(trained, trained.sample(2), tmp_path / "samples.csv")
    with path.open(newline="", encoding="utf-8") as lines:
        assert next(csv.reader(lines)) == columns


def test_arrays_keep_the_images_shape(digits, tmp_path):
    samples = digits.sample(7)
    expected = samples.reshape(7, 1, 8, 8).numpy()
    packed = np.load(write_samples(digits, samples, tmp_path / "x.npz"))
    assert packed.files == ["x"]
    assert np.array_equal(packed["x"], expected)
    assert np.array_equal(np.load(write_samples(digits, samples, tmp_path / "x.npy")), expected)
    assert expected.min() >= 0
    assert expected.max() <= 1
    with (write_samples(digits, samples, tmp_path / "x.csv")).open() as lines:
        assert next(lines).rstrip() == ",".join(f"x{i}" for i in range(1, 65))


def test_arrays_of_a_table_are_rows(trained, tmp_path):
    samples = trained.sample(7)
    assert np.array_equal(
        np.load(write_samples(trained, samples, tmp_path / "x.npz"))["x"], samples.numpy()
    )


def test_images_become_one_picture(digits, tmp_path):
    path = write_samples(digits, torch.zeros(9, 64), tmp_path / "black.PNG")
    black = pixels(path)
    write_samples(digits, torch.ones(9, 64), tmp_path / "white.png")
    white = pixels(tmp_path / "white.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert black.shape == white.shape == (1200, 1200)
    assert (white > black).mean() > 0.5


def test_the_picture_shows_the_samples(digits, tmp_path):
    """One bright pixel in one of four images lights that place and no other."""
    samples = torch.zeros(4, 64)
    before = pixels(write_samples(digits, samples, tmp_path / "a.png"))
    samples[1, 0] = 1  # the first row's second image, its upper left corner
    after = pixels(write_samples(digits, samples, tmp_path / "b.png"))
    rows, columns = np.nonzero(before != after)
    assert len(rows) > 100
    assert rows.max() < 300
    assert columns.min() > 550
    assert columns.max() < 800


def test_points_of_the_plane_become_a_scatter(planar, tmp_path):
    few = write_samples(planar, planar.sample(1), tmp_path / "few.png")
    many = write_samples(planar, planar.sample(500), tmp_path / "many.png")
    ink = [(pixels(path) < 200).sum() for path in (few, many)]
    assert pixels(many).shape == (1000, 1000)
    assert ink[1] > ink[0]


def test_other_vectors_make_no_picture(trained, tmp_path):
    with pytest.raises(InputError, match=r"3 coordinates make no picture; write a \.csv"):
        write_samples(trained, trained.sample(2), tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()


def test_unknown_suffixes_and_unwritable_places_are_refused(trained, tmp_path):
    samples = trained.sample(2)
    for name in ("x.jpg", "x", "x.csv.gz"):
        with pytest.raises(InputError, match=r"must end in one of \.png"):
            write_samples(trained, samples, tmp_path / name)
    (tmp_path / "file").write_text("mine")
    for suffix in ("npz", "npy", "csv"):
        with pytest.raises(InputError, match="cannot be written"):
            write_samples(trained, samples, tmp_path / "file" / f"x.{suffix}")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match="cannot be written: Is a directory"):
        write_samples(trained, samples, tmp_path / "folder.csv")


def test_learned_weights_choose_the_centres(tmp_path):
    run = train(tmp_path / "run", data=write_table(tmp_path / "t.csv"), learn_weights=True)
    assert run.sample(10).shape == (10, 3)
    assert run.sample(10, source="density").shape == (10, 3)
    assert Run.open(run.path).config == RunConfig(**run.config.model_dump())


def test_spoilt_weights_are_refused(trained):
    spoilt = {name: torch.full_like(t, torch.nan) for name, t in weights(trained).items()}
    spoilt["variance"] = weights(trained)["variance"]
    save_file(spoilt, trained.path / "model.safetensors")
    with pytest.raises(InputError, match=r"NaN or infinite values \(5 of 5 samples\).*--learning"):
        trained.sample(5)
