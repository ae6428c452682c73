"""Runs of language models, exactly: against each other, a plain loop, closed forms, and what padding is."""

import gc
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fedsplit.building.process import prepare_process
from fedsplit.computing.model_state import travelling_tensors
from fedsplit.objectives.next_token import IGNORED, PADDING
from fedsplit.quant.codec import Quantizer
from fedsplit.recording.checkpoint import load_latest, save
from fedsplit.recording.ledger import DIRECTIONS, KINDS
from fedsplit.training.experiment import Experiment
from tests.cases import long_but
from tests.configurations import configuration
from tests.conftest import ALGORITHMS
from tests.oracles.hugging_face import Text, adapted_gpt2, train
from tests.texts import CONTEXT, VOCABULARY, of_texts
from tests.training.test_communication_load import closed_form
from tests.training.test_resume import bits, without_seconds

SIZES = {"n_layer": 2, "n_embd": 16, "n_head": 2}
OVERRIDES = (
    *(
        "model=tiny_gpt2",
        "model.sizes={n_layer: 2, n_embd: 16, n_head: 2}",
        "adapter=lora",
        "optimizer=adamw",
    ),
    *("num_clients=3", "batch_size=4", "progress=false", "auxiliary.align_epochs=2"),
    *("auxiliary.max_dataset_size=16", "auxiliary.align_batch_size=8", "optimizer.lr=0.01"),
)
NO_DROPOUT = ("+model.sizes.resid_pdrop=0", "+model.sizes.embd_pdrop=0", "+model.sizes.attn_pdrop=0")


def built(*overrides: str, samples: int = 40) -> Experiment:
    config = of_texts(configuration(*OVERRIDES, *overrides), samples=samples, context=3)
    prepare_process(config)
    return Experiment(config)


def _texts(x: Tensor, y: Tensor) -> list[Text]:
    """Whole texts of a batch, each with the length of its context."""
    found = []
    for tokens, labels in zip(x, y, strict=True):
        last = labels[labels != PADDING][-1:]
        text = [*tokens[tokens >= 0].tolist(), *last.tolist()]
        found.append((text, int((labels == IGNORED).sum()) + 1))
    return found


def halves(run: Experiment, *, training: bool = False) -> tuple[Any, Any]:
    return tuple(
        half.train(training) for half in (run.parts.models.halves.client, run.parts.models.halves.server)
    )


def test_splitfed_v1_gives_every_bit_of_fed_avg_with_dropout() -> None:
    one, other = (built(f"algorithm={name}", "engine=sequential") for name in ("fed_avg", "splitfed_v1"))
    for t in range(2):
        assert one.run_round(t).train_loss == other.run_round(t).train_loss
    expected, found = one.algorithm.full_weights(), other.algorithm.full_weights()
    assert expected.keys() == found.keys()
    assert [name for name, each in expected.items() if not torch.equal(each, found[name])] == []
    assert all("lora_" in name for name in found)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # asked by PEFT itself
def test_splitfed_v2_with_one_client_is_a_plain_loop_of_transformers_and_peft() -> None:
    run = built("algorithm=splitfed_v2", "num_clients=1", "adapter.dropout=0", *NO_DROPOUT)
    weights = {**halves(run)[0].state_dict(), **halves(run)[1].state_dict()}
    sizes = {**SIZES, "vocab_size": VOCABULARY, "n_positions": CONTEXT}
    model = adapted_gpt2(sizes, rank=4, alpha=32, weights=weights)
    batches = [_texts(x, y) for _, x, y in run.parts.batches(0).round(0)]
    assert len(batches) == 10
    run.run_round(0)
    learn = [parameter for parameter in model.parameters() if parameter.requires_grad]
    train(model, batches, torch.optim.AdamW(learn, lr=0.01, weight_decay=0.01))
    theirs = model.state_dict()
    for name, each in run.algorithm.full_weights().items():
        torch.testing.assert_close(each, theirs[f"base_model.model.{name}"], rtol=0, atol=1e-6, msg=name)


def test_run_of_texts_that_goes_on_is_the_run_that_was_never_stopped(tmp_path: Path) -> None:
    overrides = ("algorithm=fsl_sage", "algorithm.align_interval=2", "scheduler=warmup_linear", "rounds=3")
    straight = built(*overrides)
    for t in range(3):
        straight.records.append(straight.run_round(t))
        if t == 0:
            save(tmp_path / "checkpoint", straight.checkpoint())
    resumed, found = built(*overrides), load_latest(tmp_path / "checkpoint")
    assert found is not None
    resumed.restore(found)
    resumed.records.extend(resumed.run_round(t) for t in (1, 2))
    expected, actual = bits(straight), bits(resumed)
    assert expected.keys() == actual.keys()
    assert [name for name in expected if not torch.equal(expected[name], actual[name])] == []
    assert not [name for name in expected if "wte" in name or ".base_layer." in name]
    for ours, theirs in zip(resumed.records, straight.records, strict=True):
        assert without_seconds(ours.row()) == without_seconds(theirs.row())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_bytes_of_texts_count_real_positions_and_what_learns_alone(algorithm: str) -> None:
    own = [f"algorithm={algorithm}", "adapter.rank=2"]
    if algorithm in ("cse_fsl", "fsl_sage"):
        own.append("algorithm.server_update_interval=3")
    run = built(*own)
    lora = 4 * 2 * (16 + 48)  # two thin matrices beside the one of 16 x 48 in a block
    counts = [len(shard) for shard in run.parts.data.shards]
    batches = [[y for _, _, y in run.parts.batches(client).round(0)] for client in range(3)]
    real = [[int((y != PADDING).sum()) for y in each] for each in batches]
    samples = [[len(y) for y in each] for each in batches]
    lengths = run.parts.data.dataset.train.lengths - 1  # type: ignore[attr-defined]
    assert sum(map(sum, real)) == int(lengths.sum()) < CONTEXT * sum(counts)
    interval = 3 if algorithm in ("cse_fsl", "fsl_sage") else 1
    positions = sum(sum(each[::interval]) for each in real)
    expected = closed_form(
        algorithm, m=3, n=positions, u=positions, z=4 * 16, c=lora, s=lora, a=lora, aligning=3
    )
    if ("up", "labels") in expected:  # a byte a label and one a length
        expected["up", "labels"] += sum(sum(each[::interval]) for each in samples)
    record = run.run_round(0)
    counted = {(d, kind): record.bytes[d][kind] for d in DIRECTIONS for kind in KINDS}
    assert counted == dict.fromkeys(counted, 0) | expected


def test_padding_changes_no_loss_and_no_gradient() -> None:
    run = built("algorithm=splitfed_v1")
    client, server = halves(run)
    objective, (x, y) = run.parts.data.dataset.objective, run.parts.data.batch(6)
    learn = [each for half in (client, server) for each in half.parameters() if each.requires_grad]
    torch.manual_seed(0)
    for each in learn:
        torch.nn.init.normal_(each, std=0.1)

    def loss_and_gradients(x: Tensor, y: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        loss = objective.mean(server(client(x)), y)
        return loss.detach(), torch.autograd.grad(loss, learn)

    loss, gradients = loss_and_gradients(x, y)
    wide = loss_and_gradients(F.pad(x, (0, 1), value=-1), F.pad(y, (0, 1), value=PADDING))
    torch.testing.assert_close(wide, (loss, gradients), rtol=1e-6, atol=1e-7)
    sums = [torch.zeros(()), *map(torch.zeros_like, gradients)]
    terms = 0
    for tokens, labels in zip(x, y, strict=True):
        real = labels != PADDING
        own, grown = loss_and_gradients(tokens[real][None], labels[real][None])
        weight = int((labels >= 0).sum())
        terms += weight
        sums = [each + weight * one for each, one in zip(sums, (own, *grown), strict=True)]
    alone = [each / terms for each in sums]
    torch.testing.assert_close(alone, [loss, *gradients], rtol=1e-5, atol=1e-7)


def test_padding_changes_no_byte_and_no_range_of_a_codec() -> None:
    run = built("algorithm=splitfed_v1", "quant=int8")
    codecs, (x, y) = run.parts.quantization, run.parts.data.batch(6)
    z = halves(run)[0](x).detach()
    garbage = torch.where((y == PADDING)[..., None], 1e4, z)
    wide, labels = F.pad(garbage, (0, 0, 0, 3), value=1e4), F.pad(y, (0, 3), value=PADDING)
    sent, padded = (
        codecs.smashed.transmit(codecs.positions.pack(*each), seed=1).message
        for each in ((z, y), (wide, labels))
    )
    assert sent is not None
    assert padded is not None
    assert sent.payload == padded.payload
    one, other = (run.parts.data.dataset.objective.labels().encode(each) for each in (y, labels))
    assert one.payload == other.payload


def test_targets_are_predicted_alone_where_contexts_are_given() -> None:
    run = built("algorithm=splitfed_v1")
    objective, y = run.parts.data.dataset.objective, run.parts.data.batch(5)[1]
    logits = torch.randn(*y.shape, VOCABULARY, generator=torch.Generator().manual_seed(0), requires_grad=True)
    total = objective.total(logits, y)
    ends = (y != PADDING).sum(1).tolist()
    pairs = [(row, place) for row, end in enumerate(ends) for place in range(2, end)]  # a context of three
    expected = -sum(logits[row, place].log_softmax(0)[y[row, place]] for row, place in pairs)
    torch.testing.assert_close(total, expected)
    assert objective.terms(y) == len(pairs)
    (gradient,) = torch.autograd.grad(total, logits)
    assert sorted(set(map(tuple, gradient.any(2).nonzero().tolist()))) == sorted(pairs)
    assert torch.equal(objective.total(logits, y.masked_fill(y == IGNORED, PADDING)), total)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_head_is_computed_at_targets_alone_in_steps_alignments_and_evaluations(algorithm: str) -> None:
    own = ["algorithm.server_update_interval=2"] if algorithm in ("cse_fsl", "fsl_sage") else []
    own += ["algorithm.align_interval=1", "auxiliary.max_dataset_size=4"] if algorithm == "fsl_sage" else []
    run = built(f"algorithm={algorithm}", *own, "auxiliary.align_epochs=1", samples=24)
    dataset, models = run.parts.data.dataset, (run.parts.models.halves.server, run.parts.models.auxiliary)
    run.run_round(0)  # also measures what a client costs, by steps of its own
    positions = [0, 0]

    def watch(number: int, model: torch.nn.Module) -> None:
        def count(_: object, inputs: tuple[Tensor, ...], __: object) -> None:
            positions[number] += inputs[0].shape[:-1].numel()

        head = next(part for name, part in model.named_modules() if name.endswith("lm_head"))
        head.register_forward_hook(count)

    for number, model in enumerate(filter(None, models)):
        watch(number, model)
    batches = [[y for _, _, y in run.parts.batches(client).round(1)] for client in range(3)]
    targets = [[int((y >= 0).sum()) for y in each] for each in batches]
    evaluated = int((dataset.test.labels_at(slice(None)) >= 0).sum())
    every, uploaded = sum(map(sum, targets)), sum(sum(each[::2]) for each in targets)
    aligned = sum(each[0] for each in targets)  # on the first batch of each client, once
    run.run_round(1)
    assert positions == {
        "cse_fsl": [uploaded + evaluated, every],
        "fsl_sage": [uploaded + aligned + evaluated, every + aligned],
    }.get(algorithm, [every + evaluated, 0])


def storages() -> dict[int, int]:
    """Bytes of the memory of all tensors that are alive, by where it is."""
    gc.collect()
    alive = [each for each in gc.get_objects() if type(each) in (Tensor, torch.nn.Parameter)]
    return {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in alive}


@pytest.mark.parametrize("algorithm", long_but(["splitfed_v1"], ["fed_avg", "splitfed_v1", "fsl_sage"]))
def test_further_client_costs_adapters_and_their_optimizer_state_alone(algorithm: str) -> None:
    taken = []
    built(f"algorithm={algorithm}", "engine=sequential").run_round(0)  # what a process then keeps for good
    for clients in (2, 5):
        before = storages()
        run = built(f"algorithm={algorithm}", f"num_clients={clients}", "engine=sequential")
        run.run_round(0)
        taken.append(sum(size for place, size in storages().items() if place not in before))
    a_client = travelling_tensors(run.parts.models.halves.client)
    head = run.parts.engine.blueprint.head
    if head is not None:
        a_client = {**a_client, **travelling_tensors(head)}
    adapters = sum(each.nbytes for each in a_client.values())
    assert 0 < (taken[1] - taken[0]) / 3 < 3 * (adapters + 2 * adapters)


def test_frozen_tensors_are_the_same_bits_in_one_place_for_all_clients() -> None:
    run = built("algorithm=fsl_sage", "engine=sequential")
    frozen = {
        name: (each, each.data_ptr(), each.detach().clone())
        for half in (*halves(run, training=True), run.parts.models.auxiliary)
        for name, each in half.named_parameters()
        if not each.requires_grad
    }
    seen: dict[str, set[int]] = {}
    body = run.parts.engine.blueprint.body
    handles = [
        part.register_forward_pre_hook(
            lambda part, _, name=name: seen.setdefault(name, set()).add(part.weight.data_ptr())
        )
        for name, part in body.named_modules()
        if name.endswith("base_layer") or name == "transformer.wte"
    ]
    run.run_round(0)
    for handle in handles:
        handle.remove()
    assert len(seen) == 2
    assert {len(places) for places in seen.values()} == {1}
    for name, (each, place, copy) in frozen.items():
        assert each.data_ptr() == place, name
        assert torch.equal(each, copy), name


def test_int8_keeps_other_features_at_35_db_beside_an_outlier_in_a_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = built("algorithm=splitfed_v2", "quant=int8", "engine=sequential")
    client = run.parts.models.halves.client
    outlier = 5
    for name in ("transformer.wte.weight", "transformer.wpe.weight"):
        client.get_parameter(name).data[:, outlier] *= 100
    seen: list[tuple[Tensor, Tensor]] = []
    simulate = Quantizer.simulate

    def watched(codec: Quantizer[Any], x: Tensor, *, seed: int) -> Any:
        found = simulate(codec, x, seed=seed)
        if x.shape[1:] == (16,) and len(x) > 8:  # positions of a batch, and no thin matrix
            seen.append((x, found.decoded))
        return found

    monkeypatch.setattr(Quantizer, "simulate", watched)
    run.run_round(0)
    steps = sum(run.parts.batches(each).steps for each in range(3))
    assert len(seen) == 2 * steps  # smashed data and cut gradients in turn
    for meant, decoded in seen[::2]:
        others = [feature for feature in range(16) if feature != outlier]
        assert meant[:, outlier].abs().max() > 20 * meant[:, others].abs().max()
        error = (decoded - meant)[:, others].square().sum()
        assert 10 * math.log10(meant[:, others].square().sum() / error) >= 35
