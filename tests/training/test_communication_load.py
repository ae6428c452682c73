"""Counted bytes against the closed forms, for every algorithm, exactly."""

import math

import pytest

from fedsplit.quant.codecs.labels import Labels
from fedsplit.recording.ledger import DIRECTIONS, KINDS
from tests.conftest import ALGORITHMS, Build

Bytes = dict[tuple[str, str], int]

SIZES = {  # bytes of one sample's smashed data, of client, server and auxiliary state
    "resnet18": (8_192, 2_740_048, 42_025_080, 8_419_408),
    "simple_conv": (16_384, 429_312, 6_596_392, 163_880),
}


def uploaded_samples(samples: int, batch_size: int, interval: int, epochs: int) -> int:
    """Samples in the batches of local steps 0, q, 2q, ..., by laying the batches out."""
    sizes = [batch_size] * (samples // batch_size) + ([samples % batch_size] if samples % batch_size else [])
    if len(sizes) > 1 and sizes[-1] == 1:
        sizes[-2:] = [sizes[-2] + 1]
    return sum(size for step, size in enumerate(sizes * epochs) if step % interval == 0)


def closed_form(
    algorithm: str, *, m: int, n: int, u: int, z: int, c: int, s: int, a: int, aligning: int
) -> Bytes:
    up_and_down = {("up", "client_weights"): m * c, ("down", "client_weights"): m * c}
    uploads = {("up", "smashed"): u * z, ("up", "labels"): u}
    match algorithm:
        case "fed_avg":
            return {(d, "full_weights"): m * (c + s) for d in DIRECTIONS}
        case "splitfed_v1" | "splitfed_v2":
            cut = {("up", "smashed"): n * z, ("up", "labels"): n, ("down", "cut_gradient"): n * z}
            return up_and_down | cut
        case "cse_fsl":
            return up_and_down | uploads | {(d, "auxiliary_weights"): m * a for d in DIRECTIONS}
        case "fsl_sage":
            return up_and_down | uploads | {("down", "auxiliary_weights"): aligning * a}
    raise AssertionError(algorithm)


@pytest.mark.cover(1)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    "overrides",
    [[], ["cohort_size=2", "local_epochs=2"], ["batch_size=43"], ["dataset.local_test_fraction=0.2"]],
)
def test_bytes_of_every_round_are_the_closed_form(tiny: Build, algorithm: str, overrides: list[str]) -> None:
    if algorithm in ("cse_fsl", "fsl_sage"):
        overrides = [*overrides, "algorithm.server_update_interval=3"]
    if algorithm == "fsl_sage":
        overrides = [*overrides, "algorithm.align_interval=2"]
    run = tiny(f"algorithm={algorithm}", *overrides)
    epochs, batch = run.config.training.local_epochs, run.config.training.batch_size
    z, a = 4 * 256, 4 * (256 * 10 + 10)
    c, s = 4 * (8 * 9 + 8 + 16 * 8 * 9 + 16), 4 * (256 * 64 + 64 + 64 * 10 + 10)
    load, last_alignment = 0, dict.fromkeys(range(3), -math.inf)
    for t in range(4):
        cohort = list(run.parts.cohort_of(t))
        aligning = [client for client in cohort if t - last_alignment[client] >= 2]
        last_alignment |= dict.fromkeys(aligning, t)
        counts = [len(run.parts.data.shards[client]) for client in cohort]
        expected = closed_form(
            algorithm,
            m=len(cohort),
            n=sum(counts) * epochs,
            u=sum(uploaded_samples(count, batch, 3, epochs) for count in counts),
            z=z,
            c=c,
            s=s,
            a=a,
            aligning=len(aligning),
        )
        record = run.run_round(t)
        run.records.append(record)
        counted = {(d, kind): record.bytes[d][kind] for d in DIRECTIONS for kind in KINDS}
        assert counted == dict.fromkeys(counted, 0) | expected
        load += sum(expected.values())
        assert record.load == load


def test_labels_of_more_than_256_classes_take_two_bytes(tiny: Build) -> None:
    run = tiny("algorithm=splitfed_v1")
    run.transport.client_end._labels = Labels(257)
    assert run.run_round(0).bytes["up"]["labels"] == 2 * 130


@pytest.mark.parametrize("model", SIZES)
def test_models_have_the_reference_sizes_of_smashed_data_and_halves(model: str, cifar_sized: Build) -> None:
    run = cifar_sized(f"model={model}")
    parts = run.parts.models.halves.client, run.parts.models.halves.server, run.parts.models.auxiliary
    state_bytes = [sum(t.numel() * t.element_size() for t in part.state_dict().values()) for part in parts]
    assert (4 * math.prod(run.parts.models.smashed_shape), *state_bytes) == SIZES[model]


def test_load_of_resnet18_in_the_setting_of_the_paper_is_that_of_the_design(cifar_sized: Build) -> None:
    z, c, s, a = SIZES["resnet18"]
    clients, samples, batch, q = 10, 50_000, 256, 5
    u = clients * uploaded_samples(samples // clients, batch, q, 1)
    load = {
        name: sum(closed_form(name, m=clients, n=samples, u=u, z=z, c=c, s=s, a=a, aligning=0).values())
        for name in ALGORITHMS
    }
    load["fsl_sage"] += clients * a / 10
    megabytes = {name: round(size / 1e6) for name, size in load.items()}
    assert megabytes == {
        "fed_avg": 895,
        "splitfed_v1": 874,
        "splitfed_v2": 874,
        "cse_fsl": 307,
        "fsl_sage": 147,
    }
