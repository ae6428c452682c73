import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedsplit.errors import UserError
from fedsplit.models.digits_cnn import digits_cnn
from fedsplit.models.layout import unflattened
from fedsplit.models.resnet import ResNetAuxiliary, resnet18
from fedsplit.models.simple_conv import simple_conv
from fedsplit.models.split import split

MODELS = {
    "digits_cnn": (digits_cnn, 1, 8),
    "simple_conv": (simple_conv, 3, 32),
    "resnet18": (resnet18, 3, 32),
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
    ("resnet18", "conv1"),
    ("resnet18", "bn1"),
    ("resnet18", "layer1"),
    ("resnet18", "layer1.0"),
    ("resnet18", "layer2"),
    ("resnet18", "layer3.1"),
    ("resnet18", "avgpool"),
]


def build(name: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    make, channels, size = MODELS[name]
    return make(num_classes=10, channels=channels, image_size=size), torch.randn(4, channels, size, size)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("name", "cut"), CUTS)
def test_split_equals_unsplit_in_outputs_gradients_and_statistics(
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
def test_the_halves_own_all_parameters_once_and_share_none_with_the_original(name: str, cut: str) -> None:
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


def test_an_unknown_cut_lists_the_possible_ones() -> None:
    whole, x = build("resnet18")
    with pytest.raises(
        UserError, match=r"model.cut=layer9: not a part of this model; possible cuts: conv1, .*layer2,"
    ):
        split(whole, "layer9", x)


@pytest.mark.parametrize("cut", ["layer1.0.conv1", "fc"])
def test_a_cut_inside_a_residual_block_or_after_the_last_layer_is_refused(cut: str) -> None:
    whole, x = build("resnet18")
    with pytest.raises(UserError, match="one tensor must cross, and both halves must learn"):
        split(whole, cut, x)


def test_a_module_that_cannot_be_traced_is_refused() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x)) if x.sum() > 0 else self.b(x)

    with pytest.raises(UserError, match=r"model=Branches: a module that torch\.fx can trace"):
        split(Branches(), "a", torch.ones(2, 4))


def test_parameters_used_on_both_sides_or_on_none_are_refused() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.shared, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.shared(self.first(self.shared(x))))

    class Unused(Tied):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.first(x))

    x = torch.ones(2, 4)
    with pytest.raises(UserError, match=r"shared\.weight are used on both sides"):
        split(Tied(), "first", x)
    with pytest.raises(UserError, match=r"shared\.weight are used on no side"):
        split(Unused(), "first", x)


def test_the_auxiliary_model_of_resnet18_is_its_layer3_with_pool_and_fc() -> None:
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


@pytest.mark.parametrize("name", IN_PLACE)
def test_a_server_that_starts_in_place_trains_on_a_leaf_as_the_whole_does(name: str) -> None:
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


@pytest.mark.parametrize("name", IN_PLACE)
@pytest.mark.parametrize("training", [True, False])
def test_a_server_that_starts_in_place_can_be_given_the_same_data_twice(name: str, training: bool) -> None:
    whole, cut, x = _in_place(name)
    halves = split(whole, cut, x)
    halves.server.train(training)
    with torch.no_grad():
        z = halves.client(x)
        before = z.clone()
        first, second = halves.server(z), halves.server(z)
    assert torch.equal(z, before)
    assert torch.equal(first, second)


def test_in_place_through_a_view_of_the_smashed_data_leaves_it_alone_too() -> None:
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
        ("resnet18", "bn1", (64, 16, 16)),
        ("resnet18", "layer2", (128, 4, 4)),
        ("resnet18", "avgpool", (512, 1, 1)),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_smashed_data_of_the_models_have_the_shape_from_before_they_were_flattened(
    name: str, cut: str, shape: tuple[int, ...], training: bool
) -> None:
    whole, x = build(name)
    client = split(whole, cut, x).client.train(training)
    before = copy.deepcopy(client.state_dict())
    assert unflattened(client, x) == shape
    assert unflattened(client, x[:1]) == shape
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
def test_every_way_to_flatten_is_undone(way: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 1, 4, 4)
    client = split(_Flattening(way), "end", x).client.eval()
    assert client(x).shape == (2, 64)
    assert unflattened(client, x) == (4, 4, 4)


def test_units_of_a_linear_layer_were_never_flattened_though_its_inputs_were() -> None:
    x = torch.randn(2, 1, 4, 4)
    client = split(_Flattening("behind a linear layer"), "end", x).client
    assert unflattened(client, x) == (64,)


def test_smashed_data_in_another_order_do_not_take_the_shape_from_before() -> None:
    whole, x = _Flattening("of tokens"), torch.randn(2, 1, 4, 4)
    whole.linear = nn.Identity()  # type: ignore[assignment]
    client = split(whole, "end", x).client.eval()
    assert unflattened(client, x) != (4, 4, 4)
    whole.eval()
    assert not torch.equal(client(x).view(2, 4, 4, 4), whole.conv(x))
