import csv
import json
import logging
import os
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fedsplit.errors import UserError
from fedsplit.recording.checkpoint import Checkpoint
from fedsplit.recording.ledger import DIRECTIONS, KINDS
from fedsplit.recording.metrics import PHASES, Record
from fedsplit.recording.run_directory import RunDirectory

CONFIG: dict[str, Any] = {
    "seed": 0,
    "optimizer": {"lr": 1e-3, "eps": 1e-8, "betas": [0.9, 0.999]},
    "device": "cpu",
    "resume": None,
    "choices": {"algorithm": "fsl_sage"},
    "text": "é: 'quoted' # no comment",
}


@pytest.fixture(autouse=True)
def _logger_as_it_was() -> Iterator[None]:
    log = logging.getLogger("fedsplit")
    before = (log.level, log.propagate, list(log.handlers))
    yield
    for handler in log.handlers:
        handler.close()
    log.level, log.propagate, log.handlers = before


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[RunDirectory]:
    run = RunDirectory(tmp_path / "saves" / "run")
    yield run
    run.close()


def _record(round: int) -> Record:
    sizes = {d: dict.fromkeys(KINDS, 0) for d in DIRECTIONS}
    return Record(round, 0.5, 1.0, 2.0, round, sizes, dict.fromkeys(PHASES, 0.0))


def _rounds(directory: RunDirectory) -> list[int]:
    with (directory.path / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [int(row["round"]) for row in csv.DictReader(file)]


def test_run_directory_reads_the_configuration_back_as_it_was(directory: RunDirectory) -> None:
    directory.open(CONFIG, [])
    assert RunDirectory.existing(directory.path).config() == CONFIG
    assert list(RunDirectory.existing(directory.path).config()) == list(CONFIG)


def test_run_directory_opened_again_cuts_metrics_to_the_given_rounds_and_goes_on(
    directory: RunDirectory,
) -> None:
    directory.open(CONFIG, [])
    for t in range(4):
        directory.record(_record(t))
    directory.close()
    again = RunDirectory.existing(directory.path)
    again.open({**CONFIG, "rounds": 9}, [_record(0), _record(1)])
    assert _rounds(again) == [0, 1]
    again.record(_record(2))
    assert _rounds(again) == [0, 1, 2]
    assert again.config()["rounds"] == 9
    again.close()


def test_run_directory_that_is_not_open_takes_no_metrics(directory: RunDirectory) -> None:
    with pytest.raises(AssertionError, match="not open"):
        directory.record(_record(0))


def test_run_log_is_written_while_open_and_kept_when_opened_again(directory: RunDirectory) -> None:
    log = logging.getLogger("fedsplit")
    directory.open(CONFIG, [])
    log.info("first")
    directory.close()
    log.info("unheard")
    directory.open(CONFIG, [])
    log.info("second")
    directory.close()
    lines = (directory.path / "run.log").read_text("utf-8").splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == ["first", "second"]


def test_run_log_ends_with_its_run_and_other_handlers_stay(tmp_path: Path) -> None:
    first, second = RunDirectory(tmp_path / "1"), RunDirectory(tmp_path / "2")
    mine = logging.StreamHandler(StringIO())
    logging.getLogger("fedsplit").addHandler(mine)
    try:
        first.open(CONFIG, [])
        first.close()
        second.open(CONFIG, [])
        logging.getLogger("fedsplit").info("once")
        second.close()
        assert mine in logging.getLogger("fedsplit").handlers
        assert mine.stream.getvalue() == "once\n"
    finally:
        logging.getLogger("fedsplit").removeHandler(mine)
    assert (first.path / "run.log").read_text("utf-8") == ""
    assert (second.path / "run.log").read_text("utf-8").count("once") == 1


def test_run_directory_of_a_new_run_drops_checkpoints_and_of_a_resumed_one_keeps_them(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run")
    directory.open(CONFIG, [])
    directory.save_checkpoint(Checkpoint(1, {"x": torch.ones(1)}))
    directory.close()
    nothing = {direction: dict.fromkeys(KINDS, 0) for direction in DIRECTIONS}
    records = [Record(0, None, None, 0.5, 0, nothing, dict.fromkeys(PHASES, 0.0))]
    directory.open(CONFIG, records)
    directory.close()
    assert directory.latest_checkpoint() is not None
    directory.open(CONFIG, [])
    directory.close()
    assert directory.latest_checkpoint() is None


@pytest.mark.parametrize("where", ["file", "file/below"])
def test_run_directory_that_cannot_be_written_is_refused(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written") as caught:
        RunDirectory(tmp_path / where).open(CONFIG, [])
    assert (caught.value.key, caught.value.value) == ("hydra.run.dir", tmp_path / where)


def test_error_of_a_folder_of_runs_names_the_newest_below_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for age, place in enumerate(("b", "sweep/1", "a", "sweep/0")):
        (tmp_path / "saves" / place).mkdir(parents=True)
        (tmp_path / "saves" / place / "config.yaml").touch()
        os.utime(tmp_path / "saves" / place / "config.yaml", (1000 - age, 1000 - age))
    with pytest.raises(UserError) as caught:
        RunDirectory.existing(tmp_path / "saves")
    told = "it holds no config.yaml; runs below it are saves/b, saves/sweep/1, saves/a; the newest of 4"
    assert caught.value.allowed.endswith(told)
    with pytest.raises(UserError, match=r"runs below it are saves/sweep/1, saves/sweep/0$"):
        RunDirectory.existing(tmp_path / "saves" / "sweep")


@pytest.mark.parametrize(
    ("made", "words"),
    [("nothing", "no such directory"), ("folder", "holds no config.yaml"), ("file", "no such directory")],
)
def test_path_that_is_no_run_directory_is_not_resumed(tmp_path: Path, made: str, words: str) -> None:
    path = tmp_path / "run"
    if made == "folder":
        path.mkdir()
    elif made == "file":
        path.write_text("a file")
    with pytest.raises(UserError, match=words) as caught:
        RunDirectory.existing(path)
    assert (caught.value.key, caught.value.value) == ("resume", path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"seed: [1",
        b"- a\n- b\n",
        b"seed: 0\n",
        b"just text",
        b"\xff\xfe\x00seed",
        b"seed: \x00\n",
        b"a: *b",
    ],
)
def test_damaged_configuration_of_a_run_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"its config\.yaml (is|has no format)") as caught:
        RunDirectory.existing(tmp_path).config()
    assert (caught.value.key, caught.value.value) == ("resume", tmp_path)


def test_configuration_of_a_run_cannot_make_objects(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("choices: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(UserError, match="damaged"):
        RunDirectory.existing(tmp_path).config()


def test_run_directory_finds_its_checkpoint_again(directory: RunDirectory) -> None:
    directory.open(CONFIG, [])
    assert directory.latest_checkpoint() is None
    directory.save_checkpoint(Checkpoint(4, {"w": torch.arange(3)}))
    found = RunDirectory.existing(directory.path).latest_checkpoint()
    assert found is not None
    assert found.rounds == 4
    assert torch.equal(found.state["w"], torch.arange(3))


def test_saved_models_read_back_and_have_the_same_bytes_for_the_same_weights(directory: RunDirectory) -> None:
    directory.open(CONFIG, [])
    draw = torch.Generator().manual_seed(0)
    weights = {
        "conv.weight": torch.randn(2, 3, 4, 4, generator=draw),
        "bn.num_batches_tracked": torch.tensor(3),
        "fc.bias": torch.randn(5, generator=draw).requires_grad_(),
    }
    directory.save_model({"client": weights, "auxiliary-3": {"w": torch.ones(2)}})
    folder = directory.path / "model"
    assert sorted(path.name for path in folder.iterdir()) == ["auxiliary-3.safetensors", "client.safetensors"]
    loaded = load_file(folder / "client.safetensors")
    assert set(loaded) == set(weights)
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())
    before = (folder / "client.safetensors").read_bytes()
    otherwise = dict(reversed(weights.items()))  # other order, other memory format
    otherwise["conv.weight"] = weights["conv.weight"].contiguous(memory_format=torch.channels_last)
    directory.save_model({"client": otherwise})
    assert (folder / "client.safetensors").read_bytes() == before


def test_results_of_a_run_directory_read_back(directory: RunDirectory) -> None:
    directory.open(CONFIG, [])
    directory.save_results({"load": 2**60, "final_accuracy": 1 / 3})
    assert json.loads((directory.path / "results.json").read_text()) == {
        "load": 2**60,
        "final_accuracy": 1 / 3,
    }


def test_run_directory_leaves_no_temporary_file(directory: RunDirectory) -> None:
    directory.open(CONFIG, [_record(0)])
    directory.save_model({"client": {"w": torch.ones(2)}})
    directory.save_results({})
    directory.save_checkpoint(Checkpoint(1, {}))
    directory.close()
    assert [path for path in directory.path.rglob("*") if "partial" in path.name] == []
    assert {path.name for path in directory.path.iterdir()} == {
        "config.yaml",
        "run.log",
        "metrics.csv",
        "results.json",
        "model",
        "checkpoint",
    }


def test_two_open_run_directories_each_log_until_they_are_closed(tmp_path: Path) -> None:
    first, second = RunDirectory(tmp_path / "1"), RunDirectory(tmp_path / "2")
    log = logging.getLogger("fedsplit")
    handlers = list(log.handlers)
    first.open(CONFIG, [])
    second.open(CONFIG, [])
    log.info("both")
    second.close()
    log.info("alone")
    first.close()
    first.close()  # closing twice does nothing
    log.info("none")
    said = [
        [line.rpartition(" ")[2] for line in (each.path / "run.log").read_text("utf-8").splitlines()]
        for each in (first, second)
    ]
    assert said == [["both", "alone"], ["both"]]
    assert log.handlers == handlers


def test_run_directory_opened_twice_logs_each_line_once(directory: RunDirectory) -> None:
    for _ in range(2):
        directory.open(CONFIG, [])
    logging.getLogger("fedsplit").info("once")
    directory.close()
    assert (directory.path / "run.log").read_text("utf-8").count("once") == 1


def test_run_directory_opened_without_rounds_drops_checkpoints_however_damaged(
    directory: RunDirectory,
) -> None:
    left = directory.path / "checkpoint"
    (left / "round-000003").mkdir(parents=True)
    (left / ".partial").mkdir()
    (left / "round-000003" / "state.json").write_text("half")
    (directory.path / "model").mkdir()
    with pytest.raises(UserError, match="no undamaged checkpoint"):
        directory.latest_checkpoint()
    directory.open(CONFIG, [])
    assert not left.exists()
    assert (directory.path / "model").is_dir()  # nothing else goes
    assert directory.latest_checkpoint() is None


def test_metrics_of_an_open_run_directory_are_rewritten_and_go_on(directory: RunDirectory) -> None:
    directory.open(CONFIG, [])
    for t in range(4):
        directory.record(_record(t))
    directory.save_checkpoint(Checkpoint(4, {}))
    directory.rewrite([_record(0), _record(1)])
    assert _rounds(directory) == [0, 1]
    directory.record(_record(2))
    assert _rounds(directory) == [0, 1, 2]
    directory.rewrite([])
    assert _rounds(directory) == []
    assert directory.latest_checkpoint() is not None
