"""Labels from cut gradients, and from updates, where they are known."""

from pathlib import Path

import pytest
import torch

from fedsplit.computing.model_state import ModelState
from fedsplit.models.auxiliary import LinearAuxiliary
from fedsplit.objectives.classification import Classification
from fedsplit.optim.optimizers import Sgd
from fedsplit.parties.local_step import train_head
from fedsplit.tasks.attack.labels import clusters
from fedsplit.tasks.attack.updates import smashed_of_update
from tests.tasks.attack.test_attack import ASKED, rows_in, run, trained_run

SGD = Sgd(lr=0.05, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False)


def test_clusters_of_directions_are_those_that_were_put_there() -> None:
    draw = torch.Generator().manual_seed(0)
    centres = torch.linalg.qr(torch.randn(20, 5, generator=draw)).Q.T
    own = torch.randint(5, (60,), generator=draw)
    lengths = torch.rand(60, 1, generator=draw) + 0.1
    x = lengths * (centres[own] + 0.05 * torch.randn(60, 20, generator=draw))
    found = clusters(x, 5, 5, seed=1)
    assert len({(int(a), int(b)) for a, b in zip(own, found, strict=True)}) == len(set(own.tolist()))
    vague = centres[own] + 0.5 * torch.randn(60, 20, generator=draw)
    powers_of_two = torch.randint(-9, 10, (60, 1), generator=draw).exp2()
    assert torch.equal(clusters(powers_of_two * vague, 5, 5, seed=1), clusters(vague, 5, 5, seed=1))


def test_smashed_data_are_read_from_the_update_of_a_linear_auxiliary_model_exactly() -> None:
    torch.manual_seed(0)
    module, z = LinearAuxiliary(smashed_shape=(6, 2, 2), num_classes=5), torch.randn(1, 6, 2, 2)
    head = ModelState(module, SGD)
    before = head.weights()
    train_head(head, Classification(5), z, torch.tensor([3]), learning_rate_factor=1.0, seed=None)
    error = smashed_of_update(before, head.weights()) - z.flatten()
    assert float(error.norm() / z.norm()) < 1e-6


@pytest.fixture(scope="module")
def splitfed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_run(
        tmp_path_factory.mktemp("runs") / "run", "algorithm=splitfed_v2", "dataset.max_train=200"
    )


def test_labels_are_clustered_out_of_the_first_cut_gradients_under_any_codec(splitfed: Path) -> None:
    asked = ["task.attackers=[labels]", "task.codecs=[none,int8,int2]", "task.models=[trained,untrained]"]
    sizes = ["task.known=60", "task.targets=100", "task.options.labels.shots=[1,3]", "task.pictures=0"]
    assert run("task=attack", f"run={splitfed}", *asked, *sizes) == 0
    rows = [row for row in rows_in(splitfed) if row["attacker"] == "labels"]
    ways = ["direction, 1 a class", "direction, 3 a class", "norm", "clustering"]
    assert [row["way"] for row in rows] == 6 * ways
    first = [row for row in rows if row["model"] == "untrained"]
    assert all(float(row["label_accuracy"]) >= 0.98 for row in first if row["way"] == "clustering")
    assert all(float(row["label_accuracy"]) >= 0.98 for row in first if row["way"] == "direction, 3 a class")
    assert all(float(row["label_auc"]) >= 0.5 for row in rows if row["label_auc"])
    assert not any(row["psnr"] for row in rows)


@pytest.mark.parametrize(
    ("overrides", "attacker", "told"),
    [
        (["algorithm=fed_avg"], "labels", "labels is left out: with FedAvg no cut gradients go to clients"),
        (["algorithm=cse_fsl"], "updates", "updates is left out: it reads updates of plain SGD"),
        (
            ["algorithm=splitfed_v1"],
            "updates",
            "updates is left out: with SplitFedV1 clients train on no loss",
        ),
    ],
)
def test_attacker_without_anything_to_work_on_is_left_out_with_the_reason(
    overrides: list[str], attacker: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = trained_run(tmp_path / "run", "dataset.max_train=60", "distribution=iid", *overrides)
    assert run("task=attack", f"run={path}", f"task.attackers=[{attacker}]", "task.pictures=0", *ASKED) == 0
    assert told in capsys.readouterr().out
    assert {row["attacker"] for row in rows_in(path)} == {"mean"}


def test_shares_of_labels_are_read_from_the_first_update_of_a_last_bias(tmp_path: Path) -> None:
    divided = ["distribution=dirichlet", "distribution.alpha=0.3", "optimizer=sgd", "optimizer.lr=0.01"]
    path = trained_run(tmp_path / "run", "algorithm=fed_avg", *divided)
    assert run("task=attack", f"run={path}", "task.attackers=[updates]", "task.pictures=0", *ASKED) == 0
    *_, row = rows_in(path)
    assert (row["attacker"], row["way"], row["sent"]) == ("updates", "label shares", "False")
    assert float(row["label_share_error"]) < 0.05
    assert float(row["label_share_error_of_uniform"]) > 0.25


def test_batch_of_one_gives_the_smashed_data_that_a_codec_rounds(tmp_path: Path) -> None:
    path = trained_run(tmp_path / "run", "algorithm=cse_fsl", "optimizer=sgd", "quant=int2")
    asked = ["task.attackers=[linear,updates]", "task.codecs=[none]", "task.pictures=0"]
    assert run("task=attack", f"run={path}", *asked, *ASKED) == 0
    _, linear, update = rows_in(path)
    assert (update["way"], update["codec"]) == ("batch of one", "int2_channel")
    assert float(update["smashed_error"]) < 1e-4
    assert float(update["psnr"]) == pytest.approx(float(linear["psnr"]), abs=0.2)
