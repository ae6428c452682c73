"""Tensors in a state that will not move any more."""

from functools import cached_property
from hashlib import sha256

import torch
from torch import Tensor


class SettledTensors(dict[str, Tensor]):
    """Tensors by name that stay as they are: checkpoints write them once, copies of a state share them."""

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hexadecimal digits, of names, shapes, types and values."""
        found = sha256()
        for name, tensor in sorted(self.items()):
            found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            content = tensor.detach().to("cpu").contiguous()
            found.update(content.flatten().view(torch.uint8).numpy().data)
        return found.hexdigest()
