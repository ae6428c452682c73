"""Tensors that each message may carry: both sides know them from the plan, and believe nothing else."""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from fedsplit.parties.messages import Part
from fedsplit.quant.codec import Codec
from fedsplit.quant.message import Corrupt
from fedsplit.quant.quantization import TensorKind
from fedsplit.quant.weights_link import EXACT, HALF, codec_of
from fedsplit.state.weights import Weights
from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol.frames import ExpectedTensor
from fedsplit.transport.transport import RunSetting

PARTS: dict[Part, pb.Part] = {
    "client": pb.CLIENT,
    "auxiliary": pb.AUXILIARY,
    "full": pb.FULL,
    "control": pb.CONTROL,
}
"""Numbers of the parts in the protocol."""


class Expectations:
    """The tensors of one run's messages.

    Args:
        run: setting of the run.
    """

    def __init__(self, run: RunSetting) -> None:
        objective = run.dataset.objective
        self._codecs, self.labels = run.quantization, objective.labels()
        self.term_per_sample = objective.term_per_sample
        self.positions, self._smashed_shape = run.quantization.positions, run.smashed_shape
        self._batch_size = run.config.training.batch_size
        self._local_epochs = run.config.training.local_epochs
        self._answered_seeds = run.probes
        self._dtype = torch.get_default_dtype()
        self.trunk_shape = run.trunk_shape
        both = {**run.client_weights, **run.head_weights}
        self._weights: dict[Part, Weights] = {
            "client": run.client_weights if self.trunk_shape is None else both,
            "auxiliary": run.head_weights if self.trunk_shape is None else {},
            "full": both if self.trunk_shape is None else {},
            "control": run.control_variates,
        }
        weights = run.quantization.weights
        self._numbers = {
            id(EXACT): pb.EXACT,
            id(HALF): pb.HALF,
            id(weights.up): pb.WEIGHTS_UP,
            id(weights.down): pb.WEIGHTS_DOWN,
            id(weights.whole): pb.WEIGHTS_WHOLE,
        }

    def part(self, number: pb.Part) -> Part:
        """The part that has this number in the protocol.

        Raises:
            Corrupt: none has, or clients of this run hold none.
        """
        for part, known in PARTS.items():
            if known == number and self._weights[part]:
                return part
        raise Corrupt(f"part {number} is not a part of this run's models")

    def weights(self, part: Part, codec: Codec, *, difference: bool) -> list[ExpectedTensor]:
        """The tensors of weights, in the order in which they are counted."""
        expected = []
        for name, tensor in sorted(self._weights[part].items()):
            chosen = codec_of(name, tensor, codec, difference=difference)
            number = self._numbers[id(chosen)]
            expected.append(ExpectedTensor(name, number, chosen, tuple(tensor.shape), tensor.dtype))
        return expected

    def sent_down(
        self, part: Part, tensors: Sequence[pb.Tensor], *, difference: bool
    ) -> list[ExpectedTensor]:
        """The tensors of weights to a client.

        The server forgets what a client holds that was left out for a round, and sends weights whole again.
        """
        weights = self._codecs.weights
        whole = any(tensor.codec == pb.WEIGHTS_WHOLE for tensor in tensors)
        exactly = weights.down.lossless and not whole
        codec = weights.down if difference or exactly else weights.whole
        return self.weights(part, codec, difference=difference)

    def sent_up(self, part: Part, *, difference: bool) -> list[ExpectedTensor]:
        """The tensors of weights from a client."""
        return self.weights(part, self._codecs.weights.up, difference=difference)

    def observation(self, part: Part) -> list[ExpectedTensor]:
        """The tensors of weights from a client, as they are."""
        return self.weights(part, EXACT, difference=False)

    def upload(self, samples: int, tensors: Sequence[pb.Tensor] = ()) -> list[ExpectedTensor]:
        """Smashed data and labels of a batch of so many samples; no labels where there is a tail.

        Args:
            samples: samples of the batch.
            tensors: headers of the tensors, which say how many positions padded data have.

        Raises:
            Corrupt: no batch has so many positions.
        """
        z: tuple[int, ...] = (samples, *self._smashed_shape)
        y: tuple[int, ...] = (samples,)
        if self.labels.context is not None:
            announced = [tuple(tensor.shape) for tensor in tensors]
            match announced:
                case [(real, *_), (_, longest)] if (
                    samples <= real <= samples * min(longest, self.labels.context)
                ):
                    z, y = (real, *self._smashed_shape[1:]), (samples, longest)
                case _:
                    raise Corrupt(
                        f"no batch of {samples} samples has tensors of the shapes {str(announced)[:100]}"
                    )
        smashed = ExpectedTensor("z", self.cut_number("smashed"), self._codecs.smashed, z, self._dtype)
        labels = ExpectedTensor("y", pb.LABELS, self.labels, y, self.labels.label_type)
        return [smashed, labels] if self.trunk_shape is None else [smashed]

    def trunk_output(self, samples: int) -> list[ExpectedTensor]:
        """Outputs of the trunk for a batch of so many samples, to a client with a tail.

        Raises:
            Corrupt: clients of this run hold none.
        """
        return self._at_tail("h", "trunk_output", samples)

    def trunk_gradient(self, samples: int) -> list[ExpectedTensor]:
        """The gradient with respect to that, from a client."""
        return self._at_tail("dh", "trunk_gradient", samples)

    def _at_tail(self, name: str, kind: TensorKind, samples: int) -> list[ExpectedTensor]:
        if self.trunk_shape is None:
            raise Corrupt("clients of this run hold no tail of the model")
        shape, codec = (samples, *self.trunk_shape), self._codecs.codec(kind)
        return [ExpectedTensor(name, self.cut_number(kind), codec, shape, self._dtype)]

    def check_positions(self, z: Tensor, y: Tensor) -> None:
        """Raise where smashed data are not of the positions that their labels have.

        Raises:
            Corrupt: they are not.
        """
        lengths = self.positions.lengths
        if lengths is not None and len(z) != int(lengths(y).sum()):
            raise Corrupt(f"smashed data of {len(z)} positions came with labels of {int(lengths(y).sum())}")

    def cut_gradient(self, tensors: Sequence[pb.Tensor], y: Tensor | None = None) -> list[ExpectedTensor]:
        """A cut gradient, of as many samples as are announced, or of the positions that labels `y` have.

        Raises:
            Corrupt: no batch has so many, or none of this client waits for its gradient.
        """
        codec, number = self._codecs.cut_gradient, self.cut_number("cut_gradient")
        if self.positions.lengths is not None:
            if y is None:
                raise Corrupt("a cut gradient came, and no batch waits for one")
            real = (int(self.positions.lengths(y).sum()), *self._smashed_shape[1:])
            return [ExpectedTensor("dz", number, codec, real, self._dtype)]
        samples = tensors[0].shape[0] if tensors and tensors[0].shape else 0
        if not 1 <= samples <= self._batch_size + 1:  # a last batch of one sample joins the one before it
            raise Corrupt(f"no batch of this run has {samples} samples")
        return [ExpectedTensor("dz", number, codec, (samples, *self._smashed_shape), self._dtype)]

    def seeds(self) -> ExpectedTensor:
        """Seeds of a local step.

        Raises:
            Corrupt: clients of this run answer none.
        """
        return ExpectedTensor("seeds", pb.EXACT, EXACT, (self._probes(),), torch.int32)

    def slopes(self) -> ExpectedTensor:
        """Slopes of a local step, one for each seed; raises as `seeds`."""
        return ExpectedTensor("slopes", pb.EXACT, EXACT, (self._probes(),), self._dtype)

    def _probes(self) -> int:
        if not self._answered_seeds:
            raise Corrupt("seeds or slopes came, and clients of this run answer no seeds")
        return self._answered_seeds

    def steps(self, samples: int, *, evaluating: bool = False) -> int:
        """Local steps in a round of a client with so many training samples, or in one pass over these."""
        return self._batches(samples) * (1 if evaluating else self._local_epochs)

    def batch(self, samples: int, step: int) -> int:
        """Samples of the batch of one of these steps."""
        batches = self._batches(samples)
        last = samples - (batches - 1) * self._batch_size
        return last if step % batches == batches - 1 else self._batch_size

    def _batches(self, samples: int) -> int:
        batches, rest = divmod(samples, self._batch_size)
        joins = rest == 1 and batches > 0
        return batches + (rest > 0 and not joins)

    @cached_property
    def most_up(self) -> int:
        """The most bytes of payload that a message of a client can have."""
        samples, most = self._batch_size + 1, self.labels.context
        shapes = [] if most is None else [(samples * most, *self._smashed_shape[1:]), (samples, most)]
        sent = [[self.slopes()]] if self._answered_seeds else []
        sent += [self.upload(samples, [pb.Tensor(shape=shape) for shape in shapes])]
        sent += [self.sent_up(part, difference=d) for part in self._weights for d in (False, True)]
        sent += [self.observation(part) for part in self._weights]
        sent += [] if self.trunk_shape is None else [self.trunk_gradient(samples)]
        return max(sum(each.codec.largest(each.shape, each.dtype) for each in tensors) for tensors in sent)

    def cut_number(self, kind: TensorKind) -> pb.Codec:
        """Number of the codec of smashed data or cut gradients."""
        if self._codecs.codec(kind).lossless:
            return pb.EXACT
        return pb.SMASHED if kind in ("smashed", "trunk_output") else pb.CUT_GRADIENT
