"""Bytes that a round of training sends, in closed form: algorithms add up terms of `RoundLoad`."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import comb

import torch

from fedsplit.data.batches import batch_slices
from fedsplit.quant.codec import Codec, Quantizer
from fedsplit.quant.codecs.label_codec import LabelCodec
from fedsplit.quant.quantization import Quantization, TensorKind
from fedsplit.quant.weights_link import codec_of
from fedsplit.state.weights import Weights


@dataclass(frozen=True)
class Population:
    """Clients and what they do in a round.

    Args:
        samples: number of samples of each client.
        cohort: number of clients that take part in a round.
        batch_size: samples in a batch of a local step.
        local_epochs: passes over a client's samples in a round.
        server_update_interval: q, local steps between two uploads.
        align_interval: l, rounds between two alignments of a client.
        labels: codec of labels.
        positions: real positions of all samples of each client together, for data that are padded.
    """

    samples: Sequence[int]
    cohort: int
    batch_size: int
    local_epochs: int
    server_update_interval: int
    align_interval: int
    labels: LabelCodec
    positions: Sequence[int] | None = None

    @property
    def share(self) -> float:
        """Fraction of the clients that takes part in a round."""
        return self.cohort / len(self.samples)

    @property
    def alignments(self) -> float:
        """Clients that align in a round, in the long run.

        Between two alignments of a client are l rounds, and then those until it takes part again.
        """
        return len(self.samples) / (self.align_interval + 1 / self.share - 1)

    def batches_by_step(self) -> list[Counter[int]]:
        """Batch sizes of all clients at each local step of a round; 0 for clients that have no such step."""
        slices = {n: batch_slices(n, self.batch_size) * self.local_epochs for n in set(self.samples)}
        size_counts: list[Counter[int]] = [Counter() for _ in range(max(map(len, slices.values())))]
        for samples, clients in Counter(self.samples).items():
            sizes = [piece.stop - piece.start for piece in slices[samples]]
            for step, counts in enumerate(size_counts):
                counts[sizes[step] if step < len(sizes) else 0] += clients
        return size_counts

    def batches(self, interval: int) -> Counter[tuple[int, Fraction]]:
        """Batches of local steps 0, q, 2q, ... of all clients, by their samples and mean positions.

        A sample of data that are never padded is one position.
        """
        counts: Counter[tuple[int, Fraction]] = Counter()
        for (samples, positions), clients in Counter(
            zip(self.samples, self.positions or self.samples, strict=True)
        ).items():
            sizes = [piece.stop - piece.start for piece in batch_slices(samples, self.batch_size)]
            for size in (sizes * self.local_epochs)[::interval]:
                counts[size, Fraction(size * positions, samples)] += clients
        return counts


@dataclass(frozen=True)
class RoundLoad:
    """Bytes in a round, the mean over many rounds after the first ones.

    In the first round clients hold nothing that differences could be taken to, and all that align do. Where a
    codec's size depends on values, bytes are the most that they can be.

    Args:
        population: clients, and what they do in a round.
        quantization: codecs of messages.
        smashed_shape: shape of a sample's smashed data; its first dimension counts positions of padded data.
        client: weights of the client model, and of the tail that clients hold behind it.
        server: weights of the server model.
        auxiliary: weights of the auxiliary model.
        trunk_shape: shape of one sample of what goes to the clients' tail; None where there is none.
        buffers: names of what no gradient moves in client and server model.
    """

    population: Population
    quantization: Quantization
    smashed_shape: tuple[int, ...]
    client: Weights
    server: Weights
    auxiliary: Weights
    trunk_shape: tuple[int, ...] | None = None
    buffers: Collection[str] = ()

    @property
    def parameters(self) -> Weights:
        """Weights of client and server model without their buffers."""
        weights = {**self.client, **self.server}
        return {name: tensor for name, tensor in weights.items() if name not in self.buffers}

    def exchange(self, weights: Weights) -> float:
        """Bytes of weights that each client of the cohort downloads and uploads again."""
        upload_bytes = self.population.cohort * weights_size(weights, self.quantization.weights.up)
        return self.download(weights) + upload_bytes

    def download(self, weights: Weights) -> float:
        """Bytes of weights that each client of the cohort downloads.

        Clients that were not in the round before download them whole, not as differences.
        """
        codecs, share = self.quantization.weights, self.population.share
        down = share * weights_size(weights, codecs.down)
        down += (1 - share) * weights_size(weights, codecs.whole, difference=False)
        return self.population.cohort * down

    def uploads(self, interval: int = 1) -> float:
        """Bytes of smashed data and labels, uploaded at local steps 0, q, 2q, ... of interval q.

        Clients with a tail upload the gradient of what it was sent in place of labels.
        """
        batches = self.population.batches(interval)
        smashed_bytes = self._at_cut(self.quantization.smashed, batches)
        if self.trunk_shape is not None:
            return self.population.share * float(smashed_bytes + self._at_tail("trunk_gradient"))
        labels = sum(
            n * self.population.labels.load(*size_and_positions) for size_and_positions, n in batches.items()
        )
        return self.population.share * float(labels + smashed_bytes)

    def cut_gradients(self) -> float:
        """Bytes of the cut gradients that clients download at each local step, and of what tails take."""
        everyone = self.population
        gradients = self._at_cut(self.quantization.cut_gradient, everyone.batches(1))
        to_tails = 0 if self.trunk_shape is None else self._at_tail("trunk_output")
        return everyone.share * float(gradients + to_tails)

    def _at_tail(self, kind: TensorKind) -> int:
        """Bytes of tensors at the second cut, one for each local step."""
        assert self.trunk_shape is not None
        codec = self.quantization.codec(kind)
        batches = self.population.batches(1).items()
        return sum(count * size_of(codec, (samples, *self.trunk_shape)) for (samples, _), count in batches)

    def shared_gradients(self, receivers: int) -> float:
        """Bytes of one cut gradient a local step for all of so many clients, drawn of the population at once.

        It has as many rows as the largest batch of the step among them has.
        """
        total = Fraction(0)
        for batches in self.population.batches_by_step():
            sizes = (
                (size_of(self.quantization.cut_gradient, (n, *self.smashed_shape)), share)
                for n, share in shares_of_largest(batches, receivers).items()
                if n
            )
            total += sum(size * share for size, share in sizes)
        return float(total)

    def seeds_and_scalars(self, probes: int) -> float:
        """Bytes of slopes that clients send, one a probe and local step, and of seeds and sums that all get.

        Clients get those at every local step of the round, also where they have no such step.
        """
        everyone = self.population
        by_step = everyone.batches_by_step()
        sent_slopes = sum(clients for batches in by_step for samples, clients in batches.items() if samples)
        steps = Counter(sum(1 for _ in batch_slices(n, everyone.batch_size)) for n in everyone.samples)
        longest = sum(n * share for n, share in shares_of_largest(steps, everyone.cohort).items())
        received_seeds = everyone.cohort * longest * everyone.local_epochs
        return float(4 * probes * everyone.share * sent_slopes + 8 * probes * received_seeds)

    def joining_downloads(self) -> float:
        """Bytes of the client model, sent whole to each client that was not in the round before."""
        exact = sum(tensor.numel() * tensor.element_size() for tensor in self.client.values())
        return self.population.cohort * (1 - self.population.share) * exact

    def alignment_downloads(self) -> float:
        """Bytes of the auxiliary models that clients download when they align."""
        return self.population.alignments * weights_size(self.auxiliary, self.quantization.weights.down)

    def _at_cut(self, codec: Codec, batches: Mapping[tuple[int, Fraction], int]) -> Fraction:
        """Bytes of tensors at the cut for `Population.batches`; a mean of whole numbers of positions."""
        shape = self.smashed_shape if self.population.positions is None else self.smashed_shape[1:]
        total = Fraction(0)
        for (_, positions), count in batches.items():
            full_positions, fraction = divmod(positions, 1)
            size = (1 - fraction) * size_of(codec, (full_positions, *shape))
            if fraction:
                size += fraction * size_of(codec, (full_positions + 1, *shape))
            total += count * size
        return total


def shares_of_largest(values: Mapping[int, int], draws: int) -> dict[int, Fraction]:
    """Probability that each value is the largest of `draws` values drawn without replacement.

    Args:
        values: number of times that each value is there.
        draws: number of values drawn; at least one, at most all.
    """
    shares, below, count = {}, Fraction(0), 0
    for value, number in sorted(values.items()):
        count += number
        no_larger = Fraction(comb(count, draws), comb(sum(values.values()), draws))
        shares[value], below = no_larger - below, no_larger
    return shares


def size_of(codec: Codec, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> int:
    """Bytes of a coded tensor; the most that they can be where they depend on its values."""
    size = codec.size(shape) if isinstance(codec, Quantizer) and 0 not in shape else None
    return codec.largest(shape, dtype) if size is None else size


def weights_size(weights: Weights, codec: Codec, *, difference: bool = True) -> int:
    """Bytes of weights, coded as differences or as they are."""
    return sum(
        size_of(codec_of(name, tensor, codec, difference=difference), tensor.shape, tensor.dtype)
        for name, tensor in weights.items()
    )
