from pathlib import Path

import pytest

from fedsplit.transport.grpc.protocol.stubs import PROTO, SOURCES, generate


@pytest.mark.parametrize("suffix", ["_pb2.py", "_pb2.pyi", "_pb2_grpc.py"])
def test_stubs_are_those_of_the_protocol(suffix: str, tmp_path: Path) -> None:
    """If not: python -m fedsplit.transport.grpc.protocol.stubs."""
    generate(tmp_path)
    name = PROTO.replace(".proto", suffix)
    assert (tmp_path / name).read_text("utf-8") == (SOURCES / name).read_text("utf-8")
