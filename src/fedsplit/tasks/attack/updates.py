"""Attack on weights that clients send back, without smashed data or labels."""

from collections.abc import Iterator

import torch
from torch import Tensor
from typing_extensions import override

from fedsplit.building.models import build_models
from fedsplit.building.parts import ClientParts
from fedsplit.building.run import build_clients
from fedsplit.computing.model_state import ModelState, compute_format
from fedsplit.config.component import component_of
from fedsplit.config.values import PositiveInt
from fedsplit.estimators.estimator import GradientEstimator
from fedsplit.models.auxiliary import LinearAuxiliary
from fedsplit.optim.optimizers import Optimizer, Sgd
from fedsplit.parties.local_step import train_head
from fedsplit.parties.messages import LocalWork
from fedsplit.randomness import seed_of
from fedsplit.state.weights import Weights
from fedsplit.tasks.attack.attacker import Attacker, Finding, NotExposed
from fedsplit.tasks.attack.linear import LinearAttack
from fedsplit.tasks.attack.measures import SampleMean, psnr, reidentify, ssim
from fedsplit.tasks.attack.scene import Scene
from fedsplit.transport.local import LocalTransport


class UpdateAttack(Attacker):
    """Reads updates of plain SGD, whose bias and weights move by sums of `p - y`.

    - Of clients that train the whole model, `label shares`: the last bias moves by `-lr sum (p - y)`, so its
      movement in the run's own first round, and the mean softmax on the attacker's images, tell what fraction
      of a client's samples has which label.
    - Of clients that train a linear auxiliary model, `batch of one`: its weights move by `-lr (p - y) z` and
      its bias by `-lr (p - y)`, so the quotient is the smashed data, exactly, whatever codec or defence these
      go through. It is measured on a step of one sample, which a run makes with batch_size=1.

    Source: for the first, A. Wainakh et al., "User-Level Label Leakage from Gradients in Federated Learning",
    PoPETs 2022; for the second, L. T. Phong et al., "Privacy-Preserving Deep Learning via Additively
    Homomorphic Encryption", IEEE TIFS 13(5), 2018.

    Args:
        clients: most clients whose labels are looked for.
    """

    name = "updates"
    of_a_run = True

    def __init__(self, *, clients: PositiveInt) -> None:
        self.clients = clients

    @override
    def attack(self, scene: Scene) -> Iterator[Finding]:
        run = scene.victim.run
        if run.algorithm.client_head not in ("server", "auxiliary"):
            raise NotExposed(f"with {run.algorithm.__name__} clients train on no loss of their own")
        optimizer = (run.config.client_optimizer or run.config.optimizer).build(Optimizer)
        if not isinstance(optimizer, Sgd) or optimizer.momentum or optimizer.weight_decay:
            raise NotExposed("it reads updates of plain SGD, and clients of this run step otherwise")
        if run.algorithm.client_head == "server":
            yield self._label_shares(scene)
        else:
            yield self._batch_of_one(scene, optimizer)

    def _label_shares(self, scene: Scene) -> Finding:
        run, classes = scene.victim.run, scene.victim.run.dataset.num_classes
        local = component_of("transport", LocalTransport)
        parts = build_clients(run.with_transport(transport=local))
        before = {**_weights(parts.models.halves.client), **_weights(parts.models.halves.server)}
        bias = _last_bias(_weights(parts.models.halves.server), classes)
        clients = list(range(min(self.clients, len(parts.sample_counts))))
        softmax = _mean_softmax(parts, scene)
        errors, guesses = [], []
        for client, after in zip(clients, _first_updates(parts, before, clients), strict=True):
            steps = range(parts.batches(client).steps)
            rate = parts.client_optimizer.lr * sum(parts.schedule.at(0, step) for step in steps)
            shares = (softmax + (after[bias] - before[bias]) / rate).clamp_min(0)
            labels = run.dataset.train.labels_at(run.data.shards[client].to(run.dataset.train.index_device))
            true = torch.bincount(labels, minlength=classes) / len(labels)
            errors.append(_total_variation(shares / shares.sum(), true))
            guesses.append(_total_variation(torch.full_like(true, 1 / classes), true))
        error, guess = (SampleMean.of(torch.tensor(each)).mean for each in (errors, guesses))
        others = {"label_share_error": error, "label_share_error_of_uniform": guess}
        return Finding(self.name, way="label shares", others=others)

    def _batch_of_one(self, scene: Scene, optimizer: Sgd) -> Finding:
        run, targets = scene.victim.run, scene.targets
        estimator = run.config.estimator.build(GradientEstimator)
        models = build_models(run.config, run.data, run.device, estimator, client_head="auxiliary")
        if not isinstance(models.auxiliary, LinearAuxiliary):
            raise NotExposed("the auxiliary model is not linear")
        recovered = []
        for z, y in zip(torch.split(targets.z, 1), torch.split(targets.y, 1), strict=True):
            head = ModelState(models.auxiliary, optimizer)
            before = head.weights()
            train_head(head, run.dataset.objective, z, y, learning_rate_factor=1.0, seed=None)
            recovered.append(smashed_of_update(before, head.weights()).view(z.shape))
        found, known = torch.cat(recovered), scene.known
        error = (found - targets.z).flatten(1).norm(dim=1) / targets.z.flatten(1).norm(dim=1)
        seed = seed_of(run.seed, "attack, updates")
        images = LinearAttack().learn(known.z, known.x, seed=seed)(found).clamp(0, 1)
        return Finding(
            self.name,
            way="batch of one",
            psnr=SampleMean.of(psnr(targets.x, images)),
            ssim=SampleMean.of(ssim(targets.x, images)),
            reidentified=SampleMean.of(reidentify(targets.x, images)),
            others={"smashed_error": float(error.mean())},
            images=images,
        )


def smashed_of_update(before: Weights, after: Weights) -> Tensor:
    """Smashed data `(values,)` of the sample that a linear auxiliary model was stepped on, by plain SGD.

    The quotient of how weights and bias moved, of the logit that moved most; in float64.
    """
    weight, bias = (
        after[f"fc.{name}"].double() - before[f"fc.{name}"].double() for name in ("weight", "bias")
    )
    logit = int(bias.abs().argmax())
    return weight[logit] / bias[logit]


def _first_updates(parts: ClientParts, before: Weights, clients: list[int]) -> list[Weights]:
    """Weights that clients send after the run's first round."""
    with torch.random.fork_rng(devices=[]):
        parts.engine.enter(clients)
        parts.engine.install("full", dict.fromkeys(clients, before))
        for _ in parts.engine.train_local(clients, 0, LocalWork(train_head=True)).uploads:
            pass
        return list(parts.engine.weights("full", clients))


def _weights(module: torch.nn.Module) -> Weights:
    return ModelState(module).weights()


def _last_bias(weights: Weights, classes: int) -> str:
    """The name of the bias of the logits."""
    found = [name for name, each in weights.items() if name.endswith("bias") and each.shape == (classes,)]
    if not found:
        raise NotExposed("the last layer of the model has no bias")
    return found[-1]


def _mean_softmax(parts: ClientParts, scene: Scene) -> Tensor:
    """Mean prediction of the model of the first round for the attacker's images, `(classes,)`."""
    batches = torch.split(scene.known.inputs, parts.config.training.batch_size)
    client, server = (half.eval() for half in (parts.models.halves.client, parts.models.halves.server))
    try:
        with torch.no_grad():
            sums = [server(client(compute_format(x))).softmax(1).sum(0) for x in batches]
    finally:
        client.train()
        server.train()
    return torch.stack(sums).sum(0) / len(scene.known.x)


def _total_variation(shares: Tensor, others: Tensor) -> float:
    return float((shares - others).abs().sum() / 2)
