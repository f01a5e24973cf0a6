"""What an import pays for: each in a process of its own, for this one has paid for everything."""

import importlib
import subprocess
import sys

import pytest

import hilbound

HEAVY = (
    *("torch", "lightning", "pandas", "sklearn", "matplotlib", "torchmetrics", "scipy"),
    *("pydantic", "yaml"),
)
LIGHT = {"pydantic", "yaml"}


def imported(code):
    """The heavy packages that a fresh process holds after some code."""
    after = f"\nimport sys\nprint(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", code + after], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import hilbound", set()),
        ("import hilbound; hilbound.__version__; dir(hilbound)", set()),
        ("import hilbound.cli", LIGHT),
        ("from hilbound import RunConfig, InputError", LIGHT),
        ("import hilbound.models.networks", {"torch"}),
        ("import hilbound.models", {"torch"}),
        ("from hilbound import functional, bounds, objectives", {"torch"}),
        (
            "import hilbound.evaluation.evaluate",
            {"torch"} | LIGHT,
        ),
        ("import hilbound; hilbound.GaussianMixture", {"torch"}),
        ("from hilbound import Run, fit", {"torch"} | LIGHT),
        ("import hilbound.models, hilbound.training.plan, hilbound.objectives", {"torch"} | LIGHT),
        ("import hilbound.config; hilbound.config.RunConfig(data='moons', model='vae')", LIGHT),
    ],
)
def test_an_import_pays_for_what_it_needs(code, expected):
    assert imported(code) == expected


def test_help_pays_for_nothing():
    code = (
        "import sys\nfrom hilbound.cli import app\n"
        "for words in (['--help'], ['fit', '--help'], ['--version']):\n"
        "    try:\n        app(words)\n"
        "    except SystemExit as done:\n        assert done.code == 0"
    )
    assert imported(code) == LIGHT


def test_every_public_name_is_there():
    assert set(hilbound.__all__) <= set(dir(hilbound))
    for name in hilbound.__all__:
        assert getattr(hilbound, name) is not None
    with pytest.raises(AttributeError, match="attribute nothing"):
        _ = hilbound.nothing


def test_importing_draws_no_random_numbers_and_changes_no_defaults():
    code = (
        "import torch, random\nfrom hilbound import cli\n"
        "state = torch.get_rng_state(), torch.get_default_dtype(), random.getstate()\n"
        "import hilbound\n[getattr(hilbound, name) for name in hilbound.__all__]\n"
        "assert torch.equal(state[0], torch.get_rng_state())\n"
        "assert state[1:] == (torch.get_default_dtype(), random.getstate())\n"
    )
    assert "torch" in imported(code)


FORMER = {
    "spectrum": ("nuclear_norm", "engine.spectrum.norms"),
    "plots": ("plot_points", "reports.plots"),
    "metrics": ("frechet_distance", "evaluation.metrics"),
    "diagnostics": ("collapse", "training.failures"),
    "parzen": ("fit_window", "evaluation.parzen"),
    "networks": ("MLP", "models.networks"),
}


@pytest.mark.parametrize("module", FORMER)
def test_former_names_answer_and_warn(module):
    name, home = FORMER[module]
    with pytest.warns(DeprecationWarning, match=rf"hilbound\.{module} is now hilbound\."):
        found = getattr(importlib.import_module(f"hilbound.{module}"), name)
    assert found is getattr(importlib.import_module(f"hilbound.{home}"), name)
    sys.modules.pop(f"hilbound.{module}")
