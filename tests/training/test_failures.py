"""Signatures of failure: known by closed forms, provoked in real runs, silent in healthy ones."""

import logging
import math

import pytest
import torch

from hilbound import fit, resume
from hilbound.cli import demo
from hilbound.reports.run_report import write_report
from hilbound.training import diagnosis, failures
from hilbound.training.failures import (
    collapse,
    far_from_data,
    kernel_rank,
    memorisation,
    variance_too_large,
    variance_too_small,
)
from support.tiny_runs import same_weights, write_points

pytest_plugins = ["support.fixtures_runs"]

FAR = 1e3


def places(*counts):
    """Rows at places that are far apart, so many at each."""
    ends = torch.tensor([FAR * i for i in range(len(counts))], dtype=torch.float64)
    return ends.repeat_interleave(torch.tensor(counts)).unsqueeze(-1)


def share(shares):
    """The exponential of an entropy."""
    return math.exp(-sum(p * math.log(p) for p in shares if p > 0))


# --- the rank -----------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [(20,), (10, 10), (5, 15), (1,) * 20])
def test_rows_at_far_places_have_the_rank_of_their_shares(counts):
    expected = share([c / sum(counts) for c in counts])
    assert kernel_rank(places(*counts), 1.0) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("overlap", [0.1, 0.5, 0.9])
def test_two_places_that_overlap_have_the_rank_of_a_two_by_two_matrix(overlap):
    # exp(-d^2 / (2v)) = k between n/2 rows at either place: eigenvalues n (1 +- k) / 2.
    variance = 3.0
    distance = math.sqrt(-2 * variance * math.log(overlap))
    x = torch.tensor([0.0, distance], dtype=torch.float64).repeat(8).unsqueeze(-1)
    expected = share([(1 + overlap) / 2, (1 - overlap) / 2])
    assert kernel_rank(x, variance) == pytest.approx(expected, rel=1e-9)


# --- the variance -------------------------------------------------------------------------------


def test_the_limit_of_too_large_is_a_rank_of_one_and_a_half():
    # With shares p and 1 - p of two far places the rank crosses 1.5 between 2 and 3 of 20.
    below, above = places(18, 2), places(17, 3)
    assert kernel_rank(below, 1.0) < 1.5 < kernel_rank(above, 1.0)
    finding = variance_too_large(below, 1.0)
    assert finding.name == "variance-too-large"
    assert finding.figures == {
        "variance": 1.0,
        "rows": 20,
        "data_rank": pytest.approx(share([0.9, 0.1])),
    }
    assert "lower --variance" in finding.message
    assert variance_too_large(above, 1.0) is None


def test_the_limit_of_too_small_is_nine_tenths_of_the_rows():
    # 20 rows of which k pairs coincide have rank 20 * 2^(-2k/20).
    at = {k: places(*(2,) * k, *(1,) * (20 - 2 * k)) for k in (1, 2)}
    assert kernel_rank(at[1], 1.0) == pytest.approx(20 * 2**-0.1, rel=1e-9)
    finding = variance_too_small(at[1], 1.0)
    assert finding.name == "variance-too-small"
    assert finding.figures["data_rank"] == pytest.approx(18.66, abs=0.01)
    assert "raise --variance" in finding.message
    assert "--batch-size" in finding.message
    assert variance_too_small(at[2], 1.0) is None


@pytest.mark.parametrize("n", [15, 16])
def test_fewer_than_sixteen_rows_say_nothing(n):
    one, apart = places(n), places(*(1,) * n)
    spoken = [
        variance_too_large(one, 1.0),
        variance_too_small(apart, 1.0),
        collapse(apart, one, 1.0),
        collapse(apart, places(*(1,) * 20)[:, :] * 0, 1.0),
    ]
    assert [finding is not None for finding in spoken] == [n == 16] * 4


# --- collapse -----------------------------------------------------------------------------------


def test_the_limit_of_a_collapse_is_a_tenth_of_the_diversity():
    x = places(*(1,) * 60)  # rank 60, 59 above a point: the limit is 1 + 5.9
    six, seven = places(*(10,) * 6), places(9, 9, 9, 9, 8, 8, 8)
    finding = collapse(x, six, 1.0)
    assert finding.name == "collapse"
    assert finding.figures == {
        "variance": 1.0,
        "rows": 60,
        "data_rank": pytest.approx(60),
        "model_rank": pytest.approx(6),
    }
    assert 6.9 < kernel_rank(seven, 1.0) < 7.1
    assert collapse(x, seven, 1.0) is None


def test_as_many_rows_are_compared_as_both_sides_have():
    x, samples = places(*(1,) * 300), places(*(1,) * 20)
    assert kernel_rank(samples, 1.0) < 0.07 * kernel_rank(x, 1.0)
    assert collapse(x, samples, 1.0) is None
    assert collapse(samples, x, 1.0) is None


def test_data_that_look_like_a_point_cannot_be_collapsed_from():
    assert collapse(places(18, 2), places(20), 1.0) is None
    assert collapse(places(17, 3), places(20), 1.0) is not None


@pytest.mark.parametrize(
    ("objective", "cause"),
    [
        ("distance", "lie at the mean: take --objective nuclear"),
        ("trace", "a random row"),
        ("likelihood", "as wide as the data"),
        ("nuclear", "raise --variance"),
        (None, "raise --variance"),
    ],
)
def test_a_collapse_is_told_with_its_likely_cause(objective, cause):
    assert cause in collapse(places(*(1,) * 20), places(20), 1.0, objective).message


# --- memorisation -------------------------------------------------------------------------------


def normal(generator, n, d=2, power=1):
    return torch.randn(n, d, generator=generator, dtype=torch.float64) ** power


def oracle_score(train, held_out, samples, generator, draws=4000):
    """The same statistic by permuting labels, in plain loops over distances."""
    pooled = torch.cat([train, held_out])
    counts = torch.bincount(torch.cdist(samples, pooled).argmin(1), minlength=len(pooled)).double()
    labels = torch.zeros(len(pooled), dtype=torch.float64)
    labels[: len(train)] = 1
    shuffled = torch.stack(
        [labels[torch.randperm(len(labels), generator=generator)] @ counts for _ in range(draws)]
    )
    return float((labels @ counts - shuffled.mean()) / shuffled.std())


def test_copies_are_named_with_the_figures_of_their_definition(generator):
    train, held_out = normal(generator, 60, 5), normal(generator, 40, 5)
    samples = train.repeat(5, 1) + 0.05 * normal(generator, 300, 5)
    finding = memorisation(train, held_out, samples)
    assert finding.name == "memorisation"
    nearest = lambda x, y: float(torch.cdist(x, y).amin(1).median())  # noqa: E731 - as in the docstring
    figures = finding.figures
    assert figures["to_train"] == pytest.approx(nearest(samples, train) / nearest(held_out, train))
    assert figures["to_held_out"] == pytest.approx(
        nearest(samples, held_out) / nearest(train, held_out)
    )
    expected = oracle_score(train, held_out, samples, generator)
    assert figures["score"] == pytest.approx(expected, rel=0.1)
    assert "--patience" in finding.message


def test_rows_that_are_all_preferred_have_the_largest_score():
    # Every training row by as many samples: sqrt(N + M - 1), by hand.
    row = torch.arange(30).repeat(4)
    assert failures._exchange_score(row, 30, 21) == pytest.approx(math.sqrt(50))
    assert failures._exchange_score(torch.arange(51), 30, 21) == 0


@pytest.mark.parametrize("power", [1, 3])
@pytest.mark.parametrize(("n", "m"), [(20, 100), (100, 100), (1000, 100), (100, 1000)])
def test_small_samples_of_heavy_tails_are_not_taken_for_copies(generator, n, m, power):
    for _ in range(25):
        train, held_out, fresh = (normal(generator, k, 2, power) for k in (n, m, 512))
        blur, away = 0.2 * fresh, fresh + 50
        for samples in (fresh, blur, away):
            assert memorisation(train, held_out, samples) is None


def test_a_blur_is_nearer_to_training_rows_and_yet_no_copy(generator):
    train, held_out = normal(generator, 200, 50), normal(generator, 200, 50)
    blur = 0.1 * normal(generator, 400, 50)
    to_train = torch.cdist(blur, train).amin(1).median()
    assert to_train < 0.8 * torch.cdist(held_out, train).amin(1).median()
    assert memorisation(train, held_out, blur) is None


def test_a_slight_preference_is_no_copy(generator):
    train, held_out = normal(generator, 100, 20), normal(generator, 100, 20)
    near = train.repeat(5, 1) + normal(generator, 500, 20)
    rows = torch.cdist(near, torch.cat([train, held_out])).argmin(1)
    assert failures._exchange_score(rows, 100, 100) > 5
    assert memorisation(train, held_out, near) is None


def test_values_on_a_grid_with_copies_everywhere_say_nothing(generator):
    draw = lambda n: torch.randint(0, 4, (n, 2), generator=generator).double()  # noqa: E731
    train = draw(200)
    assert memorisation(train, draw(100), train) is None
    assert memorisation(train, train.clone(), train) is None


def test_without_rows_to_compare_nothing_is_said(generator):
    x = normal(generator, 50)
    assert memorisation(x, x[:0], x) is None
    assert memorisation(x, x, x[:0]) is None
    few = normal(generator, 12)  # 24 rows in all: no score reaches 5
    assert memorisation(few, normal(generator, 12), few.repeat(40, 1)) is None


# --- far from all data --------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 50])
def test_samples_are_far_where_rows_are_nearer_to_each_other(generator, d):
    x = torch.randn(300, d, generator=generator)
    spread = float(torch.pdist(x).median())
    away = torch.zeros(d)
    away[0] = spread
    assert far_from_data(x, x.mean(0, keepdim=True).expand(100, d)) is None
    assert far_from_data(x, torch.randn(300, d, generator=generator)) is None
    # Beyond the last row by more than the spread, and by less.
    edge = x[x[:, 0].argmax()]
    assert far_from_data(x, (edge + 0.9 * away).expand(100, d)) is None
    finding = far_from_data(x, (edge + 40 * away).expand(100, d))
    expected = float(torch.cdist(edge[None] + 40 * away, x).min())
    assert finding.name == "far-from-data"
    assert finding.figures == pytest.approx({"distance": expected, "spread": spread}, rel=0.02)


def test_half_of_the_samples_decide_and_huge_ones_stay_numbers(generator):
    x = torch.randn(200, 2, generator=generator)
    lost = torch.full((100, 2), 1e30)
    assert far_from_data(x, torch.cat([x[:110], lost])) is None
    finding = far_from_data(x, torch.cat([x[:90], lost]))
    assert math.isfinite(finding.figures["distance"])


# --- runs ---------------------------------------------------------------------------------------

SMALL = {
    "data": "moons",
    "samples": 500,
    "steps": 120,
    "batch_size": 64,
    "width": 32,
    "noise_dim": 2,
    "variance": "0.05*median",
    "learning_rate": 5e-3,
    "tensorboard": False,
    "quiet": True,
}
#: A variance is judged at the first validation, and here there are two.
EARLY = {"steps": 40}
FEW_DIGITS = {
    "data": "digits",
    "samples": 20,
    "steps": 200,
    "batch_size": 20,
    "centers": 128,
    "width": 128,
    "objective": "likelihood",
    "variance": "0.005*median",
}


def told(caplog):
    return [record.getMessage() for record in caplog.records if record.name == diagnosis.__name__]


def findings(run):
    return run.read_json("run.json").get("findings", [])


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({**EARLY, "variance": "30*median"}, "variance-too-large"),
        ({**EARLY, "variance": "median:30*median"}, "variance-too-large"),
        ({**EARLY, "variance": "0.00005*median"}, "variance-too-small"),
        ({**EARLY, "variance": "0.00005*median", "objective": "scalar"}, "variance-too-small"),
        ({"objective": "distance"}, "collapse"),
        ({"objective": "trace"}, "collapse"),
        (FEW_DIGITS, "memorisation"),
        ({"learning_rate": 1.0, "steps": 300, "samples": 2000}, "far-from-data"),
        ({"learning_rate": 1.0, "steps": 90, "samples": 2000}, "far-from-data"),
        (
            {
                "model": "encoder-mixture-decoder",
                "features": 1,
                "objective": "conditional",
                "variance": "30*median",
                "steps": 8,
            },
            "variance-too-large",
        ),
    ],
)
def test_every_failure_is_told_once_and_by_its_name(tmp_path, caplog, options, name):
    caplog.set_level(logging.WARNING)
    run = fit(tmp_path / "run", **{**SMALL, "validate_every": 20, **options})
    # What its own tracker sees of a decoder is noted beside what is judged here.
    (finding,) = [one for one in findings(run) if one["name"] != "decoder-collapse"]
    assert finding["name"] == name
    assert told(caplog) == [finding["message"]]
    assert 0 < finding["step"] <= run.config.steps
    assert all(math.isfinite(value) for value in finding["figures"].values())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"objective": "scalar"},
        {"objective": "likelihood", "variance": "0.005*median"},
        {"objective": "distance", "variance": "30*median", "steps": 90},
        {"objective": "likelihood", "variance": "0.00005*median", "steps": 90},
        {"model": "autoencoder", "features": 1, "objective": "mse", "variance": "30*median"},
        {"variance": "30*median:0.05*median"},
    ],
)
def test_what_is_no_failure_is_not_told(tmp_path, caplog, options):
    caplog.set_level(logging.WARNING)
    options = {**SMALL, **options}
    if options.get("model") == "autoencoder":
        del options["noise_dim"]
    run = fit(tmp_path / "run", **options)
    assert (told(caplog), findings(run)) == ([], [])
    assert "findings" not in run.read_json("run.json")


@pytest.mark.parametrize("data", ["moons", "digits"])
@pytest.mark.parametrize("objective", ["nuclear", "scalar", "likelihood"])
def test_the_demonstration_is_healthy(tmp_path, caplog, data, objective):
    caplog.set_level(logging.WARNING)
    # A third of its steps, and judged at 100 and at the end.
    run = fit(
        tmp_path / "run",
        quiet=True,
        data=data,
        objective=objective,
        tensorboard=False,
        variance=demo._VARIANCES[data, objective],
        learning_rate=5e-3,
        **demo._SETTINGS[data] | {"steps": 140},
    )
    assert (told(caplog), findings(run)) == ([], [])


def test_weights_are_the_same_to_the_bit_without_it(tmp_path, monkeypatch):
    options = {**SMALL, "objective": "trace", "validate_every": 20}
    with_it = fit(tmp_path / "with", **options)
    assert findings(with_it)
    monkeypatch.setattr(diagnosis.Diagnosis, "_look", lambda *_: None)
    assert same_weights(with_it, fit(tmp_path / "without", **options))


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_every_precision_is_judged(tmp_path, precision):
    options = {**SMALL, "objective": "distance", "validate_every": 50, "steps": 110}
    (finding,) = findings(fit(tmp_path / "run", **options, precision=precision))
    assert finding["name"] == "collapse"


def test_precisions_may_be_mixed(generator):
    train, held_out = normal(generator, 60, 5).float(), normal(generator, 60, 5)
    assert memorisation(train, held_out, train.double().repeat(3, 1).requires_grad_()) is not None


def test_a_resumed_run_does_not_repeat_itself(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    options = {**SMALL, "variance": "30*median", "steps": 10}
    run = fit(tmp_path / "run", **options)
    before = findings(run)
    caplog.clear()
    assert findings(resume(run.path, steps=20, quiet=True)) == before
    assert told(caplog) == []


def test_a_model_is_judged_from_step_100_and_once_its_collapse_lasts(tmp_path):
    options = {**SMALL, "objective": "distance", "validate_every": 50, "batch_size": 16}
    assert findings(fit(tmp_path / "early", **{**options, "steps": 100})) == []  # at 100 alone
    (finding,) = findings(fit(tmp_path / "short", **{**options, "steps": 110}))
    assert finding["step"] == 110
    (finding,) = findings(fit(tmp_path / "long", **{**options, "steps": 410}))
    assert finding["step"] == 200  # the second after a quarter of the steps


@pytest.mark.parametrize(
    ("diversity", "step"),
    [([1, 1.2, 1.4, 1.7], None), ([1, 20, 1, 20], None), ([2, 3, 3, 3], 6), ([3, 2, 2, 20], 5)],
)
def test_a_model_that_spreads_is_not_called_collapsed(tmp_path, monkeypatch, diversity, step):
    """Of a hundred rows' rank; told is the collapse that is still there, and hardly smaller."""
    ranks = iter(diversity)

    def collapsing(x, samples, variance, objective):  # noqa: ARG001 - the signature of the original
        rank = next(ranks)
        figures = {"model_rank": rank}
        return failures.Finding("collapse", "collapsed", figures) if rank < 10 else None

    monkeypatch.setattr(diagnosis, "collapse", collapsing)
    monkeypatch.setattr(diagnosis, "_FEWEST_STEPS", 4)
    run = fit(tmp_path / "run", **{**SMALL, "steps": 7, "validate_every": 1})
    assert [one["step"] for one in findings(run)] == ([] if step is None else [step])


def test_spoilt_weights_are_the_business_of_others(tmp_path, monkeypatch):
    nan = torch.full((512, 2), math.nan)
    monkeypatch.setattr(diagnosis.Diagnosis, "_sample", lambda *_: nan)
    assert findings(fit(tmp_path / "run", **SMALL)) == []


def test_findings_stand_in_the_report_and_nothing_where_there_are_none(tmp_path):
    data = write_points(tmp_path / "points.npy")
    options = {**SMALL, "data": data, "samples": None, "steps": 8}
    sick = fit(tmp_path / "sick", **{**options, "variance": "3000*median"})
    html = write_report(sick).read_text(encoding="utf-8")
    assert ">Diagnosis</h2>" in html
    assert "At step 8: the variance is too large" in html
    healthy = fit(tmp_path / "healthy", **options)
    assert "Diagnosis" not in write_report(healthy).read_text(encoding="utf-8")
