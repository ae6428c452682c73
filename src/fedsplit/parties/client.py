"""The client worker: its shard, its client model, its head, and the verbs it answers to."""

from dataclasses import dataclass

from torch import Tensor

from fedsplit.errors import NonFinite
from fedsplit.models.model_state import ModelState
from fedsplit.parties.engine import Blueprint
from fedsplit.parties.local_step import descend_body, train_both, train_head
from fedsplit.parties.messages import BatchLoss, LocalTraining, Part, Upload
from fedsplit.quant.codec import NotFinite
from fedsplit.quant.quantization import rounding_seed
from fedsplit.randomness import seed_of
from fedsplit.state import State
from fedsplit.weights import Weights


@dataclass(frozen=True)
class _Pending:
    """A forward pass that waits for its cut gradient: nothing of the client has changed yet."""

    round: int
    step: int
    z: Tensor
    buffers: dict[str, Tensor]


class ClientWorker:
    """A client with its shard of the data, its body and its head.

    Args:
        client: its number.
        blueprint: what it is made of.
    """

    def __init__(self, client: int, blueprint: Blueprint) -> None:
        self.client, self._batches = client, blueprint.batches(client)
        self._body = ModelState(blueprint.body, blueprint.optimizer)
        self._head = ModelState(blueprint.head, blueprint.optimizer) if blueprint.head else None
        self._estimator, self._schedule, self._seed = blueprint.estimator, blueprint.schedule, blueprint.seed
        self._head_sees = blueprint.head_sees
        self._pending: _Pending | None = None

    @property
    def _own_head(self) -> ModelState:
        if self._head is None:
            raise AssertionError("this algorithm's clients have no head")
        return self._head

    def install(self, part: Part, weights: Weights) -> None:
        """Take over weights; the optimizers' state stays."""
        if part in ("client", "full"):
            self._body.load(weights)
        if part in ("auxiliary", "full"):
            self._own_head.load(weights)

    def weights(self, part: Part) -> Weights:
        """Copies of the weights asked for."""
        if part == "client":
            return self._body.weights()
        if part == "auxiliary":
            return self._own_head.weights()
        return self._body.weights() | self._own_head.weights()

    def forward(self, round: int, step: int) -> Upload | None:
        """Smashed data and labels of a local step, None if the round has no such step; changes no state."""
        if step >= self._batches.steps:
            return None
        x, y = self._batches.batch(round, step)
        buffers = self._body.frozen_buffers()
        z = self._body.forward(x, seed=self._dropout_seed("client", round, step), buffers=buffers)
        self._pending = _Pending(round, step, z, buffers)
        return Upload(self.client, step, z.detach(), y)

    def backward(self, round: int, step: int, dz: Tensor) -> None:
        """Descend along the cut gradient of the last `forward`; the running statistics move now."""
        pending, self._pending = self._pending, None
        if pending is None or (pending.round, pending.step) != (round, step):
            raise AssertionError(
                f"client {self.client} has no forward pass of step {step} of round {round} waiting"
            )
        descend_body(self._body, pending.z, dz, learning_rate_factor=self._schedule.factor(round))
        self._body.move_buffers(pending.buffers)

    def train_local(
        self, round: int, *, train_head_too: bool, upload_interval: int | None, skip_first_upload: bool
    ) -> LocalTraining:
        """Train for the local epochs of a round.

        Args:
            round: which.
            train_head_too: descend along the head's own loss and train the head with it; else descend
                along what the gradient estimator makes of the head, and leave the head as it is.
            upload_interval: upload at local steps 0, q, 2q, ...; None never.
            skip_first_upload: not at step 0, which the server already has.
        """
        self._pending = None
        factor = self._schedule.factor(round)
        uploads: list[Upload] = []
        losses: list[BatchLoss] = []
        for step, x, y in self._batches.round(round):
            z = self._body.forward(x, seed=self._dropout_seed("client", round, step))
            head, head_seed = self._own_head, self._dropout_seed("head", round, step)
            settings = {"learning_rate_factor": factor, "seed": head_seed}
            if train_head_too and self._head_sees is None:
                loss = train_both(self._body, head, z, y, **settings)
                losses.append(BatchLoss([self.client], loss[None], len(y)))
            elif train_head_too:
                done = train_head(head, self._seen_by_head(z.detach(), round, step), y, **settings)
                losses.append(BatchLoss([self.client], done.loss[None], len(y)))
                descend_body(self._body, z, done.dz, learning_rate_factor=factor)
            else:
                seen = self._seen_by_head(z.detach(), round, step)
                dz = self._estimator.estimate(head, seen, y, seed=head_seed).detach() / len(y)
                descend_body(self._body, z, dz, learning_rate_factor=factor)
            if upload_interval and step % upload_interval == 0 and not (step == 0 and skip_first_upload):
                uploads.append(Upload(self.client, step, z.detach(), y))
        return LocalTraining(uploads, losses)

    def _seen_by_head(self, z: Tensor, round: int, step: int) -> Tensor:
        if self._head_sees is None:
            return z
        seed = rounding_seed(self._seed, "smashed", self.client, round, step)
        try:
            return self._head_sees.simulate(z.contiguous(), seed=seed).decoded
        except NotFinite as error:
            raise NonFinite("smashed", self.client) from error

    def _dropout_seed(self, half: str, round: int, step: int) -> int:
        return seed_of(self._seed, f"dropout of the {half}", client=self.client, round=round, step=step)

    def state(self) -> State:
        """Weights, buffers and optimizer state of body and head."""
        return {"body": self._body.state(), "head": self._head.state() if self._head else None}

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        self._body.load_state(state["body"])
        if self._head is not None:
            self._head.load_state(state["head"])
