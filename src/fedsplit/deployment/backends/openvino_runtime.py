"""OpenVINO as a backend: int8 with ranges of calibration."""

from fedsplit.deployment.backends.onnx_runtime import OnnxStatic
from fedsplit.deployment.backends.openvino_model import OpenVinoModel


class OpenVinoStatic(OnnxStatic):
    """The graph that `OnnxStatic` makes, run by OpenVINO."""

    runs = OpenVinoModel
