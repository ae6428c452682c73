from collections.abc import Callable, Sequence
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fedsplit.data.samples import PAD_INPUT
from fedsplit.generation.decoding import Logits, beam_search, greedy

V, END = 7, 6


def at_some(logits: Callable[[Tensor], Tensor]) -> Logits:
    """A model that computes all positions and gives some."""
    return lambda ids, at: logits(ids)[at]


class Causal(nn.Module):
    """Logits that depend on all tokens so far, and on nothing behind them: a recurrent network."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(V, 8)
        self.cells = nn.GRU(8, 8, batch_first=True)
        self.head = nn.Linear(8, V)
        for each in self.parameters():
            each.data *= 3  # far from uniform

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.head(self.cells(self.embedding(ids.masked_fill(ids == PAD_INPUT, 0)))[0])
        return logits


def likelihood(model: Causal, prompt: Sequence[int], text: Sequence[int]) -> float:
    """Logarithm of the probability that a text follows a prompt."""
    with torch.no_grad():
        steps = model(torch.tensor([[*prompt, *text]]))[0].double().log_softmax(1)
    return sum(float(steps[len(prompt) - 1 + i, token]) for i, token in enumerate(text))


PROMPTS = st.lists(st.lists(st.integers(0, V - 1), min_size=1, max_size=6), min_size=1, max_size=4)


@given(seed=st.integers(0, 100), prompts=PROMPTS, max_tokens=st.integers(0, 6))
def test_greedy_text_in_a_batch_is_the_one_of_each_prompt_computed_alone(
    seed: int, prompts: list[list[int]], max_tokens: int
) -> None:
    model = Causal(seed)
    expected = []
    for prompt in prompts:
        text: list[int] = []
        while len(text) < max_tokens:
            with torch.no_grad():
                token = int(model(torch.tensor([prompt + text]))[0, -1].argmax())
            if token == END:
                break
            text.append(token)
        expected.append(text)
    assert greedy(at_some(model), prompts, max_tokens=max_tokens, end=END) == expected


@given(seed=st.integers(0, 100), prompts=PROMPTS, max_tokens=st.integers(0, 6))
def test_beam_of_one_text_is_the_greedy_one(seed: int, prompts: list[list[int]], max_tokens: int) -> None:
    model = Causal(seed)
    found = beam_search(at_some(model), prompts, width=1, max_tokens=max_tokens, end=END)
    assert found == greedy(at_some(model), prompts, max_tokens=max_tokens, end=END)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_beam_that_holds_all_texts_finds_the_likeliest_of_all(seed: int, length_penalty: float) -> None:
    model, prompts, longest = Causal(seed), [[1, 2], [3]], 3
    found = beam_search(
        at_some(model),
        prompts,
        width=V**longest,
        max_tokens=longest,
        end=END,
        length_penalty=length_penalty,
    )
    for prompt, text in zip(prompts, found, strict=True):
        every = [
            each
            for n in range(1, longest + 1)
            for each in product(range(V), repeat=n)
            if END not in each[:-1] and (n == longest or each[-1] == END)
        ]
        best = max(every, key=lambda each: likelihood(model, prompt, each) / len(each) ** length_penalty)
        assert text == [token for token in best if token != END]


def test_wider_beam_finds_a_likelier_text_where_the_likeliest_token_leads_astray() -> None:
    steps = {
        (0,): [0.0, 0.6, 0.4, 0.0],
        (0, 1): [0.5, 0.5, 0.0, 0.0],
        (0, 2): [0.0, 0.0, 0.0, 1.0],
    }

    def logits(ids: Tensor) -> Tensor:
        rows = [
            [steps.get(tuple(row[: n + 1]), [1.0, 0, 0, 0]) for n in range(len(row))] for row in ids.tolist()
        ]
        return torch.tensor(rows).clamp_min(1e-9).log()

    assert greedy(at_some(logits), [[0]], max_tokens=2, end=3) == [[1, 0]]  # 0.6 * 0.5
    assert beam_search(at_some(logits), [[0]], width=2, max_tokens=2, end=3) == [[2]]  # 0.4 * 1.0


def test_prompt_that_ends_with_the_end_token_is_continued() -> None:
    def logits(ids: Tensor) -> Tensor:
        return nn.functional.one_hot(torch.zeros_like(ids), V).float()

    assert greedy(at_some(logits), [[1, END]], max_tokens=2, end=END) == [[0, 0]]
    assert beam_search(at_some(logits), [[1, END]], width=2, max_tokens=2, end=END) == [[0, 0]]


def test_prompts_whose_text_has_ended_are_computed_no_more() -> None:
    seen: list[int] = []

    def logits(ids: Tensor) -> Tensor:
        """The end for prompts that begin with 1, and token 0 for others."""
        seen.append(len(ids))
        tokens = torch.where(ids[:, :1] == 1, END, 0).expand_as(ids)
        return nn.functional.one_hot(tokens, V).float()

    assert greedy(at_some(logits), [[1], [2], [1, 2]], max_tokens=2, end=END) == [[], [0, 0], []]
    assert seen == [3, 1]
