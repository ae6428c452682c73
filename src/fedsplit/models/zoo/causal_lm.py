"""Language models that predict the next token."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from typing_extensions import override

from fedsplit.config.values import OwnPath
from fedsplit.errors import UserError
from fedsplit.models.splitting.cuts import evaluating
from fedsplit.models.splitting.stubs import derived_class
from fedsplit.models.zoo.language_models import Attention, language_model


def causal_lm(
    *,
    vocabulary: int,
    context: int,
    name: OwnPath | None = None,
    architecture: str | None = None,
    sizes: dict[str, object] | None = None,
    attention: Attention = "sdpa",
) -> nn.Module:
    """A decoder of the transformers library, from token ids `(b, t)` to logits `(b, t, vocabulary)`.

    Ids are padded on the right with negative numbers; what is there influences nothing before it.

    Args:
        name: a folder with `config.json` and safetensors, or a GGUF file; None makes an untrained model.
        architecture: architecture of an untrained model, as `model_type` of transformers has it.
        sizes: keys of its configuration.
        attention: implementation of attention.

    Raises:
        UserError: there is no such model, or it does not fit the data, or a token sees those after it.
    """
    made = language_model(
        "AutoModelForCausalLM",
        vocabulary=vocabulary,
        context=context,
        name=name,
        architecture=architecture,
        sizes=sizes,
        attention=attention,
    )
    derived_class(made, NextTokenLogits)
    made.vocabulary = vocabulary  # type: ignore[assignment]
    if not any(each.is_meta for each in made.parameters()):
        _refuse_seeing_ahead(made, name or architecture)
        made.head = _head_at_some_positions(made)  # type: ignore[assignment]
    return made


class NextTokenLogits(nn.Module):
    """Lets a model of the library take token ids and give logits; the model's class is next in order."""

    vocabulary: int
    head: str | None = None
    """Name of the output embedding, where that can be computed at some positions alone."""

    @property
    def gives_outputs_at(self) -> bool:
        """True if it takes the positions whose logits are wanted."""
        return self.head is not None

    @override
    def forward(self, x: Tensor, at: Tensor | None = None) -> Tensor:
        """Logits `(b, t, vocabulary)` of token ids `(b, t)`.

        Args:
            at: positions whose logits are wanted, bool `(b, t)`, which are then `(n, vocabulary)`.
        """
        with nullcontext() if at is None else _taking(self.get_submodule(str(self.head)), at):
            output = super().forward(input_ids=x.clamp_min(0), use_cache=False, return_dict=True)
        logits: Tensor = output.logits
        return logits[..., : self.vocabulary]  # models round their vocabularies up


@contextmanager
def _taking(head: nn.Module, at: Tensor) -> Iterator[None]:
    """Give a head its inputs `(b, t, d)` at some positions alone, as `(n, d)`."""
    handle = head.register_forward_pre_hook(lambda _, inputs: (inputs[0][at], *inputs[1:]))
    try:
        yield
    finally:
        handle.remove()


def _head_at_some_positions(model: nn.Module) -> str | None:
    """Name of the output embedding; None where a model gives at some positions not what it gives at all."""
    head = model.get_output_embeddings()  # type: ignore[operator]
    name = next((name for name, part in model.named_modules() if part is head), None)
    if name is None:
        return None
    device = next(model.parameters()).device
    tokens = torch.tensor([[0, 1, 0], [1, 0, 0]], device=device)
    at = torch.tensor([[False, True, True], [True, False, False]], device=device)
    with evaluating(model):
        every = model(tokens)[at]
        try:
            with _taking(model.get_submodule(name), at):
                some = model(tokens)
        except (RuntimeError, IndexError):  # layers behind the head need all positions
            return None
    return name if some.shape == every.shape and torch.allclose(some, every, 1e-4, 1e-5) else None


def _refuse_seeing_ahead(model: nn.Module, named: object) -> None:
    device = next(model.parameters()).device
    tokens = torch.zeros(2, 3, dtype=torch.int64, device=device)
    tokens[1, 2] = 1
    with evaluating(model):
        one, other = model(tokens)[:, :2]
    if not torch.allclose(one, other, 1e-4, 1e-5):
        message = (
            "is no causal language model: a token sees those after it; model=sequence_classifier takes it"
        )
        raise UserError("model.name", named, message)
