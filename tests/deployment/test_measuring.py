"""Figures of measured times are those of their definitions."""

import pytest

from fedsplit.deployment.measuring import Latency


def test_latency_of_single_runs_is_their_median_and_their_95th_percentile() -> None:
    latency = Latency.of([9.0, 1.0, 2.0])
    assert latency.median == 2.0
    assert latency.p95 == pytest.approx(2 + 0.9 * 7)  # 0.9 of the way from the second to the third
