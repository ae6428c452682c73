import copy
from collections import OrderedDict
from collections.abc import Callable
from functools import cache, partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedsplit.computing.layout import unflattened_shape
from fedsplit.computing.model_state import ModelState
from fedsplit.errors import UserError
from fedsplit.models.splitting.split import SplitModel, split
from fedsplit.models.splitting.tied import copy_without_ties, tied_groups
from fedsplit.models.zoo.cifar_resnet import cifar_resnet
from fedsplit.models.zoo.digits_cnn import digits_cnn
from fedsplit.models.zoo.resnet import ResNetAuxiliary, resnet18
from fedsplit.models.zoo.simple_conv import simple_conv
from tests.cases import long_but

MODELS = {
    "digits_cnn": (digits_cnn, 1, 8),
    "simple_conv": (simple_conv, 3, 32),
    "resnet18": (resnet18, 3, 32),
    "resnet20": (partial(cifar_resnet, depth=20), 3, 32),
}
CUTS = [
    ("digits_cnn", "conv1"),
    ("digits_cnn", "pool"),
    ("digits_cnn", "flatten"),
    ("digits_cnn", "relu3"),
    ("simple_conv", "conv1"),
    ("simple_conv", "norm1"),
    ("simple_conv", "flatten"),
    ("simple_conv", "fc2"),
    ("resnet20", "bn1"),
    ("resnet20", "layer1.0"),
    *(
        pytest.param("resnet18", cut, marks=pytest.mark.long)
        for cut in ("conv1", "bn1", "layer1", "layer1.0", "layer2", "layer3.1", "avgpool")
    ),
]


def build(name: str) -> tuple[nn.Module, torch.Tensor]:
    return copy.deepcopy(_built(name))


@cache
def _built(name: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    make, channels, size = MODELS[name]
    return make(num_classes=10, channels=channels, image_size=size), torch.randn(4, channels, size, size)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("name", "cut"), CUTS)
def test_split_model_has_the_outputs_gradients_and_statistics_of_the_whole(
    name: str, cut: str, training: bool
) -> None:
    whole, x = build(name)
    halves = split(whole, cut, x)
    for module in (whole, halves.client, halves.server):
        module.train(training)
    expected = whole(x)
    z = halves.client(x)
    actual = halves.server(z)
    assert torch.equal(actual, expected)
    expected.square().sum().backward()
    actual.square().sum().backward()
    merged = dict(halves.client.named_parameters()) | dict(halves.server.named_parameters())
    assert merged.keys() == dict(whole.named_parameters()).keys()
    for parameter_name, parameter in whole.named_parameters():
        assert torch.equal(merged[parameter_name].grad, parameter.grad), parameter_name
    state = halves.client.state_dict() | halves.server.state_dict()
    for key, value in whole.state_dict().items():
        assert torch.equal(state[key], value), key


@pytest.mark.parametrize(("name", "cut"), CUTS)
def test_halves_own_all_parameters_once_and_share_none_with_the_original(name: str, cut: str) -> None:
    whole, x = build(name)
    before = copy.deepcopy(whole.state_dict())
    halves = split(whole, cut, x)
    client, server = halves.client.state_dict(), halves.server.state_dict()
    assert not client.keys() & server.keys()
    assert sorted([*client, *server]) == sorted(before)
    with torch.no_grad():
        for parameter in [*halves.client.parameters(), *halves.server.parameters()]:
            parameter.add_(1)
    assert all(torch.equal(value, before[key]) for key, value in whole.state_dict().items())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("name", "cut", "tail"),
    [
        ("digits_cnn", "conv1", "relu3"),
        ("simple_conv", "norm1", "flatten"),
        ("resnet20", "layer1.0", "layer3"),
        ("resnet20", "layer1.0.conv1", "layer2.0.conv1"),  # of both cuts, the input of a block crosses too
    ],
)
def test_model_that_is_cut_twice_has_the_outputs_gradients_and_statistics_of_the_whole(
    *, name: str, cut: str, tail: str, training: bool
) -> None:
    whole, x = build(name)
    parts = split(whole, cut, x, tail)
    for module in (whole, *parts.modules):
        module.train(training)
    expected, actual = whole(x), x
    for part in parts.modules:
        actual = part(actual)
    packed = cut.endswith("conv1") and "." in cut
    torch.testing.assert_close(actual, expected, rtol=1e-4 * packed, atol=1e-5 * packed)
    if packed:
        return
    expected.square().sum().backward()
    actual.square().sum().backward()
    merged = {key: each for part in parts.modules for key, each in part.named_parameters()}
    assert merged.keys() == dict(whole.named_parameters()).keys()
    assert all(torch.equal(merged[key].grad, each.grad) for key, each in whole.named_parameters())
    state = {key: each for part in parts.modules for key, each in part.state_dict().items()}
    assert all(torch.equal(state[key], each) for key, each in whole.state_dict().items())


class Reversed(torch.autograd.Function):
    """The gradient goes back with its sign turned."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        return -gradients[0]


class WithOwnGradients(nn.Module):
    """Changes gradients by a function of its own, or turns them off."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.fc, self.how = nn.Linear(4, 4), how

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "reversed":
            output: Tensor = Reversed.apply(self.fc(x))  # type: ignore[no-untyped-call]
            return output
        with torch.no_grad():
            fixed = self.fc(x)
        return x + fixed


@pytest.mark.parametrize("how", ["reversed", "turned off"])
def test_gradients_of_its_own_are_kept_in_a_submodule_and_refused_in_the_model_itself(how: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 4)
    whole = nn.Sequential(
        OrderedDict(a=nn.Linear(4, 4), b=WithOwnGradients(how), c=nn.Linear(4, 4), d=nn.Linear(4, 3))
    )
    halves = split(whole, "c", x)
    for outputs in (whole(x), halves.server(halves.client(x))):
        outputs.square().sum().backward()
    for name, parameter in halves.client.named_parameters():
        expected = whole.get_parameter(name).grad
        assert (parameter.grad is None) == (expected is None)
        assert expected is None or torch.allclose(parameter.grad, expected)
    told = r"model=WithOwnGradients: its forward cannot be followed: it (applies|turns)"
    with pytest.raises(UserError, match=told):
        split(WithOwnGradients(how), "fc", x)


def test_parameters_that_no_gradient_reaches_are_frozen_as_optimizers_pass_them_over() -> None:
    x = torch.randn(3, 4)
    whole = nn.Sequential(
        OrderedDict(a=nn.Linear(4, 4), b=WithOwnGradients("turned off"), c=nn.Linear(4, 4), d=nn.Linear(4, 3))
    )
    halves = split(whole, "b", x)
    trained = {name: p.requires_grad for name, p in halves.client.named_parameters()}
    assert trained == {"a.weight": True, "a.bias": True, "b.fc.weight": False, "b.fc.bias": False}
    assert all(p.requires_grad for p in halves.server.parameters())
    assert all(p.grad is None for p in (*halves.client.parameters(), *halves.server.parameters()))
    assert all(p.requires_grad for p in whole.parameters())


def test_unknown_cut_is_refused_with_the_possible_cuts() -> None:
    whole, x = build("resnet18")
    with pytest.raises(
        UserError, match=r"model.cut=layer9: not a part of this model; possible cuts: conv1, .*layer2,"
    ):
        split(whole, "layer9", x)


def test_impossible_cut_among_many_is_refused_with_the_stages_and_where_others_are_shown() -> None:
    whole, x = build("resnet18")
    with pytest.raises(UserError) as caught:
        split(whole, "fc", x)
    assert str(caught.value) == (
        "model.cut=fc: nothing after it learns; possible cuts: conv1, bn1, relu, maxpool, layer1, layer2, "
        "layer3, layer4, avgpool, and 57 inside of them, which task=cuts shows"
    )


class Net(nn.Module):
    """`a`, `b` and `c` are linear layers from 4 to 4; what is done with them is up to the test."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)


def assert_the_halves_are_the_whole(
    whole: nn.Module, cut: str, x: Tensor, *, crossing: int = 1
) -> SplitModel:
    """In outputs, gradients, statistics, training and evaluation, with the same draws; returns the halves."""
    whole, x = whole.double(), x.double()
    halves = split(whole, cut, x)
    assert len(halves.crossing) == crossing
    state = whole.state_dict()
    client, server = halves.client.state_dict(), halves.server.state_dict()
    assert sorted([*client, *server]) == sorted(state)
    for training in (True, False):
        for module in (whole, halves.client, halves.server):
            module.train(training)
            module.zero_grad()
        torch.manual_seed(1)
        expected = whole(x)
        torch.manual_seed(1)
        sent = halves.client(x)
        assert sent.shape == (len(x), *halves.crossing[0]) if crossing == 1 else sent.ndim == 2
        z = sent.detach().clone().requires_grad_()
        actual = halves.server(z)
        torch.testing.assert_close(actual, expected, rtol=1e-6, atol=0.0)
        expected.square().sum().backward()
        actual.square().sum().backward()
        sent.backward(z.grad)
        merged = dict(halves.client.named_parameters()) | dict(halves.server.named_parameters())
        for name, parameter in whole.named_parameters():
            torch.testing.assert_close(merged[name].grad, parameter.grad, rtol=1e-6, atol=1e-12)
        moved = halves.client.state_dict() | halves.server.state_dict()
        for name, tensor in whole.state_dict().items():
            torch.testing.assert_close(moved[name], tensor, rtol=1e-6, atol=1e-12)
    return halves


def test_cut_inside_a_residual_block_packs_its_crossing_tensors_into_one() -> None:
    whole, x = build("resnet20")
    halves = assert_the_halves_are_the_whole(whole, "layer1.0.conv1", x, crossing=2)
    assert halves.crossing == ((16, 32, 32), (16, 32, 32))
    x = x.double()
    residual = whole.bn1(whole.conv1(x)).relu()
    expected = torch.cat([residual.flatten(1), whole.layer1[0].conv1(residual).flatten(1)], 1)
    torch.testing.assert_close(halves.client(x), expected)


def test_model_with_branches_is_split_with_all_its_crossing_tensors() -> None:
    class Branches(Net):
        def forward(self, x: Tensor) -> Tensor:
            left, right = self.a(x), self.b(x)
            n = x.size(0)
            return self.c((left * torch.sigmoid(right) + x[:, :1]).view(n, 2, 2).mean(2).repeat(1, 2))

    torch.manual_seed(0)
    x = torch.randn(3, 4)
    assert_the_halves_are_the_whole(Branches(), "a", x, crossing=2)
    assert assert_the_halves_are_the_whole(Branches(), "b", x, crossing=3).crossing == ((4,), (4,), (4,))


@pytest.mark.parametrize("way", ["size", "shape", "whole size"])
def test_number_of_samples_read_in_a_forward_does_not_cross_the_cut(way: str) -> None:
    class Reshaping(Net):
        def forward(self, x: Tensor) -> Tensor:
            n = {"size": lambda: x.size(0), "shape": lambda: x.shape[0], "whole size": lambda: x.size()[0]}
            samples = n[way]()
            return self.c(self.b(self.a(x)).view(samples, 2, 2).reshape(samples, 4))

    x = torch.randn(3, 4)
    halves = assert_the_halves_are_the_whole(Reshaping(), "b", x)
    assert halves.server(halves.client(x[:2].double())).shape == (2, 4)  # and is that of the batch


def test_submodule_that_cannot_be_traced_is_one_operation() -> None:
    class Deciding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.inner(x)) if x.sum() > 0 else self.norm(x)

    whole = nn.Sequential(OrderedDict(first=nn.Linear(4, 4), deciding=Deciding(), last=nn.Linear(4, 3)))
    x = torch.ones(5, 4) + torch.randn(5, 4)
    with torch.no_grad():
        whole.first.weight.copy_(torch.eye(4))  # so that the sum is positive, and all parameters learn
    assert_the_halves_are_the_whole(whole, "first", x)
    assert_the_halves_are_the_whole(whole, "deciding", x)
    with pytest.raises(UserError, match=r"cut=deciding\.inner: not a part.*possible cuts: first, deciding$"):
        split(whole, "deciding.inner", x.double())


def test_module_that_cannot_be_traced_is_refused_with_the_reason() -> None:
    class Branches(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x)) if x.sum() > 0 else self.b(x)

    with pytest.raises(
        UserError,
        match=r"model=Branches: its forward cannot be followed, for what it does depends on values "
        r"\(.*control flow\); no cut between its parts a, b, c is possible",
    ):
        split(Branches(), "a", torch.ones(2, 4))


def test_training_mode_read_in_a_forward_is_read_anew_in_every_pass() -> None:
    class Dropping(Net):
        def __init__(self) -> None:
            super().__init__()
            self.rate = 0.5

        def forward(self, x: Tensor) -> Tensor:
            x = F.dropout(self.a(x), self.rate, training=self.training)
            x = F.dropout(self.b(x), self.rate if self.training else 0.0)
            return self.c(x)

    torch.manual_seed(0)
    x = torch.randn(64, 4)
    for cut in ("a", "b"):
        halves = assert_the_halves_are_the_whole(Dropping(), cut, x)
        z = halves.client(x.double())
        assert torch.equal(halves.server.eval()(z), halves.server(z))
        assert not torch.equal(halves.server.train()(z), halves.server(z))


def test_submodule_that_differs_between_training_and_evaluation_is_one_operation() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.scale + torch.rand_like(x) if self.training else self.scale * x

    whole = nn.Sequential(nn.Linear(4, 4), Noisy(), nn.Linear(4, 3))
    x = torch.randn(5, 4)
    assert_the_halves_are_the_whole(whole, "0", x)
    assert_the_halves_are_the_whole(whole, "1", x)
    with pytest.raises(UserError, match="Noisy: its forward does different things in training and in eval"):
        split(Noisy(), "0", x)


def test_parameters_and_buffers_of_the_module_itself_go_to_the_half_that_uses_them() -> None:
    class Own(Net):
        def __init__(self) -> None:
            super().__init__()
            self.early, self.late = nn.Parameter(torch.ones(4)), nn.Parameter(torch.full((4,), 2.0))
            self.register_buffer("shift", torch.arange(4.0))
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("mask", torch.tensor([1.0, 0.0, 1.0, 1.0]), persistent=False)
            self.plain = torch.tensor([1.0, 2.0, 3.0, 4.0])

        def forward(self, x: Tensor) -> Tensor:
            late, shift = self.late * 1, self.shift + 1  # taken early, used late
            self.calls.add_(1)
            x = self.a(x * self.early) * self.mask * self.plain
            return self.c(self.b(x) * self.late * self.mask * self.plain + shift + late)

    torch.manual_seed(0)
    x = torch.randn(3, 4)
    with pytest.raises(UserError, match="what crosses is no activation of every sample"):
        split(Own(), "a", x)

    class Later(Own):
        def forward(self, x: Tensor) -> Tensor:
            late = self.late
            self.calls.add_(1)
            x = self.a(x * self.early) * self.mask * self.plain
            return self.c(self.b(x) * late * self.mask * self.plain + self.shift)

    halves = assert_the_halves_are_the_whole(Later(), "a", x)
    assert {"early", "calls"} < set(halves.client.state_dict())
    assert {"late", "shift"} < set(halves.server.state_dict())
    assert halves.client.get_buffer("calls") == 2  # passes by which the split is checked do not count


def test_parameters_used_on_both_sides_or_on_none_are_refused() -> None:
    class Shared(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.b(self.a(self.b(x))))

    class Unused(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.a(x))

    x = torch.ones(2, 4)
    with pytest.raises(
        UserError, match=r"cut=a: it divides the uses of b\.bias, b\.weight; possible cuts: b$"
    ):
        split(Shared(), "a", x)
    with pytest.raises(UserError, match=r"model=Unused: b\.bias, b\.weight are never used"):
        split(Unused(), "a", x)


class Tied(Net):
    """Weights of two of its layers are one tensor."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        first, second = (self.get_submodule(name) for name in names)
        second.weight = first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.a(x)))


@pytest.mark.parametrize("names", [("a", "c"), ("a", "b"), ("b", "c")])
def test_tied_parameters_are_refused_and_become_separate_where_untied(
    names: tuple[str, str],
) -> None:
    """Also where both uses are on one side of the cut: halves step on and send weights by their names."""
    torch.manual_seed(0)
    whole, x = Tied(*names), torch.randn(3, 4)
    one, other = (f"{name}.weight" for name in names)
    assert tied_groups(whole) == [[one, other]]
    with pytest.raises(
        UserError, match=rf"model=Tied: {one} and {other} are one and the same; model\.untie=true lets"
    ):
        split(whole, "b", x)
    separate = copy_without_ties(whole)
    assert tied_groups(separate) == []
    assert torch.equal(separate(x), whole(x))
    halves = assert_the_halves_are_the_whole(separate, "b", x)
    merged = halves.client.state_dict() | halves.server.state_dict()
    assert merged[one].data_ptr() != merged[other].data_ptr()
    assert tied_groups(whole) == [[one, other]]  # the original is left alone


def test_tied_parameters_that_do_not_learn_are_one_in_both_halves() -> None:
    whole = nn.Sequential(OrderedDict(a=nn.Linear(6, 6), b=nn.Linear(6, 6), c=nn.Linear(6, 3)))
    whole.b.weight = whole.a.weight
    x = torch.randn(4, 6)
    assert tied_groups(whole) == [["a.weight", "b.weight"]]
    whole.a.weight.requires_grad_(False)
    assert tied_groups(whole) == []
    halves = split(whole, "a", x)
    assert halves.client.a.weight is halves.server.b.weight
    client, server = ModelState(halves.client), ModelState(halves.server)
    assert "a.weight" not in client.weights().keys() | server.weights().keys()
    torch.testing.assert_close(server.forward(client.forward(x, seed=None), seed=None), whole(x))


def test_module_with_two_names_is_tied_with_all_its_parameters_and_buffers() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, affine=False))
            self.second, self.last = self.first, nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.second(self.first(x)))

    torch.manual_seed(0)
    whole, x = Twice(), torch.randn(6, 4)
    assert ["first.1.running_mean", "second.1.running_mean"] in tied_groups(whole)
    with pytest.raises(UserError, match=r"first\.0\.weight and second\.0\.weight are one and the same"):
        split(whole, "first", x)
    assert_the_halves_are_the_whole(copy_without_ties(whole), "first", x)


def _of_one_batch(net: Net, x: Tensor) -> Tensor:
    return net.c(net.b(net.a(x)[None])[0])


def _with_indices(net: Net, x: Tensor) -> Tensor:
    largest = x.argmax(1, keepdim=True)
    return net.c(net.b(net.a(x)) + largest)


def _in_two_types(net: Net, x: Tensor) -> Tensor:
    long = net.a(x).double()
    return net.c(net.b(x) + long.float())


def _with_a_number(net: Net, x: Tensor) -> Tensor:
    features = net.a(x).shape[1]
    return net.c(net.b(x) + features)


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (_of_one_batch, "what crosses is no activation of every sample"),
        (_with_indices, "what crosses is no activation of every sample"),
        (_in_two_types, "tensors of different types cross"),
        (_with_a_number, "what crosses is no tensor"),
        (lambda net, x: net.b(net.c(net.a(x))), "nothing after it learns"),
        (lambda net, x: net.a(net.c(net.b(net.a(x)))), r"it divides the uses of a\.bias, a\.weight"),
    ],
)
def test_impossible_cut_is_refused_with_the_reason(
    forward: Callable[[Net, Tensor], Tensor], reason: str
) -> None:
    class Own(Net):
        def forward(self, x: Tensor) -> Tensor:
            return forward(self, x)

    with pytest.raises(UserError, match=f"model.cut=b: {reason}"):
        split(Own(), "b", torch.randn(3, 4))


def test_model_with_dropout_in_evaluation_is_split_and_draws_the_same() -> None:
    class Random(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.c(F.dropout(self.b(F.dropout(self.a(x)))))  # also in evaluation, as one forgets

    assert_the_halves_are_the_whole(Random(), "b", torch.randn(4, 4))


def test_tensor_made_in_the_forward_is_no_part_of_the_state_and_made_in_each_pass_where_it_changes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Constant(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.b(self.a(x)) * torch.arange(4))

    class Random(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.b(self.a(x)) + torch.rand(()))

    assert_the_halves_are_the_whole(Constant(), "a", torch.randn(3, 4))
    assert capsys.readouterr().err == ""
    whole, x = Random(), torch.randn(3, 4)
    halves = split(whole, "a", x)
    assert "model=Random: its forward makes a tensor that is another one every time; both halves run" in (
        capsys.readouterr().err
    )
    outputs = []
    for computed in (whole, lambda x: halves.server(halves.client(x))):
        torch.manual_seed(3)
        outputs.append(computed(x))
    assert torch.equal(*outputs)


def test_resnet_auxiliary_computes_layer3_pooling_and_a_linear_layer() -> None:
    whole, _ = build("resnet18")
    auxiliary = ResNetAuxiliary(smashed_shape=(128, 4, 4), num_classes=10)
    auxiliary.stage.load_state_dict(whole.layer3.state_dict())
    z = torch.randn(4, 128, 4, 4)
    expected = auxiliary.fc(whole.layer3(z).mean((2, 3)))
    torch.testing.assert_close(auxiliary(z), expected)


class _InPlace(nn.Module):
    """Its first operation after `conv` writes to what it is given, in one of the ways there are."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 2, 1), nn.Linear(32, 3)
        self.relu = nn.ReLU(inplace=True)
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        z = self.conv(x)
        match self.way:
            case "module":
                z = self.relu(z)
            case "keyword":
                z = F.relu(z, inplace=True)
            case "method":
                z = z.relu_()
            case "two users":
                z = z.relu_() + 2 * z
        logits: Tensor = self.fc(z.flatten(1))
        return logits


def _in_place(name: str) -> tuple[nn.Module, str, Tensor]:
    torch.manual_seed(0)
    if name == "resnet18":
        whole, x = build("resnet18")
        assert whole.relu.inplace
        return whole, "bn1", x
    return _InPlace(name), "conv", torch.randn(5, 1, 4, 4)


IN_PLACE = ["resnet18", "module", "keyword", "method", "two users"]


@pytest.mark.parametrize("name", long_but(lambda name: name != "resnet18", IN_PLACE))
def test_server_half_that_starts_in_place_trains_on_a_leaf_as_the_whole_does(name: str) -> None:
    whole, cut, x = _in_place(name)
    halves = split(whole, cut, x)
    sent = halves.client(x)
    z = sent.detach().clone().requires_grad_()
    assert z.is_leaf
    assert bool((z < 0).any())  # what the operation in place would change
    outputs = halves.server(z)
    assert torch.equal(outputs, whole(x))
    outputs.square().sum().backward()
    assert torch.equal(z, sent)
    assert z.grad is not None
    sent.backward(z.grad)  # the cut gradient goes back to the client
    whole.zero_grad()
    again, _, _ = _in_place(name)  # statistics as they were before any pass
    again.load_state_dict({**again.state_dict(), **dict(whole.named_parameters())})
    again(x).square().sum().backward()
    merged = dict(halves.client.named_parameters()) | dict(halves.server.named_parameters())
    for parameter_name, parameter in again.named_parameters():
        assert torch.equal(merged[parameter_name].grad, parameter.grad), parameter_name


@pytest.mark.parametrize("name", long_but(lambda name: name != "resnet18", IN_PLACE))
@pytest.mark.parametrize("training", [True, False])
def test_server_half_that_starts_in_place_leaves_smashed_data_unchanged(name: str, training: bool) -> None:
    whole, cut, x = _in_place(name)
    halves = split(whole, cut, x)
    halves.server.train(training)
    with torch.no_grad():
        z = halves.client(x)
        before = z.clone()
        first, second = halves.server(z), halves.server(z)
    assert torch.equal(z, before)
    assert torch.equal(first, second)


def test_server_half_in_place_on_a_view_leaves_smashed_data_unchanged() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Conv2d(1, 2, 1), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.relu_(self.body(x).flatten(1)))

    halves = split(Net(), "body", torch.randn(2, 1, 2, 2))
    z = torch.randn(4, 2, 2, 2, requires_grad=True)
    before = z.detach().clone()
    halves.server(z).sum().backward()
    assert torch.equal(z, before)
    assert z.grad is not None


@pytest.mark.parametrize(
    ("name", "cut", "shape"),
    [
        ("digits_cnn", "conv1", (8, 8, 8)),
        ("digits_cnn", "pool", (16, 4, 4)),
        ("digits_cnn", "flatten", (16, 4, 4)),
        ("digits_cnn", "relu3", (64,)),
        ("simple_conv", "flatten", (64, 8, 8)),
        ("simple_conv", "fc2", (192,)),
        pytest.param("resnet18", "bn1", (64, 16, 16), marks=pytest.mark.long),
        pytest.param("resnet18", "layer2", (128, 4, 4), marks=pytest.mark.long),
        pytest.param("resnet18", "avgpool", (512, 1, 1), marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("training", long_but([True], [True, False]))
def test_unflattened_shape_of_smashed_data_is_that_before_the_flattening(
    name: str, cut: str, shape: tuple[int, ...], training: bool
) -> None:
    whole, x = build(name)
    client = split(whole, cut, x).client.train(training)
    before = copy.deepcopy(client.state_dict())
    assert unflattened_shape(client, x) == shape
    assert unflattened_shape(client, x[:1]) == shape
    assert client.training is training
    assert all(torch.equal(value, before[key]) for key, value in client.state_dict().items())


class _Flattening(nn.Module):
    """Its smashed data are what `end` gives, after a convolution to `(4, 4, 4)`."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.conv, self.linear, self.end, self.fc = (
            nn.Conv2d(1, 4, 3, padding=1),
            nn.Linear(64, 64),
            nn.Dropout(),
            nn.Linear(64, 3),
        )
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        z = self.conv(x)
        match self.way:
            case "function":
                z = torch.flatten(z, 1)
            case "method":
                z = z.flatten(1)
            case "view":
                z = z.view(-1, 64)
            case "view of the batch's size":
                z = z.view(z.size(0), -1)
            case "reshape to the batch's shape":
                z = z.reshape(z.shape[0], -1)
            case "twice":
                z = z.flatten(2).flatten(1)
            case "behind an activation":
                z = F.relu(z.relu().flatten(1))
            case "of tokens":
                z = z.flatten(2).transpose(1, 2).flatten(1)
            case "behind a linear layer":
                z = z.flatten(1)
        if self.way not in ("behind a linear layer", "of tokens"):
            return self.fc(self.linear(self.end(z)))  # type: ignore[no-any-return]
        z = self.linear(z) if self.way == "behind a linear layer" else z
        return self.fc(self.end(z))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "way",
    [
        "function",
        "method",
        "view",
        "view of the batch's size",
        "reshape to the batch's shape",
        "twice",
        "behind an activation",
    ],
)
def test_unflattened_shape_is_found_for_every_way_to_flatten(way: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 1, 4, 4)
    client = split(_Flattening(way), "end", x).client.eval()
    assert client(x).shape == (2, 64)
    assert unflattened_shape(client, x) == (4, 4, 4)


def test_unflattened_shape_of_the_units_of_a_linear_layer_is_flat() -> None:
    x = torch.randn(2, 1, 4, 4)
    client = split(_Flattening("behind a linear layer"), "end", x).client
    assert unflattened_shape(client, x) == (64,)


def test_unflattened_shape_is_not_that_before_a_change_of_order() -> None:
    whole, x = _Flattening("of tokens"), torch.randn(2, 1, 4, 4)
    whole.linear = nn.Identity()  # type: ignore[assignment]
    client = split(whole, "end", x).client.eval()
    assert unflattened_shape(client, x) != (4, 4, 4)
    whole.eval()
    assert not torch.equal(client(x).view(2, 4, 4, 4), whole.conv(x))


def test_tensor_of_three_names_is_untied_into_three() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.third = (nn.Linear(3, 3) for _ in range(3))
            self.second.weight = self.third.weight = self.first.weight

    module = Shared()
    assert tied_groups(module) == [["first.weight", "second.weight", "third.weight"]]
    own = copy_without_ties(module)
    assert tied_groups(own) == []
    for name, tensor in own.state_dict().items():
        assert torch.equal(tensor, module.state_dict()[name])
