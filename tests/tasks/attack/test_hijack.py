"""A server that answers with gradients of its own, under algorithms that let it and one that does not."""

from pathlib import Path

import pytest
import torch
from torch import nn

from fedsplit.tasks.attack.imposter import Imposter, discriminator_network
from tests.tasks.attack.test_attack import rows_in, run, trained_run

ASKED = (
    "task.attackers=[hijack]",
    "task.known=59",
    "task.targets=60",
    "task.pictures=0",
    "task.options.hijack.rounds=6",
    "task.options.hijack.pilot_epochs=40",
    "task.options.hijack.channels=16",
)


def test_clients_that_follow_an_imposter_come_to_where_its_decoder_reads_them() -> None:
    """A client that is the pilot but for a shift of its bias, which gradients take back."""
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(64, 1, 4, 4, generator=draw)
    torch.manual_seed(0)
    pilot = nn.Conv2d(1, 4, 1)
    imposter = Imposter(
        pilot,
        x,
        x,
        coded_shape=(4, 4, 4),
        channels=8,
        epochs=1,
        learning_rate=1e-3,
        penalty=10.0,
        batch_size=16,
        seed=0,
    )
    aim = imposter._pilot(x).detach()
    shift = torch.full((4, 1, 1), 2.0)
    for _ in range(80):
        z = aim + shift
        imposter.learn(z[:16])
        shift = shift - 0.05 * imposter.gradients(z[:16]).sum((0, 2, 3)).sign().view(4, 1, 1)
    assert float(shift.abs().max()) < 1


@pytest.mark.parametrize("shape", [(6, 9, 9), (10,), (4, 6)])
def test_discriminator_takes_smashed_data_of_any_shape(shape: tuple[int, ...]) -> None:
    assert discriminator_network(shape, 4)(torch.zeros(3, *shape)).shape == (3, 1)


def hijacked(path: Path, *overrides: str) -> float:
    """PSNR of the images of a run that is trained anew with an imposter for a server."""
    trained_run(path, "dataset.max_train=240", *overrides)
    assert run("task=attack", f"run={path}", *ASKED) == 0
    _, row = rows_in(path)
    assert (row["attacker"], row["epochs"]) == ("hijack", "6")
    return float(row["psnr"])


def test_clients_are_read_through_auxiliary_models_of_the_server_and_not_where_it_makes_none(
    tmp_path: Path,
) -> None:
    steered = hijacked(tmp_path / "steered", "algorithm=fsl_sage", "algorithm.align_interval=1")
    assert steered > hijacked(tmp_path / "control", "algorithm=cse_fsl") + 1


@pytest.mark.long  # the shorter way is in every run
@pytest.mark.parametrize("algorithm", ["splitfed_v1", "splitfed_v2"])
def test_clients_are_read_through_cut_gradients(algorithm: str, tmp_path: Path) -> None:
    steered = hijacked(tmp_path / "steered", f"algorithm={algorithm}")
    assert steered > hijacked(tmp_path / "control", "algorithm=cse_fsl") + 1


def test_clients_of_other_algorithms_are_not_hijacked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = trained_run(tmp_path / "run", "algorithm=fed_avg", "dataset.max_train=60")
    assert run("task=attack", f"run={path}", *ASKED) == 0
    assert "hijack is left out: FedAvg is none of SplitFed v1 and v2, FSL-SAGE" in capsys.readouterr().out
