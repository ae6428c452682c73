from pathlib import Path

import pytest
import torch

from fedsplit.building.run import build_clients
from fedsplit.tasks.codecs import Codecs
from tests.conftest import TINY, Build, Configure

QUICK = ("task=codecs", "task.steps=7", "task.samples=20", "task.repeats=1")


def test_survey_of_codecs_has_every_codec_in_the_table_of_every_kind_of_tensor(
    configured: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configured(*TINY, *QUICK)
    config.task.build(Codecs).run(config, tmp_path / "run")
    told = capsys.readouterr().out
    for name in config.plain()["task"]["codecs"]:
        assert told.count(f"│ {name} ") == 3
    # of 44 images in batches of 8 the last three of seven are: the fifth, the last with its four, the first
    assert f"smashed data ({8 + 4 + 8}, 256)" in told
    assert not (tmp_path / "run").exists()


def test_survey_of_codecs_takes_tensors_of_the_steps_that_were_trained(
    configured: Configure, tiny: Build
) -> None:
    config = configured(*TINY, *QUICK, "algorithm=splitfed_v2", "num_clients=1")
    parts = build_clients(config)
    (_, z, _), (_, dz, _), (_, moved, _) = config.task.build(Codecs).tensors(parts)
    run = tiny("algorithm=splitfed_v2", "num_clients=1")
    uploads, gradients = [], []
    step = run.algorithm.server.step

    def watched(t: int, upload: object) -> object:
        loss, gradient = step(t, upload)
        uploads.append(upload.z)
        gradients.append(gradient)
        return loss, gradient

    run.algorithm.server.step = watched
    before = run.algorithm.client_weights
    run.run_round(0)
    assert torch.equal(z, torch.cat(uploads[4:7])[-20:])
    assert torch.equal(dz, torch.cat(gradients[4:7])[-20:])
    name = next(name for name, each in before.items() if each.shape == moved.shape)
    assert 0 < moved.abs().max() <= 7 * 1.01e-3  # seven steps of Adam with 1e-3, each at most about that
    assert name.endswith("weight")
