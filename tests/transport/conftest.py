from pathlib import Path

import pytest

from fedsplit.transport.grpc.certificates import make_certificates


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`ca/`, `server/` for 127.0.0.1, `client-0/` to `client-3/`; not to be written to."""
    out = tmp_path_factory.mktemp("certificates")
    make_certificates(out, hosts=["127.0.0.1"], clients=4, days=30)
    return out
