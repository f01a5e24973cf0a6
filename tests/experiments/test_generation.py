"""The generation experiment: which trainings it asks for, and how it judges rows."""

import pytest
from PIL import Image

from hilbound.experiments.generation.experiment import EXPERIMENT, METHODS
from hilbound.experiments.generation.page import BASELINES, NAMED, best_rows
from hilbound.experiments.generation.settings import GenerationSettings
from hilbound.experiments.runner import run_experiment

SETTINGS = GenerationSettings(
    data=("mnist",), steps=100, longer=2.5, longer_methods=("vae", "likelihood", "autoencoder")
)
TINY = {
    name: options | ({"features": 2} if "features" in options else {})
    for name, options in METHODS.items()
}
GOOD = {
    "coverage": 0.95,
    "recall": 0.93,
    "precision": 0.94,
    "frechet_distance": 9.0,
    "vendi_score": 4.0,
    "novelty": 0.9,
    "parzen": 350.0,
}


def row(method, budget="steps", seed=0, seconds=10.0, **values):
    return {
        "cell": f"{method}-{budget}-{seed}",
        "data": "mnist",
        "method": method,
        "budget": budget,
        "seed": seed,
        "training_seconds": seconds,
        "steps": 100,
        **GOOD,
        **values,
    }


def all_rows(seconds=None, **changes):
    seconds = seconds or {}
    rows = [row("real", "none")]
    for m in METHODS:
        own = row(m, seconds=seconds.get(m, 10.0), **changes.get(m, {}))
        rows.append(own)
        if m in NAMED and not seconds:
            rows.append(own | {"budget": "longer"})
    return rows


def verdicts(rows):
    """Two of the paper, two goals, two by two against baselines, Parzen."""
    return [claim.holds for claim in EXPERIMENT.claims(SETTINGS, rows)]


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
    longer = {
        c.options["method"]: c.options["steps"]
        for c in cells
        if c.options.get("budget") == "longer"
    }
    assert longer == {"likelihood": 250, "vae": 500, "autoencoder": 250}


def test_no_time_is_compared_before_all_times_are_known():
    rows = [r for r in all_rows({"scalar": 1.0}) if r["method"] != "vae"]
    assert all(c.options["budget"] != "time" for c in EXPERIMENT.cells(SETTINGS, [0], rows))


def test_at_equal_time_the_longer_training_counts_if_there_is_one():
    rows = [*all_rows(), row("scalar", "time", coverage=0.5)]
    assert [r["coverage"] for r in best_rows(rows, "mnist", "scalar", "time")] == [0.5]
    assert [r["coverage"] for r in best_rows(rows, "mnist", "scalar", "steps")] == [0.95]
    assert [r["coverage"] for r in best_rows(rows, "mnist", "nuclear", "time")] == [0.95]
    assert [r["coverage"] for r in best_rows(rows, "mnist", "scalar", "longer")] == [0.5]


WEAK = {"coverage": 0.5, "recall": 0.4, "precision": 0.8, "frechet_distance": 90.0}


def test_all_claims_hold_where_the_baselines_are_weak():
    weak = {**WEAK, "parzen": 100.0}
    assert verdicts(all_rows(scalar=weak, likelihood=weak, vae=weak)) == [True] * 9


def test_all_claims_fail_where_ours_are_weak():
    weak = {**WEAK, "parzen": 100.0}
    rows = all_rows(**{m: weak for m in METHODS if m not in BASELINES})
    assert verdicts(rows) == [False] * 9
    reasons = [claim.reason for claim in EXPERIMENT.claims(SETTINGS, rows)]
    assert "coverage by 0.430" in reasons[2]
    assert "Fréchet distance by 75.0" in reasons[3]
    assert "misses it by 240 nats" in reasons[8]


def test_the_two_kinds_of_ours_are_judged_apart():
    rows = all_rows(**{m: WEAK for m in METHODS if m != "autoencoder"})
    assert verdicts(rows)[2:8] == [False, True, False, False, True, True]


def test_a_method_without_a_longer_training_is_not_judged_by_one():
    rows = [r for r in all_rows() if (r["method"], r["budget"]) != ("debiased", "longer")]
    assert len(verdicts(rows)) == 8
    assert not [c for c in EXPERIMENT.claims(SETTINGS, rows) if "times it, debiased" in c.claim]


def test_the_best_figure_of_several_methods_changes_no_verdict():
    """What is judged was named beforehand: figures of test rows pick nothing."""
    rows = all_rows(debiased=WEAK)
    better = [r | {"coverage": 0.99} if r["method"] == "schatten" else r for r in rows]
    assert verdicts(better) == verdicts(rows)
    assert verdicts(rows)[2] is False


def test_a_lead_that_not_every_seed_has_is_not_shown():
    rows = all_rows(scalar=WEAK, likelihood={**WEAK, "coverage": 0.5})
    rows.append({**row("likelihood", seed=1), "coverage": 0.96})
    rows.append({**row("nuclear", seed=1), "coverage": 0.97})
    rows.append({**row("scalar", seed=1), **WEAK})
    assert verdicts(rows)[0] is None


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
        data=("digits", "celeba"),
        width=8,
        methods=TINY,
        celeba={"image_size": 8},
        longer_methods=("likelihood", "vae", "autoencoder"),
        noise_dim=2,
        batch_size=16,
        steps=2,
        samples=30,
    )
    monkeypatch.setattr(type(EXPERIMENT), "settings", lambda *_, **__: small)
    result = run_experiment("generation", tmp_path / "out", quick=True, quiet=True)
    assert {r["data"] for r in result.rows} == {"digits", "celeba"}
    page = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "celeba-equal-time.png" in page
    assert "was not at hand" not in page
