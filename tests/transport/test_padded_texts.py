"""What crosses the cut of texts of many lengths: real positions alone, the same over both transports."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedsplit.algorithms.round_load import Population, RoundLoad
from fedsplit.building.process import prepare_process
from fedsplit.config.choices import user_choices
from fedsplit.config.compose import compose_config, composing, run_config
from fedsplit.data.texts import Texts
from fedsplit.errors import UserError
from fedsplit.objectives.next_token import PADDING
from fedsplit.parties.messages import Upload
from fedsplit.quant.coded import SentTensor
from fedsplit.quant.message import Corrupt
from fedsplit.recording.ledger import Ledger
from fedsplit.training.experiment import Experiment
from fedsplit.transport.grpc.client.worker import Worker
from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol.expectations import Expectations
from fedsplit.transport.grpc.protocol.frames import decode_tensors
from fedsplit.transport.grpc.protocol.packing import pack
from fedsplit.transport.grpc.server.hub import Hub
from fedsplit.transport.grpc.server.streams import expected_tensors
from tests.conftest import METHODS, Build
from tests.transport.padded_texts import CONTEXT, FEATURES, choices
from tests.transport.runs import assert_same, ran
from tests.transport.weighing import ChunkWeigher, counted

RUN = b"r" * 16
SETTINGS = (
    *("dataset=random_texts", "model=tiny_causal", "auxiliary=tiny_head", "num_clients=3", "batch_size=4"),
    *("rounds=2", "progress=false", "engine=sequential", "algorithm.server_update_interval=2"),
)


@pytest.fixture
def texts(tmp_path: Path) -> Iterator[Build]:
    """Builds a tiny run on texts from further overrides."""

    def build(*overrides: str) -> Experiment:
        own = [each for each in SETTINGS if "cse_fsl" in overrides[0] or "interval" not in each]
        with composing():
            config = run_config(compose_config([*own, *overrides]))
        prepare_process(config)
        return Experiment(config)

    with user_choices(choices(tmp_path / "choices")):
        yield build


def real_positions(run: Experiment) -> int:
    """Positions of all training texts: a token less than they have."""
    train = run.parts.data.dataset.train
    return int((train.lengths - 1).sum())  # type: ignore[attr-defined]


@pytest.mark.parametrize("algorithm", ["splitfed_v1", "splitfed_v2"])
def test_bytes_of_texts_are_those_of_real_positions_with_a_length_a_sample(
    texts: Build, algorithm: str
) -> None:
    run = texts(f"algorithm={algorithm}")
    record, positions = run.run_round(0), real_positions(run)
    assert record.bytes["up"]["smashed"] == 4 * FEATURES * positions
    assert record.bytes["down"]["cut_gradient"] == 4 * FEATURES * positions
    assert record.bytes["up"]["labels"] == 2 * positions + 50
    assert torch.tensor(record.train_loss).isfinite()


def test_padding_counts_in_no_norm_of_a_defence_and_gets_no_noise(texts: Build) -> None:
    run = texts("algorithm=splitfed_v1", "defence=gaussian", "defence.clip=1", "defence.sigma=0.5")
    calm = texts("algorithm=splitfed_v1", "defence=gaussian", "defence.clip=1", "defence.sigma=0")
    y = torch.tensor([[3, 1, PADDING, PADDING], [2, 5, 4, PADDING]])
    real = (y != PADDING)[:, :, None]
    z = torch.randn(2, 4, FEATURES, generator=torch.Generator().manual_seed(0)) * real
    behind = torch.where(real, z, torch.tensor(1e6))
    for each in (run, calm):
        released = each.evaluation.blueprint.release
        clean, other = (released(Upload(0, 0, values, y), 0).z for values in (z, behind))
        assert torch.equal(clean * real, other * real)
        assert not (clean * ~real).any()
    torch.testing.assert_close(clean.flatten(1).norm(dim=1), torch.ones(2))


def test_closed_form_of_a_round_of_texts_is_what_the_ledger_counts(texts: Build) -> None:
    run = texts("algorithm=splitfed_v1")
    lengths = run.parts.data.dataset.train.lengths - 1  # type: ignore[attr-defined]
    terms = RoundLoad(
        population=Population(
            samples=run.parts.sample_counts,
            cohort=3,
            batch_size=4,
            local_epochs=1,
            server_update_interval=1,
            align_interval=1,
            labels=run.parts.data.dataset.objective.labels(),
            positions=[int(lengths[shard].sum()) for shard in run.parts.data.shards],
        ),
        quantization=run.parts.quantization,
        smashed_shape=(CONTEXT, FEATURES),
        client=run.parts.models.halves.client.state_dict(),
        server={},
        auxiliary={},
    )
    assert run.parts.algorithm.round_load(terms) == sum(run.run_round(0).bytes["up"].values()) + sum(
        run.ledger.of_round(0)["down"].values()
    )


@pytest.mark.usefixtures("warm_processes")
@pytest.mark.parametrize(
    "overrides",
    [
        ["algorithm=splitfed_v2", "quant=int8", "defence=gaussian", "defence.clip=5"],
        pytest.param(["algorithm=splitfed_v1"], marks=pytest.mark.long),
        pytest.param(["algorithm=splitfed_v1", "quant=thrifty"], marks=pytest.mark.long),
        pytest.param(["algorithm=cse_fsl", "quant=int4", "quant.continue_from_decoded=true"]),
        pytest.param(["algorithm=ho_sfl", "quant=int8"], marks=pytest.mark.long),
    ],
    ids=" ".join,
)
def test_texts_give_the_same_over_both_transports_in_every_bit_and_byte(
    texts: Build, tmp_path: Path, chunk_weigher: ChunkWeigher, overrides: list[str]
) -> None:
    local = ran(texts(*overrides), tmp_path / "local")
    experiment = texts(*overrides, "transport=grpc")
    grpc = ran(experiment, tmp_path / "grpc")
    assert_same(local, grpc)
    assert chunk_weigher.carried == counted(experiment)


@pytest.mark.parametrize(
    ("z", "y", "due"),
    [
        ((9, FEATURES), (4, 5), True),
        ((20, FEATURES), (4, 5), True),
        ((21, FEATURES), (4, 5), False),
        ((3, FEATURES), (4, 5), False),
        ((9, FEATURES), (4, CONTEXT + 1), True),
        ((4 * CONTEXT + 1, FEATURES), (4, CONTEXT + 1), False),
        ((), (4, 5), False),
        ((9, FEATURES), (4,), False),
    ],
)
def test_upload_of_texts_has_no_more_positions_than_a_batch_can(
    texts: Build, z: tuple[int, ...], y: tuple[int, ...], *, due: bool
) -> None:
    expectations = Expectations(texts("algorithm=splitfed_v1").transport.run)
    announced = [pb.Tensor(shape=z), pb.Tensor(shape=y)]
    if due:
        assert [each.shape for each in expectations.upload(4, announced)] == [z, y]
    else:
        with pytest.raises(Corrupt, match="no batch of 4 samples"):
            expectations.upload(4, announced)
    with pytest.raises(Corrupt, match="no batch of 4 samples"):
        expectations.upload(4, announced[:1])


def test_smashed_data_of_other_positions_than_their_labels_are_refused(texts: Build) -> None:
    run = texts("algorithm=splitfed_v1")
    expectations = Expectations(run.transport.run)
    y = run.parts.data.batch(4)[1]
    real = int((y != PADDING).sum())
    expectations.check_positions(torch.zeros(real, FEATURES), y)
    with pytest.raises(Corrupt, match=f"smashed data of {real - 1} positions"):
        expectations.check_positions(torch.zeros(real - 1, FEATURES), y)
    (expected,) = expectations.cut_gradient([], y)
    assert expected.shape == (real, FEATURES)
    with pytest.raises(Corrupt, match="no batch waits"):
        expectations.cut_gradient([pb.Tensor(shape=(real, FEATURES))])


def test_padding_changes_no_loss_and_no_cut_gradient(texts: Build) -> None:
    run = texts("algorithm=splitfed_v1")
    halves, objective = run.parts.models.halves, run.parts.data.dataset.objective
    x, y = run.parts.data.batch(6)
    with torch.no_grad():
        z = halves.client.eval()(x)

    def loss_and_gradient(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        z = z.clone().requires_grad_()
        loss = objective.mean(halves.server(z), y)
        return loss.detach(), torch.autograd.grad(loss, z)[0]

    loss, gradient = loss_and_gradient(z, y)
    garbage = torch.where((y == PADDING)[..., None], 1e3, z)
    wide, labels = F.pad(garbage, (0, 0, 0, 3), value=7.0), F.pad(y, (0, 3), value=PADDING)
    wide_loss, wide_gradient = loss_and_gradient(wide, labels)
    torch.testing.assert_close(wide_loss, loss)
    real = y != PADDING
    torch.testing.assert_close(wide_gradient[:, : y.shape[1]][real], gradient[real])
    assert not gradient[~real].any()


def test_int8_keeps_features_of_a_model_at_35_db_beside_an_outlier_of_a_hundred_times(texts: Build) -> None:
    run = texts("algorithm=splitfed_v1", "quant=int8")
    client, (x, y) = run.parts.models.halves.client.eval(), run.parts.data.batch(40)
    with torch.no_grad():
        next(each for each in client.parameters() if each.shape == (FEATURES, FEATURES))[3] *= 100
        z = client(x)
    decoded = run.parts.quantization.simulate_smashed(z, y, 0)
    others = [feature for feature in range(FEATURES) if feature != 3]
    meant, seen = z[y != PADDING][:, others], decoded[y != PADDING][:, others]
    assert z[..., 3].abs().max() > 20 * meant.abs().max()
    assert 10 * (meant.square().sum() / (seen - meant).square().sum()).log10() >= 35


@pytest.mark.parametrize("quant", ["none", "int8"])
def test_messages_of_texts_are_decoded_as_a_local_transport_simulates_them(
    texts: Build, tmp_path: Path, quant: str
) -> None:
    run = texts("algorithm=splitfed_v2", f"quant={quant}")
    setting = run.transport.run
    expectations, counts = Expectations(setting), setting.sample_counts
    hub = Hub(run=RUN, clients=1, expectations=expectations, sample_counts=counts[:1], ledger=Ledger())
    worker = Worker(setting, 0, tmp_path, RUN.hex())
    hub.begin(0, [0], {})
    worker.answer(hub._sessions[0].pending.verb)  # type: ignore[union-attr]
    hub.ask(0, forward=pb.Forward())
    pending = hub._sessions[0].pending
    assert pending is not None
    sent, _ = worker.answer(pending.verb)
    came = decode_tensors(sent, expected_tensors(pending, sent.head, expectations, counts[0]))
    cohort = run.transport.cohort(0, [0])  # type: ignore[attr-defined]
    (upload,) = cohort.forward(0)
    assert torch.equal(upload.y, came["y"])
    assert torch.equal(upload.z, expectations.positions.pad(came["z"], came["y"]))
    assert not upload.z[upload.y == PADDING].any()
    bytes_up = setting.ledger.of_round(0)["up"]
    assert [tensor.size for tensor in sent.head.tensors] == [bytes_up["smashed"], bytes_up["labels"]]
    assert [len(payload) for payload in sent.payloads] == [bytes_up["smashed"], bytes_up["labels"]]
    codec, dz = setting.quantization.cut_gradient, torch.randn(upload.z.shape)
    meant = expectations.positions.pack(dz, upload.y)
    coded = SentTensor(meant, codec.transmit(meant, seed=1))
    number = expectations.cut_number("cut_gradient")
    hub.ask(0, backward=pb.Backward(), tensors=[pack("dz", number, coded)])
    verb = hub._sessions[0].pending.verb  # type: ignore[union-attr]
    assert worker.admit(verb.head)
    (done,) = worker.answer(verb)
    assert done.head.WhichOneof("content") == "done"


def test_gradient_that_clients_share_is_refused_for_texts_of_many_lengths(texts: Build) -> None:
    with pytest.raises(
        UserError, match=r"algorithm\.phi=0\.5: must be 0: cut gradients of texts of many lengths"
    ):
        texts("algorithm=sglr")
    assert texts("algorithm=sglr", "algorithm.phi=0").run_round(0).copies == 0


@pytest.mark.parametrize("algorithm", ["minibatch_sfl", "cycle_sl", "ampere"])
def test_texts_of_many_lengths_are_pooled_as_if_all_were_padded_to_the_longest(
    texts: Build, monkeypatch: pytest.MonkeyPatch, algorithm: str
) -> None:
    """A client's cut gradients and bytes are those of its own positions alone."""
    rounds = [f"algorithm={algorithm}", *METHODS[algorithm]]
    ours, theirs = texts(*rounds), texts(*rounds)
    for run in (ours, theirs):
        for half in (run.parts.models.halves.client, run.parts.models.halves.server):
            for dropout in [each for each in half.modules() if isinstance(each, nn.Dropout)]:
                dropout.p = 0.0  # it draws a number for each position
    records = [ours.run_round(t) for t in range(2)]
    positions_of = Texts._positions

    def padded(self: Texts, index: Tensor | slice) -> Tensor:
        own = positions_of(self, index)
        return F.pad(own, (0, CONTEXT - own.shape[1]), value=-1)

    monkeypatch.setattr(Texts, "_positions", padded)
    for t, record in enumerate(records):
        again = theirs.run_round(t)
        assert again.train_loss == pytest.approx(record.train_loss, rel=1e-5)
        assert again.bytes == record.bytes
    for name, tensor in ours.algorithm.full_weights().items():
        torch.testing.assert_close(theirs.algorithm.full_weights()[name], tensor, rtol=1e-4, atol=1e-5)
