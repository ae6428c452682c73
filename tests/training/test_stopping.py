from dataclasses import replace

import pytest

from fedsplit.recording.metrics import _EMPTY
from fedsplit.training.stopping import Limits

RECORDS = [
    replace(_EMPTY, round=0, load=1_000_000, test_accuracy=0.4, test_perplexity=40.0),
    replace(_EMPTY, round=1, load=2_000_000, test_accuracy=None),
    replace(_EMPTY, round=2, load=3_000_000, test_accuracy=0.6, test_perplexity=29.5),
]


@pytest.mark.parametrize(
    ("given", "stops_after", "by"),
    [
        ({}, 3, "rounds"),
        ({"comm_threshold_mb": 2.0}, 2, "comm_threshold_mb"),
        ({"comm_threshold_mb": 2.000001}, 3, "comm_threshold_mb"),
        ({"time_limit_s": 20.0}, 2, "time_limit_s"),
        ({"target_accuracy": 0.6}, 3, "target_accuracy"),
        ({"target_accuracy": 0.0}, 1, "target_accuracy"),
        ({"target_perplexity": 30.0}, 3, "target_perplexity"),
        ({"target_perplexity": 40.0}, 1, "target_perplexity"),
        ({"target_accuracy": 0.6, "comm_threshold_mb": 3.0, "time_limit_s": 30.0}, 3, "target_accuracy"),
        ({"comm_threshold_mb": 3.0, "time_limit_s": 30.0}, 3, "comm_threshold_mb"),
    ],
)
def test_run_stops_after_the_first_round_that_reaches_a_limit(
    given: dict[str, float], stops_after: int, by: str
) -> None:
    limits = Limits(rounds=3, **given)
    found = [limits.find_first(RECORDS[:rounds], 10.0 * rounds) for rounds in range(4)]
    assert found[: stops_after + 1] == [None] * stops_after + [by]
