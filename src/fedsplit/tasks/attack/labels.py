"""Labels of clients' samples, from the cut gradients that come back to them."""

from collections.abc import Iterator

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from fedsplit.computing.model_state import ModelState
from fedsplit.config.values import PositiveInt
from fedsplit.data.batches import batch_slices
from fedsplit.randomness import generator, seed_of
from fedsplit.recording.classification import RocCurve
from fedsplit.tasks.attack.attacker import Attacker, Finding, NotExposed
from fedsplit.tasks.attack.channel import CodedChannel
from fedsplit.tasks.attack.measures import SampleMean
from fedsplit.tasks.attack.scene import ExposedImages, Scene

_ITERATIONS = 100


class LabelAttack(Attacker):
    """Tells labels apart by the directions of cut gradients, as if clients did not upload labels.

    It is what somebody can do who reads the way down alone, and the server of a model that is cut twice,
    whose clients keep their labels. There are these ways:

    - `direction`: the label whose labelled gradients, of a few of the attacker's own images for each class,
      point on average in the most similar direction;
    - `norm`: nothing but how long a gradient is;
    - `clustering`: as many clusters of directions as there are classes, without any label, matched to the
      classes as well as can be.

    Source: O. Li et al., "Label Leakage and Protection in Two-party Split Learning", ICLR 2022, for direction
    and norm.

    Args:
        shots: labelled images for each class, of `direction`.
        restarts: restarts of the clustering, of which the best is taken.
    """

    name = "labels"

    def __init__(self, *, shots: list[PositiveInt], restarts: PositiveInt) -> None:
        self.shots, self.restarts = shots, restarts

    @override
    def attack(self, scene: Scene) -> Iterator[Finding]:
        algorithm = scene.victim.run.algorithm
        if algorithm.client_head != "none":
            raise NotExposed(f"with {algorithm.__name__} no cut gradients go to clients")
        if not isinstance(scene.channel, CodedChannel):
            return
        classes = scene.victim.run.dataset.num_classes
        known, targets = (_gradients(scene, scene.channel, each) for each in (scene.known, scene.targets))
        for shots in self.shots:
            scores = self._directions(known, scene.known.y, targets, shots, classes)
            yield self._finding(
                f"direction, {shots} a class", scene, scores.argmax(1), _area(scores, scene.targets.y)
            )
        norms = targets.norm(dim=1)[:, None].expand(-1, classes)
        yield Finding(self.name, way="norm", label_auc=_area(norms, scene.targets.y, either=True))
        seed = seed_of(scene.victim.seed, "attack, labels")
        found = _match(clusters(targets, classes, self.restarts, seed), scene.targets.y, classes)
        yield self._finding("clustering", scene, found, None)

    def _finding(self, way: str, scene: Scene, labels: Tensor, area: float | None) -> Finding:
        accuracy = SampleMean.of(labels == scene.targets.y)
        return Finding(self.name, way=way, label_accuracy=accuracy, label_auc=area)

    @staticmethod
    def _directions(known: Tensor, labels: Tensor, targets: Tensor, shots: int, classes: int) -> Tensor:
        """Cosines `(n, classes)` between gradients and the mean directions of a few of each class."""
        directions = []
        for label in range(classes):
            own = functional.normalize(known[labels == label][:shots])
            if len(own) < shots:
                raise NotExposed(f"the attacker has {len(own)} images of class {label}, not {shots}")
            directions.append(own.mean(0))
        return functional.normalize(targets) @ functional.normalize(torch.stack(directions)).T


def _gradients(scene: Scene, channel: CodedChannel, exposed: ExposedImages) -> Tensor:
    """Cut gradients as they arrive at clients, `(n, values)`, float32: of the mean loss of each batch."""
    victim, objective = scene.victim, scene.victim.run.dataset.objective
    server, arrived = ModelState(victim.server.train()), []
    for step, piece in enumerate(batch_slices(len(exposed.y), victim.run.config.training.batch_size)):
        z, y = exposed.received[piece].detach().requires_grad_(), exposed.y[piece]
        with torch.random.fork_rng(devices=[]):
            seed = victim.dropout_seed("cut gradients", step)
            outputs = server.forward(z, seed=seed, buffers=server.frozen_buffers())
        (dz,) = torch.autograd.grad(objective.mean(outputs, y), z)
        rounding = seed_of(victim.seed, "rounding, cut gradients", step=step)
        arrived.append(channel.cut_gradient.simulate(dz, seed=rounding).decoded.flatten(1))
    return torch.cat(arrived)


def _area(scores: Tensor, labels: Tensor, *, either: bool = False) -> float:
    """Mean area under the ROC curves of the classes that targets have.

    Args:
        scores: `(n, classes)`.
        either: take the larger of an area and of that with the order turned round.
    """
    values, areas = scores.double().cpu().numpy(), []
    for label in range(scores.shape[1]):
        positive = (labels == label).cpu().numpy()
        if positive.any() and not positive.all():
            area = RocCurve.of(str(label), values[:, label], positive).area
            areas.append(max(area, 1 - area) if either else area)
    return sum(areas) / len(areas) if areas else 0.5


def clusters(x: Tensor, count: int, restarts: int, seed: int) -> Tensor:
    """Numbers of clusters of the directions of `x (n, values)`, int64 `(n,)`: k-means in cosine.

    Restarts begin with centres that are far from each other: drawn as in k-means++ (Arthur and Vassilvitskii,
    2007), and by turns the farthest from all before.
    """
    directions, best = functional.normalize(x.double()), (-1.0, torch.zeros(len(x), dtype=torch.int64))
    for restart in range(restarts):
        draw = generator(seed, "centres of clusters", step=restart)
        centres = directions[torch.randint(len(x), (1,), generator=draw)]
        while len(centres) < count:
            distances = (1 - (directions @ centres.T).amax(1)).clamp_min(1e-12).cpu()
            drawn = torch.multinomial(distances, 1, generator=draw)
            centres = torch.cat([centres, directions[distances.argmax()[None] if restart % 2 else drawn]])
        for _ in range(_ITERATIONS):
            assigned = (directions @ centres.T).argmax(1)
            sums = torch.zeros_like(centres).index_add_(0, assigned, directions)
            moved = torch.where(sums.norm(dim=1, keepdim=True) > 0, functional.normalize(sums), centres)
            if torch.equal(moved, centres):
                break
            centres = moved
        cosines = (directions @ centres.T).max(1)
        if float(cosines.values.sum()) > best[0]:
            best = float(cosines.values.sum()), cosines.indices
    return best[1]


def _match(assigned: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Labels that clusters stand for, if each stands for one and they are as right as can be."""
    together = torch.bincount(assigned * classes + labels, minlength=classes**2).view(classes, classes)
    _, label_of = linear_sum_assignment(together.cpu().numpy(), maximize=True)
    return torch.from_numpy(label_of).to(assigned.device)[assigned]
