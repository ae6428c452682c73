"""What a model must be before anything is done with it, told in one line where it is not."""

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fedsplit.errors import UserError, first_line
from fedsplit.models.splitting.cuts import evaluating


def check_tensors(module: nn.Module) -> None:
    """Refuse parameters that are not there yet, and those of another type than models compute in.

    Raises:
        UserError: names the first such parameter, or complex buffer.
    """
    whose, computed = type(module).__name__, torch.get_default_dtype()
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if is_lazy(tensor):
            told = f"{name} is lazy, without a shape; pass a batch through the model where it is made"
            raise UserError("model", whose, told)
        learns = isinstance(tensor, nn.Parameter) and (tensor.is_floating_point() or tensor.requires_grad)
        if tensor.is_complex() or (learns and tensor.dtype != computed):
            raise UserError("model", whose, f"{name} is {_plain(tensor.dtype)}, must be {_plain(computed)}")


def check_output(module: nn.Module, example: Tensor, num_classes: int) -> None:
    """Refuse a model whose outputs are no logits.

    Args:
        example: a batch of its inputs, `(n, c, h, w)`.

    Raises:
        UserError: it fails on the batch, or gives anything but floating-point logits `(n, num_classes)`.
    """
    whose, sizes = type(module).__name__, f"images {tuple(example.shape[1:])}"
    try:
        with evaluating(module):
            output = module(example)
    except RuntimeError as error:  # shapes that do not fit
        raise UserError("model", whose, f"does not fit {sizes} ({first_line(error)})") from error
    except Exception as error:  # whatever code of the user's raises
        told = f"its forward fails on {sizes} ({type(error).__name__}: {first_line(error)})"
        raise UserError("model", whose, told) from error
    logits = f"logits (n, {num_classes})"
    if not isinstance(output, Tensor):
        told = f"its output is no tensor but a {type(output).__name__}; it must be {logits}"
    elif output.shape != (len(example), num_classes):
        told = f"its output is {tuple(output.shape)} for {len(example)} images, must be {logits}"
    elif not output.is_floating_point():
        told = f"its output is {_plain(output.dtype)}, must be floating-point {logits}"
    else:
        return
    raise UserError("model", whose, told)


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
