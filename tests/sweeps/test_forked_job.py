import pytest

from fedsplit.sweeps.forked_job import device_of


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
