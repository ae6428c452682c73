from typing import get_args

import pytest

from fedsplit.deployment.precisions import Int8Backend, Precision
from fedsplit.inference.deploying import Deploying


@pytest.mark.parametrize("backend", get_args(Int8Backend))
def test_int8_of_inference_is_deployed_by_the_backend_that_is_asked_for(backend: Int8Backend) -> None:
    deploying = Deploying(backend, batches=1, batch_size=1, seed=0)
    runtimes = {
        "onnx": "ONNX Runtime",
        "openvino": "OpenVINO",
        "pt2e": "PT2E",
        "pt2e_compiled": "PT2E, compiled",
    }
    for name in ("int8", "qat_int8"):
        assert deploying.deployed_precision(name).runtime == runtimes[backend]
        assert deploying.deployed_precision(name).as_trained == (name == "qat_int8")
    for name in ("fp32", "dynamic_int8", "w4"):
        assert deploying.deployed_precision(name) == Precision.by_name(name)
