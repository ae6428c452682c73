"""A client's side of the verbs: what comes over the wire is given to the engine, what it gives is packed."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fedsplit.data.fingerprint import Fingerprint
from fedsplit.errors import NonFinite, RunFailed, UserError, first_line, format_count
from fedsplit.parties.messages import LocalWork, Part, Upload
from fedsplit.quant.message import Corrupt
from fedsplit.quant.weights_link import EXACT, add_difference
from fedsplit.recording import checkpoint
from fedsplit.recording.checkpoint import Checkpoint
from fedsplit.recording.identity import changes
from fedsplit.state.state import State
from fedsplit.state.weights import Weights
from fedsplit.transport.client_end import ClientEnd
from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol.expectations import Expectations
from fedsplit.transport.grpc.protocol.frames import ExpectedTensor, Parcel, check, decode_tensors, one_line
from fedsplit.transport.grpc.protocol.packing import Packed, pack, pack_weights
from fedsplit.transport.links import KIND_OF, coded_tensor
from fedsplit.transport.transport import RunSetting


class KeptStates:
    """The states of one client of one run."""

    def __init__(self, folder: Path, *, run: str, client: int, data: Fingerprint) -> None:
        self.folder = folder
        self._identity: State = {"run": run, "client": client, "data": data}

    def rounds(self) -> list[int]:
        """Rounds after which states are kept."""
        return checkpoint.kept_rounds(self.folder)

    def keep(self, state: State, asked: pb.Keep) -> None:
        """Keep the state after a round, in place of those that are not needed any more."""
        kept = Checkpoint(asked.rounds, {**state, "identity": self._identity})
        checkpoint.replace(self.folder, kept, needed=asked.needed, durable=asked.durable)

    def after(self, rounds: int) -> State:
        """The state after so many rounds.

        Raises:
            RunFailed: it is damaged or gone, or that of another client or run, or other images were there.
        """
        try:
            kept = checkpoint.load(self.folder, rounds)
        except UserError as error:
            raise RunFailed(error.allowed) from error
        if kept is None:
            state = f"its state after {format_count(rounds, 'round')}"
            raise RunFailed(f"{state} is damaged or gone from {self.folder}")
        found = kept.state.get("identity")
        if not isinstance(found, dict) or found.keys() != self._identity.keys():
            raise RunFailed(f"its state in {self.folder} does not say whose it is")
        for key, whose in (("run", "another run"), ("client", f"client {found['client']}")):
            if found[key] != self._identity[key]:
                raise RunFailed(f"its state in {self.folder} is that of {whose}")
        if message := changes(found["data"], self._identity["data"]):
            raise RunFailed(f"its images are not those that its state in {self.folder} is of: {message}")
        return kept.state


Answer = list[Parcel[pb.FromClient]]

_LOG = logging.getLogger("fedsplit.network")


class Worker:
    """One client of a run, with its state; one that is kept under another `name` of a run is none of its."""

    def __init__(self, run: RunSetting, client: int, folder: Path, name: str) -> None:
        self.client, self.run, self.folder = client, run, folder
        self._kept = KeptStates(folder, run=name, client=client, data=run.fingerprint)
        self.expectations = Expectations(run)
        self._stateless = run.config.client.stateless
        self._held: dict[Part, Weights] = {}
        self._labels: Tensor | None = None  # labels of the batch whose cut gradient is awaited
        self._seeds: Sequence[int] = ()
        self._seeds_of: tuple[int, int] | None = None  # round and step of these, until slopes come
        self._end = ClientEnd(run, packs=True)
        self._is_after: int | None = 0  # rounds after which the state here is kept, None within a round
        self._verbs: dict[str, Callable[[Parcel[pb.FromServer]], Answer]] = {
            "begin": self._begin,
            "install": self._install,
            "forward": self._forward,
            "backward": self._backward,
            "probe": self._probe,
            "move": self._move,
            "step_tail": self._step_tail,
            "train_local": self._train_local,
            "upload_weights": self._upload_weights,
            "keep": self._keep,
        }

    @property
    def samples(self) -> int:
        """Number of training samples of the client."""
        return self.run.sample_counts[self.client]

    def states(self) -> list[int]:
        """Rounds after which the state is kept."""
        return self._kept.rounds()

    def admit(self, frame: pb.FromServer) -> bool:
        """Admit the tensors of a frame, all of which are wanted; `Corrupt` where no server sends them."""
        check(frame.tensors, self._expect(frame))
        return True

    def _expect(self, frame: pb.FromServer) -> list[ExpectedTensor]:
        verb = frame.WhichOneof("content")
        if verb == "install":
            part = self.expectations.part(frame.install.part)
            if frame.install.difference and part not in self._held:
                raise Corrupt("the server sent a difference to weights that this client does not hold")
            return self.expectations.sent_down(part, frame.tensors, difference=frame.install.difference)
        if verb == "backward":
            return self.expectations.cut_gradient(frame.tensors, self._labels)
        if verb == "probe":
            gradient = self.expectations.cut_gradient(frame.tensors, self._labels)
            return [*gradient, self.expectations.seeds()]
        if verb == "move":
            aware = self._seeds_of == (frame.identity.round, frame.identity.step)
            return [*([] if aware else [self.expectations.seeds()]), self.expectations.slopes()]
        if verb == "step_tail":
            if self._labels is None:
                raise Corrupt("the server sent outputs of the trunk, and no batch waits for them")
            return self.expectations.trunk_output(len(self._labels))
        return []

    def answer(self, parcel: Parcel[pb.FromServer]) -> Answer:
        """Do what a verb asks for, and answer, `Done` or `Failed` last; `Corrupt` where no server asks it."""
        verb = parcel.head.WhichOneof("content")
        if verb not in self._verbs:
            raise Corrupt(f"{verb} is not a verb of this protocol")
        if verb != "begin":
            self._is_after = None
        try:
            return self._verbs[verb](parcel)
        except NonFinite as error:
            return [self._message(parcel, failed=pb.Failed(what=error.what, not_finite=True))]
        except Corrupt:
            raise
        except Exception as error:  # whatever models, data and optimizers raise
            _LOG.warning("%s failed", verb, exc_info=True)
            return [self._message(parcel, failed=pb.Failed(what=one_line(first_line(error))))]

    def _message(
        self,
        verb: Parcel[pb.FromServer],
        *,
        step: int | None = None,
        tensors: Sequence[Packed] = (),
        **content: pb.Upload | pb.Done | pb.Failed,
    ) -> Parcel[pb.FromClient]:
        identity = pb.Identity()
        identity.CopyFrom(verb.head.identity)
        if step is not None:
            identity.step = step
        head = pb.FromClient(identity=identity, tensors=[tensor for tensor, _ in tensors], **content)  # type: ignore[arg-type]
        return Parcel(head, [payload for _, payload in tensors])

    def _confirm(self, verb: Parcel[pb.FromServer]) -> Parcel[pb.FromClient]:
        return self._message(verb, done=pb.Done())

    def _begin(self, verb: Parcel[pb.FromServer]) -> Answer:
        after = verb.head.begin.after
        if self._is_after != after:
            self._go_back(after)
        self._is_after = self._labels = self._seeds_of = None
        self.run.engine.enter([self.client])
        return [self._confirm(verb)]

    def _go_back(self, after: int) -> None:
        state = self._kept.after(after) if after else {"clients": {}, "held": {}, "up": {}}
        try:
            self._take_over(state)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            rounds = format_count(after, "round")
            message = f"its state after {rounds}, in {self.folder}, is not what this version writes"
            raise RunFailed(f"{message} ({type(error).__name__}: {error})") from error

    def _take_over(self, state: State) -> None:
        self.run.engine.load_state(state["clients"])
        device = self.run.device
        self._held = {
            part: {name: tensor.to(device) for name, tensor in state["held"][part].items()}
            for part in KIND_OF
            if part in state["held"]
        }
        self._end.load_state(state["up"])

    def _install(self, verb: Parcel[pb.FromServer]) -> Answer:
        part = self.expectations.part(verb.head.install.part)
        arrived = decode_tensors(verb, self._expect(verb.head))
        weights = {name: tensor.to(self.run.device) for name, tensor in arrived.items()}
        if verb.head.install.difference:
            weights = add_difference(self._held[part], weights)
        if not self.run.quantization.weights.lossless:
            self._held[part] = weights
        self.run.engine.install(part, {self.client: weights})
        return [self._confirm(verb)]

    def _forward(self, verb: Parcel[pb.FromServer]) -> Answer:
        identity = verb.head.identity
        engine = self.run.engine
        forward = engine.forward_evaluating if verb.head.forward.evaluating else engine.forward
        uploads = forward([self.client], identity.round, identity.step)
        self._labels = uploads[0].y if uploads else None
        return [*(self._upload(verb, each) for each in uploads), self._confirm(verb)]

    def _upload(self, verb: Parcel[pb.FromServer], upload: Upload) -> Parcel[pb.FromClient]:
        number = self.expectations.cut_number("smashed")
        tensors = [pack("z", number, self._end.code_smashed(upload, verb.head.identity.round))]
        if self.run.trunk_shape is None:
            tensors.append(pack("y", pb.LABELS, self._end.labels(upload.y)))
        return self._message(verb, step=upload.step, tensors=tensors, upload=pb.Upload())

    def _backward(self, verb: Parcel[pb.FromServer]) -> Answer:
        dz: Tensor = decode_tensors(verb, self._expect(verb.head))["dz"].to(self.run.device)
        identity = verb.head.identity
        padded = self.run.quantization.positions.pad(dz, self._labels)
        self.run.engine.backward(identity.round, identity.step, {self.client: padded})
        return [self._confirm(verb)]

    def _probe(self, verb: Parcel[pb.FromServer]) -> Answer:
        arrived, identity = decode_tensors(verb, self._expect(verb.head)), verb.head.identity
        padded = self.run.quantization.positions.pad(arrived["dz"].to(self.run.device), self._labels)
        self._seeds, self._seeds_of = _seeds_in(arrived["seeds"]), (identity.round, identity.step)
        asked = {self.client: padded}
        slopes = self.run.engine.probe(identity.round, identity.step, asked, self._seeds)[self.client]
        packed = pack("slopes", pb.EXACT, self._end.slopes(slopes, self.client))
        return [self._message(verb, tensors=[packed], done=pb.Done())]

    def _move(self, verb: Parcel[pb.FromServer]) -> Answer:
        arrived, identity = decode_tensors(verb, self._expect(verb.head)), verb.head.identity
        seeds = _seeds_in(arrived["seeds"]) if "seeds" in arrived else self._seeds
        slopes, self._seeds_of = arrived["slopes"].to(self.run.device), None
        self.run.engine.move([self.client], identity.round, identity.step, seeds, slopes)
        return [self._confirm(verb)]

    def _step_tail(self, verb: Parcel[pb.FromServer]) -> Answer:
        h: Tensor = decode_tensors(verb, self._expect(verb.head))["h"].to(self.run.device)
        identity = verb.head.identity
        (loss,), gradients = self.run.engine.step_tail(identity.round, identity.step, {self.client: h})
        coded = self._end.trunk_gradient(gradients[self.client], self.client, identity.round, identity.step)
        dh = pack("dh", self.expectations.cut_number("trunk_gradient"), coded)
        done = pb.Done(losses=loss.loss.tolist(), samples=loss.terms)
        return [self._message(verb, tensors=[dh], done=done)]

    def _train_local(self, verb: Parcel[pb.FromServer]) -> Answer:
        asked = verb.head.train_local
        work = LocalWork(
            train_head=asked.train_head,
            upload_interval=asked.upload_interval or None,
            skip_first_upload=[self.client] if asked.skip_first_upload else [],
        )
        trained = self.run.engine.train_local([self.client], verb.head.identity.round, work)
        uploads = [self._upload(verb, each) for each in trained.uploads]
        losses = torch.cat([each.loss for each in trained.losses]).tolist() if trained.losses else []
        done = pb.Done(losses=losses, samples=[terms for each in trained.losses for terms in each.terms])
        return [*uploads, self._message(verb, done=done)]

    def _upload_weights(self, verb: Parcel[pb.FromServer]) -> Answer:
        part = self.expectations.part(verb.head.upload_weights.part)
        own = self.run.engine.weights(part, [self.client])[0]
        if verb.head.upload_weights.observed:
            shown = [(each, own[each.name]) for each in self.expectations.observation(part)]
            tensors = [pack(e.name, e.number, coded_tensor(t, EXACT, 0, packs=True)) for e, t in shown]
            return [self._message(verb, tensors=tensors, done=pb.Done())]
        held, round = self._held.get(part), verb.head.identity.round
        delivery = self._end.weights(part, self.client, own, held, round)
        done = pb.Done(difference=delivery.difference)
        packed = pack_weights(delivery, self.expectations, part)
        return [self._message(verb, tensors=packed, done=done)]

    def _keep(self, verb: Parcel[pb.FromServer]) -> Answer:
        if self._stateless:
            self.run.engine.forget()
            self._end.forget()
        state = {"clients": self.run.engine.state(), "held": self._held, "up": self._end.state()}
        self._kept.keep(state, verb.head.keep)
        self._is_after = verb.head.keep.rounds
        return [self._confirm(verb)]


def _seeds_in(arrived: Tensor) -> list[int]:
    """Seeds of a message.

    Raises:
        Corrupt: one is below 0.
    """
    seeds: list[int] = arrived.tolist()
    if min(seeds) < 0:
        raise Corrupt("a seed is below 0; it must be from 0 to below 2^31")
    return seeds
