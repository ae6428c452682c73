"""A run over workers leaves what the same run in one process leaves, bit for bit."""

from contextlib import nullcontext
from functools import cache
from pathlib import Path

import pytest
import torch

from fedsplit.building.process import prepare_process
from fedsplit.errors import UserError
from fedsplit.parties.spread.engine import SpreadEngine
from fedsplit.recording.checkpoint import Checkpoint, load_latest, save
from fedsplit.training.experiment import Experiment
from tests.cases import long_but
from tests.configurations import configuration
from tests.conftest import ALGORITHMS, METHODS, TINY

ROUNDS = 2
TURNS = {"splitfed_v2", "vanilla_sl"}
SPREAD = {
    name: settings
    for name, settings in {**dict.fromkeys(ALGORITHMS, ()), **METHODS}.items()
    if name not in TURNS
}
SERVER_STEPS = ("fed_yogi", "fed_avgm")
"""Algorithms that differ from FedAdam in what the server alone computes."""
IN_PROCESS = "cluster._target_=fedsplit.cluster.in_process.InProcess"


def built(*overrides: str) -> Experiment:
    config = configuration(*TINY, *overrides)
    prepare_process(config)
    return Experiment(config)


def over(workers: int) -> list[str]:
    return [IN_PROCESS, f"+cluster.workers={workers}"]


def leaves(node: object, path: str = "") -> dict[str, object]:
    """Everything in the state of a run, by path, but for seconds and what names the cluster."""
    if isinstance(node, dict):
        found: dict[str, object] = {}
        for key, each in node.items():
            if key not in ("seconds", "elapsed", "identity"):
                found |= leaves(each, f"{path}/{key}")
        return found
    if isinstance(node, list):
        return {
            name: leaf for n, each in enumerate(node) for name, leaf in leaves(each, f"{path}/{n}").items()
        } | {f"{path}/len": len(node)}
    return {path: node.detach().clone() if isinstance(node, torch.Tensor) else node}


def trained(run: Experiment, rounds: int = ROUNDS, *, opened: bool = False) -> dict[str, object]:
    with nullcontext() if opened else run.transport.open(Path()):
        for t in range(len(run.records), rounds):
            run.records.append(run.run_round(t))
        return leaves(run.checkpoint().state)


def differing(ours: dict[str, object], theirs: dict[str, object]) -> list[str]:
    assert ours.keys() == theirs.keys()
    return [
        name
        for name, leaf in ours.items()
        if not (
            torch.equal(leaf, theirs[name])
            if isinstance(leaf, torch.Tensor)
            else repr(leaf) == repr(theirs[name])
        )
    ]


def settings_of(algorithm: str, quant: str, engine: str) -> tuple[str, ...]:
    """Sampled clients of unlike sizes; stacks of one, two or three clients."""
    settings = [f"algorithm={algorithm}", *SPREAD[algorithm], f"quant={quant}", f"engine={engine}"]
    settings += ["num_clients=7", "cohort_size=5", "distribution=dirichlet", "distribution.alpha=1"]
    settings += ["engine.stack_mb=0.8"] if engine == "vectorized" else []
    return tuple(settings)


@cache
def in_one_process(settings: tuple[str, ...]) -> dict[str, object]:
    return trained(built(*settings))


@pytest.mark.cover(1)
@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("engine", ["sequential", "vectorized"])
@pytest.mark.parametrize("quant", ["none", "int8", "thrifty"])
@pytest.mark.parametrize("algorithm", long_but(lambda name: name not in SERVER_STEPS, SPREAD))
def test_run_over_workers_leaves_the_state_of_a_run_in_one_process(
    algorithm: str, quant: str, engine: str, workers: int
) -> None:
    settings = settings_of(algorithm, quant, engine)
    assert differing(trained(built(*settings, *over(workers))), in_one_process(settings)) == []


@pytest.mark.parametrize(
    ("quant", "engine"), [("none", "vectorized"), ("int8", "sequential"), ("int8", "vectorized")]
)
def test_workers_step_the_tails_of_their_clients_as_one_process_does(quant: str, engine: str) -> None:
    settings = (*settings_of("splitfed_v1", quant, engine), "model.tail_cut=relu3")
    assert differing(trained(built(*settings, *over(2))), in_one_process(settings)) == []


def test_stacks_that_workers_hold_are_averaged_in_the_order_of_one_process() -> None:
    settings = settings_of("fed_avg", "none", "vectorized")
    assert differing(trained(built(*settings, *over(3))), in_one_process(settings)) == []


def test_copies_of_the_server_and_alignments_are_computed_by_all_workers() -> None:
    for algorithm, verb in (("splitfed_v1", "step_copies"), ("fsl_sage", "align")):
        run = built(*settings_of(algorithm, "none", "sequential"), *over(2))
        workers = run.parts.engine.workers  # type: ignore[attr-defined]
        answered: set[int] = set()
        ask = workers.ask

        def noted(worker: int, asked: str, *arguments: object, **_: object) -> object:
            if asked == verb:  # noqa: B023  (called within this turn of the loop)
                answered.add(worker)  # noqa: B023
            return ask(worker, asked, *arguments)  # noqa: B023

        workers.ask = noted
        with run.transport.open(Path()):
            run.run_round(0)
        assert answered == {0, 1}


def test_copies_whose_clients_change_workers_keep_their_optimizers() -> None:
    settings = (
        "algorithm=splitfed_v1",
        "num_clients=6",
        "cohort_size=3",
        "engine=sequential",
        "optimizer=adam",
    )
    run = built(*settings, *over(2))
    workers = run.parts.engine.workers  # type: ignore[attr-defined]
    ask, asked = workers.ask, list[str]()

    def noted(worker: int, verb: str, *arguments: object) -> object:
        asked.append(verb)
        return ask(worker, verb, *arguments)

    workers.ask = noted
    assert differing(trained(run, 5), trained(built(*settings), 5)) == []
    assert "take_copies" in asked


@pytest.mark.parametrize("engine", long_but(["sequential"], ["sequential", "vectorized"]))
@pytest.mark.parametrize("algorithm", long_but(["fsl_sage"], ["fsl_sage", "splitfed_v1", "ampere"]))
def test_run_goes_on_with_another_number_of_workers_or_none_as_if_it_had_not_stopped(
    tmp_path: Path, algorithm: str, engine: str
) -> None:
    settings = settings_of(algorithm, "thrifty", engine)
    begun = built(*settings, *over(3))
    with begun.transport.open(Path()):
        begun.records.append(begun.run_round(0))
        save(tmp_path / "checkpoint", begun.checkpoint())
    for others in ([], over(2)):
        resumed = built(*settings, *others)
        found = load_latest(tmp_path / "checkpoint")
        assert isinstance(found, Checkpoint)
        resumed.restore(found)
        assert differing(trained(resumed), in_one_process(settings)) == []


def test_clients_of_one_stack_are_computed_by_one_worker_and_stay_there_while_they_take_part() -> None:
    run = built(*settings_of("fed_avg", "none", "vectorized"), "cohort_size=7", *over(2))
    engine = run.parts.engine
    assert isinstance(engine, SpreadEngine)
    with run.transport.open(Path()):
        run.run_round(0)
        homes = dict(engine.homes)
        units = engine.units(range(7))
        assert {len({homes[client] for client in unit}) for unit in units} == {1}
        assert set(homes.values()) == {0, 1}
        run.run_round(1)
        assert engine.homes == homes
        assert "take" not in engine.workers.calls  # type: ignore[attr-defined]


def test_what_workers_cannot_compute_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"cluster=.*must be none: clients of SplitFedV2 take turns"):
        built("algorithm=splitfed_v2", *over(2))
    with pytest.raises(UserError, match=r"cluster=.*must be none: with this transport each client"):
        built("transport=grpc", *over(2))
