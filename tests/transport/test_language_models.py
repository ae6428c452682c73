"""Language models over gRPC: the bits of a local run, and base models that each machine has itself."""

import json
from pathlib import Path

import pytest
import torch

from fedsplit.building.process import prepare_process
from fedsplit.building.run import build_clients, carried_run, run_of_member
from fedsplit.errors import UserError
from fedsplit.recording.ledger import Ledger
from fedsplit.training.experiment import Experiment
from fedsplit.transport.grpc.client.client import TrainingClient
from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol.plan import choices_and_settings, tell_of_data
from tests.configurations import configuration
from tests.transport.runs import assert_same, ran
from tests.transport.weighing import ChunkWeigher, counted
from tests.warm import import_language_models

SIZES = "{hidden_size: 16, intermediate_size: 24, num_hidden_layers: 2, num_attention_heads: 2}"
RUN = (
    *("dataset=jsonl", "dataset.tokenizer=bytes", "dataset.context=24", "adapter=lora", "optimizer=adamw"),
    *("model=causal_lm", "num_clients=2", "batch_size=4", "rounds=2", "progress=false"),
    *("auxiliary.align_epochs=2", "auxiliary.max_dataset_size=8", "auxiliary.align_batch_size=4"),
)
LLAMA = ("model.architecture=llama", f"model.sizes={SIZES}")


@pytest.fixture
def texts(tmp_path: Path) -> str:
    """An override that names texts of many lengths."""
    for split, count in (("train", 12), ("test", 4)):
        lines = [{"context": f"{i} and {i}", "completion": "is " + "x" * (1 + i % 7)} for i in range(count)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return f"dataset.root={tmp_path}"


def built(*overrides: str) -> Experiment:
    config = configuration(*RUN, "engine=sequential", *overrides)
    prepare_process(config)
    return Experiment(config)


@pytest.mark.usefixtures("warm_processes")
@pytest.mark.parametrize(
    "overrides",
    [
        ["algorithm=fsl_sage", "quant=int8"],
        pytest.param(["algorithm=splitfed_v1"], marks=pytest.mark.long),
        pytest.param(["algorithm=fed_avg"], marks=pytest.mark.long),
    ],
    ids=" ".join,
)
def test_language_model_gives_the_same_over_both_transports_in_every_bit_and_byte(
    texts: str, tmp_path: Path, chunk_weigher: ChunkWeigher, overrides: list[str]
) -> None:
    import_language_models()
    local = ran(built(texts, *LLAMA, *overrides), tmp_path / "local")
    experiment = built(texts, *LLAMA, *overrides, "transport=grpc")
    grpc = ran(experiment, tmp_path / "grpc")
    assert_same(local, grpc)
    assert chunk_weigher.carried == counted(experiment)


def test_client_with_another_base_model_or_none_is_told_in_one_line(texts: str, tmp_path: Path) -> None:
    folders = [base_model(tmp_path / str(seed), seed) for seed in (0, 1)]
    config = configuration(*RUN, texts, f"model.name={folders[0]}", "transport=grpc")
    setting = carried_run(build_clients(config), Ledger())
    plan = choices_and_settings(setting.config)
    tell_of_data(plan, setting.dataset)
    plan.frozen_weights = setting.frozen_digest
    assert str(tmp_path).encode() not in plan.SerializeToString()

    def joins(**own: str) -> pb.Ready:
        given = {"dataset.root": str(tmp_path), "device": "cpu", **{f"model.{key}": own[key] for key in own}}
        client = TrainingClient(
            server="localhost:1",
            client=0,
            tls=None,
            folder=tmp_path / "client",
            own=given,
            build=run_of_member,
        )
        return client.joins(b"r" * 16, pb.Welcome(server=b"s" * 16, plan=plan))["ready"]

    assert joins(name=str(folders[0])).samples == setting.sample_counts[0]
    with pytest.raises(UserError, match="model=causal_lm: its parameters that do not learn are not those of"):
        joins(name=str(folders[1]))
    with pytest.raises(UserError, match=r"model.name=null: either model.name"):
        joins()


def base_model(folder: Path, seed: int) -> Path:
    """A folder with an untrained GPT-2."""
    from fedsplit.models.zoo.language_models import transformers  # noqa: PLC0415  (takes seconds)

    torch.manual_seed(seed)
    config = transformers().GPT2Config(vocab_size=300, n_positions=24, n_layer=2, n_embd=16, n_head=2)
    transformers().GPT2LMHeadModel(config).save_pretrained(folder)
    return folder
