"""Generates the stubs of `federation.proto`: `python -m fedsplit.transport.grpc.protocol.stubs`."""

import sys
from importlib.resources import files
from pathlib import Path

PROTO = "fedsplit/transport/grpc/protocol/federation.proto"
SOURCES = Path(__file__).parents[4]


def generate(target: Path) -> None:
    """Write the stubs below `target`, the folder that holds the package."""
    from grpc_tools import protoc  # noqa: PLC0415  (only needed when the protocol changes)

    arguments = [
        f"--proto_path={SOURCES}",
        f"--proto_path={files('grpc_tools') / '_proto'}",
        f"--python_out={target}",
        f"--pyi_out={target}",
        f"--grpc_python_out={target}",
        PROTO,
    ]
    if protoc.main(["protoc", *arguments]) != 0:
        raise RuntimeError(f"{PROTO} cannot be compiled")


if __name__ == "__main__":
    generate(SOURCES)
    sys.exit(0)
