from typing import get_args

import pytest

from fedsplit.config.settings import InferencePrecision
from fedsplit.deployment.precisions import PRECISIONS, Int8Backend
from fedsplit.inference.deploying import Deploying


@pytest.mark.parametrize("backend", get_args(Int8Backend))
def test_deploying_has_a_backend_for_every_precision_that_inference_can_ask_for(backend: Int8Backend) -> None:
    deploying = Deploying(backend, batches=1, batch_size=1, seed=0)
    names = {deploying.name(precision) for precision in get_args(InferencePrecision)}
    assert names <= PRECISIONS.keys()
    assert [name for name in names if "static_int8" in name] == [deploying.name("int8")]
