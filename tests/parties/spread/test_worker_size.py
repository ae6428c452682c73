"""How many workers there is room for."""

from fedsplit.parties.workers import WorkerSize


def size(cpus: float, gpus: float) -> WorkerSize:
    return WorkerSize(workers=None, least=1, deadline_s=1.0, cpus=cpus, gpus=gpus)


def test_room_is_what_is_scarcer_of_cores_and_gpus() -> None:
    assert size(1, 0).room(8, 0) == 8
    assert size(3, 0).room(8, 4) == 2
    assert size(1, 1).room(8, 4) == 4
    assert size(1, 0.25).room(8, 1) == 4
    assert size(2, 1).room(3, 4) == 1
    assert size(1, 1).room(8, 0) == 0


def test_needs_in_words_say_gpus_where_there_are_any() -> None:
    assert size(2, 0).needs_in_words == "each needs 2 CPU"
    assert size(1, 0.5).needs_in_words == "each needs 1 CPU and 0.5 GPU"
