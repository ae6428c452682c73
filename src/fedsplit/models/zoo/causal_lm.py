"""Language models that predict the next token."""

import torch
from torch import Tensor, nn

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
        architecture: of an untrained model, as `model_type` of transformers has it.
        sizes: keys of its configuration.
        attention: how attention is computed.

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
    return made


class NextTokenLogits(nn.Module):
    """Lets a model of the library take token ids and give logits; the model's class is next in order."""

    vocabulary: int

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(b, t, vocabulary)` of token ids `(b, t)`."""
        output = super().forward(input_ids=x.clamp_min(0), use_cache=False, return_dict=True)
        logits: Tensor = output.logits
        return logits[..., : self.vocabulary]  # models round their vocabularies up


def _refuse_seeing_ahead(model: nn.Module, named: object) -> None:
    device = next(model.parameters()).device
    tokens = torch.zeros(2, 3, dtype=torch.int64, device=device)
    tokens[1, 2] = 1
    with evaluating(model):
        one, other = model(tokens)[:, :2]
    if not torch.allclose(one, other, 1e-4, 1e-5):
        told = "is no causal language model: a token sees those after it; model=sequence_classifier takes it"
        raise UserError("model.name", named, told)
