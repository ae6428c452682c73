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
        raise UserError("device", name, "must be cpu or auto: this machine has no CUDA device")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            "device", name, f"must be below {torch.cuda.device_count()}, the number of CUDA devices"
        )
    return device
