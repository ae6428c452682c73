"""Runs whose client models are trained with quantization in mind: qat, weight_bits and run."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import fx, nn

from fedsplit.building.trained_start import TrainedStart
from fedsplit.errors import UserError
from fedsplit.models.rounding.fake_quantization import FakeQuantizedConv2d, FakeQuantizedLinear, weights_of
from fedsplit.models.rounding.int8_graph import int8_graph
from fedsplit.parties.sequential import Sequential
from fedsplit.recording.checkpoint import load_latest, save
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.tasks.task import go_on
from fedsplit.training.experiment import Experiment
from tests.conftest import ALGORITHMS, Build, Configure
from tests.training.test_communication_load import closed_form, uploaded_samples
from tests.training.test_quantized_runs import NORMED
from tests.training.test_resume import bits, without_seconds
from tests.transport.runs import assert_same

ROUNDED = ["qat=true", "qat=true weight_bits=4", *(f"weight_bits={width}" for width in (16, 8, 4, 2, 1))]
SMALL = [
    *("dataset.max_train=20", "dataset.max_test=10", "num_clients=2", "batch_size=5"),
    *("auxiliary.align_epochs=2", "rounds=2"),
]
RANGE = 4 + 4 + 8
"""Bytes of a range: two numbers and a counter."""


def state_after_rounds(run: Experiment) -> dict[str, torch.Tensor]:
    for t in range(run.limits.rounds):
        run.records.append(run.run_round(t))
    return bits(run)


@pytest.mark.cover(1)
@pytest.mark.parametrize("rounded", ROUNDED)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_algorithm_trains_a_fake_quantized_client_model_reproducibly(
    tiny: Build, algorithm: str, rounded: str
) -> None:
    run = tiny(f"algorithm={algorithm}", *SMALL, *rounded.split())
    before = run.algorithm.full_weights()
    once = state_after_rounds(run)
    after = run.algorithm.full_weights()
    still = [name for name in after if torch.equal(after[name], before[name])]
    assert all("relu" in name and name.endswith("running_min") for name in still)  # nothing is below 0
    assert isinstance(run.parts.engine, Sequential)
    again = state_after_rounds(Experiment(run.config))
    assert all(torch.equal(once[name], again[name]) for name in once)
    plain = Experiment(run.config.with_changes({"qat": False, "weight_bits": None}))
    state_after_rounds(plain)
    exact = plain.algorithm.full_weights()
    assert not all(torch.equal(tensor, after[name]) for name, tensor in exact.items())
    halves = run.parts.models.halves
    assert not any(_rounds(each) for each in halves.server.modules())
    layers = [each for each in halves.client.modules() if _rounds(each)]
    assert len(layers) == 2
    if "weight_bits" in rounded:
        width = int(rounded.partition("weight_bits=")[2])
        for layer in layers:
            assert isinstance(layer, FakeQuantizedConv2d | FakeQuantizedLinear)
            assert all(len(torch.unique(row)) <= 2**width for row in weights_of(layer).codes)


def _rounds(module: nn.Module) -> bool:
    return isinstance(module, FakeQuantizedConv2d | FakeQuantizedLinear)


def test_client_model_without_qat_and_weight_bits_is_not_fake_quantized(tiny: Build) -> None:
    parts = tiny("engine=sequential").parts
    kinds = {type(each).__module__ for each in parts.models.halves.client.modules()}
    assert not any("fake_quantization" in kind for kind in kinds)
    assert not any("range" in name for name in parts.algorithm.full_weights())


@pytest.mark.parametrize("algorithm", ["fsl_sage", "splitfed_v1"])
def test_checkpoint_of_quantization_aware_training_resumes_to_the_same_bits(
    tiny: Build, tmp_path: Path, algorithm: str
) -> None:
    overrides = [f"algorithm={algorithm}", "qat=true", "quant=int8", *NORMED, *SMALL, "rounds=3"]
    straight = tiny(*overrides)
    for t in range(3):
        straight.records.append(straight.run_round(t))
        if t == 0:
            save(tmp_path / "checkpoint", straight.checkpoint())
    resumed = tiny(*overrides)
    found = load_latest(tmp_path / "checkpoint")
    assert found is not None
    resumed.restore(found)
    for t in (1, 2):
        resumed.records.append(resumed.run_round(t))
    expected, actual = bits(straight), bits(resumed)
    assert expected.keys() == actual.keys()
    assert [name for name in expected if not torch.equal(expected[name], actual[name])] == []
    rows = [[without_seconds(record.row()) for record in run.records] for run in (straight, resumed)]
    assert rows[0] == rows[1]


def test_activation_ranges_are_averaged_like_weights_and_counters_take_the_largest(tiny: Build) -> None:
    run = tiny("algorithm=fed_avg", "qat=true", "distribution=quantity_skew")
    run.run_round(0)
    kept = run.parts.engine.weights("client", range(3))
    counts = run.parts.sample_counts
    assert len(set(counts)) == 3
    averaged = run.algorithm.full_weights()
    ranges = [name for name in averaged if name.startswith("activation_ranges.")]
    assert len(ranges) == 9
    for name in ranges:
        values = [each[name].item() for each in kept]
        if name.endswith("num_batches_tracked"):
            assert averaged[name].item() == max(values)
            assert len(set(values)) > 1
        else:
            mean = sum(n * value for n, value in zip(counts, values, strict=True)) / sum(counts)
            assert averaged[name].item() == pytest.approx(mean, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_bytes_of_quantization_aware_training_are_the_closed_form_with_ranges(
    tiny: Build, algorithm: str
) -> None:
    run = tiny(f"algorithm={algorithm}", "qat=true")
    z, a = 4 * 256, 4 * (256 * 10 + 10)
    c, s = 4 * (8 * 9 + 8 + 16 * 8 * 9 + 16) + 3 * RANGE, 4 * (256 * 64 + 64 + 64 * 10 + 10)
    counts = run.parts.sample_counts
    n, u = sum(counts), sum(uploaded_samples(each, 8, 5, 1) for each in counts)
    run.run_round(0)
    form = closed_form(algorithm, m=3, n=n, u=u, z=z, c=c, s=s, a=a, aligning=3)
    found = {(d, kind): size for d, kinds in run.ledger.of_round(0).items() for kind, size in kinds.items()}
    assert {key: size for key, size in found.items() if size} == form


@torch.no_grad()
def test_int8_model_is_as_accurate_as_the_trained_one(tiny: Build) -> None:
    run = tiny(
        *("algorithm=splitfed_v1", "qat=true", "rounds=6", "batch_size=16"),
        *("dataset.max_train=900", "dataset.max_test=270"),
    )
    for t in range(6):
        with torch.enable_grad():
            run.run_round(t)
    full, halves, data = run.algorithm.full_weights(), run.parts.models.halves, run.parts.data
    for half in (halves.client, halves.server):
        half.load_state_dict({name: full[name] for name in half.state_dict()})
        half.eval()
    assert isinstance(halves.client, fx.GraphModule)
    both, every = (data.dataset.test, data.dataset.train), slice(None)
    x, y = (
        torch.cat(of) for of in zip(*((s.inputs_at(every), s.labels_at(every)) for s in both), strict=True)
    )
    trained, converted = (halves.server(client(x)) for client in (halves.client, int8_graph(halves.client)))
    assert torch.equal(trained[:270], run.evaluate.logits(full))
    accuracies = [(logits.argmax(1) == y).double().mean().item() for logits in (trained, converted)]
    assert abs(accuracies[1] - accuracies[0]) <= 0.002
    assert accuracies[0] > 0.85
    assert (converted - trained).abs().max() < 0.02 * trained.abs().max()


def directory_of_finished(run: Experiment, directory: Path) -> str:
    """The directory of a run that has ended."""
    run.run(RunDirectory.new(directory, "hydra.run.dir"))
    return str(directory)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["algorithm=fed_avg"], ["algorithm=cse_fsl", "qat=true"]),
        (["algorithm=cse_fsl", "qat=true"], ["algorithm=cse_fsl", "qat=true"]),
        (["algorithm=cse_fsl", "qat=true"], ["algorithm=splitfed_v2"]),
        pytest.param(
            ["model.cut=conv1"],
            ["algorithm=fed_avg", "model.cut=pool", "weight_bits=2"],
            marks=pytest.mark.long,
        ),
    ],
)
def test_run_started_from_another_begins_with_its_trained_weights(
    tiny: Build, tmp_path: Path, before: list[str], after: list[str]
) -> None:
    directory = directory_of_finished(tiny(*before, *SMALL), tmp_path / "first")
    files = {path.stem: load_file(path) for path in (tmp_path / "first/model").iterdir()}
    run = Experiment(tiny(*after, *SMALL, f"run={directory}").config, TrainedStart.of(directory))
    trained = files["client"] | files["server"]
    start = run.algorithm.full_weights()
    for name, tensor in start.items():
        if name in trained:
            assert torch.equal(tensor, trained[name]), name
        else:
            assert name.startswith("activation_ranges.")
            assert tensor == 0
    assert start.keys() - trained.keys() == set() or "qat=true" in after
    if before[0] == after[0] == "algorithm=cse_fsl":
        assert all(
            torch.equal(files["auxiliary"][k], v)
            for k, v in run.algorithm.auxiliary_weights()["auxiliary"].items()
        )
    state_after_rounds(run)


def test_run_started_from_another_model_or_missing_or_damaged_files_is_refused(
    tiny: Build, tmp_path: Path
) -> None:
    directory = directory_of_finished(tiny(*SMALL, "rounds=1", "algorithm=fed_avg"), tmp_path / "first")
    start = TrainedStart.of(directory)
    with pytest.raises(
        UserError, match=r"trained another model: conv1.bias is of shape \(8,\) there, of shape \(32,\) here"
    ):
        Experiment(tiny("model=eurosat_cnn", "dataset.image_size=64").config, start)
    with pytest.raises(UserError, match="run=nowhere: must be the directory of a run"):
        TrainedStart.of("nowhere")
    (tmp_path / "first/model/server.safetensors").unlink()
    with pytest.raises(UserError, match="holds no trained model, model/server"):
        TrainedStart.of(directory)
    (tmp_path / "first/model/client.safetensors").write_bytes(b"{}")
    with pytest.raises(UserError, match=r"model/client\.safetensors is damaged"):
        TrainedStart.of(directory)


def test_run_started_from_another_is_resumed_without_the_other(
    tiny: Build, tmp_path: Path, root: Path
) -> None:
    directory = directory_of_finished(tiny(*SMALL, "rounds=1"), tmp_path / "first")
    config = tiny(*SMALL, "qat=true", f"run={directory}").config
    ended = []
    for name in ("straight", "stopped"):
        rounds = {"rounds": 3 if name == "straight" else 1}
        directory_of_finished(
            Experiment(config.with_changes(rounds), TrainedStart.of(directory)), tmp_path / name
        )
        ended.append(tmp_path / name)
    Path(directory).rename(tmp_path / "moved")
    go_on(tmp_path / "stopped", {"rounds": 3})
    assert_same(*ended)
    with pytest.raises(UserError, match="no such directory"):
        TrainedStart.of(directory)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["qat=true", "engine=vectorized"], "engine=vectorized: must be auto or sequential with qat=true"),
        (["weight_bits=2", "engine=vectorized"], "must be auto or sequential with weight_bits=2"),
        (["qat=true", "precision=bf16"], "precision=bf16: must be fp32 with qat=true"),
        (["qat=true", "weight_bits=16"], "weight_bits=16: must be 8, 4, 2, 1 or null with qat=true"),
        (["qat=true", "cuda_graphs=true"], "cuda_graphs=True: must be false with qat=true"),
        (["weight_bits=3"], "weight_bits=3: must be one of 16, 8, 4, 2, 1 or null"),
        (["weight_bits=true"], "weight_bits=True: must be one of 16, 8, 4, 2, 1 or null"),
        (["run=saves/x", "task=cuts"], "run=saves/x: must be null: only task="),
        (["qat=int8"], "qat=int8: must be true or false"),
    ],
)
def test_quantized_training_with_incompatible_settings_is_refused(
    configured: Configure, overrides: list[str], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        configured(*overrides)
