import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedsplit.data.images import Images, Normalisation
from fedsplit.models.splitting.split import SplitModel
from fedsplit.objectives.classification import Classification
from fedsplit.parties.evaluation import Evaluator
from fedsplit.state.weights import Weights

CLASSES = 5


def _images(samples: int = 23) -> Images:
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (samples, 4, 4, 3), generator=draw, dtype=torch.uint8)
    return Images(pixels, torch.randint(CLASSES, (samples,), generator=draw))


def _halves(seed: int) -> SplitModel:
    """Halves with statistics of their own and dropout, under names that are not shared."""
    torch.manual_seed(seed)
    client = nn.Sequential()
    client.add_module("conv", nn.Conv2d(3, 4, 3))
    client.add_module("norm", nn.BatchNorm2d(4))
    server = nn.Sequential()
    server.add_module("flatten", nn.Flatten())
    server.add_module("dropout", nn.Dropout(0.5))
    server.add_module("fc", nn.Linear(16, CLASSES))
    nn.init.normal_(client.norm.running_mean)
    return SplitModel(client, server, ((1,),))


def _weights_of(halves: SplitModel) -> Weights:
    return {
        name: value.clone()
        for half in (halves.client, halves.server)
        for name, value in half.state_dict().items()
    }


def _evaluator(halves: SplitModel, images: Images, batch_size: int = 8) -> Evaluator:
    objective, seen = Classification(CLASSES), replace(images, normalise=Normalisation.of(images))
    return Evaluator(halves, seen, objective=objective, batch_size=batch_size)


def _accuracy_and_loss_by_hand(halves: SplitModel, images: Images) -> tuple[float, float]:
    """One image at a time, in float64."""
    mean, std = (f(images.pixels.double().flatten(0, 2), 0) for f in (torch.mean, _deviation))
    client, server = (copy.deepcopy(half).double().eval() for half in (halves.client, halves.server))
    correct, losses = 0, []
    with torch.no_grad():
        for pixels, y in zip(images.pixels, images.labels, strict=True):
            logits = server(client(((pixels - mean) / std).permute(2, 0, 1)[None]))
            correct += int(logits.argmax()) == int(y)
            losses.append(float(F.cross_entropy(logits, y[None])))
    return correct / len(images), sum(losses) / len(losses)


def _deviation(x: Tensor, dim: int) -> Tensor:
    return x.std(dim, correction=0)


@pytest.mark.parametrize("batch_size", [1, 8, 22, 23, 100])
def test_accuracy_and_loss_are_means_over_images_for_any_batch_size(batch_size: int) -> None:
    trained, images = _halves(1), _images()
    scores = _evaluator(_halves(0), images, batch_size)(_weights_of(trained))
    expected = _accuracy_and_loss_by_hand(trained, images)
    assert scores.accuracy == expected[0]
    assert scores.loss == pytest.approx(expected[1], rel=1e-5)
    assert 0 < scores.accuracy < 1
    assert scores.perplexity is None


def test_evaluation_uses_the_given_weights_and_not_those_of_the_halves() -> None:
    images = _images()
    evaluate = _evaluator(_halves(0), images)
    for seed in (1, 2, 1):
        assert evaluate(_weights_of(_halves(seed))).loss == pytest.approx(
            _accuracy_and_loss_by_hand(_halves(seed), images)[1], rel=1e-5
        )


def test_evaluation_changes_neither_the_halves_nor_the_weights() -> None:
    halves, trained = _halves(0), _weights_of(_halves(1))
    weights, skeleton = copy.deepcopy(trained), _weights_of(halves)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    _evaluator(halves, _images())(trained)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(trained[name], value) for name, value in weights.items())
    assert all(torch.equal(_weights_of(halves)[name], value) for name, value in skeleton.items())
    assert all(module.training for half in (halves.client, halves.server) for module in half.modules())


def test_failed_evaluation_leaves_the_halves_in_training_mode() -> None:
    halves = _halves(0)
    wrong = Images(torch.zeros(2, 9, 9, 3, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        _evaluator(halves, wrong)(_weights_of(halves))
    assert all(module.training for half in (halves.client, halves.server) for module in half.modules())
