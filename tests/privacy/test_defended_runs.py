"""Runs whose clients have a defence: the same by every engine, the same bytes, releases counted exactly."""

from collections import Counter
from dataclasses import replace
from math import inf, isfinite

import pytest
import torch

from fedsplit.data.batches import batch_slices
from fedsplit.errors import UserError
from fedsplit.parties.engine import Blueprint
from fedsplit.parties.messages import Upload
from fedsplit.privacy.defence import Defence
from fedsplit.training.experiment import Experiment
from tests.cases import long_but
from tests.conftest import Build

GAUSSIAN = ("defence=gaussian", "defence.clip=5", "defence.sigma=0.1")
DEFENCES = {
    "gaussian": GAUSSIAN,
    "laplace": ("defence=laplace",),
    "dropout": ("defence=dropout",),
    "nopeek": ("defence=nopeek", "defence.strength=0.5"),
}


@pytest.mark.usefixtures("float64")
@pytest.mark.cover(1)
@pytest.mark.parametrize("defence", DEFENCES)
@pytest.mark.parametrize("algorithm", ["splitfed_v1", "fsl_sage", "cse_fsl"])
def test_engines_give_the_same_with_a_defence(tiny: Build, algorithm: str, defence: str) -> None:
    settings = [f"algorithm={algorithm}", "optimizer=sgd", "dataset.max_train=60", *DEFENCES[defence]]
    settings += ["quant.smashed=int8_channel", "quant.continue_from_decoded=true"]
    runs = [tiny(f"engine={engine}", *settings) for engine in ("sequential", "vectorized")]
    for t in range(2):
        ours, theirs = (run.run_round(t) for run in runs)
        assert ours.train_loss == pytest.approx(theirs.train_loss, abs=1e-12)
        assert ours.bytes == theirs.bytes
        assert ours.epsilons == theirs.epsilons
    ours, theirs = (run.algorithm.full_weights() for run in runs)
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-12, msg=name)


@pytest.mark.parametrize("defence", long_but(["gaussian", "nopeek"], DEFENCES))
def test_defence_changes_the_result_and_no_byte(tiny: Build, defence: str) -> None:
    settings = ["algorithm=cse_fsl", "quant=int8", "dataset.max_train=60"]
    without, defended = tiny(*settings).run_round(0), tiny(*settings, *DEFENCES[defence]).run_round(0)
    assert defended.bytes == without.bytes
    assert (without.epsilons, without.released_accuracy) == ({}, None)
    assert defended.epsilons.keys() == {"smashed", "weights", "features", "labels"}
    assert (defended.released_accuracy is None) == (defence == "nopeek")
    if defence != "gaussian":
        assert set(defended.epsilons.values()) == {inf}


def test_released_accuracy_is_that_of_noisy_smashed_data_and_the_same_each_time(tiny: Build) -> None:
    run = tiny("algorithm=splitfed_v1", "defence=gaussian", "defence.clip=1", "defence.sigma=3")
    record = run.run_round(0)
    evaluate, full = run.evaluation, run.algorithm.full_weights()
    assert evaluate.released_accuracy([full], None, 0) == record.released_accuracy
    calm = replace(evaluate, blueprint=replace(evaluate.blueprint, defence=_Same()))
    assert calm.released_accuracy([full], None, 0) == record.test_accuracy
    halved = replace(evaluate, blueprint=replace(evaluate.blueprint, defence=_Nothing()))
    with torch.no_grad():
        z = torch.zeros(1, *run.parts.models.smashed_shape)
        server = run.parts.models.halves.server.eval()
        guess = int(server(z).argmax())
    labels = run.parts.data.dataset.test.labels_at(slice(None))
    assert halved.released_accuracy([full], None, 0) == float((labels == guess).double().mean())


class _Same(Defence):
    releases = True  # type: ignore[assignment]


class _Nothing(_Same):
    def release(self, z: torch.Tensor, noise: object) -> torch.Tensor:
        return torch.zeros_like(z)


COUNTED = {
    "every step": ["algorithm=splitfed_v1"],
    "turns": ["algorithm=splitfed_v2", "local_epochs=2"],
    "q of 1": ["algorithm=cse_fsl", "algorithm.server_update_interval=1"],
    "q of 2": ["algorithm=cse_fsl", "algorithm.server_update_interval=2", "local_epochs=2"],
    "q of 5, alignment": ["algorithm.server_update_interval=5", "algorithm.align_interval=2"],
    "ragged shards": [
        "algorithm=cse_fsl",
        "distribution=dirichlet",
        "distribution.alpha=0.3",
        "num_clients=4",
    ],
    "cohorts": ["algorithm.server_update_interval=2", "cohort_size=2"],
    "warm start": ["algorithm.server_update_interval=2", "algorithm.warm_start=1"],
    "own server copies": ["algorithm=lgl_sl"],
    "one upload": ["algorithm=ampere", "algorithm.device_rounds=1", "cohort_size=2", "local_epochs=2"],
}


@pytest.mark.parametrize("case", long_but(["q of 2", "q of 5, alignment", "cohorts", "one upload"], COUNTED))
def test_releases_are_those_that_leave_clients(
    tiny: Build, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """Whatever leaves a client is noted where it does; who was in that batch is found from the order."""
    left: set[tuple[int, int, int]] = set()
    released = Blueprint.release

    def noted(self: Blueprint, exact: Upload, round: int, purpose: str = "smashed data") -> Upload:
        if not purpose.endswith("an evaluation"):
            left.add((exact.client, round, exact.step))
        return released(self, exact, round, purpose)

    monkeypatch.setattr(Blueprint, "release", noted)
    run = tiny("dataset.max_train=90", "batch_size=7", "engine=sequential", *GAUSSIAN, *COUNTED[case])
    epsilons = [run.run_round(t).epsilons["smashed"] for t in range(3)]
    by_hand: Counter[int] = Counter()
    for client, round, step in left:
        own = run.parts.batches(client)
        slices = batch_slices(own.samples, 7)
        epoch, place = divmod(step, len(slices))
        order = own.indices[own.permutations(round)[epoch]]
        by_hand.update(order[slices[place]].tolist())
    (counts,) = run.rounds.privacy._releases
    assert {n: int(k) for n, k in enumerate(counts.smashed) if k} == dict(by_hand)
    assert run.rounds.privacy._releases.summary()["max"] == max(by_hand.values())
    assert all(map(isfinite, epsilons))
    assert epsilons == sorted(epsilons)


def test_epsilons_of_a_resumed_run_are_those_of_one_that_was_never_stopped(tiny: Build) -> None:
    settings = ["algorithm=cse_fsl", "algorithm.server_update_interval=2", "cohort_size=2", *GAUSSIAN]
    straight, resumed = tiny(*settings), tiny(*settings)
    for t in range(2):
        straight.records.append(straight.run_round(t))
    resumed.restore(straight.checkpoint())
    ours, theirs = straight.run_round(2), resumed.run_round(2)
    assert ours.epsilons == theirs.epsilons
    assert ours.epsilons["smashed"] > straight.records[0].epsilons["smashed"] > 0
    assert (ours.train_loss, ours.released_accuracy) == (theirs.train_loss, theirs.released_accuracy)
    assert [each.epsilons for each in resumed.records] == [each.epsilons for each in straight.records]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            ["algorithm=fed_avg", *GAUSSIAN],
            "defence=gaussian: must be none: it changes smashed data, and with FedAvg no client",
        ),
        (
            ["algorithm=fed_prox", "defence=nopeek"],
            "defence=nopeek: must be none: it changes smashed data, and with FedProx",
        ),
        (
            ["algorithm=heron", "defence=nopeek"],
            "defence=nopeek: must be none: it changes gradients, and ZerothOrder uses none",
        ),
    ],
)
def test_defence_that_clients_of_an_algorithm_cannot_have_is_refused(
    tiny: Build, settings: list[str], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        tiny(*settings)


def test_batch_normalisation_in_the_client_model_leaves_no_bound(tiny: Build) -> None:
    run = tiny("algorithm=cse_fsl", "model=resnet20", "model.cut=layer1", "auxiliary=linear", *GAUSSIAN)
    assert any("bn1 in the client model" in line for line in run.rounds.privacy.reasons())


def _results(run: Experiment) -> object:
    return run.rounds.privacy.results(run.records[-1])


def test_results_say_what_was_released_and_that_noise_is_reproducible(tiny: Build) -> None:
    run = tiny("algorithm=splitfed_v1", *GAUSSIAN)
    run.records.append(run.run_round(0))
    found = _results(run)
    assert isinstance(found, dict)
    assert (found["noise"], found["delta"], found["unit"]) == ("reproducible", 1e-5, "replace")
    assert found["releases"] == {"max": 1, "mean": 1.0}
    assert found["epsilon"]["smashed"] == run.records[0].epsilons["smashed"]
    assert found["epsilon"]["labels"] == "inf"
    assert found["reasons"].keys() == {"weights", "features", "labels"}
    assert tiny("algorithm=splitfed_v1").rounds.privacy.results(run.records[-1]) is None
