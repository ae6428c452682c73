"""A server that answers clients with gradients of its own, until their client models are what it can read."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from typing_extensions import override

from fedsplit.algorithms.cse_fsl import CseFsl
from fedsplit.algorithms.splitfed_v1 import SplitFedV1
from fedsplit.algorithms.splitfed_v2 import SplitFedV2
from fedsplit.building.parts import RunParts
from fedsplit.building.run import build_run
from fedsplit.config.component import component_of
from fedsplit.config.values import NonNegativeFloat, PositiveFloat, PositiveInt
from fedsplit.data.batches import batch_slices
from fedsplit.randomness import seed_of
from fedsplit.tasks.attack.attacker import Attacker, Finding, NotExposed
from fedsplit.tasks.attack.imposter import HijackingCopies, HijackingServer, Imposter
from fedsplit.tasks.attack.measures import SampleMean, psnr, reidentify, ssim
from fedsplit.tasks.attack.scene import Scene
from fedsplit.transport.local import LocalTransport


class HijackAttack(Attacker):
    """Trains the run anew, from its beginning, with a server that does not do what the algorithm says.

    Clients, codecs and defences are those of the run, and so is the algorithm; in the place of the server
    model is an `Imposter`. With SplitFed it answers with cut gradients of its own. With FSL-SAGE clients get
    no cut gradients, but auxiliary models, which it aligns with its own in place of the true ones. With
    CSE-FSL clients get neither, which shows what the imposter reads without steering anybody.

    Source: D. Pasquini, G. Ateniese and M. Bernaschi, "Unleashing the Tiger: Inference Attacks on Split
    Learning", CCS 2021 (arXiv 2012.02670); here the pilot is the client model as it was initialised, which
    this server knows.

    Args:
        rounds: rounds to train; None: those of the run.
        channels: channels of decoder and discriminator.
        pilot_epochs: epochs of pilot and decoder on the attacker's images, before the first round.
        learning_rate: learning rate of the imposter's parts, by Adam.
        penalty: penalty on the slope of the discriminator.
    """

    name = "hijack"
    of_a_run = True

    def __init__(
        self,
        *,
        rounds: PositiveInt | None,
        channels: PositiveInt,
        pilot_epochs: PositiveInt,
        learning_rate: PositiveFloat,
        penalty: NonNegativeFloat,
    ) -> None:
        self.rounds, self.channels = rounds, channels
        self.pilot_epochs, self.learning_rate, self.penalty = pilot_epochs, learning_rate, penalty

    @override
    def attack(self, scene: Scene) -> Iterator[Finding]:
        run = scene.victim.run
        parts = build_run(run.with_transport(transport=component_of("transport", LocalTransport)))
        algorithm = parts.algorithm
        if not isinstance(algorithm, SplitFedV1 | SplitFedV2 | CseFsl):
            raise NotExposed(f"{run.algorithm.__name__} is none of SplitFed v1 and v2, FSL-SAGE and CSE-FSL")
        if parts.models.halves.tail is not None:
            raise NotExposed("clients hold the tail of the model, and send the server gradients")
        imposter = Imposter(
            parts.models.halves.client,
            scene.known.inputs,
            scene.known.x,
            coded_shape=parts.models.coded_shape,
            channels=self.channels,
            epochs=self.pilot_epochs,
            learning_rate=self.learning_rate,
            penalty=self.penalty,
            batch_size=run.config.training.batch_size,
            seed=seed_of(run.seed, "attack, hijack"),
        )
        server = HijackingServer(algorithm.server, imposter, run.dataset.objective)
        algorithm.server = server
        if isinstance(algorithm, SplitFedV1):
            algorithm.copies = HijackingCopies(server)
        rounds = self.rounds or run.config.budget.rounds
        for t in range(rounds):
            parts.transport.run_round(t, parts.cohort_of(t), partial(algorithm.run_round, t), algorithm)
        yield self._finding(scene, parts, imposter, rounds)

    def _finding(self, scene: Scene, parts: RunParts, imposter: Imposter, rounds: int) -> Finding:
        targets = scene.targets
        images = imposter.reconstruct(_receive(scene, parts)).clamp(0, 1)
        return Finding(
            self.name,
            epochs=rounds * parts.config.training.local_epochs,
            psnr=SampleMean.of(psnr(targets.x, images)),
            ssim=SampleMean.of(ssim(targets.x, images)),
            reidentified=SampleMean.of(reidentify(targets.x, images)),
            images=images,
        )


def _receive(scene: Scene, parts: RunParts) -> Tensor:
    """Smashed data of the targets from client models as the server made them."""
    run, mode = scene.victim.run, scene.setting.mode
    victim = run.victim(run.cut, trained=False)
    victim.client.load_state_dict({**victim.client.state_dict(), **parts.algorithm.client_weights})
    arrived = []
    for step, piece in enumerate(batch_slices(len(scene.targets.x), run.config.training.batch_size)):
        x = scene.targets.inputs[piece]
        z = victim.smash(x, mode, seed=victim.dropout_seed("hijacked", step))
        rounding = seed_of(run.seed, "rounding, hijacked", step=step)
        arrived.append(scene.channel.deliver(x, z, seed=rounding).z)
    return torch.cat(arrived)
