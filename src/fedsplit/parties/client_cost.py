"""Memory that a client's training takes."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from fedsplit.computing.computation import eagerly
from fedsplit.computing.model_state import ModelState
from fedsplit.computing.saved_tensors import SavedTensors
from fedsplit.parties.engine import Blueprint
from fedsplit.parties.local_rule import LocalRule, StepSeeds
from fedsplit.parties.local_step import forward_alone, forward_body, local_step, train_head

_FEWEST = 2
"""Samples of the smaller of two batches to measure on; batch normalisation cannot train on one."""


@dataclass(frozen=True)
class ClientCost:
    """Memory of one client in a local step, in bytes.

    Args:
        memory: weights, and what a rule keeps beside them (those of the round's beginning, control
            variates), gradients, optimizer state and the most that is saved for the backward pass.
        waiting: bytes of its forward pass that a client keeps while it waits for a cut gradient.
    """

    memory: int
    waiting: int


def client_cost(
    blueprint: Blueprint,
    batch: Callable[[int], tuple[Tensor, Tensor]],
    samples: int,
    *,
    trains_head: bool,
) -> ClientCost:
    """Cost of a client's local step on a batch of so many samples, whichever engine computes it.

    What a step saves grows by the same bytes with each sample, so it is measured on steps of two and of three
    samples, by which no model is moved.

    Args:
        blueprint: parts of the client.
        batch: function from a number of samples to their inputs and labels, each as large as the largest.
        samples: samples of the step.
        trains_head: True if the client trains its head, where it has one.
    """
    with torch.random.fork_rng(), eagerly(*filter(None, (blueprint.body, blueprint.head))):
        few, more = (_step(blueprint, *batch(_FEWEST + i), trains_head=trains_head) for i in range(2))
    return ClientCost(
        few.memory + (samples - _FEWEST) * (more.memory - few.memory),
        few.waiting + (samples - _FEWEST) * (more.waiting - few.waiting),
    )


def _step(blueprint: Blueprint, x: Tensor, y: Tensor, *, trains_head: bool) -> ClientCost:
    """Cost of a step on this batch, by a copy of the client."""
    sees = blueprint.head_sees
    rule = blueprint.rule
    # autograd saves nothing in a pass for single samples, which takes as much as one for all of them
    measured_rule = LocalRule() if rule.per_sample else rule
    state = partial(
        ModelState, optimizer=blueprint.optimizer, keeps_anchor=rule.keeps_anchor, keeps=rule.keeps
    )
    body = state(blueprint.body)
    head = None
    if blueprint.head:
        head = state(blueprint.head)
    states = [body] if head is None else [body, head]
    resident = [
        tensor
        for state in states
        for tensors in (state.parameters, state.buffers, state.anchor, *state.rule_tensors.values())
        for tensor in tensors.values()
    ]
    waiting = 0
    waits = head is None or blueprint.trunk_shape is not None
    with SavedTensors(apart=resident) as saved:
        if rule.answers_seeds:
            z, slopes = forward_alone(body, x, rule=rule, seed=0)
            slopes(torch.zeros_like(z), [0] * rule.probes)
            waiting = _bytes([x, z])  # probes need both again
        elif waits:
            z, descend = forward_body(body, x, rule=measured_rule, seeds=StepSeeds(0))
            waiting = saved.peak_with(z)
            if head is not None:
                h, losses = blueprint.trunk_outputs(x), blueprint.objective
                train_head(head, losses, h, y, learning_rate_factor=1.0, seed=0, rule=rule)
            descend(torch.zeros_like(z), 1.0)
        else:
            assert head is not None
            z, *_ = local_step(
                body,
                head,
                blueprint.objective,
                x,
                y,
                rule=measured_rule,
                estimator=None if trains_head else blueprint.estimator,
                learning_rate_factor=1.0,
                seeds=StepSeeds(0, 0, 0),
                decode=(lambda z: sees(z, y, 0)) if sees else None,
            )
        most = max(saved.peak_with(z), waiting)
    stepping_states = states if trains_head or waits else [body]
    gradients = [tensor for state in stepping_states for tensor in state.trainable.values()]
    slots = [
        value
        for state in states
        for slot in state.state()["optimizer"].values()
        for value in slot.values()
        if isinstance(value, Tensor)
    ]
    copies = len(x) if rule.per_sample else 1
    return ClientCost(_bytes([*resident, *slots]) + copies * _bytes(gradients) + most, waiting)


def _bytes(tensors: list[Tensor]) -> int:
    """Bytes of tensors; what does not learn may be in several models, and counts once."""
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())
