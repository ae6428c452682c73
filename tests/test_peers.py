"""The tasks that fedsplit shares with other frameworks: `benchmarks/peers`."""

import json
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fedsplit.machine.torchvision_operators import torchvision
from tests.command_line import ROOT

SMALL = {
    "mlp": (0, None, 2),
    "cnn": (4000, 2, 2),
    "blaze-cnn": (2000, 2, 2),
    "blaze-resnet18": (2000, 1, 1),
}
"""Images, clients of a round, and rounds, that make a task small enough for a test."""
RATE = 0.001
"""Learning rate at which rounding errors do not grow, as they do in ResNet-18 at 0.1."""


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Modules of the folder, which find each other as its scripts do."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks/peers"))
    modules = {name: import_module(name) for name in ("models", "shared", "tasks", "plain_loop", "run")}
    for name in modules:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(modules["tasks"], "_TEST_SAMPLES", 20)
    return SimpleNamespace(**modules)


@pytest.mark.parametrize("name", SMALL)
def test_fedsplit_and_a_plain_loop_end_at_the_same_loss(
    name: str, peers: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert SMALL.keys() == peers.tasks.TASKS.keys()
    images, cohort, rounds = SMALL[name]
    small = replace(peers.tasks.TASKS[name], images=images).altered(cohort=cohort, learning_rate=RATE)
    run = peers.tasks.experiment(small, None)
    peers.tasks.peer_task(name, run, rounds).save(tmp_path)
    task = peers.shared.PeerTask.load(str(tmp_path))
    begun = task.test_loss(task.weights)
    seconds, loss = peers.run.measure(run, task)
    peers.plain_loop.main(str(tmp_path))
    plain = json.loads(capsys.readouterr().out)
    assert abs(plain["loss"] - loss) < 0.01 * abs(loss - begun)
    assert len(seconds) == len(plain["seconds"]) == rounds


def test_clients_take_the_samples_of_each_epoch_in_their_own_order(
    peers: SimpleNamespace, tmp_path: Path
) -> None:
    task = replace(peers.tasks.TASKS["blaze-cnn"], images=2000).altered(cohort=3, learning_rate=None)
    run = peers.tasks.experiment(task, None)
    peers.tasks.peer_task("blaze-cnn", run, 2).save(tmp_path)
    task = peers.shared.PeerTask.load(str(tmp_path))
    for t, cohort in enumerate(task.cohorts):
        for client in cohort:
            ours = [y for _, _, y in run.parts.batches(client).round(t)]
            theirs = [y for _, y in task.batches(task.order(t, client))]
            assert torch.equal(torch.cat(ours), torch.cat(theirs))
            assert len({tuple(epoch.tolist()) for epoch in task.order(t, client)}) == 5


def test_resnet18_is_that_of_torchvision(peers: SimpleNamespace) -> None:
    own = peers.models.resnet18(num_classes=10, channels=3, image_size=32)
    theirs = torchvision().models.resnet18(num_classes=10)
    theirs.load_state_dict(own.state_dict())
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(own(x), theirs(x))
