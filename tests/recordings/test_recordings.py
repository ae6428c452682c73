"""Runs give the bits that they gave before the change of structure."""

import json

import pytest

from tests.cases import long_but
from tests.command_line import command_line
from tests.recordings.cases import CASES, IN_EVERY_RUN
from tests.recordings.record import hashes, recording


@pytest.mark.parametrize("name", long_but(IN_EVERY_RUN, CASES))
def test_run_gives_its_recorded_bits(name: str) -> None:
    if not recording().exists():
        pytest.skip(f"no {recording().name} yet: python tests/recordings/record.py")
    assert hashes(CASES[name], command_line) == json.loads(recording().read_text("utf-8"))[name]
