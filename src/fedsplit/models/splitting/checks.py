"""Checks of a model before anything is done with it, told in one line where it fails them."""

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fedsplit.errors import UserError, first_line
from fedsplit.models.splitting.cuts import evaluating
from fedsplit.objectives.objective import Objective


def check_tensors(module: nn.Module) -> None:
    """Refuse parameters that are not there yet, and those of another type than models compute in.

    Raises:
        UserError: names the first such parameter, or complex buffer.
    """
    whose, computed = type(module).__name__, torch.get_default_dtype()
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if is_lazy(tensor):
            message = f"{name} is lazy, without a shape; pass a batch through the model where it is made"
            raise UserError("model", whose, message)
        learns = isinstance(tensor, nn.Parameter) and (tensor.is_floating_point() or tensor.requires_grad)
        if tensor.is_complex() or (learns and tensor.dtype != computed):
            raise UserError("model", whose, f"{name} is {_plain(tensor.dtype)}, must be {_plain(computed)}")


def check_output(module: nn.Module, objective: Objective, example: Tensor, y: Tensor) -> None:
    """Refuse a model whose outputs do not fit what they are trained for.

    Args:
        objective: objective of the data.
        example: a batch of its inputs, `(n, ...)`.
        y: their labels.

    Raises:
        UserError: it fails on the batch, or gives anything but the floating-point outputs of the objective.
    """
    what = "images" if example.dim() == 4 else "inputs"
    whose, sizes = type(module).__name__, f"{what} {tuple(example.shape[1:])}"
    try:
        with evaluating(module):
            output = module(example)
    except RuntimeError as error:  # shapes that do not fit
        raise UserError("model", whose, f"does not fit {sizes} ({first_line(error)})") from error
    except Exception as error:  # whatever code of the user's raises
        message = f"its forward fails on {sizes} ({type(error).__name__}: {first_line(error)})"
        raise UserError("model", whose, message) from error
    logits = objective.outputs
    if not isinstance(output, Tensor):
        message = f"its output is no tensor but a {type(output).__name__}; it must be {logits}"
    elif not objective.fits(output, y):
        message = f"its output is {tuple(output.shape)} for {len(example)} {what}, must be {logits}"
    elif not output.is_floating_point():
        message = f"its output is {_plain(output.dtype)}, must be floating-point {logits}"
    else:
        return
    raise UserError("model", whose, message)


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
