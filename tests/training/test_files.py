"""Files of a run folder: whole or not there, whatever happens to the process or the disk."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys

import pytest

import hilbound
from hilbound.errors import InputError
from hilbound.training.files import own_file, parse_json, read_text, write_whole
from hilbound.training.runs import Run
from support import killed
from support.tiny_runs import same_weights, train
from support.trainings import curve, stop_at


def test_a_file_is_replaced_in_one_piece(tmp_path):
    target = tmp_path / "a.json"
    assert write_whole(target, "old") == target
    write_whole(target, b"new")
    assert target.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert target.stat().st_mode & 0o044 == 0o044 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_link_is_replaced_and_not_followed(tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("years of work")
    (tmp_path / "a.json").symlink_to(mine)
    write_whole(tmp_path / "a.json", "new")
    assert mine.read_text() == "years of work"
    assert not (tmp_path / "a.json").is_symlink()


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_whatever_fails_the_old_file_is_there_and_nothing_else(tmp_path, monkeypatch, call):
    target = write_whole(tmp_path / "a.json", "old")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace" if call == "replace" else f"os.{call}", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(target, "new")
    monkeypatch.undo()
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_file_reaches_the_disk_before_its_name_and_the_name_after(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr("os.fsync", lambda handle: done.append(os.fstat(handle).st_mode & 0o170000))
    original = type(tmp_path).replace
    monkeypatch.setattr("pathlib.Path.replace", lambda *a: (done.append("name"), original(*a))[1])
    write_whole(tmp_path / "a", "x")
    assert done == [0o100000, "name", 0o040000]


def test_links_out_of_a_folder_are_refused_and_links_within_are_not(tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (tmp_path / "elsewhere").write_text("x")
    (run / "inside").write_text("x")
    (run / "a").symlink_to("inside")
    (run / "b").symlink_to("../elsewhere")
    (run / "c").symlink_to("c")
    assert own_file(run, "a").read_text() == "x"
    assert not own_file(run, "missing").exists()
    for name in "bc":
        with pytest.raises(InputError, match="link out of the run folder"):
            own_file(run, name)
    # A whole folder may be a link: that is the user's own.
    (tmp_path / "alias").symlink_to(run)
    assert own_file(tmp_path / "alias", "a").read_text() == "x"


def test_texts_beyond_reason_are_refused(tmp_path):
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json("[" * 10**5)
    with (tmp_path / "a").open("wb") as file:
        file.truncate(2**24 + 1)
    with pytest.raises(ValueError, match="at most"):
        read_text(tmp_path / "a")


# ------------------------------------------------------------------ runs that are interrupted


def test_a_run_that_is_killed_at_any_moment_goes_on_to_the_same_end(tmp_path):
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, killed.__file__, tmp_path, "--kills", "6", "--seed", "3"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kills"] >= 6


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(tmp_path, monkeypatch):
    def kill(_):
        raise MemoryError  # as abrupt as can be tested in one process

    stop_at(monkeypatch, 2, kill)
    with pytest.raises(MemoryError):
        train(tmp_path / "run")
    assert not Run.open(tmp_path / "run").checkpoint.exists()
    resumed = hilbound.resume(tmp_path / "run", quiet=True)
    whole = train(tmp_path / "whole")
    assert same_weights(resumed, whole)
    assert curve(resumed) == curve(whole)
    (resumed.path / "run.json").unlink()
    resumed.checkpoint.unlink()
    assert same_weights(hilbound.resume(resumed.path, quiet=True), whole)


@pytest.mark.parametrize("left", [".lock", ".config.yaml.00aa.partial", "checkpoints"])
def test_what_a_killed_beginning_leaves_is_no_obstacle(tmp_path, left):
    (tmp_path / "run").mkdir()
    if left == "checkpoints":
        (tmp_path / "run" / left).mkdir()
    else:
        (tmp_path / "run" / left).touch()
    run = train(tmp_path / "run")
    assert not list(run.path.rglob("*.partial"))


def test_a_full_disk_is_named_and_the_last_checkpoint_remains(tmp_path, monkeypatch):
    """The limit of the size of a file stands for a disk: writing fails in the middle of it."""
    options = {"steps": 12, "width": 64}
    whole = train(tmp_path / "whole", **options)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    stop_at(monkeypatch, 5, lambda _: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1])))
    try:
        with pytest.raises(OSError, match="File too large"):
            train(tmp_path / "run", **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    run = Run.open(tmp_path / "run")
    assert run.read_json("run.json")["step"] == 4
    assert not list(run.path.rglob("*.partial"))
    assert run.model.sample(2).shape == (2, 2)
    resumed = hilbound.resume(run.path, quiet=True)
    assert same_weights(resumed, whole)
    assert curve(resumed) == curve(whole)


def test_a_folder_that_is_removed_is_named(tmp_path, monkeypatch):
    import shutil

    stop_at(monkeypatch, 5, lambda _: shutil.rmtree(tmp_path / "run"))
    with pytest.raises(OSError, match="run"):
        train(tmp_path / "run")


def test_a_folder_that_becomes_read_only_is_named_and_opens(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", "run.json")

    # The superuser writes everywhere, so a mode of the folder would show nothing.
    stop_at(monkeypatch, 5, lambda _: monkeypatch.setattr("os.open", refuse))
    with pytest.raises(PermissionError, match="Permission denied"):
        train(tmp_path / "run")
    monkeypatch.undo()
    assert Run.open(tmp_path / "run").read_json("run.json")["step"] == 4
    assert hilbound.resume(tmp_path / "run", quiet=True).read_json("run.json")["step"] == 8
