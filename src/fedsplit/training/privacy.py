"""The privacy of a run as it records it: what left its clients so far, and what may be claimed of that."""

from collections.abc import Mapping
from math import isinf

import torch
from torch import nn

from fedsplit.algorithms.algorithm import Algorithm
from fedsplit.building.parts import RunParts
from fedsplit.data.batches import ClientBatches
from fedsplit.privacy.accountant import COLUMNS, Accountant
from fedsplit.privacy.defence import Defence
from fedsplit.privacy.releases import Releases
from fedsplit.recording.metrics import Record


class PrivacyRecord:
    """Counts the releases of a run's samples, and bounds what they tell; see `Accountant`.

    It keeps no state: what is counted is a function of the seed. Clients that a round went on without count
    as if they had sent all.

    Args:
        parts: parts of the run.
    """

    def __init__(self, parts: RunParts) -> None:
        self._parts, self._defence = parts, parts.defence
        self._at_clients = parts.data.distribution.at_clients
        samples = None if self._at_clients else len(parts.data.dataset.train)
        self._releases, self._rounds = Releases(self._batches, samples), 0
        head = parts.algorithm_class.client_head
        self._accountant = Accountant(
            defence=parts.defence,
            sends_smashed=head != "server",
            gets_gradients=head in ("none", "estimator"),
            says_uploads=parts.algorithm_class.exposure is not Algorithm.exposure
            or head in ("none", "server"),
            uploads_labels=parts.config.splitting.tail_cut is None,
            mixing=_mixing_layer(parts.models.halves.client),
        )

    @property
    def is_active(self) -> bool:
        """True where clients have a defence."""
        return type(self._defence) is not Defence

    def _batches(self, client: int) -> ClientBatches:
        if not self._at_clients:
            return self._parts.batches(client)
        # nothing is known of its samples but that each is in one batch an epoch, as if it were the only one
        training, pool = self._parts.config.training, self._parts.data.dataset.train
        return ClientBatches(
            pool,
            torch.arange(1),
            batch_size=1,
            local_epochs=training.local_epochs,
            client=client,
            seed=training.seed,
        )

    def epsilons(self, t: int) -> dict[str, float]:
        """Epsilon of what has left clients up to the end of round `t`, by column; empty without a defence."""
        if not self.is_active:
            return {}
        epochs = self._parts.config.training.local_epochs
        while self._rounds <= t:
            for client in self._parts.cohort_of(self._rounds):
                steps = self._batches(client).steps
                exposure = self._parts.algorithm.exposure(self._rounds, client, steps=steps, epochs=epochs)
                smashed = exposure.smashed or ()
                if self._at_clients and smashed:
                    smashed = range(steps)  # in which batch a sample is, nobody knows here
                self._releases.add(self._rounds, client, smashed=smashed, gradients=exposure.gradients)
            self._rounds += 1
        return self._accountant.epsilons(self._releases)

    def reasons(self) -> list[str]:
        """Lines that say why there is no bound, one for each reason."""
        columns_by_reason: dict[str, list[str]] = {}
        for column, why in self._accountant.reasons().items() if self.is_active else ():
            columns_by_reason.setdefault(why, []).append(f"epsilon.{column}")
        return [f"{', '.join(columns)} inf: {why}" for why, columns in columns_by_reason.items()]

    def results(self, last_record: Record) -> Mapping[str, object] | None:
        """Privacy entry of `results.json`; None without a defence."""
        if not self.is_active:
            return None
        transport = self._parts.config.transport.arguments
        return {
            "defence": self._parts.config.choice("defence"),
            "delta": self._defence.delta,
            "unit": self._defence.unit,
            "epsilon": {
                column: "inf" if isinf(value) else value
                for column in COLUMNS
                if (value := last_record.epsilons.get(column)) is not None
            },
            "reasons": self._accountant.reasons(),
            "releases": self._releases.summary(),
            "noise": "secret" if transport.get("spawn") is False else "reproducible",
            "released_accuracy": last_record.released_accuracy,
        }


def _mixing_layer(module: nn.Module) -> str | None:
    """Name of a layer by which samples of a batch depend on each other."""
    return next(
        (
            name
            for name, layer in module.named_modules()
            if isinstance(layer, nn.modules.batchnorm._BatchNorm)
        ),
        None,
    )
