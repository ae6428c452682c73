"""A training loop as users of transformers and PEFT write it: the library's own model, loss and adapters."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from fedsplit.models.zoo.language_models import transformers

Text = tuple[Sequence[int], int]
"""Tokens, and how many of them are the context, whose prediction counts for nothing."""


def adapted_gpt2(
    sizes: Mapping[str, int], *, rank: int, alpha: int, weights: Mapping[str, Tensor]
) -> nn.Module:
    """GPT-2 with LoRA and no dropout that holds these weights, by their names in an untouched model."""
    library = transformers()
    from peft import LoraConfig, get_peft_model  # noqa: PLC0415  (after torchvision was repaired)

    none = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "tie_word_embeddings": False}
    base = library.GPT2LMHeadModel(library.GPT2Config(**sizes, **none))
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=["c_attn"], fan_in_fan_out=True)
    model: nn.Module = get_peft_model(base, config)
    model.load_state_dict({f"base_model.model.{name}": each for name, each in weights.items()})
    return model.train()


def train(model: nn.Module, batches: Iterable[Sequence[Text]], optimizer: torch.optim.Optimizer) -> None:
    """Steps on batches of texts, which are padded on the right."""
    for texts in batches:
        longest = max(len(tokens) for tokens, _ in texts)
        ids = torch.tensor([[*tokens, *[0] * (longest - len(tokens))] for tokens, _ in texts])
        mask = torch.tensor([[1] * len(tokens) + [0] * (longest - len(tokens)) for tokens, _ in texts])
        labels = ids.masked_fill(mask == 0, -100)
        for row, (_, context) in zip(labels, texts, strict=True):
            row[:context] = -100
        optimizer.zero_grad()
        model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
        optimizer.step()
