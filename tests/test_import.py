"""What an import pays for: each in a process of its own, for this one has paid for everything."""

import importlib
import json
import subprocess
import sys

import pytest

import hilbound

HEAVY = (
    *("torch", "lightning", "pandas", "sklearn", "matplotlib", "torchmetrics", "scipy"),
    *("pydantic", "yaml"),
)
LIGHT = {"pydantic", "yaml"}
HELP = """
from hilbound.cli import app
for words in (["--help"], ["fit", "--help"], ["--version"]):
    try:
        app(words)
    except SystemExit as done:
        assert done.code == 0
"""
UNCHANGED = """
import torch, random
from hilbound import cli
state = torch.get_rng_state(), torch.get_default_dtype(), random.getstate()
import hilbound
[getattr(hilbound, name) for name in hilbound.__all__]
assert torch.equal(state[0], torch.get_rng_state())
assert state[1:] == (torch.get_default_dtype(), random.getstate())
"""
#: What a fresh process holds after some code.
EXPECTED = {
    "import hilbound": set(),
    "import hilbound; hilbound.__version__; dir(hilbound)": set(),
    "import hilbound.cli": LIGHT,
    "from hilbound import RunConfig, InputError": LIGHT,
    "import hilbound.config; hilbound.config.RunConfig(data='moons', model='vae')": LIGHT,
    HELP: LIGHT,
    "import hilbound.models.networks": {"torch"},
    "import hilbound.models": {"torch"},
    "from hilbound import functional, bounds, objectives": {"torch"},
    "import hilbound; hilbound.GaussianMixture": {"torch"},
    "import hilbound.evaluation.evaluate": {"torch"} | LIGHT,
    "from hilbound import Run, fit": {"torch"} | LIGHT,
    "import hilbound.models, hilbound.training.plan, hilbound.objectives": {"torch"} | LIGHT,
}
#: Runs every code in a fork of its own. Those that need torch share its import, which takes longer
#: than all the rest.
FORKS = """
import json, os, sys
before, heavy, codes = json.load(sys.stdin)
exec(before)
for code in codes:
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        exec(code, {})
        print(json.dumps([code, [name for name in heavy if name in sys.modules]]))
        sys.stdout.flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, code
"""


def after(before, codes):
    """The heavy packages that a fork of a process with only ``before`` holds after each code."""
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKS],
        input=json.dumps([before, HEAVY, codes]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line for line in done.stdout.splitlines() if line.startswith('["')]
    return {code: set(names) for code, names in map(json.loads, lines)}


@pytest.fixture(scope="module")
def imported():
    torch = [code for code, names in EXPECTED.items() if "torch" in names]
    light = [code for code in EXPECTED if code not in torch]
    return after("", light) | after("import torch", torch)


@pytest.mark.parametrize("code", EXPECTED)
def test_an_import_pays_for_what_it_needs(imported, code):
    assert imported[code] == EXPECTED[code]


def test_importing_draws_no_random_numbers_and_changes_no_defaults():
    (found,) = after("", [UNCHANGED]).values()
    assert "torch" in found


def test_every_public_name_is_there():
    assert set(hilbound.__all__) <= set(dir(hilbound))
    for name in hilbound.__all__:
        assert getattr(hilbound, name) is not None
    with pytest.raises(AttributeError, match="attribute nothing"):
        _ = hilbound.nothing


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
