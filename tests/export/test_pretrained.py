"""Folders in the layout of the Hub: they repeat the model and say what it is."""

import json
from pathlib import Path

import pytest
import torch

from hilbound.config import TableConfig
from hilbound.errors import InputError
from hilbound.estimators.table_run import TableRun
from hilbound.evaluation.evaluate import evaluate
from hilbound.export import from_pretrained, save_pretrained
from support.tiny_runs import ask, train, write_table


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    run = train(folder / "run", data=write_table(folder / "table.csv"))
    evaluate(run)
    return run


def test_a_folder_repeats_the_model_without_data(run, tmp_path):
    result = ask("export", run.path, "--format", "huggingface", "-o", tmp_path / "model")
    assert result.exit_code == 0, result.output
    pretrained = from_pretrained(tmp_path / "model")
    assert sorted(f.name for f in (tmp_path / "model").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    samples = pretrained.sample(9, torch.Generator().manual_seed(3))
    expected = run.to_user_units(run.model.sample(9, torch.Generator().manual_seed(3)))
    assert torch.equal(samples, expected)


def test_the_card_says_what_the_model_is(run, tmp_path):
    folder = save_pretrained(run.path, tmp_path / "model", licence="mit")
    card = (folder / "README.md").read_text(encoding="utf-8")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert card.startswith("---\nlibrary_name: hilbound\nlicense: mit\n")
    assert config["data"]["fingerprint"] in card
    assert "| metric | model | floor | better |" in card
    last = run.read_bounds()[-1]
    assert f"| {last['tightness']:.4f} |" in card
    assert "hilbound fit" in card
    # A card is for others: it names no place on this machine.
    assert str(Path(run.config.data).parent) not in card + json.dumps(config)


def test_a_tables_model_comes_back(tmp_path):
    table = write_table(tmp_path / "table.csv", n=80)
    config = TableConfig.create(data=str(table), target="weight", max_epochs=5)
    run = TableRun.fit(tmp_path / "run", config, quiet=True)
    run.evaluate()
    pretrained = from_pretrained(save_pretrained(run.path, tmp_path / "model"))
    rows = run.splits["test"].table
    assert (pretrained.model.predict(rows) == run.model.predict(rows)).all()
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert "--target weight" in card
    assert "held-out rows" in card
    with pytest.raises(InputError, match="this model predicts a target"):
        pretrained.sample(3)


def test_other_files_are_not_overwritten(run, tmp_path):
    (tmp_path / "mine.txt").write_text("kept", encoding="utf-8")
    with pytest.raises(InputError, match="holds other files: name a new one"):
        save_pretrained(run.path, tmp_path)
    with pytest.raises(InputError, match="holds no model"):
        from_pretrained(tmp_path)


def test_another_format_is_refused(run, tmp_path):
    folder = save_pretrained(run.path, tmp_path / "model")
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8")) | {"hilbound_format": 99}
    file.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(InputError, match="has format 99, this hilbound reads 1"):
        from_pretrained(folder)
