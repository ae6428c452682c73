import os

import pytest

from fedsplit.config.compose import compose_config, composing
from fedsplit.machine.cores import jobs_at_once


@pytest.mark.parametrize(("cores", "threads", "expected"), [(16, 1, 16), (16, 4, 4), (16, 5, 3), (2, 8, 1)])
def test_jobs_at_once_fill_the_cores_this_process_may_use(
    cores: int, threads: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    assert jobs_at_once(threads) == expected
    with composing():
        assert compose_config([f"threads={threads}"]).hydra.launcher.n_jobs == expected
        assert compose_config([f"threads={threads}", "hydra.launcher.n_jobs=7"]).hydra.launcher.n_jobs == 7
