"""Imports torchvision, also where its compiled operators cannot be loaded.

A torchvision built for CUDA next to a CPU-only torch cannot load its operators, and its import then
fails on registering fakes for `torchvision::nms`. Nothing here uses those operators: their schemas are
enough for the import.
"""

from functools import cache
from types import ModuleType

import torch

_SCHEMAS = dict.fromkeys(("nms", "qnms"), "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
_kept: list[torch.library.Library] = []  # a Library's definitions live as long as the object


@cache
def torchvision() -> ModuleType:
    """Module of torchvision, imported without its compiled operators where they do not load."""
    try:
        import torchvision as module  # noqa: PLC0415
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for name, schema in _SCHEMAS.items():
            library.define(name + schema)  # type: ignore[no-untyped-call]
        _kept.append(library)
        import torchvision as module  # noqa: PLC0415
    return module  # type: ignore[no-any-return]
