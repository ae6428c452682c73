from collections.abc import Iterator

import pytest

from tests.deployment.models import forget_all


@pytest.fixture(scope="package", autouse=True)
def _models_are_forgotten_at_the_end() -> Iterator[None]:
    yield
    forget_all()
