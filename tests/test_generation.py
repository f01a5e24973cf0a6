"""The generation experiment: which trainings it asks for, and how it judges rows."""

import pytest
from PIL import Image

from hilbound.experiments.base import Cell
from hilbound.experiments.generation import EXPERIMENT, METHODS, OWN, GenerationSettings
from hilbound.experiments.generation_pages import best_rows
from hilbound.experiments.runner import run_experiment

SETTINGS = GenerationSettings(data=("mnist",), steps=100, longer_methods=("vae",))
GOOD = {"coverage": 0.95, "recall": 0.93, "precision": 0.94, "frechet_distance": 9.0,
        "vendi_score": 4.0, "novelty": 0.9, "parzen": 350.0}  # fmt: skip


def row(method, budget="steps", seed=0, seconds=10.0, **values):
    return {"cell": f"{method}-{budget}-{seed}", "data": "mnist", "method": method,
            "budget": budget, "seed": seed, "training_seconds": seconds, "steps": 100,
            **GOOD, **values}  # fmt: skip


def all_rows(seconds=None, **changes):
    seconds = seconds or {}
    rows = [row("real", "none")]
    return rows + [row(m, seconds=seconds.get(m, 10.0), **changes.get(m, {})) for m in METHODS]


def holds(rows):
    return {claim.claim[:30]: claim.holds for claim in EXPERIMENT.claims(SETTINGS, rows)}


def test_the_floor_comes_first_then_every_method_with_every_seed():
    cells = list(EXPERIMENT.cells(SETTINGS, [0, 1], []))
    assert cells[0].options["method"] == "real"
    assert len(cells) == 1 + 2 * len(METHODS)


def test_what_is_quicker_gets_more_steps_and_what_is_slower_fewer():
    rows = all_rows({"scalar": 4.0, "debiased": 20.0, "vae": 10.5})
    extra = [c for c in EXPERIMENT.cells(SETTINGS, [0], rows) if c.options.get("budget") == "time"]
    assert {c.options["method"]: c.options["steps"] for c in extra} == {
        "scalar": 250,
        "debiased": 50,
    }


def test_some_are_trained_for_longer_than_the_reference():
    cells = EXPERIMENT.cells(SETTINGS, [0], all_rows({"vae": 5.0}))
    longer = [c.options for c in cells if c.options.get("budget") == "longer"]
    assert [(o["method"], o["steps"]) for o in longer] == [("vae", 500)]


def test_no_time_is_compared_before_all_times_are_known():
    rows = [r for r in all_rows({"scalar": 1.0}) if r["method"] != "vae"]
    assert all(c.options["budget"] != "time" for c in EXPERIMENT.cells(SETTINGS, [0], rows))


def test_at_equal_time_the_longer_training_counts_if_there_is_one():
    rows = [*all_rows(), row("scalar", "time", coverage=0.5)]
    assert [r["coverage"] for r in best_rows(rows, "mnist", "scalar", "time")] == [0.5]
    assert [r["coverage"] for r in best_rows(rows, "mnist", "scalar", "steps")] == [0.95]
    assert [r["coverage"] for r in best_rows(rows, "mnist", "nuclear", "time")] == [0.95]
    assert [r["coverage"] for r in best_rows(rows, "mnist", "scalar", "longer")] == [0.5]


def test_claims_follow_the_rows():
    weak = {"coverage": 0.5, "recall": 0.4, "precision": 0.8, "frechet_distance": 90.0}
    strong = holds(all_rows(scalar=weak, likelihood=weak, vae=weak))
    assert strong["At equal steps the nuclear nor"] is True
    assert strong["Our best reaches coverage .93,"] is True
    assert strong["One of ours is ahead of the li"] is True
    assert strong["The Parzen log-likelihood of o"] is True
    failed = holds(all_rows(**{m: {**weak, "parzen": 100.0} for m in OWN}))
    assert failed["At equal steps the nuclear nor"] is False
    assert failed["Our best reaches coverage .93,"] is False
    assert failed["One of ours is ahead of the li"] is False
    assert failed["The Parzen log-likelihood of o"] is False


def test_without_celeba_the_page_says_what_to_put_where(monkeypatch, tmp_path):
    monkeypatch.setenv("HILBOUND_DATA", str(tmp_path))
    settings = GenerationSettings(steps=100)
    cells = list(EXPERIMENT.cells(settings, [0], []))
    assert {c.options["data"] for c in cells} == {"mnist"}
    notes = EXPERIMENT.notes(settings, all_rows())
    assert "img_align_celeba" in notes
    assert "list_eval_partition.txt" in notes
    assert str(tmp_path) not in notes
    assert "CelebA" not in EXPERIMENT.notes(SETTINGS, all_rows())


@pytest.fixture
def faces(tmp_path, monkeypatch):
    """A tiny folder in CelebA's official layout."""
    root = tmp_path / "data" / "celeba"
    (root / "img_align_celeba").mkdir(parents=True)
    lines = []
    for i in range(120):
        shade = (i * 2, 255 - i * 2, (i * 37) % 256)
        picture = Image.new("RGB", (178, 218), shade)
        picture.paste((shade[2], shade[0], shade[1]), (40, 60, 60 + i % 70, 150))
        picture.save(root / "img_align_celeba" / f"{i:06d}.jpg")
        lines.append(f"{i:06d}.jpg {0 if i < 60 else 1 if i < 90 else 2}")
    (root / "list_eval_partition.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.setenv("HILBOUND_DATA", str(root.parent))


@pytest.mark.usefixtures("faces")
def test_a_folder_in_the_layout_of_celeba_is_measured(tmp_path, monkeypatch):
    small = GenerationSettings(
        data=("digits", "celeba"), methods=("nuclear", "scalar", "likelihood", "debiased", "vae",
        "autoencoder"), width=8, noise_dim=2, batch_size=16, steps=2, samples=30,
    )  # fmt: skip
    monkeypatch.setattr(type(EXPERIMENT), "settings", lambda *_, **__: small)
    result = run_experiment("generation", tmp_path / "out", quick=True, quiet=True)
    assert {r["data"] for r in result.rows} == {"digits", "celeba"}
    page = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "celeba-samples.png" in page
    assert "was not at hand" not in page


def test_cells_of_equal_time_keep_their_names():
    rows = all_rows({"scalar": 4.0})
    first, second = (
        [c.name for c in EXPERIMENT.cells(SETTINGS, [0], rows)],
        [c.name for c in EXPERIMENT.cells(SETTINGS, [0], rows)],
    )
    assert first == second
    time = Cell.of(data="mnist", method="scalar", budget="time", seed=0, steps=250)
    assert time.name in first
