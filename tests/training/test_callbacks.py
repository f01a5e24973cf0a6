"""The callbacks on their own: the record of the bounds, the best checkpoint."""

import io
import re
from types import SimpleNamespace

import pytest
import torch

import hilbound
from hilbound.bounds import Bound
from hilbound.evaluation.quality import METRICS
from hilbound.training import callbacks
from hilbound.training.callbacks import BestCheckpoint, BoundsRecord
from hilbound.training.curves import read_bounds
from hilbound.training.durations import Forecast
from support.tiny_runs import TINY, write_points


def start(record, step, *, first=True):
    record.on_train_start(SimpleNamespace(global_step=step, is_global_zero=first), None)


def append(record, step, split="train"):
    value = torch.tensor(-1.0 - step)
    record.append(step, split, -value, Bound(value, torch.tensor(0.5)), 0.25)


def steps(record):
    return [(row["step"], row["split"]) for row in read_bounds(record.path)]


def test_a_row_holds_what_was_measured(tmp_path):
    record = BoundsRecord(tmp_path / "bounds.csv")
    start(record, 0)
    append(record, 3)
    (row,) = read_bounds(record.path)
    seconds = row.pop("seconds")
    assert 0 <= seconds < 60
    assert row == {
        "step": 3,
        "split": "train",
        "loss": 4,
        "log_value": -4,
        "log_limit": 0.5,
        "gap": 4.5,
        "tightness": pytest.approx(torch.tensor(-4.5).exp().item()),
        "variance": 0.25,
        "real_tightness": None,
    }


def test_what_real_rows_reach_stands_beside_it_and_older_files_are_read_without(tmp_path):
    record = BoundsRecord(tmp_path / "bounds.csv")
    start(record, 0)
    value, limit = torch.tensor(-1.0), torch.tensor(0.0)
    real = Bound(torch.tensor(0.25).log(), limit)
    record.append(0, "train", -value, Bound(value, limit), 0.25, real=real)
    (row,) = read_bounds(record.path)
    assert row["real_tightness"] == pytest.approx(0.25)
    header, line = record.path.read_text().splitlines()
    shorter = (text.rpartition(",")[0] for text in (header, line))
    record.path.write_text("\n".join(shorter) + "\n")
    assert read_bounds(record.path)[0]["real_tightness"] is None


def test_a_resumed_record_leaves_one_curve(tmp_path):
    """A validation comes after its step and stays; a training row of that step will come again."""
    record = BoundsRecord(tmp_path / "bounds.csv")
    start(record, 0)
    for step in (0, 20, 40):
        append(record, step)
        append(record, step, "validation")
    again = BoundsRecord(record.path)
    start(again, 20)
    assert steps(again) == [(0, "train"), (0, "validation"), (20, "validation")]
    append(again, 20)
    assert steps(again)[-1] == (20, "train")
    assert "20.0" not in record.path.read_text()


def test_the_seconds_go_on(tmp_path):
    record = BoundsRecord(tmp_path / "bounds.csv")
    start(record, 0)
    append(record, 0)
    text = record.path.read_text().rsplit(",", 2)[0] + ",1000,\n"
    record.path.write_text(text)
    again = BoundsRecord(record.path)
    start(again, 5)
    append(again, 5)
    assert read_bounds(record.path)[-1]["seconds"] > 1000


def test_only_the_first_device_writes(tmp_path):
    record = BoundsRecord(tmp_path / "bounds.csv")
    start(record, 0, first=False)
    assert not record.path.exists()


def test_the_best_checkpoint_is_found_again_in_a_moved_folder(tmp_path):
    old, new = BestCheckpoint(tmp_path / "old"), BestCheckpoint(tmp_path / "new")
    path = str(tmp_path / "old" / "best.ckpt")
    old.best_model_path = old.kth_best_model_path = path
    old.best_k_models = {path: torch.tensor(0.25)}
    old.best_model_score = old.kth_value = torch.tensor(0.25)
    new.load_state_dict(old.state_dict())
    moved = str(tmp_path / "new" / "best.ckpt")
    assert (new.best_model_path, new.kth_best_model_path) == (moved, moved)
    assert new.best_k_models == {moved: torch.tensor(0.25)}
    assert new.best_model_score == torch.tensor(0.25)
    fresh = BestCheckpoint(tmp_path / "fresh")
    fresh.load_state_dict(BestCheckpoint(tmp_path / "old").state_dict())
    assert fresh.best_model_path == ""


def test_where_no_terminal_is_plain_lines_say_how_far_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(callbacks, "progress", lambda: callbacks.Lines(every=0))
    points = write_points(tmp_path / "points.npy")
    hilbound.fit(tmp_path / "run", data=points, **TINY)
    caught = capsys.readouterr()
    lines = [line for line in caught.err.splitlines() if line.startswith("step ")]
    assert len(lines) == 8
    assert re.fullmatch(r"step 8 of 8, tightness 0\.\d+, loss -0\.\d+", lines[-1])
    assert caught.out == ""
    # Eight steps take no time: there is nothing to foresee.
    assert "to go" not in caught.err
    monkeypatch.undo()
    assert isinstance(callbacks.progress(), callbacks.Lines)


@pytest.mark.parametrize("patience", [None, 3])
def test_lines_say_how_much_time_is_left(tmp_path, monkeypatch, capsys, patience):
    """A step is made to take a minute: a second of the clock is as much."""
    monkeypatch.setattr(callbacks, "progress", lambda: callbacks.Lines(every=0))
    minutes = iter(range(10**6))
    monkeypatch.setattr(
        callbacks, "Forecast", lambda total: Forecast(total, lambda: 60.0 * next(minutes))
    )
    points = write_points(tmp_path / "points.npy")
    hilbound.fit(tmp_path / "run", data=points, **{**TINY, "patience": patience})
    lines = [one for one in capsys.readouterr().err.splitlines() if one.startswith("step ")]
    most = "at most" if patience else "about"
    assert [", " in one and one.endswith("to go") for one in lines] == [False] * 3 + [True] * 4 + [
        False
    ]
    assert lines[3].endswith(f", {most} 4 min to go")
    assert lines[6].endswith(f", {most} 1 min to go")


def test_what_falls_is_not_called_a_cost(tmp_path, monkeypatch):
    """A cost is maximised below its limit; what the bar shows is the loss."""
    shown = []
    bar = callbacks.Bar(leave=True, console_kwargs={"file": io.StringIO()})
    original = callbacks.Bar.get_metrics

    def keep(self, *arguments):
        shown.append(original(self, *arguments))
        return shown[-1]

    monkeypatch.setattr(callbacks.Bar, "get_metrics", keep)
    monkeypatch.setattr(callbacks, "progress", lambda: bar)
    hilbound.fit(tmp_path / "run", data=write_points(tmp_path / "points.npy"), **TINY)
    assert {"loss", "tightness"} <= set(shown[-1])
    assert "cost" not in shown[-1]


def test_names_of_two_quantities_differ():
    assert "tightness" not in METRICS["tightness"].title.lower()
