"""A worker that is lost costs time and bytes that are counted apart, and changes no result."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from fedsplit.cluster.in_process import InProcessWorkers
from fedsplit.errors import RunFailed
from fedsplit.recording.metrics import Record
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.training.experiment import Experiment
from tests.cases import long_but
from tests.cluster.test_same_results import built, differing, leaves, over

SETTINGS = ("num_clients=6", "cohort_size=4", "rounds=3", "checkpoint_interval=2", "engine=sequential")
STATELESS = ("client.stateless=true",)


def workers_of(run: Experiment) -> InProcessWorkers:
    workers = run.parts.engine.workers  # type: ignore[attr-defined]
    assert isinstance(workers, InProcessWorkers)
    return workers


def finished(
    path: Path, *overrides: str, harm: Callable[[InProcessWorkers], object] | None = None
) -> Experiment:
    run = built(*SETTINGS, *overrides)
    if harm:
        harm(workers_of(run))
    run.run(RunDirectory(path))
    return run


def load_of(record: Record) -> int:
    return sum(sum(kinds.values()) for kinds in record.bytes.values())


def without_again(state: Mapping[str, object]) -> dict[str, object]:
    """What the state of a run holds, but for bytes that were sent again."""
    return {name: leaf for name, leaf in leaves(state).items() if "/again" not in name}


def left(path: Path) -> dict[str, object]:
    """What the newest checkpoint in a run's directory holds."""
    newest = RunDirectory.existing(path).latest_checkpoint()
    assert newest is not None
    return without_again(newest.state)


@cache
def undisturbed(*overrides: str) -> dict[str, object]:
    run = built(*SETTINGS, *overrides)
    while run.stopped_by() is None:
        run.records.append(run.run_round(len(run.records)))
    return without_again(run.checkpoint().state)


LOST = [
    ("fsl_sage", (), "form", 2),
    ("fsl_sage", (), "forward", 1),
    ("fsl_sage", (), "install", 3),
    ("fsl_sage", (), "train_local", 5),
    ("fsl_sage", (), "weights", 3),
    ("fsl_sage", (), "fix_server", 2),
    ("fsl_sage", (), "align", 3),
    ("fsl_sage", (), "state", 1),
    ("fsl_sage", STATELESS, "forget", 2),
    ("fed_avg", STATELESS, "forget", 3),
    ("splitfed_v1", (), "backward", 5),
    ("splitfed_v1", (), "load_copies", 2),
    ("splitfed_v1", (), "step_copies", 5),
    ("splitfed_v1", (), "copies_weights", 2),
    ("splitfed_v1", (), "copies_state", 1),
    ("splitfed_v1", ("cohort_size=3", "rounds=4"), "take_copies", 1),
    ("lgl_sl", STATELESS, "forget_copies", 2),
    ("splitfed_v1", ("cohort_size=3", "rounds=4"), "take", 1),
    ("fed_avg", STATELESS, "train_local", 5),
    ("ampere", ("algorithm.device_rounds=1",), "forward_evaluating", 1),
    ("ho_sfl", ("algorithm.probes=2", "optimizer=sgd"), "probe", 3),
    ("ho_sfl", ("algorithm.probes=2", "optimizer=sgd"), "move", 3),
    ("splitfed_v1", ("model.tail_cut=relu3",), "step_tail", 3),
    ("fsl_sage", ("cohort_size=3", "auxiliary.keep_clients=3"), "drop_heads", 1),
]
"""Algorithm, settings, and a verb, with how often a worker does it before it is lost, this time included."""


@pytest.mark.parametrize(
    ("algorithm", "more", "verb", "times"),
    long_but(lambda case: case[0] == "fed_avg" or case[2] in ("align", "state", "backward"), LOST),
)
def test_worker_lost_in_any_verb_leaves_the_results_of_an_undisturbed_run(
    tmp_path: Path, algorithm: str, more: tuple[str, ...], verb: str, times: int
) -> None:
    settings = (f"algorithm={algorithm}", *more, "quant=int8")

    def harm(workers: InProcessWorkers) -> None:
        workers.dies[0] = [verb] * times

    run = finished(tmp_path, *settings, *over(2), harm=harm)
    assert not workers_of(run).dies[0], "it was lost"
    assert differing(left(tmp_path), undisturbed(*settings)) == []
    assert workers_of(run).summary.lost == 1
    told = (tmp_path / "run.log").read_text()
    assert told.count("worker 0 of the cluster was lost: it was to be lost; the run goes on") == 1
    rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert [int(row.partition(",")[0]) for row in rows[1:]] == list(range(len(run.records)))


def test_cases_of_lost_workers_have_all_that_a_worker_answers() -> None:
    run = built(*SETTINGS, "algorithm=splitfed_v1", *over(1))
    with run.transport.open(Path()):
        verbs = workers_of(run).there[0]._verbs  # type: ignore[attr-defined]
    assert {verb for _, _, verb, _ in LOST} == set(verbs) - {"clear"}, "clear is of recoveries: see below"


def test_worker_lost_while_a_run_goes_back_makes_it_go_back_once_more(tmp_path: Path) -> None:
    def harm(workers: InProcessWorkers) -> None:
        workers.dies = {0: ["train_local"] * 3, 1: ["clear"]}

    run = finished(tmp_path, "algorithm=fed_avg", *over(2), harm=harm)
    assert workers_of(run).summary.lost == 2
    assert differing(left(tmp_path), undisturbed("algorithm=fed_avg")) == []


def test_stateless_round_alone_begins_again_and_its_bytes_are_counted_apart(tmp_path: Path) -> None:
    def harm(workers: InProcessWorkers) -> None:
        workers.dies[0] = ["weights"] * 3  # of the third round: a call a round

    run = finished(tmp_path, "algorithm=fed_avg", *STATELESS, "checkpoint_interval=9", *over(2), harm=harm)
    again = [record.again for record in run.records]
    assert [sum(each.values()) for each in again[:2]] == [0, 0], "rounds before are not trained again"
    sent = {way: sum(kinds.values()) for way, kinds in run.records[2].bytes.items()}
    assert again[2] == {"down": sent["down"], "up": 0}, "what had gone out when it was lost"
    assert run.records[2].load == sum(map(load_of, run.records))


def test_run_goes_back_to_its_checkpoint_and_counts_what_is_sent_again(tmp_path: Path) -> None:
    def harm(workers: InProcessWorkers) -> None:
        workers.dies[1] = ["weights"] * 4  # of the fourth round, one after a checkpoint

    settings = ("algorithm=fed_avg", "rounds=5", "checkpoint_interval=2")
    run = finished(tmp_path, *settings, *over(2), harm=harm)
    again = [sum(record.again.values()) for record in run.records]
    load = list(map(load_of, run.records))
    assert again == [0, 0, load[2], load[3] // 2, 0]
    assert differing(left(tmp_path), undisturbed(*settings)) == []


def test_run_goes_on_with_fewer_workers_down_to_those_it_needs(tmp_path: Path) -> None:
    def harm(workers: InProcessWorkers) -> None:
        workers.dies[0], workers.stays_away = ["train_local"] * 3, {0}

    settings = ("algorithm=fed_avg", *SETTINGS)
    finished(tmp_path / "fewer", *settings, *over(2), harm=harm)
    assert differing(left(tmp_path / "fewer"), undisturbed(*settings)) == []
    with pytest.raises(RunFailed, match=r"round 1: workers left: 1, and cluster.min_workers is 2"):
        finished(tmp_path / "too_few", *settings, *over(2), "+cluster.min_workers=2", harm=harm)


def test_run_gives_up_where_workers_are_lost_again_and_again(tmp_path: Path) -> None:
    def harm(workers: Any) -> None:
        workers.dies[0] = ["train_local"]
        ended = workers.recover

        def recover() -> None:
            ended()
            workers.dies[0] = ["train_local"]

        workers.recover = recover

    with pytest.raises(RunFailed, match="5 were lost without a round between them that ended"):
        finished(tmp_path, "algorithm=fed_avg", *over(1), harm=harm)
