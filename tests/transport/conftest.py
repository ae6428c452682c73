from collections.abc import Iterator
from functools import partial
from pathlib import Path

import grpc
import pytest
import torch

from fedsplit.transport.grpc import server, transport
from fedsplit.transport.grpc.certificates import make_certificates
from tests.transport.nursery import Nursery
from tests.transport.weighing import Weighs


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`ca/`, `server/` for 127.0.0.1, `client-0/` to `client-3/`; not to be written to."""
    out = tmp_path_factory.mktemp("certificates")
    make_certificates(out, hosts=["127.0.0.1"], clients=4, days=30)
    return out


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Where client processes come from; its imports are done once."""
    with Nursery() as started:
        yield started


@pytest.fixture
def nursed(nursery: Nursery, monkeypatch: pytest.MonkeyPatch) -> Nursery:
    """What runs in this process with transport=grpc takes its client processes from the nursery."""
    monkeypatch.setattr(transport, "spawned", nursery.spawned)
    return nursery


@pytest.fixture
def weighs(monkeypatch: pytest.MonkeyPatch) -> Weighs:
    """What adds up the chunks of all servers of this process."""
    weighs = Weighs()
    monkeypatch.setattr(server.grpc, "server", partial(grpc.server, interceptors=[weighs]))
    return weighs


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """An experiment pins the threads of the process that it is built in."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
