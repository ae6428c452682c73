"""The work of a sample, against the layers' own sizes."""

import pytest

from fedsplit.network.timelines.timeline import Work
from tests.conftest import Build

CLIENT = 64 * 9 * 8 + 64 * 9 * 8 * 16  # two convolutions of 8x8 images
SERVER = 256 * 64 + 64 * 10
LINEAR, MLP = 256 * 10, 256 * 32 + 32 * 10


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["algorithm=fed_avg"], Work(CLIENT, SERVER)),
        (["algorithm=splitfed_v1"], Work(CLIENT, SERVER)),
        (["algorithm=cse_fsl"], Work(CLIENT, SERVER, LINEAR)),
        ([], Work(CLIENT, SERVER, LINEAR, 2 * LINEAR)),
        (["auxiliary=mlp", "auxiliary.hidden=32"], Work(CLIENT, SERVER, MLP, 2 * MLP)),
        (["estimator=mlp_regression", "estimator.hidden=16"], Work(CLIENT, SERVER, 0, (256 + 10 + 256) * 16)),
        (["estimator=linear_regression"], Work(CLIENT, SERVER, 0, (256 + 10) * 256)),
        (["model.cut=relu3"], Work(CLIENT + 256 * 64, 640, 640, 1280)),
        (["precision=bf16", "engine=sequential"], Work(CLIENT, SERVER, LINEAR, 2 * LINEAR)),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else "",
)
def test_work_of_a_sample_is_the_multiply_adds_of_the_layers(
    tiny: Build, overrides: list[str], expected: Work
) -> None:
    clock = tiny("network=lte", *overrides).parts.clock
    assert clock is not None
    assert clock.work == expected


def test_counting_work_changes_no_result_of_a_round(tiny: Build) -> None:
    with_clock, without = tiny("network=lte", "auxiliary=mlp"), tiny("auxiliary=mlp")
    rows = [run.run_round(0).row() for run in (with_clock, without)]
    differing = {column for column in rows[0] if rows[0][column] != rows[1][column]}
    assert {column for column in differing if not column.startswith("seconds.")} == {"simulated_seconds"}
