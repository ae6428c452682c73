"""The command, as a user gives it: what it writes, and what it refuses."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from fedsplit.building.quantization import codec_at_cut
from fedsplit.cli.run import main
from fedsplit.config.choices import names_of
from fedsplit.config.settings import CodecChoice
from fedsplit.privacy.defence import Defence
from fedsplit.quant.coded import SentTensor
from fedsplit.tasks.attack.attack import Attack
from fedsplit.tasks.attack.channel import FULL, CodedChannel
from fedsplit.tasks.attack.victim import AttackedRun
from tests.conftest import TINY, Configure

ATTACKERS = ("mean", "linear", "decoder", "labels", "updates", "hijack")
"""Attackers that the tests of this folder run."""
ASKED = (
    "task.known=40",
    "task.targets=20",
    "task.options.decoder.epochs=1",
    "task.options.decoder.adapt_epochs=1",
    "task.calibration_batches=2",
    "task.calibration_batch_size=8",
)


def run(*overrides: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["main.py", *overrides])
        return main()


def trained_run(path: Path, *overrides: str) -> Path:
    """The directory of a tiny run of one round."""
    tiny = [each for each in TINY if not each.startswith("rounds=")]
    assert run(*tiny, "rounds=1", *overrides, f"hydra.run.dir={path}") == 0
    return path


def rows_in(path: Path) -> list[dict[str, str]]:
    with (path / "attack" / "attack.csv").open() as file:
        return list(csv.DictReader(file))


def contents(path: Path) -> dict[str, bytes]:
    """All files below a directory but those of an attack."""
    files = (file for file in path.rglob("*") if file.is_file() and "attack" not in file.parts)
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_run(tmp_path_factory.mktemp("runs") / "run", "algorithm=splitfed_v1", "quant=int8")


@pytest.fixture(scope="module")
def attacked(trained: Path) -> list[dict[str, str]]:
    """Rows of an attack on everything but a deployed client model."""
    before = contents(trained)
    (trained / "attack").mkdir()
    (trained / "attack" / "old").touch()
    asked = ["task.codecs=[none,int8,int2_block]", "task.models=[trained,untrained]"]
    settings = ["task.cuts=[conv1,2]", "task.adapted=[true,false]", "task.pictures=2"]
    assert run("task=attack", f"run={trained}", *asked, *settings, *ASKED) == 0
    assert contents(trained) == before
    return rows_in(trained)


def test_attack_leaves_a_row_for_each_cut_model_codec_attacker_and_adaptation(
    trained: Path, attacked: Sequence[dict[str, str]]
) -> None:
    found = [tuple(row[key] for key in ("cut", "model", "codec", "attacker", "adapted")) for row in attacked]
    expected = []
    for cut in dict.fromkeys(row["cut"] for row in attacked):
        for model in ("trained", "untrained"):
            expected += [(cut, model, "none", "mean", "")]
            for attacker in ("linear", "decoder"):
                expected += [(cut, model, "none", attacker, "True")]
            for codec in ("int8", "int2_block"):
                for attacker in ("linear", "decoder"):
                    expected += [(cut, model, codec, attacker, adapted) for adapted in ("True", "False")]
    assert found == expected
    assert len({row["cut"] for row in attacked}) == 2
    assert not (trained / "attack" / "old").exists()


def test_attack_tells_of_each_row_its_bytes_and_whether_the_run_sent_such_data(
    trained: Path, attacked: Sequence[dict[str, str]]
) -> None:
    own_cut = json.loads((trained / "attack" / "attack.json").read_text())["cut"]
    for row in attacked:
        sent = row["cut"] == own_cut and row["codec"] == "int8" and row["model"] == "trained"
        assert row["sent"] == str(sent)
        assert row["recut"] == str(row["cut"] != own_cut)
        assert (row["known"], row["targets"]) == ("40", "20")
        assert (row["sqnr"] == "") == (row["codec"] == "none")
    by_codec = {(row["cut"], row["codec"]): float(row["bytes_per_sample"]) for row in attacked}
    exact = by_codec["conv1", "none"]
    assert exact == 4 * 8 * 8 * 8 * (exact // (4 * 8 * 8 * 8))
    assert by_codec["conv1", "int2_block"] == exact / 4 / 4 + exact / 4 / 64 * (2 + 2 / 8)
    assert by_codec["conv1", "int8"] > exact / 4


def test_attack_measures_what_the_run_itself_measured_and_is_never_below_the_floor_by_much(
    trained: Path, attacked: Sequence[dict[str, str]]
) -> None:
    final = json.loads((trained / "results.json").read_text())["final_accuracy"]
    exact = [row for row in attacked if (row["codec"], row["model"]) == ("none", "trained")]
    assert len({row["test_accuracy"] for row in exact}) == 1
    assert float(exact[0]["test_accuracy"]) == pytest.approx(final)
    linear = {row["cut"]: float(row["psnr"]) for row in exact if row["attacker"] == "linear"}
    floor = {row["cut"]: float(row["psnr"]) for row in exact if row["attacker"] == "mean"}
    assert all(linear[cut] > floor[cut] + 1 for cut in floor)
    assert linear["conv1"] > min(linear.values())
    epochs = {row["epochs"] for row in attacked if row["attacker"] == "decoder"}
    assert epochs == {"2"}


def test_attack_draws_pictures_only_where_they_are_asked_for(trained: Path, attacked: object) -> None:
    names = {file.name for file in (trained / "attack").iterdir()}
    pictures = {name for name in names if name.startswith("reconstructions-")}
    assert {"attack.csv", "attack.json", "leakage.png"} == names - pictures
    assert len(pictures) == 4


def test_attack_by_the_run_itself_is_the_same_to_the_bit_and_takes_deployed_client_models(
    trained: Path, attacked: object
) -> None:
    asked = ["task.precisions=[fp32,fp16]", "task.attackers=[linear]", "task.pictures=0"]
    tables = []
    for _ in range(2):
        assert run("task=attack", f"run={trained}", *asked, *ASKED) == 0
        tables.append((trained / "attack" / "attack.csv").read_bytes())
    assert tables[0] == tables[1]
    assert not list((trained / "attack").glob("reconstructions-*"))
    ways = [(row["precision"], row["codec"], row["mode"], row["sent"]) for row in rows_in(trained)]
    assert ways[1:] == [("fp32", "int8_channel", "train", "True"), ("fp16", "device", "eval", "False")]
    bytes_of = {row["codec"]: float(row["bytes_per_sample"]) for row in rows_in(trained)}
    assert bytes_of["device"] == 2 * 16 * 4 * 4


@pytest.mark.long  # exporting takes seconds, and the way is that of other precisions
def test_attack_on_a_deployed_int8_client_model_sees_its_codes(trained: Path, attacked: object) -> None:
    asked = ["task.precisions=[int8]", "task.attackers=[linear]", "task.pictures=0"]
    assert run("task=attack", f"run={trained}", *asked, *ASKED) == 0
    floor, linear = rows_in(trained)
    values = 16 * 4 * 4
    assert values < float(linear["bytes_per_sample"]) < values + 12
    assert float(linear["psnr"]) > float(floor["psnr"]) + 1


def test_targets_and_images_of_the_attacker_are_drawn_and_have_nothing_in_common(
    trained: Path, configured: Configure
) -> None:
    victim = AttackedRun(trained, configured("task=attack", f"run={trained}"))
    targets, known = victim.targets(20), victim.draw_known(40)
    assert len(targets.unique()) == 20
    assert len(known.unique()) == 40
    for index in (targets, known):
        assert index.tolist() != sorted(index.tolist())
        assert int(index.max()) >= len(index)
    held = {int(each) for shard in victim.data.shards for each in shard}
    assert set(targets.tolist()) <= held
    pixels = {
        split: {image.numpy().tobytes() for image in images.pixels[index]}
        for split, images, index in (
            ("train", victim.dataset.train, targets),
            ("test", victim.dataset.test, known),
        )
    }
    assert not pixels["train"] & pixels["test"]


def test_channel_delivers_what_its_codec_decodes_with_the_noise_and_bytes_that_a_ledger_counts(
    configured: Configure,
) -> None:
    """With an identity client, whose smashed data are pixels, the error of pixels is that noise."""
    x = torch.rand(8, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    nodes = configured("task=codecs").task.arguments["codecs"]
    assert isinstance(nodes, dict)
    for name, node in nodes.items():
        codec = codec_at_cut(CodecChoice.of(name, node), (16, 4, 4), lambda: (16, 4, 4))
        channel = CodedChannel(name, "none", FULL, False, Defence(), codec, codec)
        delivered = channel.deliver(x, x, seed=5)
        counted = SentTensor(x, codec.transmit(x, seed=5))
        assert float((delivered.z - x).square().mean()) == pytest.approx(
            float(counted.noise) / x.numel(), rel=1e-5
        )
        assert delivered.size == counted.size


def test_defence_is_applied_before_the_codec_and_measured_with_the_accuracy_that_it_leaves(
    trained: Path, attacked: object
) -> None:
    asked = [
        "task.defences=[none,gaussian]",
        "task.attackers=[linear]",
        "task.pictures=0",
        "task.codecs=[none]",
    ]
    assert run("task=attack", f"run={trained}", *asked, *ASKED) == 0
    found = {row["defence"]: row for row in rows_in(trained) if row["attacker"] == "linear"}
    # the noise is twice the clip, 0.05 * 40, where smashed data are far smaller
    assert float(found["gaussian"]["sqnr"]) < 0
    assert float(found["gaussian"]["psnr"]) < float(found["none"]["psnr"]) - 1
    assert found["gaussian"]["bytes_per_sample"] == found["none"]["bytes_per_sample"]
    assert float(found["gaussian"]["test_accuracy_se"]) > 0


def test_training_mode_attacks_augmented_images_and_evaluation_those_of_the_files(
    trained: Path, configured: Configure
) -> None:
    victim = AttackedRun(trained, configured("task=attack", f"run={trained}"))
    plain = victim.dataset.train.pixels[victim.targets(20)].permute(0, 3, 1, 2) / 16
    still = torch.cat(
        [
            batch.pixels
            for batch in victim.batches(victim.dataset.train, victim.targets(20), "eval", "targets")
        ]
    )
    assert torch.equal(still, plain)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["task.known=99"], "task.known=99: must be at most 60, the test images"),
        (["task.targets=131"], "task.targets=131: must be at most 130, the clients' training images"),
        (["task.targets=3"], "task.targets=3: must be at least 4"),
        (
            ["task.cuts=[nowhere]", "task.targets=20", "task.known=40"],
            "task.cuts=nowhere: not a part of this model; ",
        ),
        (["task.cuts=[]"], "task.cuts=[]: must hold at least one, and each only once"),
        (["task.codecs=[int3]"], "task.codecs=['int3']: must be a list, each one of "),
        (["task.attackers=[guess]"], "task.attackers=['guess']: must be a list, each one of decoder, "),
        (["task.options.decoder.epochs=0"], "task.options.decoder.epochs=0: must be a whole number greater"),
        (["rounds=3"], "rounds=3: is that of the run; beside this task "),
    ],
)
def test_attack_asked_for_wrongly_ends_in_one_line_and_leaves_the_run_as_it_was(
    overrides: list[str], told: str, trained: Path, attacked: object, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(trained.rglob("*"))
    assert run("task=attack", f"run={trained}", *overrides) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert told in error
    assert sorted(trained.rglob("*")) == before


def test_options_of_the_task_are_all_attackers_that_can_be_chosen(configured: Configure) -> None:
    task = configured("task=attack", "run=x").task
    assert set(task.arguments["options"]) == set(names_of("attacker")) == set(ATTACKERS)
    assert Attack.models_of_run == "needed"
