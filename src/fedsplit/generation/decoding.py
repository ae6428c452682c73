"""Continues prompts with a language model: the likeliest token each time, or a beam of likely texts."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fedsplit.data.samples import PAD_INPUT

Logits: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Causal model as a function of token ids `(b, t)`, padded on the right with `PAD_INPUT`, and of a mask.

The bool mask `(b, t)` marks n positions; the result is their logits `(n, V)`.
"""


def greedy(
    logits: Logits,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    end: int,
    context: int | None = None,
) -> list[list[int]]:
    """The likeliest next token each time, for all prompts in one batch.

    Every token costs a pass over all before it: nothing is cached.

    Args:
        logits: logits of the model, whose dropout is off.
        prompts: token ids, at least one each.
        max_tokens: most tokens of a continuation.
        end: id of the token that ends a text.
        context: the most tokens that the model sees, no fewer than a prompt has: a text ends one behind
            them. None: it sees any number.

    Returns:
        The continuation of each prompt, without `end`.
    """
    texts = [list(prompt) for prompt in prompts]
    open_ = list(range(len(texts)))
    for _ in range(max_tokens):
        if not open_:
            break
        likeliest = _next_logits(logits, [texts[i] for i in open_]).argmax(1).tolist()
        for i, token in zip(open_, likeliest, strict=True):
            texts[i].append(token)
        open_ = [i for i in open_ if texts[i][-1] != end and _is_seen(texts[i], context)]
    return [_continuation(text, prompt, end) for text, prompt in zip(texts, prompts, strict=True)]


def beam_search(
    logits: Logits,
    prompts: Sequence[Sequence[int]],
    *,
    width: int,
    max_tokens: int,
    end: int,
    context: int | None = None,
    length_penalty: float = 0.0,
) -> list[list[int]]:
    """The best of the `width` likeliest texts that each step keeps of all that continue those it had.

    A text that has ended stays among them as it is, until `width` others are likelier. With `width=1` it is
    `greedy`. Source: I. Sutskever, O. Vinyals and Q. V. Le, "Sequence to Sequence Learning with Neural
    Networks", 2014, section 3.2.

    Args:
        logits: see `greedy`, also for what is returned.
        prompts: see `greedy`.
        width: texts that are kept of each prompt.
        max_tokens: see `greedy`.
        end: see `greedy`.
        context: see `greedy`.
        length_penalty: exponent p. The best of the texts kept in the end is the one whose logarithm of
            probability, divided by its number of tokens to the power p, is largest.
    """
    beams = [[(0.0, list(prompt))] for prompt in prompts]

    def is_open(text: list[int], prompt: Sequence[int]) -> bool:
        return len(text) == len(prompt) or (text[-1] != end and _is_seen(text, context))

    for _ in range(max_tokens):
        rows = [
            (number, likelihood, text)
            for number, beam in enumerate(beams)
            for likelihood, text in beam
            if is_open(text, prompts[number])
        ]
        if not rows:
            break
        steps = _next_logits(logits, [text for *_, text in rows]).double().log_softmax(1)
        likeliest = steps.topk(min(width, steps.shape[1]), dim=1)
        kept = [[each for each in beam if not is_open(each[1], prompts[n])] for n, beam in enumerate(beams)]
        for (number, likelihood, text), values, tokens in zip(
            rows, likeliest.values.tolist(), likeliest.indices.tolist(), strict=True
        ):
            found = zip(values, tokens, strict=True)
            kept[number] += [(likelihood + value, [*text, token]) for value, token in found]
        beams = [sorted(beam, key=lambda each: -each[0])[:width] for beam in kept]
    best = []
    for beam, prompt in zip(beams, prompts, strict=True):
        _, text = max(beam, key=lambda each: each[0] / max(1, len(each[1]) - len(prompt)) ** length_penalty)
        best.append(_continuation(text, prompt, end))
    return best


@torch.inference_mode()
def _next_logits(logits: Logits, texts: Sequence[Sequence[int]]) -> Tensor:
    """Logits `(b, V)` of the token behind each text, on the host."""
    ids = pad_sequence([torch.tensor(text) for text in texts], batch_first=True, padding_value=PAD_INPUT)
    last = torch.zeros_like(ids, dtype=torch.bool)
    last[range(len(texts)), [len(text) - 1 for text in texts]] = True
    return logits(ids, last).cpu()


def _is_seen(text: Sequence[int], context: int | None) -> bool:
    """True if a model sees all of a text."""
    return context is None or len(text) <= context


def _continuation(text: list[int], prompt: Sequence[int], end: int) -> list[int]:
    """Tokens behind the prompt, up to the end of the text."""
    own = text[len(prompt) :]
    return own[:-1] if own and own[-1] == end else own
