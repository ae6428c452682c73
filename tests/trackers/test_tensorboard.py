"""What TensorBoard reads back of a run is what the run wrote to its own files."""

import csv
import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from fedsplit.recording.config_file import FORMAT
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.training.experiment import Experiment
from fedsplit.training.resume import resumed_config
from tests.conftest import Build
from tests.transport.runs import ran

Scalars = dict[str, dict[int, float]]
OVERRIDES = (
    *("tracker=tensorboard", "measure_gradient_error=true", "dataset.local_test_fraction=0.2"),
    *("quant=int8", "eval_interval=2", "checkpoint_interval=1"),
)


def _written(directory: Path) -> Scalars:
    """Every number of `metrics.csv`, by column and round."""
    found: Scalars = {}
    with (directory / "metrics.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            t = int(row.pop("round"))
            row.pop("left_out")
            for column, cell in row.items():
                if cell != "":
                    found.setdefault(column, {})[t] = float(cell)
    return found


def _shown(directory: Path) -> Scalars:
    """Every scalar that TensorBoard shows, by the column that its tag stands for; each step once."""
    log = EventAccumulator(str(directory / "tensorboard"), tensor_size_guidance={"scalars": 0})
    log.Reload()
    found: Scalars = {}
    for tag in log.Tags()["tensors"]:
        if log.SummaryMetadata(tag).plugin_data.plugin_name == "scalars":
            events = log.Tensors(tag)
            steps = {event.step: tensor_util.make_ndarray(event.tensor_proto).item() for event in events}
            assert len(steps) == len(events)
            found[tag.replace("/", ".", 1)] = steps
    return found


def _text(directory: Path, tag: str) -> str:
    log = EventAccumulator(str(directory / "tensorboard"), tensor_size_guidance={"scalars": 0})
    log.Reload()
    (event,) = log.Tensors(f"{tag}/text_summary")
    (value,) = tensor_util.make_ndarray(event.tensor_proto)
    return "\n".join(line.removeprefix("    ") for line in value.decode().splitlines())


def test_tensorboard_shows_every_number_of_the_metrics_exactly(tiny: Build, tmp_path: Path) -> None:
    directory = ran(tiny(*OVERRIDES), tmp_path / "run")
    written = _written(directory)
    assert len(written["load"]) == 3
    assert {"gradient_error", "local_accuracy.worst", "sqnr.up.smashed"} <= written.keys()
    assert set(written["test_accuracy"]) == {1, 2}
    assert _shown(directory) == written
    assert (directory / "config.yaml").read_text() == f"format: {FORMAT}\n{_text(directory, 'config')}\n"
    assert json.loads(_text(directory, "results")) == json.loads((directory / "results.json").read_text())


@pytest.mark.parametrize("kept", [2, 3])
def test_tensorboard_log_of_a_resumed_run_goes_on_without_a_trace_of_what_was_void(
    tiny: Build, tmp_path: Path, kept: int
) -> None:
    """The log has three rounds, and the checkpoint that is resumed from two of them, or all."""
    ran(tiny(*OVERRIDES), tmp_path / "run")
    directory = RunDirectory.existing(tmp_path / "run")
    if kept == 2:
        newest = max((directory.path / "checkpoint").iterdir()) / "state.safetensors"
        newest.write_bytes(newest.read_bytes()[:-1])
    resumed = Experiment(resumed_config(directory, {"rounds": 4}))
    checkpoint = directory.latest_checkpoint()
    assert checkpoint is not None
    assert checkpoint.rounds == kept
    resumed.restore(checkpoint)
    resumed.run(directory)
    written = _written(directory.path)
    assert list(written["load"]) == [0, 1, 2, 3]
    assert set(written["test_accuracy"]) == {1, 3}  # the third round was evaluated when it was the last
    assert _shown(directory.path) == written


def test_tensorboard_chosen_at_a_resume_shows_the_rounds_before_it_too(tiny: Build, tmp_path: Path) -> None:
    ran(tiny("rounds=2"), tmp_path / "run")
    directory = RunDirectory.existing(tmp_path / "run")
    resumed = Experiment(resumed_config(directory, {"rounds": 3, "tracker": "tensorboard"}))
    checkpoint = directory.latest_checkpoint()
    assert checkpoint is not None
    resumed.restore(checkpoint)
    resumed.run(directory)
    assert len(_shown(directory.path)["load"]) == 3
    assert _shown(directory.path) == _written(directory.path)
