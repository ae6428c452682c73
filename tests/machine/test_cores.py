import os

import pytest

from fedsplit.config.compose import composed, composing
from fedsplit.machine.cores import device_of, jobs_at_once


@pytest.mark.parametrize(("cores", "threads", "expected"), [(16, 1, 16), (16, 4, 4), (16, 5, 3), (2, 8, 1)])
def test_jobs_at_once_fill_the_cores_this_process_may_use(
    cores: int, threads: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    assert jobs_at_once(threads) == expected
    with composing():
        assert composed([f"threads={threads}"]).hydra.launcher.n_jobs == expected
        assert composed([f"threads={threads}", "hydra.launcher.n_jobs=7"]).hydra.launcher.n_jobs == 7


@pytest.mark.parametrize("asked", ["auto", "cuda"])
def test_jobs_of_a_sweep_go_to_several_gpus_in_turn(asked: str) -> None:
    assert [device_of(asked, place, 3) for place in range(5)] == [
        *("cuda:0", "cuda:1", "cuda:2", "cuda:0", "cuda:1")
    ]


@pytest.mark.parametrize(
    ("asked", "gpus"), [("auto", 0), ("auto", 1), ("cuda", 1), ("cpu", 4), ("cuda:2", 4)]
)
def test_jobs_of_a_sweep_keep_a_certain_device_or_a_lone_gpu(asked: str, gpus: int) -> None:
    assert {device_of(asked, place, gpus) for place in range(4)} == {asked}
