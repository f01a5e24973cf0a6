"""What installs hilbound says the same everywhere: pyproject.toml, conda, Docker, the workflow."""

import ast
import re
import shlex
import sys
import tomllib
from pathlib import Path

import jinja2
import pytest
import yaml

import hilbound

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
#: What conda-forge calls differently.
CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
#: What a distribution is imported as.
MODULES = {"pillow": "PIL", "pyyaml": "yaml", "scikit-learn": "sklearn"}


def parts(requirement: str) -> tuple[str, str]:
    """Return the name of a requirement, and the versions it allows."""
    name, versions = re.fullmatch(r"([\w.-]+)(?:\[[\w,]+\])?\s*(.*)", requirement).groups()
    return name, versions.strip()


def recipe() -> dict:
    text = (ROOT / "conda" / "meta.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(jinja2.Template(text).render(PYTHON="python"))


def test_the_recipe_of_conda_wants_what_the_package_wants():
    wanted = {
        CONDA.get(name, name): versions for name, versions in map(parts, PROJECT["dependencies"])
    }
    wanted["python"] = PROJECT["requires-python"]
    assert dict(map(parts, recipe()["requirements"]["run"])) == wanted
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert set(map(parts, build)) <= set(map(parts, recipe()["requirements"]["host"]))


def test_version_licence_and_command_are_the_same():
    told = recipe()
    assert told["package"]["version"] == PROJECT["version"] == hilbound.__version__
    assert told["about"]["license"] == PROJECT["license"]
    assert told["about"]["summary"] == PROJECT["description"]
    (command,) = PROJECT["scripts"].items()
    assert told["build"]["entry_points"] == [" = ".join(command)]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"]


def imported() -> dict[str, set[str]]:
    """Return every top-level module that the package imports, with the files that do."""
    found: dict[str, set[str]] = {}
    for file in (ROOT / "src" / "hilbound").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            for name in names:
                found.setdefault(name.partition(".")[0], set()).add(file.name)
    return found


def test_every_import_is_of_a_declared_package():
    extras = [one for group in PROJECT["optional-dependencies"].values() for one in group]
    names = {parts(one)[0].lower() for one in [*PROJECT["dependencies"], *extras]}
    known = {MODULES.get(name, name.replace("-", "_")) for name in names}
    # NGBoost caps scikit-learn, so it is installed by hand; the comparison with it says so.
    known |= set(sys.stdlib_module_names) | {"hilbound", "ngboost"}
    assert {name: files for name, files in imported().items() if name not in known} == {}


def test_the_image_copies_what_is_there_and_not_ignored():
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", text, flags=re.MULTILINE)
        for source in shlex.split(line)[:-1]
    ]
    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert not any(Path(source).match(pattern) for pattern in ignored), source
    # What hatchling reads to build the wheel.
    assert {PROJECT["readme"], *PROJECT["license-files"], "src", "pyproject.toml"} <= set(copied)
    (python,) = set(re.findall(r"^FROM python:([\d.]+)-slim", text, flags=re.MULTILINE))
    assert tuple(map(int, python.split("."))) >= (3, 11)
    # Programs do not run as root.
    assert re.search(r"^USER (?!root)", text, flags=re.MULTILINE)


@pytest.mark.parametrize("job", ["tests", "docs", "wheel"])
def test_the_workflow_runs_targets_of_the_makefile(job):
    flow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    called = [step["run"].split() for step in flow["jobs"][job]["steps"] if "run" in step]
    assert called
    for words in called:
        assert words[0] == "make"
        assert set(words[1:]) <= targets


def test_type_checkers_are_told_that_the_package_is_typed():
    assert (ROOT / "src" / "hilbound" / "py.typed").is_file()
    assert "Typing :: Typed" in PROJECT["classifiers"]
