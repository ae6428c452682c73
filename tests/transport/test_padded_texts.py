"""What crosses the cut of texts of many lengths: real positions alone, the same over both transports."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fedsplit.algorithms.round_load import Population, RoundLoad
from fedsplit.building.process import prepare_process
from fedsplit.config.choices import own_choices
from fedsplit.config.compose import composed, composing, run_config
from fedsplit.training.experiment import Experiment
from tests.conftest import Build
from tests.transport.padded_texts import CONTEXT, FEATURES, choices
from tests.transport.runs import assert_same, ran
from tests.transport.weighing import ChunkWeigher, counted

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
            config = run_config(composed([*own, *overrides]))
        prepare_process(config)
        return Experiment(config)

    with own_choices(choices(tmp_path / "choices")):
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


@pytest.mark.usefixtures("warm_clients")
@pytest.mark.parametrize(
    "overrides",
    [
        ["algorithm=splitfed_v2", "quant=int8"],
        pytest.param(["algorithm=splitfed_v1"], marks=pytest.mark.long),
        pytest.param(["algorithm=splitfed_v1", "quant=thrifty"], marks=pytest.mark.long),
        pytest.param(["algorithm=cse_fsl", "quant=int4", "quant.continue_from_decoded=true"]),
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
