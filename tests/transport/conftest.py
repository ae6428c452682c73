from collections.abc import Iterator
from functools import partial
from pathlib import Path

import grpc
import pytest
import torch

from fedsplit.tasks.certificates.directories import make_certificates
from fedsplit.transport.grpc.server import server
from tests.transport.weighing import ChunkWeigher


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`ca/`, `server/` for 127.0.0.1, `client-0/` to `client-3/`; not to be written to."""
    out = tmp_path_factory.mktemp("certificates")
    make_certificates(out, hosts=["127.0.0.1"], clients=4, days=30)
    return out


@pytest.fixture
def warm_clients(warm_processes: None) -> None:
    """What runs in this process with transport=grpc starts client processes that have imported everything."""


@pytest.fixture
def chunk_weigher(monkeypatch: pytest.MonkeyPatch) -> ChunkWeigher:
    """What adds up the chunks of all servers of this process."""
    weigher = ChunkWeigher()
    monkeypatch.setattr(server.grpc, "server", partial(grpc.server, interceptors=[weigher]))
    return weigher


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """An experiment pins the threads of the process that it is built in."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
