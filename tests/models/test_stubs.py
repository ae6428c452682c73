"""Halves that run a model's own code are the whole, and hold what it holds."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fedsplit.errors import UserError
from fedsplit.models.derived import DerivedAuxiliary
from fedsplit.models.splitting.cuts import evaluating, resolve_cut
from fedsplit.models.splitting.split import SplitModel, find_cuts, split
from fedsplit.models.splitting.tied import copy_without_ties
from fedsplit.models.splitting.unknown import ValuesElsewhere
from tests.cases import long_but
from tests.models.families import DECODERS, ENCODERS, TARGETS, adapted, decoder, encoder, tokens

EXAMPLE = tokens(2, 12)
SHAPES = ((2, 7), (3, 5), (4, 11), (1, 3))  # two that are probed, and two that are not
EVERY_RUN = ("gpt2", "llama", "distilbert")


def gradients(outputs: Tensor, *modules: nn.Module) -> dict[str, Tensor]:
    named = {name: p for each in modules for name, p in each.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(outputs.square().sum(), list(named.values()))
    return dict(zip(named, found, strict=True))


def assert_halves_are_the_whole(whole: nn.Module, halves: SplitModel, x: Tensor) -> None:
    with torch.random.fork_rng():
        whole.eval(), halves.client.eval(), halves.server.eval()
        expected, found = whole(x), halves.server(halves.client(x))
    assert torch.equal(expected, found)
    expected_gradients = gradients(expected, whole)
    found_gradients = gradients(found, halves.client, halves.server)
    assert expected_gradients.keys() == found_gradients.keys()
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(found_gradients[name], gradient, rtol=1e-6, atol=1e-6, msg=name)


def assert_keys_are_partitioned(whole: nn.Module, halves: SplitModel) -> None:
    keys = [*halves.client.state_dict(), *halves.server.state_dict()]
    assert len(keys) == len(set(keys))
    assert set(keys) == set(whole.state_dict())


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("family", long_but(EVERY_RUN, DECODERS))
def test_halves_of_a_decoder_are_the_whole_at_every_block(family: str, lora: bool) -> None:
    whole = adapted(decoder(family, tied=True)) if lora else decoder(family)
    blocks = [cut.name for cut in find_cuts(whole, EXAMPLE).stages()]
    assert len(blocks) == (2 if lora else 3)  # behind the last block, no adapter is left
    for cut in blocks:
        halves = split(whole, cut, EXAMPLE)
        assert_keys_are_partitioned(whole, halves)
        assert halves.padding == 0
        for shape in SHAPES:
            assert_halves_are_the_whole(whole, halves, tokens(*shape))


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("family", long_but(EVERY_RUN, DECODERS))
def test_head_of_a_decoder_gives_at_some_positions_what_it_gives_at_all(family: str, lora: bool) -> None:
    layers = {"gpt2": ["c_attn"], "gpt_neox": ["query_key_value"]}.get(family, ["q_proj", "v_proj"])
    whole = adapted(decoder(family), targets=[*layers, "lm_head"]) if lora else decoder(family)
    halves = split(whole, find_cuts(whole, EXAMPLE).stages()[0].name, EXAMPLE)
    whole.eval(), halves.server.eval()
    x, at = tokens(3, 5), torch.tensor([[0, 1, 1, 0, 0], [0, 0, 0, 0, 0], [1, 0, 0, 0, 1]], dtype=torch.bool)
    counted: list[int] = []
    halves.server.get_submodule("lm_head").register_forward_hook(
        lambda _, inputs, __: counted.append(inputs[0].shape[:-1].numel())
    )
    found, expected = halves.server(halves.client.eval()(x), at=at), whole(x)[at]
    assert counted == [4]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    theirs = gradients(expected, whole)
    for name, gradient in gradients(found, halves.client, halves.server).items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("family", long_but(EVERY_RUN, ENCODERS))
def test_halves_of_an_encoder_are_the_whole_on_padded_samples(family: str, lora: bool) -> None:
    whole = adapted(encoder(family), targets=TARGETS[family]) if lora else encoder(family)
    for cut in find_cuts(whole, EXAMPLE).stages():
        halves = split(whole, cut.name, EXAMPLE)
        assert_keys_are_partitioned(whole, halves)
        assert math.isnan(halves.padding)
        for samples, length in SHAPES:
            lengths = tuple(1 + (2 * row) % length for row in range(samples))
            assert_halves_are_the_whole(whole, halves, tokens(samples, length, lengths=lengths))


def test_padding_changes_no_output_of_an_encoder_and_gets_no_gradient() -> None:
    halves = split(encoder("distilbert"), "distilbert.transformer.layer.1", EXAMPLE)
    halves.client.eval(), halves.server.eval()
    short = tokens(2, 5)
    padded = nn.functional.pad(short, (0, 4), value=-1)
    z = halves.client(padded)
    assert bool(z[:, 5:].isnan().all())
    assert not bool(z[:, :5].isnan().any())
    leaf = z.detach().requires_grad_()
    outputs = halves.server(leaf)
    torch.testing.assert_close(outputs, halves.server(halves.client(short)))
    (dz,) = torch.autograd.grad(outputs.square().sum(), leaf)
    assert bool((dz[:, 5:] == 0).all())
    assert bool((dz[:, :5] != 0).any())


def test_encoder_cannot_be_cut_behind_its_pooling_where_texts_have_no_positions() -> None:
    whole = encoder("distilbert")
    with pytest.raises(UserError, match="cut=pre_classifier: what crosses has no positions, as texts have"):
        split(whole, "pre_classifier", EXAMPLE)


def test_smashed_data_of_an_encoder_that_are_no_number_are_not_taken_for_padding() -> None:
    halves = split(encoder("distilbert"), "distilbert.transformer.layer.1", EXAMPLE)
    z = torch.full_like(halves.client.eval()(EXAMPLE), math.nan)
    assert bool(halves.server.eval()(z).isnan().all())


def test_parameters_that_learn_and_are_tied_are_refused_and_frozen_ones_are_one_tensor_in_both_halves() -> (
    None
):
    whole = decoder("gpt2", tied=True)
    with pytest.raises(UserError, match=r"transformer.wte.weight and lm_head.weight are one and the same"):
        split(whole, "transformer.h.0", EXAMPLE)
    assert_keys_are_partitioned(whole, split(copy_without_ties(whole), "transformer.h.0", EXAMPLE))
    halves = split(adapted(whole), "transformer.h.0", EXAMPLE)
    held = (
        halves.client.state_dict()["transformer.wte.weight"],
        halves.server.state_dict()["lm_head.weight"],
    )
    assert held[0].data_ptr() == held[1].data_ptr()


def test_blocks_are_cuts_by_number_and_the_middle_one_is_chosen_by_itself() -> None:
    cuts = find_cuts(decoder("llama"), EXAMPLE)
    assert [resolve_cut(cuts, number, None) for number in (1, 2)] == ["model.layers.0", "model.layers.1"]
    assert resolve_cut(cuts, None, None) in ("model.layers.0", "model.layers.1")
    with pytest.raises(UserError, match=r"model.cut=4: must be from 1 to 3: model.layers.0, model.layers.1"):
        resolve_cut(cuts, 4, None)


@pytest.mark.parametrize(
    ("cut", "reason"),
    [
        ("lm_head", "nothing after it learns"),
        ("model.rotary_emb", "what crosses is no tensor, or several"),
        ("model.layers.0.self_attn", "not a part of this model"),
    ],
)
def test_cuts_where_more_than_smashed_data_would_cross_are_refused(cut: str, reason: str) -> None:
    with pytest.raises(UserError, match=f"model.cut={cut}: {reason}; possible cuts: .*model.layers.1"):
        split(decoder("llama"), cut, EXAMPLE)


class Branching(nn.Module):
    """Cannot be traced: it counts the samples in a loop of Python's."""

    def __init__(self, *, skip: bool = False, says_so: bool = True) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2)
        self.c, self.skip = nn.Linear(2, 3), skip
        self.halves_run_own_code = says_so

    def forward(self, x: Tensor) -> Tensor:
        first = self.a(x)
        y = self.b(first) + (first if self.skip else 0)
        logits: Tensor = self.c(torch.stack([each.mean((1, 2)) for each in y]))
        return logits


@pytest.mark.parametrize("says_so", [True, False])
def test_model_of_images_whose_code_cannot_be_traced_is_cut_between_its_submodules(
    says_so: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, x = Branching(says_so=says_so), torch.randn(2, 1, 4, 4)
    for cut in ("a", "b"):
        halves = split(whole, cut, x)
        assert_keys_are_partitioned(whole, halves)
        assert_halves_are_the_whole(whole, halves, torch.randn(5, 1, 4, 4))
        told = capsys.readouterr().err
        if says_so:
            assert not told
        else:
            assert told.startswith("note: model=Branching: its forward cannot be followed, for what it does ")
            assert told.endswith("); both halves run all of its code\n")


class Deciding(nn.Module):
    """Cannot be traced: it branches on values of its inputs, or of what crosses the cut behind `a`."""

    def __init__(self, by: str) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(4, 4) for _ in range(3))
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        if self.by == "inputs before" and x.sum() > 1e9:
            x = -x
        z = self.a(x)
        if self.by == "what crosses" and z.sum() > 1e9:
            z = -z
        if self.by == "what crosses, then inputs" and z.sum() > 1e9:
            z = z + x
        y: Tensor = self.c(self.b(z))
        if self.by == "inputs behind" and x.max() > 1e9:  # which no probe is
            y = -y
        return y


def test_model_that_branches_on_what_the_server_has_is_the_whole_on_both_branches() -> None:
    torch.manual_seed(0)
    whole = Deciding("what crosses")
    halves = split(whole, "a", torch.randn(2, 4))
    large = 1e12 * whole.a.weight.detach().sum(0, keepdim=True)  # whose smashed data are positive
    for x in (torch.randn(3, 4), large, -large):
        assert_halves_are_the_whole(whole, halves, x)


@pytest.mark.parametrize("by", ["inputs before", "inputs behind"])
def test_model_that_branches_on_what_only_the_client_has_is_refused_though_all_probes_branch_alike(
    by: str,
) -> None:
    told = "its forward cannot be followed.*; run as it is, its server half cannot be: __bool__ needs"
    with pytest.raises(UserError, match=f"model=Deciding: {told}"):
        split(Deciding(by), "a", torch.randn(2, 4))


def test_server_half_fails_in_the_first_pass_that_needs_what_only_the_client_has() -> None:
    torch.manual_seed(0)
    whole = Deciding("what crosses, then inputs")
    halves = split(whole, "a", torch.randn(2, 4))  # no probe takes that branch
    assert_halves_are_the_whole(whole, halves, torch.randn(3, 4))
    z = halves.client(1e12 * whole.a.weight.detach().sum(0, keepdim=True))
    with pytest.raises(ValuesElsewhere, match="its outputs need what only the client has"):
        halves.server(z)


def test_cut_behind_a_part_that_runs_twice_is_refused() -> None:
    class Twice(Branching):
        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.c(torch.stack([each.mean((1, 2)) for each in self.b(self.b(self.a(x)))]))
            return logits

    with pytest.raises(UserError, match=r"model\.cut=b: it runs more than once; possible cuts: a$"):
        split(Twice(), "b", torch.randn(2, 1, 4, 4))


def test_value_that_goes_past_the_cut_is_refused() -> None:
    with pytest.raises(UserError, match="outputs need what only the client has"):
        split(Branching(skip=True), "b", torch.randn(2, 1, 4, 4))


@pytest.mark.parametrize("build", [lambda: adapted(decoder("gpt2", tied=True)), lambda: decoder("opt")])
def test_derived_auxiliary_is_the_server_model_with_fewer_blocks(build: Callable[[], nn.Module]) -> None:
    whole = build()
    first = find_cuts(whole, EXAMPLE).stages()[0].name
    halves = split(whole, first, EXAMPLE)
    z = halves.client.eval()(EXAMPLE).detach()

    def auxiliary(depth: int) -> nn.Module:
        made = DerivedAuxiliary(
            smashed_shape=tuple(z.shape[1:]),
            num_classes=0,
            server=halves.server,
            crossing=halves.crossing,
            depth=depth,
        )
        return made.eval()

    halves.server.eval()
    whole_server, short = auxiliary(2), auxiliary(1)
    with evaluating(halves.server):
        assert torch.equal(whole_server(z), halves.server(z))
        assert not torch.equal(short(z), halves.server(z))
        assert short(tokens(3, 5).new_zeros(3, 5, z.shape[-1]).float()).shape[:2] == (3, 5)
    server = dict(halves.server.named_parameters())
    for name, own in short.named_parameters():
        original = server[name.removeprefix("trunk.")]
        assert torch.equal(own, original)
        assert (own.data_ptr() == original.data_ptr()) == (not original.requires_grad)
    learn = sum(p.numel() for p in short.parameters() if p.requires_grad)
    assert 0 < learn < sum(p.numel() for p in halves.server.parameters() if p.requires_grad)
