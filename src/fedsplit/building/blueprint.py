"""Builds the blueprint by which an engine makes clients: models, optimizer, batches, estimator."""

from functools import partial

from fedsplit.building.data import build_batches
from fedsplit.building.parts import Ingredients
from fedsplit.parties.engine import Blueprint


def build_blueprint(parts: Ingredients) -> Blueprint:
    """The blueprint of clients; the algorithm says which model is their head, if any."""
    client_head, halves, rule = parts.algorithm_class.client_head, parts.models.halves, parts.rule
    head = halves.server if client_head == "server" else parts.models.auxiliary or halves.tail
    uploads = client_head in ("auxiliary", "estimator")
    sees_decoded = uploads and parts.quantization.continue_from_decoded
    defended = parts.defence.releases or parts.defence.adds_gradient
    rules_out = rule.draws or rule.keeps or rule.answers_seeds
    not_captured = sees_decoded or rules_out or defended or halves.tail is not None
    return Blueprint(
        body=halves.client,
        head=head,
        keeps_head=parts.estimates or parts.algorithm_class.own_half == "server",
        estimates=parts.estimates,
        optimizer=parts.client_optimizer,
        batches=partial(build_batches, parts.config, parts.data),
        objective=parts.data.dataset.objective,
        estimator=parts.estimator,
        schedule=parts.schedule,
        seed=parts.config.training.seed,
        head_sees=parts.quantization.simulate_smashed if sees_decoded else None,
        memory=parts.memory,
        rule=rule,
        recorder=None if not_captured else parts.recorders.of(halves.client, head),
        trunk_shape=parts.models.trunk_shapes and parts.models.trunk_shapes[0],
        defence=parts.defence,
        secrets=parts.secrets,
        positions=parts.quantization.positions,
        sends_smashed=client_head != "server",
    )
