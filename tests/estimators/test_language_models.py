"""Estimates of a language model's cut gradients, and how they are fitted, against autograd."""

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from fedsplit.computing.model_state import ModelState
from fedsplit.estimators.estimator import Chunk
from fedsplit.estimators.gradient_of_loss import GradientOfLoss
from fedsplit.models.derived import DerivedAuxiliary
from fedsplit.models.splitting.split import split
from fedsplit.objectives.next_token import IGNORED, NextToken
from tests.models.families import VOCABULARY, adapted, decoder, tokens


@pytest.mark.parametrize("lora", [False, True])
def test_alignment_of_llama_under_fused_attention_is_autograd_by_hand(lora: bool) -> None:
    whole = decoder("llama", attention_dropout=0.0)
    whole = adapted(whole, dropout=0.0) if lora else whole
    x, objective = tokens(3, 9), NextToken(VOCABULARY, 16)
    halves = split(whole, "model.layers.0", x)
    y = x.roll(-1, 1).index_fill(1, torch.tensor([0, 8]), IGNORED)
    z = halves.client(x).detach()
    auxiliary = DerivedAuxiliary(
        smashed_shape=tuple(z.shape[1:]),
        num_classes=VOCABULARY,
        server=halves.server,
        crossing=halves.crossing,
    ).train()
    state, estimator = ModelState(auxiliary), GradientOfLoss()
    dz = torch.randn(z.shape, generator=torch.Generator().manual_seed(0))

    leaf = z.clone().requires_grad_()
    trained = {name: p for name, p in auxiliary.named_parameters() if p.requires_grad}
    with sdpa_kernel(SDPBackend.MATH):
        loss = objective.total(auxiliary(leaf), y)
        (expected,) = torch.autograd.grad(loss, leaf, create_graph=True)
        gradients = torch.autograd.grad((expected - dz).square().sum(), list(trained.values()))

    def close(found: Tensor, by_hand: Tensor) -> bool:
        return bool((found - by_hand).norm() <= 1e-5 * by_hand.norm())

    assert close(estimator.estimate(state, objective, z, y, seed=None), expected.detach())
    error, found = estimator.error_gradients(state, objective, Chunk(z, y, dz), seed=None)
    assert float(error) == pytest.approx(float((expected.detach() - dz).square().sum()), rel=1e-5)
    assert all(map(close, found, gradients))
    assert list(state.trainable) == list(trained)
