"""What was changed between a run and its resume is refused by its name, or is allowed and changes nothing."""

import json
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from fedsplit.errors import UserError
from fedsplit.recording.checkpoint import Checkpoint, load_latest
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.tasks.task import go_on
from fedsplit.training.experiment import Experiment
from tests.conftest import Build, tiny_experiment
from tests.training.test_resume import metrics

State = dict[str, Any]


@pytest.fixture(scope="module")
def first_rounds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Directories of runs of one round on digits, with each engine; not to be written to."""
    found = {engine: tmp_path_factory.mktemp("runs") / engine for engine in ("sequential", "vectorized")}
    for engine, directory in found.items():
        run = tiny_experiment("rounds=1", "cohort_size=2", f"engine={engine}")
        run.run(RunDirectory.new(directory, "hydra.run.dir"))
    return found


@pytest.fixture
def begun(first_rounds: dict[str, Path], tmp_path: Path) -> Path:
    """Directory of a run of one round on digits."""
    return shutil.copytree(first_rounds["vectorized"], tmp_path / "run")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with images of two classes, six to train on and four to test on of each, all of one size."""
    draw = np.random.default_rng(0)
    for split, number in (("train", 6), ("test", 4)):
        for name in ("ant", "bee"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for each in range(number):
                pixels = draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{each}.bmp")
    return tmp_path / "images"


def on_images(tiny: Build, images: Path, *overrides: str) -> Experiment:
    own = (
        "dataset=image_folder",
        f"dataset.root={images}",
        "dataset.max_train=null",
        "dataset.max_test=null",
    )
    return tiny(*own, "num_clients=2", "batch_size=4", "rounds=1", "algorithm=fed_avg", *overrides)


def edit(directory: Path, *changes: tuple[str, Any]) -> None:
    """Change `config.yaml`."""
    path = directory / "config.yaml"
    config = yaml.safe_load(path.read_text("utf-8"))
    for key, value in changes:
        *folders, name = key.split("/")
        node = config
        for folder in folders:
            node = node[folder]
        node[name] = value
    path.write_text(yaml.safe_dump(config, sort_keys=False), "utf-8")


@pytest.mark.parametrize(
    ("changes", "key", "value", "words"),
    [
        ([("num_clients", 4)], "num_clients", "4", "was 3 when the run was begun"),
        ([("seed", 1)], "seed", "1", "was 0 when"),
        ([("optimizer/lr", 0.5)], "optimizer.lr", "0.5", "was 0.001 when"),
        ([("cohort_size", None)], "cohort_size", "null", "was 2 when"),
        ([("dataset/max_train", 120)], "dataset.max_train", "120", "was 130 when"),
        ([("choices/model", "resnet18")], "choices.model", "resnet18", "was digits_cnn when"),
        (
            [("checkpoint_interval", 2), ("batch_size", 9)],
            "batch_size",
            "9",
            r"nor can checkpoint_interval \(was 5\)",
        ),
        (
            [(key, 7) for key in ("batch_size", "eval_interval", "num_clients", "seed")],
            "batch_size",
            "7",
            r"seed \(was",
        ),
    ],
)
def test_configuration_edited_before_a_resume_is_refused_by_the_keys_that_differ(
    begun: Path, changes: list[tuple[str, Any]], key: str, value: str, words: str
) -> None:
    edit(begun, *changes)
    before = {path: path.read_bytes() for path in begun.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=words) as caught:
        go_on(begun, {"rounds": 2, "trust": True})  # trust or not
    assert (caught.value.key, caught.value.value) == (key, value)
    assert str(caught.value).count("\n") == 0
    assert {path: path.read_bytes() for path in begun.rglob("*") if path.is_file()} == before


def test_what_changes_no_result_may_be_edited_before_a_resume(begun: Path) -> None:
    edit(begun, ("progress", True), ("rounds", 2), ("time_limit_s", 1e6), ("resume", "x"), ("device", "auto"))
    go_on(begun, {"target_accuracy": 1.0})
    assert len(metrics(begun)) == 2


def test_run_without_a_checkpoint_begins_with_the_configuration_that_is_there(begun: Path) -> None:
    shutil.rmtree(begun / "checkpoint")
    edit(begun, ("seed", 1))
    go_on(begun, {})
    found = load_latest(begun / "checkpoint")
    assert found is not None
    assert found.state["identity"]["config"]["seed"] == 1


def _remove(images: Path) -> None:
    (images / "train/ant/3.bmp").unlink()


def _add(images: Path) -> None:
    shutil.copy(images / "test/bee/1.bmp", images / "test/bee/9.bmp")


def _relabel(images: Path) -> None:
    """Two images change classes, and places in the order: no count changes."""
    (images / "train/ant/5.bmp").rename(images / "x")
    (images / "train/bee/0.bmp").rename(images / "train/ant/5.bmp")
    (images / "x").rename(images / "train/bee/0.bmp")


def _exchange_in(split: str) -> Callable[[Path], None]:
    def exchange(images: Path) -> None:
        path = images / split / "ant/2.bmp"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)

    return exchange


def _other_class(images: Path) -> None:
    for split in ("train", "test"):
        (images / split / "bee").rename(images / split / "cow")


EDITS = [
    pytest.param(_remove, "train.images 11, not 12", id="removed"),
    pytest.param(_add, "test.images 9, not 8", id="added"),
    pytest.param(_relabel, "other train.pixels", id="relabelled"),
    pytest.param(_exchange_in("train"), "other train.pixels", id="exchanged"),
    pytest.param(_exchange_in("test"), "other test.pixels", id="exchanged in test"),
    pytest.param(_other_class, r"classes \[2,ant,cow\], not \[2,ant,bee\]", id="another class"),
]


@pytest.mark.parametrize(("change", "words"), EDITS)
@pytest.mark.parametrize("workers", ["null", "1"])
@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.cover(1)
def test_images_changed_before_a_resume_are_refused(
    *,
    tiny: Build,
    images: Path,
    tmp_path: Path,
    change: Callable[[Path], None],
    words: str,
    workers: str,
    moved: bool,
) -> None:
    directory, changes = tmp_path / "run", {"rounds": 2}
    experiment = on_images(tiny, images, f"dataset.workers={workers}")
    experiment.run(RunDirectory.new(directory, "hydra.run.dir"))
    if moved:
        images = images.rename(tmp_path / "elsewhere")
        changes |= {"dataset.root": str(images)}  # type: ignore[dict-item]
    change(images)
    with pytest.raises(UserError, match=words) as caught:
        go_on(directory, changes)
    assert (caught.value.key, caught.value.value) == ("dataset.root", str(images))
    assert "holds other data than the run was begun with" in str(caught.value)
    assert len(metrics(directory)) == 1


@pytest.mark.parametrize("workers", ["null", "1"])
@pytest.mark.parametrize("distribution", ["iid", "feature_shift"])
@pytest.mark.cover(1)
def test_run_whose_images_were_moved_goes_on_as_if_they_had_not_been(
    tiny: Build, images: Path, tmp_path: Path, workers: str, distribution: str
) -> None:
    overrides = (f"dataset.workers={workers}", f"distribution={distribution}")
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    on_images(tiny, images, *overrides, "rounds=2").run(RunDirectory.new(whole, "hydra.run.dir"))
    on_images(tiny, images, *overrides).run(RunDirectory.new(moved, "hydra.run.dir"))
    there = shutil.copytree(images, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    shutil.rmtree(images)
    go_on(moved, {"rounds": 2, "dataset.root": str(there)})
    assert metrics(moved) == metrics(whole)
    for path in (whole / "model").iterdir():
        assert (moved / "model" / path.name).read_bytes() == path.read_bytes()
    assert RunDirectory.existing(moved).config()["dataset"]["root"] == str(there)
    told = [line for line in (moved / "run.log").read_text("utf-8").splitlines() if "images from" in line]
    assert [line.rpartition(" ")[2] for line in told] == [str(images), str(there)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dataset.root": "/there"}, "dataset.root=/there: dataset=digits is in no files of its own"),
        ({"dataset": "mnist"}, "dataset=mnist: beside resume only .*dataset.root, .* may be given"),
        ({"dataset.max_train": 9}, "dataset.max_train=9: beside resume only"),
        ({"dataset.root.x": 9}, "dataset.root.x=9: beside resume only"),
        ({"dataset.rooted": 9}, "dataset.rooted=9: beside resume only"),
        ({"rounds.more": 9}, "rounds.more=9: beside resume only|no such key"),
    ],
)
def test_of_data_only_the_place_of_files_may_be_given_beside_resume(
    begun: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        go_on(begun, changes)


def test_checkpoint_of_digits_refuses_others(tiny: Build) -> None:
    checkpoint = tiny("rounds=1").checkpoint()
    checkpoint.state["identity"]["data"]["train"]["pixels"] = "0"
    with pytest.raises(UserError, match=r"dataset=digits: holds other data .*: other train.pixels"):
        tiny("rounds=1").restore(checkpoint)


def _written_again(directory: Path, change: Callable[[State], object]) -> Path:
    """Change the state of the newest checkpoint; its checksums fit again. The file."""
    folder = max((directory / "checkpoint").iterdir())
    path = folder / "state.json"
    values = json.loads(path.read_text())
    change(values["state"])
    path.write_text(json.dumps(values))
    files = sorted(each for each in folder.iterdir() if each.name != "SHA256SUMS")
    sums = [f"{sha256(each.read_bytes()).hexdigest()}  {each.name}\n" for each in files]
    (folder / "SHA256SUMS").write_text("".join(sums))
    return path


def _first(state: State, name: str) -> State:
    """The first client of a part that has one each."""
    found: State = state[name][min(state[name])]
    return found


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("identity"), "state must have identity"),
        (lambda s: s.update(identity=3), "state.identity must hold keys and values"),
        (lambda s: s["identity"].pop("data"), "state.identity must have data"),
        (lambda s: s["identity"].update(config=[]), "state.identity.config must hold keys and values"),
        (lambda s: s.pop("elapsed"), "state must have elapsed"),
        (lambda s: s.update(elapsed="1"), "state.elapsed must be a number"),
        (lambda s: s.update(elapsed=-1), "state.elapsed must be a number of seconds"),
        (lambda s: s.update(more=1), "state must not have more"),
        (lambda s: s["records"][0].pop("load"), "state.records.0 must have load"),
        (lambda s: s["records"][0].update(load="1"), "state.records.0.load must be a whole number"),
        (lambda s: s["records"][0].update(more=1), "state.records.0 must not have more"),
        (lambda s: s["records"][0]["seconds"].pop("server"), "state.records.0.seconds must have server"),
        (lambda s: s["records"][0]["bytes"]["up"].pop("labels"), "state.records.0.bytes.up must have labels"),
        (lambda s: s["records"][0].update(round=1), "state.records.0.round must be 0"),
        (lambda s: s["records"].append(s["records"][0]), "state.records.1.round must be 1"),
        (lambda s: s.update(records=[]), "state.records must be of 1 rounds, and not 0"),
        (lambda s: s.update(records={}), "state.records must be a list"),
        (lambda s: s["ledger"].update({"5": {}}), "state.ledger.5 must have up"),
        (
            lambda s: s["ledger"]["0"]["up"].update(labels=[1, 2]),
            "state.ledger.0.up.labels must be 4 numbers",
        ),
        (lambda s: s["ledger"]["0"].pop("again"), "state.ledger.0 must have again"),
        (lambda s: s.update(algorithm=None), "tensor algorithm/.* has no place in the state"),
        (lambda s: s["algorithm"].update(more=1), "state.algorithm must not have more"),
        (lambda s: s["algorithm"].pop("server"), "tensor algorithm/server/.* has no place in the state"),
        (lambda s: s["clients"].update({"3": {}}), "state.clients.3 must be of a client from 0 to 2"),
        (lambda s: s["clients"].update({"x": {}}), "state.clients.x must be of a client from 0 to 2"),
        (
            lambda s: _first(s, "clients").pop("body"),
            r"(tensor |state\.)clients.[0-2].* (has no place|must have)",
        ),
        (lambda s: _first(s, "clients").update(more=1), r"state\.clients\.[0-2] must not have more"),
        (lambda s: s["algorithm"]["server"].update(more={}), r"state\.algorithm\.server must not have more"),
        (lambda s: s["links"].clear(), "state.links must have client"),
    ],
)
@pytest.mark.parametrize("engine", ["sequential", "vectorized"])
@pytest.mark.cover(1)
def test_checkpoint_with_right_checksums_and_another_state_is_refused_in_one_line(
    first_rounds: dict[str, Path], tmp_path: Path, engine: str, change: Callable[[State], object], words: str
) -> None:
    shutil.copytree(first_rounds[engine], tmp_path / "run")
    path = _written_again(tmp_path / "run", change)
    with pytest.raises(UserError, match=words) as caught:
        go_on(tmp_path / "run", {"rounds": 2})
    assert f"{path.parent}/state." in str(caught.value)
    assert str(caught.value).count("\n") == 0
    assert (caught.value.key, caught.value.value) == ("resume", tmp_path / "run")


def test_checkpoint_with_tensors_of_other_shapes_is_refused(tiny: Build) -> None:
    for part in ("client_weights", "server"):
        checkpoint = tiny("rounds=1").checkpoint()
        node = checkpoint.state["algorithm"][part]
        weights = dict(node.get("weights", node))
        name = min(weights)
        weights[name] = weights[name][:1]
        changed = weights if part == "client_weights" else {**node, "weights": weights}
        state = {**checkpoint.state, "algorithm": {**checkpoint.state["algorithm"], part: changed}}
        with pytest.raises(UserError, match=rf"state\.safetensors .*{part}.*must be a tensor of shape"):
            tiny("rounds=1").restore(Checkpoint(0, state))


def test_checkpoint_keeps_the_time_of_the_round_that_it_is_after(tiny: Build, tmp_path: Path) -> None:
    run = tiny("rounds=2", "checkpoint_interval=1")
    run.run(RunDirectory.new(tmp_path / "run", "hydra.run.dir"))
    found = load_latest(tmp_path / "run" / "checkpoint")
    assert found is not None
    assert found.state["elapsed"] >= sum(sum(record.seconds.values()) for record in run.records)
    assert run.elapsed > found.state["elapsed"]  # by what the last checkpoint took
