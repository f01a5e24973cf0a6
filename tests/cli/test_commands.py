"""The command line: what it does, what it says, and with which exit code it ends."""

import csv
import json
import os
import pickle
import pkgutil
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import hilbound
from hilbound.config import RunConfig
from hilbound.datasets import DATASETS
from hilbound.evaluation.reconstruction import reconstruct
from hilbound.objectives import OBJECTIVES
from hilbound.training.module import DensityModule
from hilbound.training.runs import Run
from support.tiny_runs import (
    COLUMNS,
    TINY,
    Bomb,
    ask,
    flags,
    same_weights,
    train,
    weights,
    write_points,
    write_table,
)
from support.trainings import curve

pytest_plugins = ["support.fixtures_runs"]


def refused(*arguments, words, code=2):
    """Ask, and look for a message on stderr alone, without a traceback."""
    result = ask(*arguments)
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    # Messages of typer are boxed and wrapped.
    plain = re.sub(r"[\s│]+", " ", result.stderr)
    assert re.search(words, plain), plain
    return plain


def content(folder):
    return {f: f.read_bytes() for f in folder.rglob("*") if f.is_file()}


# --- the road -----------------------------------------------------------------------------------


def test_fit_leaves_a_complete_run_and_says_where(tmp_path):
    table = write_table(tmp_path / "table.csv")
    result = ask("fit", table, *flags(objective="scalar"), "-o", tmp_path / "run")
    assert result.exit_code == 0, result.stderr
    names = {file.name for file in (tmp_path / "run").iterdir()}
    assert names == {
        "config.yaml",
        "run.json",
        "model.safetensors",
        "bounds.csv",
        "checkpoints",
        "metrics.json",
        "report.html",
    }
    assert f"report: {tmp_path / 'run' / 'report.html'}" in result.stdout
    assert "Coverage" in result.stdout
    assert Run.open(tmp_path / "run").config.objective == "scalar"


def test_quiet_says_nothing_at_all(tmp_path, caplog):
    points = write_points(tmp_path / "points.npy", n=100)
    options = flags(batch_size=500)
    result = ask("fit", points, *options, "-o", tmp_path / "run", "--quiet", "--no-report")
    assert (result.exit_code, result.output, caplog.text) == (0, "", "")
    assert not (tmp_path / "run" / "report.html").exists()
    ask("fit", points, *options, "-o", tmp_path / "loud", "--no-report")
    assert "batch_size 500 is more than the 80 training rows" in caplog.text


def test_flags_python_and_yaml_are_the_same_run(tmp_path):
    points = write_points(tmp_path / "points.npy")
    options = {**TINY, "learn_weights": True, "variance": "0.5*median", "seed": 5}
    ask("fit", points, *flags(**options), "-o", tmp_path / "flags", "--quiet", "--no-report")
    file = tmp_path / "options.yaml"
    dashed = {name.replace("_", "-"): value for name, value in options.items()}
    switches = {"output": str(tmp_path / "yaml"), "quiet": True, "report": False}
    file.write_text(yaml.safe_dump({"data": str(points)} | dashed | switches))
    result = ask("fit", "--config", file)
    assert (result.exit_code, result.output) == (0, "")
    python = hilbound.fit(tmp_path / "python", quiet=True, data=points, **options)
    assert same_weights(python, Run.open(tmp_path / "flags"))
    assert same_weights(python, Run.open(tmp_path / "yaml"))


def test_the_run_folders_configuration_repeats_the_run(trained, tmp_path):
    result = ask(
        "fit",
        "--config",
        trained.path / "config.yaml",
        "-o",
        tmp_path / "again",
        "--no-report",
        "-q",
    )
    assert result.exit_code == 0, result.stderr
    again = Run.open(tmp_path / "again")
    assert again.config == trained.config
    assert same_weights(again, trained)


def test_flags_win_over_yaml(tmp_path):
    points = write_points(tmp_path / "points.npy")
    file = tmp_path / "options.yaml"
    file.write_text(yaml.safe_dump(TINY | {"data": "nowhere.csv", "seed": 1, "overwrite": True}))
    result = ask(
        "fit", points, "--config", file, "--seed", 2, "-o", tmp_path / "run", "-q", "--no-report"
    )
    assert result.exit_code == 0, result.stderr
    config = Run.open(tmp_path / "run").config
    assert (config.seed, config.data, config.steps) == (2, str(points), 8)


def test_every_option_is_a_flag():
    result = ask("fit", "--help")
    shown = re.sub(r"\s+", " ", result.stdout)
    for name in RunConfig.model_fields:
        if name != "data":
            assert "--" + name.replace("_", "-")[:20] in shown, name
    for flag in ("--config", "--output", "--overwrite", "--resume", "--quiet"):
        assert flag in shown


def test_sample_writes_tables_arrays_and_pictures(trained, tmp_path):
    result = ask("sample", trained.path, "-n", 9, "-o", tmp_path / "s.csv", "--seed", 4)
    assert result.exit_code == 0, result.stderr
    assert f"9 samples: {tmp_path / 's.csv'}" in result.stdout
    with (tmp_path / "s.csv").open(newline="") as lines:
        header, *rows = csv.reader(lines)
    assert tuple(header) == COLUMNS
    assert len(rows) == 9
    ask("sample", trained.path, "-n", 9, "-o", tmp_path / "s.npz", "--seed", 4)
    assert np.load(tmp_path / "s.npz")["x"] == pytest.approx(np.array(rows, float), rel=1e-7)
    ask("sample", trained.path, "-n", 9, "-o", tmp_path / "d.npz", "--seed", 4, "--from", "density")
    assert not np.array_equal(np.load(tmp_path / "d.npz")["x"], np.load(tmp_path / "s.npz")["x"])


def test_sample_draws_64_into_a_picture_by_default(tmp_path, monkeypatch):
    run = train(tmp_path / "run", data="digits", samples=50, steps=1)
    monkeypatch.chdir(tmp_path)
    assert "64 samples: samples.png" in ask("sample", run.path).stdout
    with Image.open(tmp_path / "samples.png") as image:
        assert image.format == "PNG"


EMD = {"model": "encoder-mixture-decoder", "centers": 3, "features": 1, "steps": 2}


def test_reconstruct_writes_arrays_and_pictures(tmp_path, monkeypatch):
    run = train(tmp_path / "run", **EMD)
    path = tmp_path / "deep" / "r.npz"
    result = ask(
        "reconstruct",
        run.path,
        "-n",
        3,
        "--reconstructions",
        4,
        "--split",
        "train",
        "--seed",
        2,
        "-o",
        path,
    )
    assert result.exit_code == 0, result.stderr
    assert f"4 reconstructions of 3 inputs: {path}" in result.stdout
    expected = reconstruct(run, 3, 4, split="train", seed=2)
    arrays = np.load(path)
    assert np.array_equal(arrays["x"], expected.x)
    assert np.array_equal(arrays["reconstructions"], expected.reconstructions)
    monkeypatch.chdir(tmp_path)
    answer = ask("reconstruct", run.path).stdout
    assert "10 reconstructions of 8 inputs: reconstructions.png" in answer
    with Image.open(tmp_path / "reconstructions.png") as image:
        assert image.format == "PNG"


def test_reconstruct_refuses_before_it_works(trained, tmp_path, monkeypatch):
    out = ["-o", tmp_path / "r.npz"]
    refused("reconstruct", trained.path, *out, words="mixture-density-network, which has no enc")
    refused("reconstruct", trained.path, "-n", 0, *out, words="Invalid value for '-n'")
    refused("reconstruct", trained.path, "--split", "tset", *out, words="Invalid value for '--spl")
    run = train(tmp_path / "run", data=write_table(tmp_path / "t.csv"), **EMD)
    refused("reconstruct", run.path, "-n", 21, *out, words="has 20 rows, got n=21")
    monkeypatch.setattr("hilbound.evaluation.reconstruction.reconstruct", None)
    refused("reconstruct", run.path, "-o", tmp_path / "r.csv", words="must end in one of .png, .np")
    refused("reconstruct", run.path, "-o", tmp_path / "r.png", words="write a .npz file")
    assert not list(tmp_path.glob("r.*"))


def test_fit_and_evaluate_print_what_reconstructions_are_worth(tmp_path):
    points = write_points(tmp_path / "points.npy")
    fitted = ask("fit", points, *flags(**EMD), "-o", tmp_path / "run")
    assert fitted.exit_code == 0, fitted.stderr
    evaluated = ask("evaluate", tmp_path / "run")
    bound = Run.open(tmp_path / "run").read_json("metrics.json")["conditional_bound"]
    for shown in (fitted.stdout, evaluated.stdout):
        assert "10 reconstructions of 40 held-out rows" in shown
        assert "Validity" in shown
        line = f"on 40 held-out rows: {100 * bound['tightness']:.1f} % of its limit"
        assert line in re.sub(r"\s+", " ", shown)


@pytest.mark.parametrize(
    ("what", "most"),
    [
        ("hilbound.datasets.load", 1),
        ("hilbound.evaluation.spaces.WhitenedPCA.fit", 1),
        # What is trained, and what was written: a report shows the weights of the file.
        ("hilbound.training.runs.build_model", 1),
        ("hilbound.training.plan.build_model", 1),
    ],
)
def test_fit_loads_once_for_training_evaluation_and_report(tmp_path, monkeypatch, what, most):
    points, calls = write_points(tmp_path / "points.npy"), []
    original = pkgutil.resolve_name(what)
    monkeypatch.setattr(what, lambda *a, **k: calls.append(a) or original(*a, **k))
    assert ask("fit", points, *flags(), "-o", tmp_path / "run", "-q").exit_code == 0
    assert len(calls) == most


def test_evaluate_and_report(trained):
    (trained.path / "metrics.json").unlink()
    (trained.path / "report.html").unlink()
    result = ask("evaluate", trained.path, "--samples", 15)
    assert result.exit_code == 0, result.stderr
    assert "15 samples" in result.stdout
    assert json.loads((trained.path / "metrics.json").read_text())["samples"] == 15
    result = ask("report", trained.path)
    assert result.exit_code == 0, result.stderr
    assert (trained.path / "report.html").stat().st_size > 10_000


def test_list_shows_every_name_with_a_line(monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    result = ask("list")
    assert result.exit_code == 0
    for registry in (DATASETS, OBJECTIVES):
        for name in registry:
            assert name in result.stdout
            assert registry.describe(name) in re.sub(r"\s+", " ", result.stdout)
    assert "mixture-density-network" in result.stdout
    assert "conv" in result.stdout


def test_demo_takes_a_folder(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr("hilbound.cli.demo.run_demo", lambda *a, **k: seen.append((a[0], k)))
    assert ask("demo", "-o", tmp_path / "demo", "--quiet").exit_code == 0
    assert seen == [(tmp_path / "demo", {"quiet": True})]


def test_version_and_no_command():
    assert ask("--version").stdout.strip() == hilbound.__version__
    assert "Commands" in ask().output
    assert ask().exit_code == 2


# --- resumption ---------------------------------------------------------------------------------


def interrupt_at(monkeypatch, step):
    original = DensityModule.training_step

    def stop(self, *arguments):
        if self.global_step == step:
            monkeypatch.setattr(DensityModule, "training_step", original)
            raise KeyboardInterrupt
        return original(self, *arguments)

    monkeypatch.setattr(DensityModule, "training_step", stop)


def test_an_interruption_says_how_to_go_on(tmp_path, monkeypatch):
    points = write_points(tmp_path / "points.npy")
    whole = train(tmp_path / "whole", data=points)
    interrupt_at(monkeypatch, 5)
    path = tmp_path / "run"
    refused(
        "fit",
        points,
        *flags(),
        "-o",
        path,
        "-q",
        "--no-report",
        code=1,
        words=f"interrupted: what was reached is saved in {path}: go on with .hilbound fit --res",
    )
    for command in (
        ["sample", path, "-o", tmp_path / "x.csv"],
        ["evaluate", path],
        ["report", path],
    ):
        assert ask(*command).exit_code == 0
    result = ask("fit", "--resume", path, "-q")
    assert result.exit_code == 0, result.stderr
    assert same_weights(Run.open(path), whole)
    assert (path / "report.html").exists()


def test_a_finished_run_goes_on_with_more_steps(trained):
    refused("fit", "--resume", trained.path, words="has done all its 8 steps: give a larger")
    assert ask("fit", "--resume", trained.path, "--steps", 10, "-q", "--no-report").exit_code == 0
    assert Run.open(trained.path).read_json("run.json")["step"] == 10


@pytest.mark.parametrize(
    "others",
    [
        ["moons"],
        ["--seed", "1"],
        ["--overwrite"],
        ["--output", "x"],
        ["--config", "x.yaml"],
        ["--no-decay"],
        ["--batch-size", "64", "--steps", "100"],
    ],
)
def test_resume_beside_other_options_is_refused(trained, others):
    before = content(trained.path)
    refused(
        "fit",
        "--resume",
        trained.path,
        *others,
        words="--resume takes all options from the run folder; it can be combined only",
    )
    assert content(trained.path) == before


def test_an_interrupted_command_ends_with_1(trained, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("hilbound.evaluation.evaluate.measure", stop)
    before = content(trained.path)
    refused("evaluate", trained.path, words="interrupted", code=1)
    assert content(trained.path) == before


# --- wrong use ----------------------------------------------------------------------------------


def broken_table(path, kind):
    write_table(path)
    lines = path.read_text().splitlines()
    if kind == "nan":
        lines[7] = "180,nan,20240"
    elif kind == "text":
        lines[7] = "180,heavy,20240"
    elif kind == "constant":
        lines[1:] = [",".join(["5", *line.split(",")[1:]]) for line in lines[1:]]
    elif kind == "one row":
        lines = lines[:2]
    elif kind == "ragged":
        lines[7] = "180,70"
    elif kind == "header":
        lines = lines[:1]
    elif kind == "empty":
        lines = []
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("nan", "1 NaN or infinite values .*row 7 of 'weight'"),
        ("text", "text in 'weight' .*'heavy'"),
        ("constant", "'height' constant over the 160 training rows"),
        ("one row", "1 row of data, at least 10 are needed"),
        ("ragged", "line 8 has 2 fields, the first line has 3"),
        ("header", "no rows|empty"),
        ("empty", "an empty file"),
    ],
)
def test_a_table_unfit_to_learn_from_is_refused_before_anything_is_written(tmp_path, kind, words):
    table = broken_table(tmp_path / "table.csv", kind)
    refused("fit", table, *flags(), "-o", tmp_path / "run", words=words)
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_truncated_and_mismatched_arrays_are_refused(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    x = np.zeros((50, 2))
    np.save(path, x) if suffix == ".npy" else np.savez(path, x=x)
    path.write_bytes(path.read_bytes()[:-200])
    refused("fit", path, *flags(), "-o", tmp_path / "run", words=r"x\.np[yz]")
    if suffix == ".npz":
        np.savez(path, x=x, y=np.zeros(49, int))
        arguments = ("fit", path, *flags(), "--label-column", "y", "-o", tmp_path / "run")
        refused(*arguments, words=r"labels of shape \(49,\) for 50 points")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["mons"], "unknown data set 'mons': did you mean 'moons'"),
        (["nowhere.csv"], "nowhere.csv does not exist"),
        ([], "data is missing: name a data set or a file"),
        (["moons", "--objective", "nucleer"], "did you mean 'nuclear'"),
        (["moons", "--model", "mixture"], "unknown model 'mixture'"),
        (["moons", "--network", "con"], "did you mean 'conv'"),
        (["moons", "--network", "conv"], "use network 'mlp'"),
        (["moons", "--variance", "-1"], "variance must be a positive number"),
        (["moons", "--variance", "0"], "variance must be positive"),
        (["moons", "--steps", "0"], "steps: .*greater than or equal to 1, got 0"),
        (["moons", "--steps", "many"], "Invalid value for '--steps'"),
        (["moons", "--precision", "8"], "Invalid value for '--precision'"),
        (["moons", "--objectiv", "nuclear"], "No such option.*--objective"),
        (["moons", "--devices", "-1x"], "devices '-1x'.* cannot be used here"),
        (["moons", "--config", "nowhere.yaml"], "config 'nowhere.yaml' cannot be read"),
        (["--resume", "nowhere"], "run 'nowhere' does not exist"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_is_answered_and_nothing_is_written(tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    refused("fit", *arguments, words=words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data: moons\nobjectiv: nuclear", "unknown option 'objectiv': did you mean 'objective'"),
        ("data: moons\novrwrite: true", "unknown option 'ovrwrite': did you mean 'overwrite'"),
        ("data: moons\nsteps: [1, 2]", "steps: .*got \\[1, 2\\]"),
        ("data: moons\noutput: [x]", "output: "),
        ("data: [moons", "is not YAML"),
        ("moons", "must hold options"),
    ],
)
def test_wrong_yaml_is_answered(tmp_path, monkeypatch, text, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "options.yaml").write_text(text)
    refused("fit", "--config", "options.yaml", words=words)
    assert [file.name for file in tmp_path.iterdir()] == ["options.yaml"]


def test_an_occupied_folder_is_refused_and_replaced_only_when_asked(trained, tmp_path):
    before = content(trained.path)
    refused("fit", "moons", *flags(), "-o", trained.path, words="already holds a run.*--overwrite")
    refused("fit", "mons", *flags(), "-o", trained.path, "--overwrite", words="did you mean")
    assert content(trained.path) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years")
    refused(
        "fit", "moons", *flags(), "-o", tmp_path / "mine", "--overwrite", words="no run of hilbound"
    )
    refused(
        "fit",
        write_points(tmp_path / "x.npy"),
        *flags(),
        "-o",
        tmp_path / "x.npy" / "run",
        words="cannot be written: Not a directory",
    )
    result = ask(
        "fit", tmp_path / "x.npy", *flags(), "-o", trained.path, "--overwrite", "-q", "--no-report"
    )
    assert result.exit_code == 0
    assert not (trained.path / "metrics.json").exists()
    assert content(tmp_path / "mine") == {tmp_path / "mine" / "thesis.tex": b"years"}


@pytest.mark.parametrize("command", ["sample", "reconstruct", "evaluate", "report"])
def test_what_is_no_run_is_refused(tmp_path, command):
    refused(command, tmp_path / "nowhere", words="does not exist: give the folder that")
    refused(command, tmp_path, words="holds no config.yaml: give the folder that")
    refused(command, words=r"Missing argument 'RUN(\.\.\.)?'")


@pytest.mark.parametrize(
    ("name", "commands"),
    [
        ("run.json", ("sample", "evaluate", "report", "fit --resume")),
        ("config.yaml", ("sample", "evaluate", "report", "fit --resume")),
        ("model.safetensors", ("sample", "evaluate", "report")),
        ("metrics.json", ("report",)),
        ("checkpoints/last.ckpt", ("fit --resume",)),
    ],
)
def test_damaged_files_are_named_and_nothing_is_executed(trained, tmp_path, name, commands):
    file = trained.path / name
    mark = tmp_path / "mark"
    torch.save(Bomb(mark), tmp_path / "bomb")
    whole = file.read_bytes()
    pickles = (pickle.dumps(Bomb(mark)), (tmp_path / "bomb").read_bytes())
    # A third of the options may still be options; four letters are none.
    third = 4 if name == "config.yaml" else len(whole) // 3
    words = r"config\.yaml" if name == "config.yaml" else re.escape(file.name)
    for damage in (whole[:third], b"", *pickles):
        file.write_bytes(damage)
        for command in commands:
            output = ["-o", tmp_path / "s.csv"] if command == "sample" else []
            refused(*command.split(), trained.path, *output, words=words)
    assert not mark.exists()
    assert not (tmp_path / "s.csv").exists()


def test_samples_that_cannot_be_written_are_refused(trained, tmp_path):
    refused("sample", trained.path, "-o", tmp_path / "s.gif", words="must end in one of .png")
    refused("sample", trained.path, "-o", tmp_path / "s.png", words="make no picture")
    refused("sample", trained.path, "-n", 0, words="Invalid value for '-n'")
    refused("sample", trained.path, "--from", "mean", words="Invalid value for '--from'")
    refused("evaluate", trained.path, "--samples", 21, words="between 10 and 20")


# --- failures -----------------------------------------------------------------------------------


def test_spoilt_training_and_a_full_disk_fail_with_1(tmp_path, monkeypatch):
    points = write_points(tmp_path / "points.npy")
    options = (*flags(learning_rate=1e30), "-o", tmp_path / "run", "-q")
    refused("fit", points, *options, words="failed: .*no longer finite.*--learning-rate", code=1)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Run, "save_model", full)
    options = (*flags(), "-o", tmp_path / "other", "-q")
    refused("fit", points, *options, words="failed: .*No space left on device", code=1)


# --- processes of their own ---------------------------------------------------------------------


def start(folder, *arguments):
    """Start what the console script is, in a folder; Lightning can start such a file again."""
    script = folder / "hilbound.script"
    script.write_text("from hilbound.cli import main\n\nmain()\n")
    return subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, script, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def test_from_end_to_end_in_a_process_of_its_own(tmp_path):
    """Messages on stderr, results on stdout, no traceback, exit codes as promised."""
    write_points(tmp_path / "points.npy", n=100)
    done = start(tmp_path, "fit", "points.npy", *flags(batch_size=500))
    out, err = done.communicate(timeout=100)
    assert done.returncode == 0, err
    assert "batch_size 500 is more than the 80 training rows" in re.sub(r"\s+", " ", err)
    assert out.rstrip().endswith("report: runs/points-debiased-0/report.html")
    done = start(tmp_path, "sample", "nowhere")
    out, err = done.communicate(timeout=100)
    assert (done.returncode, out) == (2, "")
    assert err.startswith("error: run 'nowhere' does not exist")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_in_the_middle_of_a_training(tmp_path, number):
    points = write_points(tmp_path / "points.npy")
    options = {"steps": 200_000, "validate_every": 100_000, "decay": False}
    path = tmp_path / "run"
    done = start(tmp_path, "fit", points, *flags(**options), "-o", path, "-q")
    deadline = time.monotonic() + 60
    while not (path / "bounds.csv").exists() or len((path / "bounds.csv").read_text()) < 200:
        assert time.monotonic() < deadline
        assert done.poll() is None, done.communicate()
        time.sleep(0.02)
    done.send_signal(number)
    out, err = done.communicate(timeout=60)
    assert (done.returncode, out) == (1, "")
    assert f"interrupted: what was reached is saved in {path}: go on with" in err
    assert "Traceback" not in err
    run = Run.open(path)
    facts = run.read_json("run.json")
    assert facts["status"] == "interrupted"
    assert facts["step"] > 0
    assert ask("sample", path, "-o", tmp_path / "x.csv").exit_code == 0
    assert ask("report", path).exit_code == 0
    steps = facts["step"] + 20
    assert ask("fit", "--resume", path, "--steps", steps, "-q", "--no-report").exit_code == 0
    assert same_weights(run, train(tmp_path / "whole", **{**options, "steps": steps}))


def test_two_devices_train_one_run(tmp_path):
    """Devices share every batch, so that the run is the one that a single device would do."""
    from support.trainings import by_hand

    points = write_points(tmp_path / "points.npy")
    path = tmp_path / "run"
    options = flags(devices=2, accelerator="cpu", decay=False, patience=5, steps=6)
    done = start(tmp_path, "fit", points, *options, "-o", path, "-q")
    out, err = done.communicate(timeout=200)
    assert (done.returncode, out, err) == (0, "", "")
    run = Run.open(path)
    assert run.read_json("run.json")["status"] == "finished"
    assert [(row["step"], row["split"]) for row in run.read_bounds()] == [
        (0, "train"),
        (4, "validation"),
    ]
    assert (path / "report.html").exists()
    expected = by_hand(run.config, steps=run.read_json("run.json")["kept_step"])
    for name, tensor in weights(run).items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-6)


#: The program that torchrun starts. It trains a model whose bound is tracked, and whose diagnosis
#: finds something. Then it trains another, and in the last but one step the second worker dies.
DYING = """
import os, signal
import hilbound
from hilbound.cli import main
from hilbound.training.module import DensityModule

try:
    hilbound.fit("tracked", quiet=True, **TRACKED)
except SystemExit:
    pass  # a worker that has helped is done
original = DensityModule.training_step

def step(self, *arguments):
    if self.global_step == 6 and self.global_rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, *arguments)

DensityModule.training_step = step
main()
"""


TRACKED = {
    **TINY,
    "model": "encoder-mixture-decoder",
    "centers": 3,
    "features": 1,
    "variance": "3000*median",
    "bound_every": 2,
    "bound_rows": 40,
    "accelerator": "cpu",
    "precision": "64-true",
}


def test_a_worker_that_dies_ends_the_run_and_leaves_the_checkpoint(tmp_path):
    points, path = write_points(tmp_path / "points.npy"), tmp_path / "run"
    program, tracked = tmp_path / "dying.py", TRACKED | {"data": str(points)}
    program.write_text(DYING.replace("TRACKED", repr(tracked)))
    options = flags(accelerator="cpu")
    words = ["fit", points, *options, "-o", path, "-q", "--no-report"]
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
            *("--standalone", program, *map(str, words)),
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=200,
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode != 0
    two, one = Run.open(tmp_path / "tracked"), train(tmp_path / "one", **tracked)
    # Bounds are tracked, and trainings diagnosed, as with one worker.
    assert len(curve(two)) == len(curve(one)) > 8
    for ours, theirs in zip(curve(two), curve(one), strict=True):
        assert ours.pop("split") == theirs.pop("split")
        assert ours == pytest.approx(theirs, rel=1e-6)
    found = [run.read_json("run.json")["findings"] for run in (two, one)]
    assert {finding["name"] for finding in found[0]} >= {"variance-too-large"}
    for ours, theirs in zip(*found, strict=True):
        assert ours.pop("figures") == pytest.approx(theirs.pop("figures"), rel=1e-6)
        assert ours == theirs
    run = Run.open(path)
    assert run.read_json("run.json")["step"] == 4
    resumed = ask("fit", "--resume", path, "-q", "--no-report")
    assert resumed.exit_code == 0, resumed.stderr
    expected = weights(train(tmp_path / "whole", data=points))
    for name, tensor in weights(run).items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-5)


def test_an_interruption_says_what_is_there(tmp_path, monkeypatch):
    points = write_points(tmp_path / "points.npy")
    path = tmp_path / "a run"

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("hilbound.training.fit.plan_training", stop)
    plain = refused("fit", points, *flags(), "-o", path, words="nothing was trained", code=1)
    assert f"run: {path}" in plain
    monkeypatch.undo()
    monkeypatch.setattr("hilbound.training.loop.Loop.train", stop)
    words = "no step was saved yet in .*--resume"
    refused("fit", points, *flags(), "-o", path, words=words, code=1)
    monkeypatch.undo()
    done = ask("fit", points, *flags(), "-o", path, "--overwrite", "--no-report")
    assert done.stdout.rstrip().endswith(f"run: {path}")
    monkeypatch.setattr("hilbound.training.fit.plan_training", stop)
    words = "holds what it held before"
    refused("fit", points, *flags(), "-o", path, "--overwrite", words=words, code=1)


def test_a_run_is_the_same_from_every_folder_and_finds_moved_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    points = write_points(tmp_path / "points.npy")
    first = ask("fit", "points.npy", *flags(), "-o", "run", "--no-report", "-q")
    assert first.exit_code == 0, first.stderr
    run = Run.open("run")
    assert run.config.data == str(points)
    assert run.read_json("run.json")["data"]["name"] == "points.npy"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert ask("evaluate", tmp_path / "run").exit_code == 0
    points.rename(elsewhere / "moved.npy")
    for arguments in (["evaluate", tmp_path / "run"], ["fit", "--resume", tmp_path / "run"]):
        steps = ["--steps", 12, "-q"] if "--resume" in arguments else []
        words = rf"data of run '{tmp_path / 'run'}' are gone: {points} does not exist.*--data"
        refused(*arguments, *steps, words=words)
        done = ask(*arguments, *steps, "--data", "moved.npy")
        assert done.exit_code == 0, done.stderr
    assert Run.open(tmp_path / "run").config.data == str(elsewhere / "moved.npy")
    refused("fit", "moved.npy", "--data", "moved.npy", words="--data is for --resume")


def test_a_small_table_is_reported_without_metrics(tmp_path):
    table = write_table(tmp_path / "small.csv", n=90)
    result = ask("fit", table, *flags(), "-o", tmp_path / "run")
    assert result.exit_code == 0, result.stderr
    assert "no metrics: fewer than 10 held-out rows" in result.stderr
    html = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "There are 9 held-out rows, and 10 are needed" in html
    assert "Coverage" not in html


def test_samples_of_a_table_are_a_table_and_its_names_no_formulas(tmp_path, monkeypatch):
    table = tmp_path / "table.csv"
    rows = np.random.default_rng(0).normal(size=(100, 2))
    np.savetxt(table, rows, delimiter=",", header="$x_{$,=cmd()", comments="")
    monkeypatch.chdir(tmp_path)
    run = train(tmp_path / "run", data=table)
    assert "64 samples: samples.csv" in ask("sample", run.path).stdout
    assert (tmp_path / "samples.csv").read_text().startswith("$x_{$,'=cmd()\n")
    result = ask("sample", run.path, "-o", "picture.png")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "picture.png").stat().st_size > 1000


def test_whole_numbers_stay_whole_in_samples(tmp_path):
    rng = np.random.default_rng(0)
    table = tmp_path / "t.csv"
    rows = np.stack([rng.normal(170, 10, 200), rng.poisson(3, 200), rng.integers(1e6, 2e6, 200)], 1)
    np.savetxt(table, rows, delimiter=",", header="a,b,c", comments="", fmt=["%.3f", "%d", "%.1f"])
    run = train(tmp_path / "run", data=table)
    assert run.read_json("run.json")["data"]["whole"] == [1, 2]
    for source in ("centers", "density"):
        ask("sample", run.path, "-n", 20, "-o", tmp_path / "s.csv", "--from", source)
        with (tmp_path / "s.csv").open(newline="") as lines:
            _, *rows = csv.reader(lines)
        assert all(b.lstrip("-").isdecimal() and c.isdecimal() for _, b, c in rows)
        assert any("." in a for a, _, _ in rows)
    ask("sample", run.path, "-n", 20, "-o", tmp_path / "s.npy")
    x = np.load(tmp_path / "s.npy")
    assert np.array_equal(x[:, 1:], np.round(x[:, 1:]))
    # Floats that happen to be whole are floats: an array says what it holds.
    np.save(tmp_path / "x.npy", np.round(rng.normal(size=(200, 2)) * 9))
    run = train(tmp_path / "array", data=tmp_path / "x.npy")
    assert run.read_json("run.json")["data"]["whole"] == []


def test_a_picture_of_samples_shows_the_data_if_they_are_there(tmp_path, monkeypatch):
    from hilbound.reports import plots

    seen = []
    original = plots.plot_points

    def keep(*arguments, **options):
        seen.append((arguments, options))
        return original(*arguments, **options)

    monkeypatch.setattr(plots, "plot_points", keep)
    run = train(tmp_path / "run")
    for there in (True, False):
        assert ask("sample", run.path, "-n", 30, "-o", tmp_path / "s.png").exit_code == 0
        (ax, real, samples), options = seen.pop()
        assert len(samples) == 30
        assert (real is not None and len(real) == 30) == there
        assert tuple(options["columns"]) == ("x1", "x2")
        ax.figure.clear()
        (tmp_path / "points.npy").unlink(missing_ok=True)
    ask("sample", run.path, "-n", 3, "-o", tmp_path / "s.csv")
    assert (tmp_path / "s.csv").read_text().startswith("x1,x2\n")


def test_an_interruption_of_the_report_keeps_the_training(tmp_path, monkeypatch):
    points, path = write_points(tmp_path / "points.npy"), tmp_path / "run"

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("hilbound.evaluation.evaluate.evaluate", stop)
    words = f"the run is trained and saved: go on with 'hilbound report {path}'"
    refused("fit", points, *flags(), "-o", path, "-q", words=words, code=1)


# --- the playground -----------------------------------------------------------------------------


def test_the_playground_is_written_and_opened(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or True)
    page = tmp_path / "page.html"
    result = ask("playground", "-o", page)
    assert result.exit_code == 0
    assert result.stdout == f"playground: {page}\n"
    assert opened == [page.as_uri()]
    assert ask("playground", "--no-browser", "-o", page).exit_code == 0
    assert len(opened) == 1


def test_the_playground_says_where_it_is_without_a_browser(tmp_path, monkeypatch):
    monkeypatch.setattr("webbrowser.open", lambda _: False)
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / name)
    result = ask("playground")
    page = tmp_path / "hilbound" / "playground.html"
    assert page.is_file()
    assert str(page) in result.stdout
    assert "open the file yourself" in result.stderr
    refused("playground", "-o", tmp_path, words=r"output must be the name of an \.html file")


@pytest.mark.parametrize("wished", [None, "active"])
def test_threads_wait_without_spinning_unless_the_user_says_otherwise(wished):
    program = (
        "import os, sys\n"
        "from hilbound.cli import main\n"
        "assert 'torch' not in sys.modules\n"  # it would have read the variable
        "sys.argv = ['hilbound', '--version']\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        "print(os.environ['OMP_WAIT_POLICY'])\n"
    )
    given = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    given |= {} if wished is None else {"OMP_WAIT_POLICY": wished}
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", program], env=given, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[-1] == (wished or "passive")
