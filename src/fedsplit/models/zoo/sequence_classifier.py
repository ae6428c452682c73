"""Encoder models that classify texts."""

from torch import Tensor, nn
from typing_extensions import override

from fedsplit.config.values import OwnPath
from fedsplit.models.splitting.stubs import derived_class
from fedsplit.models.zoo.language_models import Attention, language_model


def sequence_classifier(
    *,
    vocabulary: int,
    context: int,
    num_classes: int,
    name: OwnPath | None = None,
    architecture: str | None = None,
    sizes: dict[str, object] | None = None,
    attention: Attention = "sdpa",
) -> nn.Module:
    """An encoder of the transformers library, from token ids `(b, t)` to logits `(b, num_classes)`.

    Ids are padded on the right with negative numbers, which nothing attends to.

    Args:
        name: a folder with `config.json` and safetensors, or a GGUF file; None makes an untrained model.
        architecture: architecture of an untrained model: distilbert, bert, roberta, or another `model_type`.
        sizes: keys of its configuration.
        attention: implementation of attention.

    Raises:
        UserError: there is no such model, or it does not fit the data.
    """
    made = language_model(
        "AutoModelForSequenceClassification",
        vocabulary=vocabulary,
        context=context,
        name=name,
        architecture=architecture,
        sizes=sizes,
        attention=attention,
        num_labels=num_classes,
    )
    derived_class(made, ClassLogits)
    made.pad = made.config.pad_token_id or 0  # type: ignore[assignment, union-attr]
    return made


class ClassLogits(nn.Module):
    """Lets a model of the library take padded ids and give logits; the model's class is next in order."""

    needs_padding = True
    """Both halves must know where samples end."""
    learns_beside_adapters = ("classifier", "pre_classifier", "score")
    """Parts that are new to every task."""
    pad: int

    @override
    def forward(self, x: Tensor) -> Tensor:
        """Logits `(b, num_classes)` of token ids `(b, t)`."""
        ids = x.masked_fill(x < 0, self.pad)
        logits: Tensor = super().forward(input_ids=ids, attention_mask=(x >= 0).long()).logits
        return logits
