"""The device of a run."""

import torch

from fedsplit.errors import UserError


def find_device(name: str) -> torch.device:
    """Device that `device=` names.

    Raises:
        UserError: there is none such here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError("device", name, "there is no CUDA device here; cpu or auto")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError("device", name, f"there are {torch.cuda.device_count()} CUDA devices, counted from 0")
    return device
