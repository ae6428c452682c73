"""Losses of objectives against sums that are worked out term by term."""

import math

import pytest
import torch
from torch import Tensor

from fedsplit.objectives.classification import Classification
from fedsplit.objectives.mean_squared_error import MeanSquaredError
from fedsplit.objectives.next_token import IGNORED, PADDING, NextToken
from fedsplit.objectives.objective import Objective

VOCABULARY = 7


def _tokens(objective: NextToken | None = None) -> tuple[NextToken, Tensor, Tensor]:
    """Logits `(3, 5, 7)` and labels with a context, two lengths and padding."""
    draw = torch.Generator().manual_seed(0)
    y = torch.randint(VOCABULARY, (3, 5), generator=draw)
    y[0, :2], y[1, 3:], y[2, :4] = IGNORED, PADDING, IGNORED
    return objective or NextToken(VOCABULARY, 8), torch.randn(3, 5, VOCABULARY, generator=draw), y


def _of_terms(outputs: Tensor, y: Tensor, smoothing: float = 0.0) -> list[float]:
    losses = []
    for logits, token in zip(outputs.double().flatten(0, -2), y.flatten().tolist(), strict=True):
        if token >= 0:
            shares = logits.log_softmax(0).tolist()
            own = -(1 - smoothing) * shares[token] - smoothing * sum(shares) / len(shares)
            losses.append(own)
    return losses


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_of_next_tokens_is_over_targets_alone_and_smoothed_in_training_alone(smoothing: float) -> None:
    objective, outputs, y = _tokens(NextToken(VOCABULARY, 8, smoothing))
    losses, plain = _of_terms(outputs, y, smoothing), _of_terms(outputs, y)
    assert objective.terms(y) == len(losses) == 7
    assert float(objective.total(outputs, y)) == pytest.approx(sum(losses), rel=1e-5)
    assert float(objective.mean(outputs, y)) == pytest.approx(sum(losses) / 7, rel=1e-5)
    sums = objective.measure(outputs, y)
    hits = [
        int(o.argmax()) == int(t) for o, t in zip(outputs.flatten(0, 1), y.flatten(), strict=True) if t >= 0
    ]
    assert sums.hits is not None
    assert (sums.terms, int(sums.hits)) == (7, sum(hits))
    assert float(sums.loss) == pytest.approx(sum(plain), rel=1e-5)
    alone = outputs[objective.targets(y)]
    torch.testing.assert_close(objective.mean(alone, y), objective.mean(outputs, y))
    assert objective.measure(alone, y) == sums


def test_padding_and_labels_of_contexts_change_no_loss_and_no_gradient() -> None:
    objective, outputs, y = _tokens()
    outputs.requires_grad_()
    padded = torch.cat([outputs, torch.randn(3, 4, VOCABULARY)], 1)
    longer = torch.cat([y, torch.full((3, 4), PADDING)], 1)
    swapped = y.masked_fill(y == IGNORED, PADDING)
    (expected,) = torch.autograd.grad(objective.mean(outputs, y), outputs)
    for logits, labels in ((padded, longer), (outputs, swapped)):
        loss = objective.mean(logits, labels)
        torch.testing.assert_close(loss, objective.mean(outputs, y))
        torch.testing.assert_close(torch.autograd.grad(loss, outputs, retain_graph=True)[0], expected)
    assert objective.lengths(longer).tolist() == [5, 3, 5]


def test_batch_without_a_target_has_no_loss_and_no_gradient() -> None:
    objective, outputs, y = _tokens()
    y = torch.full_like(y, IGNORED)
    outputs.requires_grad_()
    (gradient,) = torch.autograd.grad(objective.mean(outputs, y), outputs)
    assert float(objective.mean(outputs.detach(), y)) == 0.0
    assert not gradient.any()
    assert not objective.per_term(gradient, y).isnan().any()


OBJECTIVES = {
    "classification": (Classification(5), torch.randn(4, 3, 5), torch.randint(5, (4, 3))),
    "next token": (
        NextToken(VOCABULARY, 8),
        torch.randn(4, 3, 5, VOCABULARY),
        torch.randint(-1, 5, (4, 3, 5)),
    ),
    "mean squared error": (MeanSquaredError(), torch.randn(4, 3, 1), torch.randn(4, 3)),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_losses_of_many_are_those_of_each_whose_labels_have_positions_or_not(name: str) -> None:
    objective: Objective
    objective, outputs, y = OBJECTIVES[name]
    y = torch.where(y == -1, IGNORED, y) if not y.is_floating_point() else y
    many = objective.of_many
    each = list(zip(outputs.unbind(), y.unbind(), strict=True))
    torch.testing.assert_close(many.mean(outputs, y), torch.stack([objective.mean(*one) for one in each]))
    torch.testing.assert_close(many.total(outputs, y), sum(objective.total(*one) for one in each))
    assert list(many.counts(y)) == [objective.terms(own) for own in y]
    gradients = torch.randn(4, 3, 2, 2)
    shares = torch.stack([objective.per_term(g, own) for g, own in zip(gradients, y, strict=True)])
    torch.testing.assert_close(many.per_term(gradients, y), shares)


def test_mean_squared_error_has_no_hits_and_its_labels_travel_as_float32() -> None:
    objective, y = MeanSquaredError(), torch.tensor([1.0, -2.5])
    sums = objective.measure(torch.tensor([[0.0], [0.5]]), y)
    assert (float(sums.loss), sums.hits, sums.terms) == (10.0, None, 2)
    codec = objective.labels()
    message = codec.encode(y)
    assert (len(message.payload), codec.size(y), codec.load(2, 0)) == (8, 8, 8)
    assert torch.equal(codec.decode(message), y)
    with pytest.raises(ValueError, match="not a finite number"):
        codec.encode(torch.tensor([math.nan]))
