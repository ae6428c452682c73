"""Small faults, put into the source one at a time: do the tests notice each?

    python tests/mutations.py                       # all faults, some minutes
    python tests/mutations.py --room quant results  # those of some rooms
    python tests/mutations.py --root ../older       # the same faults in another checkout

Each fault is a slip that a programmer could make, with the tests that should notice it. They run in a copy
of the checkout, so the checkout itself stays as it is. Exit code: 0 if every fault is noticed, 1 if one is
not, 2 if a fault or its tests cannot be used as they are.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.util import cache_from_source
from pathlib import Path
from queue import SimpleQueue
from shutil import copy2
from typing import Literal, TypeAlias

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

ROOT = Path(__file__).parents[1]
NOTICED = ("noticed", "noticed at import", "timed out")
"""Outcomes by which a fault did not get through."""
_PASSED, _FAILED, _NOT_COLLECTED, _WRONG_CALL = 0, 1, 2, 4
"""Exit codes of pytest; a test module that cannot be imported gives the third, a conftest the fourth."""
_CHUNKS_A_JOB = 4
"""Parts, for each job, in which the tests run without a fault: so few that imports cost little."""

Outcome: TypeAlias = Literal["noticed", "noticed at import", "timed out", "not noticed"]


class Unusable(Exception):
    """A fault, a selection of faults, or tests that cannot be used as they are."""


@dataclass(frozen=True)
class Fault:
    """A slip in the source.

    Args:
        name: short, of words joined by hyphens.
        room: folder of the package that it is in; `top` of files beside folders.
        file: that it is in, from the root of the checkout.
        before: text that the file holds exactly once.
        after: what stands in its place.
        tests: files and folders of tests that should notice it.
    """

    name: str
    room: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What became of a fault.

    Args:
        outcome: see `NOTICED`.
        test: the first that failed; empty where none did.
        seconds: that the tests took.
    """

    outcome: Outcome
    test: str
    seconds: float


@dataclass(frozen=True)
class Ended:
    """A run of pytest; `code` is None where it took too long."""

    code: int | None
    output: str
    seconds: float


FAULTS = (
    Fault(
        "gradients-of-models-are-clipped-apart",
        "privacy",
        "src/fedsplit/privacy/per_sample.py",
        "for gradient in each]).sum(0)",
        "for gradient in each]).amax(0)",
        ("tests/privacy/test_dp_sgd.py",),
    ),
    Fault(
        "gradients-that-come-back-need-no-noise-on-smashed-data",
        "privacy",
        "src/fedsplit/privacy/accountant.py",
        "if self.gets_gradients and (why := self._reason_for_smashed_data()) is not None:",
        "if False and (why := self._reason_for_smashed_data()) is not None:",
        ("tests/privacy/test_dp_sgd.py",),
    ),
    Fault(
        "noise-on-gradients-ignores-the-clip",
        "privacy",
        "src/fedsplit/privacy/defences/dp_sgd.py",
        "scale = self.sigma * (1.0 if self.gradient_clip is None else self.gradient_clip)",
        "scale = self.sigma",
        ("tests/privacy/test_dp_sgd.py",),
    ),
    Fault(
        "cut-gradients-of-samples-are-shares-of-the-mean",
        "parties",
        "src/fedsplit/parties/private_gradients.py",
        "sample_gradients = dz.view_as(z) * _samples(dz, seed)",
        "sample_gradients = dz.view_as(z)",
        ("tests/privacy/test_dp_sgd.py",),
    ),
    Fault(
        "group-normalisation-has-groups-of-one-channel",
        "models",
        "src/fedsplit/models/group_normalised.py",
        "_MOST_GROUPS, _FEWEST_CHANNELS = 32, 4",
        "_MOST_GROUPS, _FEWEST_CHANNELS = 32, 1",
        ("tests/privacy/test_dp_sgd.py",),
    ),
    Fault(
        "noise-on-smashed-data-ignores-the-clip",
        "privacy",
        "src/fedsplit/privacy/defences/additive.py",
        "scale = self.sigma * (1.0 if self.clip is None else self.clip)",
        "scale = self.sigma",
        ("tests/privacy/test_noise.py",),
    ),
    Fault(
        "noise-is-the-same-in-all-rounds",
        "privacy",
        "src/fedsplit/privacy/noise.py",
        'name = f"{purpose}/{client}/{round}/{step}"',
        'name = f"{purpose}/{client}/{step}"',
        ("tests/privacy/test_noise.py",),
    ),
    Fault(
        "noise-is-the-same-for-other-answers",
        "privacy",
        "src/fedsplit/privacy/noise.py",
        "if self.bound else self.key",
        "if False else self.key",
        ("tests/privacy/test_noise.py",),
    ),
    Fault(
        "secret-may-be-read-by-others",
        "privacy",
        "src/fedsplit/privacy/secret_file.py",
        "os.O_EXCL, 0o600)",
        "os.O_EXCL, 0o640)",
        ("tests/privacy/test_noise.py",),
    ),
    Fault(
        "replacing-a-sample-moves-a-release-as-leaving-it-out",
        "privacy",
        "src/fedsplit/privacy/accounting.py",
        '"replace": 2.0',
        '"replace": 1.0',
        ("tests/privacy/test_accounting.py",),
    ),
    Fault(
        "releases-of-a-second-epoch-are-not-counted",
        "privacy",
        "src/fedsplit/privacy/releases.py",
        "total.index_add_(0, own.indices, own.appearances(round, steps))",
        "total.index_add_(0, own.indices, own.appearances(round, steps).clamp(max=1))",
        ("tests/privacy/test_defended_runs.py",),
    ),
    Fault(
        "batch-normalisation-leaves-a-bound",
        "privacy",
        "src/fedsplit/privacy/accountant.py",
        "if self.mixing is not None:",
        "if self.mixing is not None and self.gets_gradients:",
        ("tests/privacy/test_defended_runs.py",),
    ),
    Fault(
        "nopeek-forgets-its-strength",
        "privacy",
        "src/fedsplit/privacy/defences/nopeek.py",
        "return self.strength * found",
        "return found",
        ("tests/privacy/test_nopeek.py",),
    ),
    Fault(
        "aliases-of-yaml-are-followed",
        "files",
        "src/fedsplit/files/bounded.py",
        "isinstance(event, yaml.AliasEvent) or getattr",
        "getattr",
        ("tests/files/test_bounded.py",),
    ),
    Fault(
        "a-durable-folder-is-renamed-before-its-files-are-on-the-disk",
        "files",
        "src/fedsplit/files/whole.py",
        '(*partial.glob("*"), partial)',
        "(partial,)",
        ("tests/files/test_whole.py",),
    ),
    Fault(
        "what-a-killed-write-left-is-part-of-what-appears",
        "files",
        "src/fedsplit/files/whole.py",
        "    _remove(partial)\n    try:",
        "    try:",
        ("tests/files/test_whole.py",),
    ),
    Fault(
        "a-fork-does-not-end-with-what-forked-it",
        "processes",
        "src/fedsplit/processes/forker.py",
        "    end_with_parent()\n    faulthandler",
        "    faulthandler",
        ("tests/processes",),
    ),
    Fault(
        "a-fork-that-was-not-waited-for-is-lost-and-not-told",
        "processes",
        "src/fedsplit/processes/forker.py",
        "        self.alive = False\n        self._lose_forks()",
        "        self.alive = False",
        ("tests/processes",),
    ),
    Fault(
        "clients-of-any-number-are-read",
        "recording",
        "src/fedsplit/recording/class_counts.py",
        'parse_whole_number(line["client"], MOST_CLIENTS - 1)',
        'parse_whole_number(line["client"])',
        ("tests/files/test_bounded.py",),
    ),
    Fault(
        "targets-in-lists-of-a-run-are-not-looked-at",
        "recording",
        "src/fedsplit/config/stored.py",
        "yield from _foreign(item, None, path)",
        "yield from ()",
        ("tests/recording/test_stored_config.py",),
    ),
    Fault(
        "a-run-says-by-itself-that-it-is-trusted",
        "recording",
        "src/fedsplit/config/stored.py",
        '{**stored, "trust": trust}',
        '{"trust": trust, **stored}',
        ("tests/recording/test_stored_config.py",),
    ),
    Fault(
        "one-class-of-several-makes-the-kind",
        "config",
        "src/fedsplit/config/component.py",
        "all(issubclass(each, kind) for each in makes)",
        "any(issubclass(each, kind) for each in makes)",
        ("tests/config/test_targets.py",),
    ),
    Fault(
        "claims-of-memory-are-not-summed",
        "machine",
        "src/fedsplit/machine/allowance.py",
        "allowance.total += needed",
        "allowance.total = needed",
        ("tests/machine/test_allowance.py",),
    ),
    # algorithms
    Fault(
        "prox-pulls-away-from-where-the-round-began",
        "algorithms",
        "src/fedsplit/algorithms/fed_prox.py",
        "gradient + self.mu",
        "gradient - self.mu",
        ("tests/parties/test_local_rule.py",),
    ),
    Fault(
        "zeroth-order-step-leaves-weights-where-they-were-probed",
        "algorithms",
        "src/fedsplit/algorithms/heron.py",
        "            weight.copy_(start)\n",
        "            pass\n",
        ("tests/parties/test_local_rule.py",),
    ),
    Fault(
        "passes-of-probes-move-running-statistics",
        "algorithms",
        "src/fedsplit/algorithms/heron.py",
        "forward_pass(*still)[1]",
        "forward_pass(None, None)[1]",
        ("tests/parties/test_local_rule.py",),
    ),
    Fault(
        "zeroth-order-clients-draw-one-direction-a-round",
        "parties",
        "src/fedsplit/parties/engine.py",
        '"local rule", client=client, round=round, step=step)',
        '"local rule", client=client, round=round)',
        ("tests/parties/test_local_rule.py",),
    ),
    Fault(
        "method-that-is-made-of-a-rule-takes-another",
        "building",
        "src/fedsplit/building/algorithm.py",
        "        if own or type(rule)",
        "        if type(rule)",
        ("tests/parties/test_local_rule.py",),
    ),
    Fault(
        "anchors-of-a-stack-stay-at-the-first-weights",
        "computing",
        "src/fedsplit/computing/stacked_state.py",
        """(*self.tensors().items(), *self.anchor.items()):
            stack.copy_""",
        """self.tensors().items():
            stack.copy_""",
        ("tests/parties/test_local_rule.py",),
    ),
    Fault(
        "fed-avg-weighs-clients-alike",
        "algorithms",
        "src/fedsplit/algorithms/fed_avg.py",
        'average(cohort.weights("full"), cohort.sample_counts)',
        'average(cohort.weights("full"), [1] * len(cohort.clients))',
        ("tests/algorithms/test_against_plain_loops.py",),
    ),
    Fault(
        "cse-fsl-does-not-resume-its-auxiliary-model",
        "algorithms",
        "src/fedsplit/algorithms/local_loss.py",
        'self.auxiliary = dict(state["auxiliary"])',
        'dict(state["auxiliary"])',
        ("tests/training/test_resume.py",),
    ),
    Fault(
        "cse-fsl-weighs-auxiliary-models-alike",
        "algorithms",
        "src/fedsplit/algorithms/local_loss.py",
        'average(cohort.weights("auxiliary"), cohort.sample_counts)',
        'average(cohort.weights("auxiliary"), [1] * len(cohort.clients))',
        ("tests/algorithms/test_against_plain_loops.py",),
    ),
    Fault(
        "fsl-sage-uploads-the-first-batch-twice",
        "algorithms",
        "src/fedsplit/algorithms/fsl_sage.py",
        "upload_interval=interval, skip_first_upload=due",
        "upload_interval=interval",
        ("tests/training/test_communication_load.py", "tests/algorithms/test_against_plain_loops.py"),
    ),
    Fault(
        "fsl-sage-aligns-on-a-moving-server",
        "algorithms",
        "src/fedsplit/algorithms/fsl_sage.py",
        """\
            losses += [self.step_server(t, upload) for upload in aligning.forward(0)]
            auxiliary_weights = self.alignment.align_many(due, t, self.server, initially=self.auxiliary)
""",
        """\
            auxiliary_weights = {}
            for upload in aligning.forward(0):
                losses.append(self.step_server(t, upload))
                again = self.alignment.align_many([upload.client], t, self.server, initially=self.auxiliary)
                auxiliary_weights |= again
""",
        ("tests/algorithms/test_against_plain_loops.py",),
    ),
    Fault(
        "splitfed-v1-does-not-keep-its-copies",
        "algorithms",
        "src/fedsplit/algorithms/copied_server.py",
        'self.copies.load_state(state["copies"])',
        "self.copies.load_state({})",
        ("tests/training/test_resume.py",),
    ),
    Fault(
        "splitfed-v1-remembers-stateless-clients",
        "algorithms",
        "src/fedsplit/algorithms/copied_server.py",
        "        self.copies.forget()\n",
        "        return\n",
        ("tests/training/test_stateless.py",),
    ),
    Fault(
        "splitfed-v2-takes-turns-in-one-order",
        "algorithms",
        "src/fedsplit/algorithms/splitfed_v2.py",
        'generator(self.seed, "client order", round=t)',
        'generator(self.seed, "client order")',
        ("tests/algorithms/test_against_plain_loops.py", "tests/training/test_experiment.py"),
    ),
    # building
    Fault(
        "cut-gradients-are-scaled-by-the-clients-terms-alone",
        "algorithms",
        "src/fedsplit/algorithms/minibatch_sfl.py",
        "gradient * (terms(pool.y) / terms(upload.y))",
        "gradient / terms(upload.y)",
        ("tests/algorithms/test_methods.py",),
    ),
    Fault(
        "cycle-sl-gives-cut-gradients-of-the-summed-loss",
        "algorithms",
        "src/fedsplit/algorithms/cycle_sl.py",
        "seed=dropout) / self.server.terms(upload.y)",
        "seed=dropout)",
        ("tests/algorithms/test_methods.py",),
    ),
    Fault(
        "vanilla-sl-starts-every-client-from-the-weights-of-the-round",
        "algorithms",
        "src/fedsplit/algorithms/vanilla_sl.py",
        '(self.client_weights,) = alone.weights("client")',
        'last = alone.weights("client")',
        ("tests/algorithms/test_methods.py",),
    ),
    Fault(
        "fed-yogi-moves-its-second-moment-away-from-the-square",
        "algorithms",
        "src/fedsplit/algorithms/fed_yogi.py",
        "second_moment - (1 - self.betas[1])",
        "second_moment + (1 - self.betas[1])",
        ("tests/algorithms/test_methods.py",),
    ),
    Fault(
        "ampere-lets-clients-upload-every-round",
        "algorithms",
        "src/fedsplit/algorithms/ampere.py",
        "if client not in earlier_clients]",
        "]",
        ("tests/algorithms/test_methods.py",),
    ),
    Fault(
        "geometric-alignment-doubles-one-round-late",
        "algorithms",
        "src/fedsplit/algorithms/fsl_sage.py",
        "t + 1 >= 2 * (last_round + 1)",
        "t >= 2 * (last_round + 1)",
        ("tests/algorithms/test_methods.py",),
    ),
    Fault(
        "alignment-by-error-forgets-errors-of-a-resumed-run",
        "algorithms",
        "src/fedsplit/algorithms/fsl_sage.py",
        'self._errors = {int(client): float(error) for client, error in state["errors"].items()}',
        'self._errors = dict.fromkeys(map(int, state["errors"]), 0.0)',
        (
            "tests/training/test_resume.py",
            "tests/algorithms/test_methods.py",
        ),
    ),
    Fault(
        "texts-are-pooled-with-positions-of-the-first-batch",
        "algorithms",
        "src/fedsplit/algorithms/pooling.py",
        "length = max(y.shape[1] for _, y in batches)",
        "length = first.y.shape[1]",
        ("tests/transport/test_padded_texts.py",),
    ),
    Fault(
        "saved-tensors-count-weights-again",
        "computing",
        "src/fedsplit/computing/saved_tensors.py",
        "        if storage not in self._apart:",
        "        if True:",
        ("tests/parties/test_client_cost.py",),
    ),
    Fault(
        "saved-tensors-of-one-storage-count-each",
        "computing",
        "src/fedsplit/computing/saved_tensors.py",
        "if not self._holders[storage]:\n                self.live",
        "if True:\n                self.live",
        ("tests/parties/test_client_cost.py",),
    ),
    Fault(
        "a-client-that-estimates-has-gradients-of-its-head",
        "parties",
        "src/fedsplit/parties/client_cost.py",
        "stepping_states = states if trains_head or waits else [body]",
        "stepping_states = states",
        ("tests/parties/test_client_cost.py",),
    ),
    Fault(
        "normalisation-sees-held-out-images",
        "building",
        "src/fedsplit/building/data.py",
        "dataset.scale(None if all_seen else trained_on.indices.sort().values)",
        "dataset.scale(None)",
        ("tests/training/test_local_accuracy.py",),
    ),
    Fault(
        "engine-rule-counts-batches-that-no-client-fills",
        "building",
        "src/fedsplit/building/engines.py",
        "samples = min(batch_size, max(parts.data.shards.sizes) or batch_size)",
        "samples = batch_size",
        ("tests/training/test_experiment.py",),
    ),
    Fault(
        "trained-start-forgets-the-auxiliary-model",
        "building",
        "src/fedsplit/building/trained_start.py",
        "auxiliary.load_state_dict(trained)",
        "auxiliary.load_state_dict(made)",
        ("tests/training/test_quantized_training.py",),
    ),
    Fault(
        "division-ignores-the-seed",
        "building",
        "src/fedsplit/building/data.py",
        "partition = _divide(distribution, dataset, clients, training.seed)",
        "partition = _divide(distribution, dataset, clients, 0)",
        ("tests/training/test_experiment.py",),
    ),
    Fault(
        "auxiliary-initialised-as-the-model-is",
        "building",
        "src/fedsplit/building/models.py",
        'with _initialisation(config.training.seed, "auxiliary model"):',
        'with _initialisation(config.training.seed, "model"):',
        ("tests/training/test_experiment.py",),
    ),
    # generation
    Fault(
        "texts-are-due-one-evaluation-late",
        "generation",
        "src/fedsplit/generation/generation.py",
        "return evaluations % self.interval == 0",
        "return evaluations % self.interval == 1",
        ("tests/tasks/test_generate.py",),
    ),
    Fault(
        "final-model-writes-nothing",
        "training",
        "src/fedsplit/training/final_report.py",
        "last_record.text_scores is None\n            and (texts :=",
        "if last_record.test_loss is None and (texts :=",
        ("tests/tasks/test_generate.py",),
    ),
    Fault(
        "text-grows-beyond-what-a-model-sees",
        "generation",
        "src/fedsplit/generation/decoding.py",
        "return context is None or len(text) <= context",
        "return context is None or len(text) <= context + 1",
        ("tests/tasks/test_generate.py",),
    ),
    Fault(
        "cider-forgets-the-length",
        "generation",
        "src/fedsplit/generation/cider.py",
        "10 * penalty * math",
        "10 * math",
        ("tests/generation/test_cider.py",),
    ),
    Fault(
        "cider-counts-all-repetitions",
        "generation",
        "src/fedsplit/generation/cider.py",
        "min(own.get(gram, 0.0), value) * value",
        "own.get(gram, 0.0) * value",
        ("tests/generation/test_cider.py",),
    ),
    Fault(
        "greedy-goes-on-behind-the-end",
        "generation",
        "src/fedsplit/generation/decoding.py",
        "if texts[i][-1] != end and _is_seen",
        "if _is_seen",
        ("tests/generation/test_decoding.py",),
    ),
    Fault(
        "logits-of-the-padding",
        "generation",
        "src/fedsplit/generation/decoding.py",
        "[len(text) - 1 for text in texts]",
        "[ids.shape[1] - 1 for text in texts]",
        ("tests/generation/test_decoding.py",),
    ),
    # data
    Fault(
        "validation-divides-groups",
        "data",
        "src/fedsplit/data/language_source.py",
        "members.setdefault(each.group, [])",
        "members.setdefault(str(number), [])",
        ("tests/data/test_text_sources.py",),
    ),
    Fault(
        "separator-is-a-target",
        "data",
        "src/fedsplit/data/language_source.py",
        "self._pair(context + separator, text + end)",
        "self._pair(context, separator + text + end)",
        ("tests/data/test_text_sources.py",),
    ),
    Fault(
        "tokenizer-learns-from-test-texts",
        "data",
        "src/fedsplit/data/text_source.py",
        "tokenizer = self.built_tokenizer(train)\n        strata",
        "tokenizer = self.built_tokenizer([*train, *test])\n        strata",
        ("tests/data/test_text_sources.py",),
    ),
    Fault(
        "special-tokens-in-texts",
        "data",
        "src/fedsplit/data/tokenizers/subwords.py",
        "inner.encode_special_tokens = True",
        "inner.encode_special_tokens = False",
        ("tests/data/test_tokenizers.py",),
    ),
    Fault(
        "last-batch-of-one-stays-alone",
        "data",
        "src/fedsplit/data/batches.py",
        "samples - starts[-1] == 1",
        "samples - starts[-1] == 0",
        ("tests/data/test_batches.py",),
    ),
    Fault(
        "every-local-epoch-in-one-order",
        "data",
        "src/fedsplit/data/batches.py",
        '"batches", client=self._client, round=round, epoch=epoch)',
        '"batches", client=self._client, round=round)',
        ("tests/data/test_batches.py",),
    ),
    Fault(
        "clients-draw-the-same-crops",
        "data",
        "src/fedsplit/data/batches.py",
        'self._seed, "augmentation", client=self._client, round=round',
        'self._seed, "augmentation", round=round',
        ("tests/data/test_batches.py",),
    ),
    Fault(
        "flips-upside-down",
        "data",
        "src/fedsplit/data/augmentation.py",
        "pixels.flip(2)",
        "pixels.flip(1)",
        ("tests/data/test_batches.py",),
    ),
    Fault(
        "normalisation-shifts-the-wrong-way",
        "data",
        "src/fedsplit/data/images.py",
        "shift = -torch.stack(means) * scale",
        "shift = torch.stack(means) * scale",
        ("tests/data/test_batches.py", "tests/data/test_dataset.py"),
    ),
    Fault(
        "validation-takes-the-first-of-each-class",
        "data",
        "src/fedsplit/data/image_source.py",
        "held_out[len(train) - 1 - last] = True",
        "held_out[last] = True",
        ("tests/data/test_dataset.py",),
    ),
    Fault(
        "one-class-too-many-gives-one-more",
        "data",
        "src/fedsplit/data/image_source.py",
        "share + (label < extra)",
        "share + (label <= extra)",
        ("tests/data/test_dataset.py",),
    ),
    Fault(
        "kept-pixels-are-of-other-files",
        "data",
        "src/fedsplit/data/decoding.py",
        "digest = sha256(source.encode())",
        "digest = sha256()",
        ("tests/data/test_image_folder.py",),
    ),
    Fault(
        "fingerprint-is-without-test-images",
        "data",
        "src/fedsplit/data/dataset.py",
        '"test": self.test.fingerprint()',
        '"test": self.train.fingerprint()',
        ("tests/training/test_changed_runs.py",),
    ),
    Fault(
        "edited-images-come-from-the-cache",
        "data",
        "src/fedsplit/data/decoding.py",
        'f"{file.relative_to(root)} {found.st_size} {found.st_mtime_ns}\\n"',
        'f"{file.relative_to(root)} {found.st_size}\\n"',
        ("tests/data/test_image_folder.py", "tests/data/test_decoding.py"),
    ),
    Fault(
        "chosen-files-keep-the-clients-of-others",
        "data",
        "src/fedsplit/data/file_pixels.py",
        "clients = None if self.client_of is None else self.client_of[index]",
        "clients = self.client_of",
        ("tests/data/test_file_pixels.py",),
    ),
    Fault(
        "a-client-holds-out-all-it-has",
        "data",
        "src/fedsplit/data/local_test.py",
        "max(round(fraction * samples), 1), samples - 1)",
        "max(round(fraction * samples), 1), samples)",
        ("tests/data/test_local_test.py",),
    ),
    Fault(
        "writers-of-each-file-begin-anew",
        "data",
        "src/fedsplit/data/sources/femnist.py",
        "self._parse(file, writers) for file in files",
        "self._parse(file, {}) for file in files",
        ("tests/data/test_femnist.py",),
    ),
    Fault(
        "first-token-behind-the-context-is-no-target",
        "data",
        "src/fedsplit/data/texts.py",
        "positions + 1 < self.contexts",
        "positions < self.contexts",
        ("tests/data/test_texts.py",),
    ),
    Fault(
        "tokens-behind-the-end-are-those-of-the-next-text",
        "data",
        "src/fedsplit/data/texts.py",
        "tokens.masked_fill_((positions < 0).to(tokens.device), behind)",
        "tokens",
        ("tests/data/test_texts.py",),
    ),
    # data/distributions
    Fault(
        "dirichlet-draws-the-same-again",
        "data/distributions",
        "src/fedsplit/data/distributions/dirichlet.py",
        'numpy_generator(seed, "distribution", step=attempt)',
        'numpy_generator(seed, "distribution")',
        ("tests/data/test_distributions.py",),
    ),
    Fault(
        "self-balancing-lets-clients-have-all",
        "data/distributions",
        "src/fedsplit/data/distributions/dirichlet.py",
        "held < len(labels) / num_clients ",
        "held < len(labels) ",
        ("tests/data/test_distributions.py",),
    ),
    Fault(
        "owners-are-dealt-in-turn",
        "data/distributions",
        "src/fedsplit/data/distributions/natural.py",
        "int(held.argmin())",
        "int(owner % num_clients)",
        ("tests/data/test_distributions.py",),
    ),
    Fault(
        "quantity-skew-without-its-minimum",
        "data/distributions",
        "src/fedsplit/data/distributions/quantity_skew.py",
        "np.diff(ends, prepend=0) + self.min_samples",
        "np.diff(ends, prepend=0)",
        ("tests/data/test_distributions.py",),
    ),
    Fault(
        "all-clients-see-the-same-shift",
        "data/distributions",
        "src/fedsplit/data/distributions/feature_shift.py",
        'generator(seed, "feature shift", client=client)',
        'generator(seed, "feature shift")',
        ("tests/data/test_feature_shift.py",),
    ),
    Fault(
        "classes-are-dealt-one-step-at-a-time",
        "data/distributions",
        "src/fedsplit/data/distributions/shards.py",
        "classes[(client * k + i) % len(classes)]",
        "classes[(client + i) % len(classes)]",
        ("tests/data/test_distributions.py",),
    ),
    Fault(
        "short-clients-take-what-others-need",
        "data/distributions",
        "src/fedsplit/data/distributions/dirichlet.py",
        "order[rank >= self.min_samples]",
        "order",
        ("tests/data/test_distributions.py",),
    ),
    Fault(
        "large-populations-are-drawn-again-in-vain",
        "data/distributions",
        "src/fedsplit/data/distributions/dirichlet.py",
        "            if _is_hopeless(all_short, attempt + 1):\n                break\n",
        "",
        ("tests/data/test_distributions.py",),
    ),
    Fault(
        "clients-draw-samples-that-overlap-their-neighbours",
        "data",
        "src/fedsplit/data/partition.py",
        "start=first * self._each",
        "start=first",
        ("tests/data/test_partition.py",),
    ),
    Fault(
        "digest-of-pieces-is-without-their-sizes",
        "data",
        "src/fedsplit/data/partition.py",
        'f"{size}\\n".encode()',
        'b""',
        ("tests/data/test_partition.py",),
    ),
    Fault(
        "class-counts-begin-anew-with-each-block",
        "recording",
        "src/fedsplit/recording/class_counts.py",
        "block.first + found // len(known)",
        "found // len(known)",
        ("tests/recording/test_class_counts.py",),
    ),
    Fault(
        "clients-that-changed-keep-their-file",
        "recording",
        "src/fedsplit/recording/checkpoint.py",
        "if client not in changed and name in known",
        "if name in known",
        ("tests/recording/test_client_files.py",),
    ),
    Fault(
        "clients-are-kept-in-the-order-in-which-they-first-came",
        "estimators",
        "src/fedsplit/estimators/alignment.py",
        "            del self._rings[client]\n",
        "",
        ("tests/training/test_kept_clients.py",),
    ),
    Fault(
        "memory-of-dropped-clients-stays-taken",
        "estimators",
        "src/fedsplit/estimators/alignment.py",
        "            ring.release()\n",
        "            pass\n",
        ("tests/training/test_kept_clients.py",),
    ),
    Fault(
        "kept-state-is-estimated-without-optimizers",
        "building",
        "src/fedsplit/building/kept_state.py",
        "return learn * (1 + slots)",
        "return learn",
        ("tests/building/test_kept_state.py",),
    ),
    Fault(
        "stack-of-clients-holds-itself",
        "computing",
        "src/fedsplit/computing/stacked_state.py",
        "_RowView(proxy(self), rows)",
        "_RowView(self, rows)",
        ("tests/training/test_memory_of_runs.py",),
    ),
    # deployment
    Fault(
        "calibration-draws-samples-twice",
        "deployment",
        "src/fedsplit/deployment/calibration.py",
        'torch.randperm(len(held), generator=generator(seed, "calibration"))',
        'torch.randint(len(held), (len(held),), generator=generator(seed, "calibration"))',
        ("tests/deployment/test_calibration.py",),
    ),
    Fault(
        "zero-point-is-forgotten-when-codes-are-decoded",
        "deployment",
        "src/fedsplit/deployment/backends/backend.py",
        "(values - self.zero_point) * self.scale",
        "values * self.scale",
        ("tests/inference/test_codes.py", "tests/deployment/test_backends.py"),
    ),
    Fault(
        "size-of-a-model-counts-its-description",
        "deployment",
        "src/fedsplit/deployment/storage.py",
        "if path.name != DESCRIPTION",
        "if path.is_file()",
        ("tests/deployment/test_storage.py", "tests/deployment/test_sizes.py"),
    ),
    Fault(
        "packed-weights-take-the-full-range",
        "deployment",
        "src/fedsplit/deployment/backends/weight_only.py",
        'range="mse"',
        'range="minmax"',
        ("tests/deployment/test_backends.py",),
    ),
    Fault(
        "scales-of-dynamic-int8-lose-digits-on-disk",
        "deployment",
        "src/fedsplit/deployment/backends/quantize_dynamic.py",
        "torch.tensor(weight.q_scale(), dtype=torch.float64)",
        "torch.tensor(weight.q_scale(), dtype=torch.float16)",
        ("tests/deployment/test_backends.py",),
    ),
    Fault(
        "median-latency-is-the-mean",
        "deployment",
        "src/fedsplit/deployment/measuring.py",
        "float(np.median(seconds))",
        "float(np.mean(seconds))",
        ("tests/deployment/test_measuring.py",),
    ),
    # estimators
    Fault(
        "alignment-comes-a-round-late",
        "estimators",
        "src/fedsplit/estimators/alignment.py",
        "round - last_round >= interval",
        "round - last_round > interval",
        ("tests/estimators/test_alignment.py",),
    ),
    Fault(
        "alignment-forgets-its-optimizer",
        "estimators",
        "src/fedsplit/estimators/alignment.py",
        "            model.load_state(task.state)\n",
        '            model.load(task.state["weights"])\n',
        ("tests/estimators/test_alignment.py", "tests/algorithms/test_against_plain_loops.py"),
    ),
    Fault(
        "chunks-of-every-epoch-in-one-order",
        "estimators",
        "src/fedsplit/estimators/alignment.py",
        'generator(self._seed, "alignment", client=client, round=round, epoch=epoch)',
        'generator(self._seed, "alignment", client=client, round=round)',
        ("tests/estimators/test_alignment.py",),
    ),
    Fault(
        "error-is-relative-to-the-estimate",
        "estimators",
        "src/fedsplit/estimators/alignment.py",
        "SquaredError(_square(estimate - chunk.dz), _square(chunk.dz))",
        "SquaredError(_square(estimate - chunk.dz), _square(estimate))",
        ("tests/estimators/test_gradient_error.py",),
    ),
    Fault(
        "settling-looks-after-ten-epochs",
        "estimators",
        "src/fedsplit/estimators/estimator.py",
        "self._epochs % BETWEEN_LOOKS != 1",
        "self._epochs % BETWEEN_LOOKS != 0",
        ("tests/estimators/test_settling.py",),
    ),
    Fault(
        "fit-descends-on-the-mean-error",
        "estimators",
        "src/fedsplit/estimators/estimator.py",
        "(estimate - chunk.dz).square().sum()",
        "(estimate - chunk.dz).square().mean()",
        ("tests/estimators/test_estimators.py", "tests/estimators/test_second_derivative.py"),
    ),
    Fault(
        "estimate-is-of-the-mean-loss",
        "estimators",
        "src/fedsplit/estimators/gradient_of_loss.py",
        "losses.total(outputs, y), z, create_graph=differentiable",
        "losses.mean(outputs, y).sum(), z, create_graph=differentiable",
        ("tests/estimators/test_estimators.py",),
    ),
    Fault(
        "ridge-grows-with-the-samples",
        "estimators",
        "src/fedsplit/estimators/linear_regression.py",
        "self.ridge * x.square().sum() / samples",
        "self.ridge * x.square().sum()",
        ("tests/estimators/test_estimators.py",),
    ),
    Fault(
        "ring-gives-way-one-sample-at-a-time",
        "estimators",
        "src/fedsplit/estimators/ring.py",
        "self._next_place = (self._next_place + len(y)) % self.capacity",
        "self._next_place = (self._next_place + 1) % self.capacity",
        ("tests/estimators/test_ring.py",),
    ),
    Fault(
        "sign-in-the-second-derivative-of-batch-norm",
        "estimators",
        "src/fedsplit/estimators/second_derivative/batch_norm.py",
        "along_u + g_along_du",
        "along_u - g_along_du",
        ("tests/estimators/test_second_derivative.py",),
    ),
    # inference
    Fault(
        "zero-point-that-is-no-code-is-taken",
        "inference",
        "src/fedsplit/inference/codes.py",
        "0 < largest <= _LARGEST and limits.min <= zero_point <= limits.max",
        "0 < largest <= _LARGEST",
        ("tests/inference/test_codes.py",),
    ),
    Fault(
        "warm-up-counts",
        "inference",
        "src/fedsplit/inference/summary.py",
        "[each for each in requests if not each.warm_up]",
        "list(requests)",
        ("tests/inference/test_summary.py",),
    ),
    Fault(
        "latency-is-paid-one-way",
        "inference",
        "src/fedsplit/inference/local.py",
        "2 * device.latency",
        "device.latency",
        ("tests/inference/test_summary.py",),
    ),
    Fault(
        "counted-requests-begin-behind-the-warm-up",
        "inference",
        "src/fedsplit/inference/device.py",
        "batch = number if warm_up else number - self.warm_up",
        "batch = number",
        ("tests/inference/test_summary.py",),
    ),
    # models
    Fault(
        "one-hot-label-is-added",
        "models",
        "src/fedsplit/models/auxiliary.py",
        "torch.full_like(x[:, :1], -1.0)",
        "torch.full_like(x[:, :1], 1.0)",
        ("tests/models/test_auxiliary.py",),
    ),
    Fault(
        "zero-point-has-the-wrong-sign",
        "models",
        "src/fedsplit/models/rounding/fake_quantization.py",
        "(-low / scale).round()",
        "(low / scale).round()",
        ("tests/models/test_fake_quantization.py",),
    ),
    Fault(
        "ranges-move-in-evaluation",
        "models",
        "src/fedsplit/models/rounding/fake_quantization.py",
        "        if self.training:\n            self._move(input.detach())\n",
        "        self._move(input.detach())\n",
        ("tests/models/test_fake_quantization.py",),
    ),
    Fault(
        "gradient-of-the-norm-has-another-exponent",
        "computing",
        "src/fedsplit/computing/local_response_norm.py",
        "value=-1.5 * a",
        "value=-0.5 * a",
        ("tests/computing/test_local_response_norm.py",),
    ),
    Fault(
        "a-cut-may-divide-tied-weights-before-their-last-use",
        "models",
        "src/fedsplit/models/splitting/cuts.py",
        "used[0] < end <= used[-1]",
        "used[0] < end < used[-1]",
        ("tests/models/test_split.py",),
    ),
    Fault(
        "frozen-statistics-move",
        "computing",
        "src/fedsplit/computing/model_state.py",
        "{name: buffer.clone() for name, buffer in self.buffers.items()}",
        "dict(self.buffers)",
        ("tests/computing/test_model_state.py", "tests/training/test_experiment.py"),
    ),
    Fault(
        "loaded-rows-begin-their-count-of-steps-anew",
        "computing",
        "src/fedsplit/computing/stacked_state.py",
        'int(slots.get("step", 1))',
        "1",
        ("tests/computing/test_stacked_state.py",),
    ),
    Fault(
        "a-multiply-add-counts-twice",
        "computing",
        "src/fedsplit/computing/multiply_adds.py",
        "return self._flops // 2",
        "return self._flops",
        ("tests/computing/test_multiply_adds.py",),
    ),
    Fault(
        "a-stage-is-as-wide-as-its-first-layer",
        "models",
        "src/fedsplit/models/derived.py",
        "(max(stages[-1][0], channels), side)",
        "(stages[-1][0], side)",
        ("tests/models/test_auxiliary.py", "tests/tasks/cuts/test_cuts.py"),
    ),
    Fault(
        "the-third-name-of-a-tensor-stays-tied",
        "models",
        "src/fedsplit/models/splitting/tied.py",
        "group[1:] for group in tied_groups(module)",
        "group[1:2] for group in tied_groups(module)",
        ("tests/models/test_split.py",),
    ),
    Fault(
        "folded-bias-forgets-the-running-mean",
        "models",
        "src/fedsplit/models/rounding/int8_graph.py",
        "((0 if own is None else own) - norm.running_mean) * factor",
        "(0 if own is None else own) * factor",
        ("tests/models/test_int8_graph.py",),
    ),
    Fault(
        "pooled-activations-are-rounded-again",
        "models",
        "src/fedsplit/models/rounding/quantized_training.py",
        "nn.Identity, nn.Flatten, nn.Unflatten, nn.MaxPool2d, nn.AdaptiveMaxPool2d",
        "nn.Identity, nn.Flatten, nn.Unflatten, nn.AdaptiveMaxPool2d",
        ("tests/models/test_quantized_training.py", "tests/models/test_int8_graph.py"),
    ),
    # network
    Fault(
        "links-carry-bytes-in-place-of-bits",
        "network",
        "src/fedsplit/network/timelines/timeline.py",
        "return 8 * sum(",
        "return sum(",
        ("tests/network/test_timelines.py",),
    ),
    Fault(
        "turns-share-the-server",
        "network",
        "src/fedsplit/network/timelines/splitfed.py",
        "replace(client, sharing=1)",
        "replace(client)",
        ("tests/network/test_timelines.py",),
    ),
    Fault(
        "uploads-are-worked-off-by-client",
        "network",
        "src/fedsplit/network/timelines/cse_fsl.py",
        "for arrival in sorted(arrivals):",
        "for arrival in arrivals:",
        ("tests/network/test_timelines.py",),
    ),
    Fault(
        "true-cut-gradients-cost-one-pass",
        "network",
        "src/fedsplit/network/timelines/fsl_sage.py",
        "samples * 2 * work.server",
        "samples * work.server",
        ("tests/network/test_timelines.py",),
    ),
    Fault(
        "all-clients-draw-one-device",
        "network",
        "src/fedsplit/network/network.py",
        "of a client's device\", client=client)",
        "of a client's device\")",
        ("tests/network/test_spread.py",),
    ),
    Fault(
        "an-old-alignment-takes-time-again",
        "network",
        "src/fedsplit/network/clock.py",
        "if client in fits and fits[client].round == t else None",
        "if client in fits else None",
        ("tests/network/test_simulated_runs.py",),
    ),
    Fault(
        "price-is-of-a-mebibyte",
        "network",
        "src/fedsplit/network/network.py",
        "load / 1e6 * self.cost_per_mb",
        "load / 2**20 * self.cost_per_mb",
        ("tests/network/test_simulated_runs.py", "tests/inference/test_summary.py"),
    ),
    # parties
    Fault(
        "estimates-are-not-divided-by-the-batch",
        "parties",
        "src/fedsplit/parties/local_step.py",
        "losses.per_term(estimator.estimate(head, losses, decoded, y, seed=seeds.head).detach(), y)",
        "estimator.estimate(head, losses, decoded, y, seed=seeds.head).detach()",
        ("tests/algorithms/test_against_plain_loops.py",),
    ),
    Fault(
        "clients-that-wait-ignore-the-schedule",
        "parties",
        "src/fedsplit/parties/client.py",
        "(dz[: len(pending.y)], self._schedule.at(round, step))",
        "(dz[: len(pending.y)], 1.0)",
        ("tests/parties/test_vectorized.py",),
    ),
    Fault(
        "mean-loss-is-over-batches",
        "parties",
        "src/fedsplit/parties/loss.py",
        "(values @ terms) / terms.sum()",
        "values.mean()",
        ("tests/parties/test_loss.py",),
    ),
    Fault(
        "dropout-at-the-server-is-the-same-in-every-step",
        "parties",
        "src/fedsplit/parties/split_server.py",
        "client=client, round=round, step=upload.step",
        "client=client, round=round",
        ("tests/parties/test_vectorized.py",),
    ),
    Fault(
        "stacked-uploads-are-ordered-by-arrival",
        "parties",
        "src/fedsplit/parties/vectorized.py",
        "uploads = sorted(uploads, key=lambda upload: (upload.client, upload.step))",
        "uploads = sorted(uploads, key=lambda upload: upload.step)",
        ("tests/parties/test_vectorized.py",),
    ),
    Fault(
        "control-variates-of-a-client-begin-anew-each-round",
        "algorithms",
        "src/fedsplit/algorithms/scaffold.py",
        'mean_gradient = total / steps - rule_tensors["correction"][name]',
        "mean_gradient = total / steps",
        ("tests/algorithms/test_scaffold.py",),
    ),
    Fault(
        "control-variates-of-the-server-move-as-if-all-clients-took-part",
        "algorithms",
        "src/fedsplit/algorithms/scaffold.py",
        "fraction = len(cohort.clients) / self.num_clients",
        "fraction = 1.0",
        ("tests/algorithms/test_scaffold.py",),
    ),
    Fault(
        "what-a-rule-keeps-of-gathered-rows-is-not-written-back",
        "computing",
        "src/fedsplit/computing/stacked_state.py",
        "            *((whole.rule_tensors[key], tensors) for key, tensors in self.rule_tensors.items()),\n",
        "",
        ("tests/algorithms/test_scaffold.py", "tests/computing/test_stacked_state.py"),
    ),
    Fault(
        "broadcast-counts-for-each-client",
        "transport",
        "src/fedsplit/transport/tally.py",
        'self._add("down", kind, clients, sent, step=step, broadcast=True)',
        'self._add("down", kind, clients, sent, step=step, copies=len(clients))',
        ("tests/algorithms/test_sglr.py",),
    ),
    Fault(
        "rows-of-a-shared-gradient-are-averaged-over-all-that-share-it",
        "algorithms",
        "src/fedsplit/algorithms/sglr.py",
        "counts[: len(gradient)] += 1",
        "counts += 1",
        ("tests/algorithms/test_sglr.py",),
    ),
    Fault(
        "server-of-sglr-keeps-its-learning-rate",
        "algorithms",
        "src/fedsplit/algorithms/sglr.py",
        "float(len(uploads) ** self.alpha)",
        "1.0",
        ("tests/algorithms/test_sglr.py",),
    ),
    Fault(
        "clients-that-share-a-gradient-are-drawn-once-for-all-rounds",
        "algorithms",
        "src/fedsplit/algorithms/sglr.py",
        '"clients that share a gradient", round=t)',
        '"clients that share a gradient", round=0)',
        ("tests/algorithms/test_sglr.py",),
    ),
    Fault(
        "probes-of-all-steps-go-along-the-same-directions",
        "algorithms",
        "src/fedsplit/algorithms/ho_sfl.py",
        '"probe", round=t, step=step, epoch=probe)',
        '"probe", round=t, epoch=probe)',
        ("tests/algorithms/test_ho_sfl.py",),
    ),
    Fault(
        "shared-model-is-sent-again-after-a-resume",
        "algorithms",
        "src/fedsplit/algorithms/ho_sfl.py",
        'self.holders = set(state["holders"])',
        "self.holders = set()",
        ("tests/training/test_resume.py",),
    ),
    Fault(
        "late-clients-of-a-shared-model-are-sent-no-weights",
        "algorithms",
        "src/fedsplit/algorithms/ho_sfl.py",
        "self.holders = set(cohort.clients)",
        "self.holders |= set(cohort.clients)",
        ("tests/algorithms/test_ho_sfl.py",),
    ),
    Fault(
        "weights-stay-moved-after-a-probe",
        "algorithms",
        "src/fedsplit/algorithms/ho_sfl.py",
        "            weight.copy_(start)\n        return torch.stack(slopes, -1)",
        "            pass\n        return torch.stack(slopes, -1)",
        ("tests/algorithms/test_ho_sfl.py",),
    ),
    Fault(
        "weights-of-a-shared-model-are-coded",
        "building",
        "src/fedsplit/building/run.py",
        "exact_weights=rule.answers_seeds,",
        "exact_weights=False,",
        ("tests/algorithms/test_ho_sfl.py",),
    ),
    Fault(
        "seeds-below-0-are-taken",
        "transport",
        "src/fedsplit/transport/grpc/client/worker.py",
        "if min(seeds) < 0:",
        "if False:",
        ("tests/transport/test_hostile.py",),
    ),
    Fault(
        "clients-without-a-step-are-sent-no-seeds",
        "transport",
        "src/fedsplit/transport/cohort.py",
        "if probed != step or client not in aware]",
        "if probed != step]",
        ("tests/algorithms/test_ho_sfl.py",),
    ),
    Fault(
        "stateless-clients-lose-aligned-models",
        "parties",
        "src/fedsplit/parties/sequential.py",
        "self._heads[client] = self.blueprint.memory.keep(head_weights, self._heads.get(client))",
        "self.blueprint.memory.keep(head_weights, self._heads.get(client))",
        ("tests/training/test_stateless.py",),
    ),
    Fault(
        "evaluation-takes-statistics-of-the-batch",
        "parties",
        "src/fedsplit/parties/evaluation.py",
        "half.module.eval()",
        "half.module.train()",
        ("tests/parties/test_evaluation.py",),
    ),
    Fault(
        "statistics-stay-when-a-client-waits",
        "parties",
        "src/fedsplit/parties/local_step.py",
        "        body.move_buffers(buffers)\n",
        "",
        ("tests/algorithms/test_against_plain_loops.py", "tests/training/test_experiment.py"),
    ),
    Fault(
        "copies-that-are-set-aside-are-not-kept",
        "parties",
        "src/fedsplit/parties/server_copies.py",
        "return self._set_aside | {",
        "return {",
        ("tests/training/test_resume.py", "tests/parties/test_vectorized.py"),
    ),
    # quant
    Fault(
        "zero-point-is-added",
        "quant",
        "src/fedsplit/quant/codecs/affine_rows.py",
        "values.sub_(form.zero_point[:, None])",
        "values.add_(form.zero_point[:, None])",
        ("tests/quant/test_affine.py",),
    ),
    Fault(
        "a-code-beyond-the-largest-is-taken",
        "quant",
        "src/fedsplit/quant/codecs/affine_rows.py",
        "int(zero_point.max())) > self.levels:",
        "int(zero_point.max())) > self.levels + 1:",
        ("tests/quant/test_affine.py", "tests/quant/test_affine_rows.py"),
    ),
    Fault(
        "stochastic-rounding-draws-the-same",
        "quant",
        "src/fedsplit/quant/codecs/affine_rows.py",
        "uniform(rows.shape, seed)",
        "uniform(rows.shape, 0)",
        ("tests/quant/test_affine_rows.py", "tests/quant/test_affine.py"),
    ),
    Fault(
        "budget-without-scales",
        "quant",
        "src/fedsplit/quant/codecs/allocated.py",
        "int((self.budget * count - beside) / rows.shape[1])",
        "int(self.budget * count / rows.shape[1])",
        ("tests/quant/test_allocated.py",),
    ),
    Fault(
        "bits-beyond-the-last-value-are-taken",
        "quant",
        "src/fedsplit/quant/bit_packing.py",
        "    if count * bits % 8 and payload[-1] >> count * bits % 8:\n"
        '        raise Corrupt("the payload has bits beyond its last value, which must be zeros")\n',
        "",
        ("tests/quant/test_bit_packing.py",),
    ),
    Fault(
        "checksum-is-compared-only-where-there-is-one",
        "quant",
        "src/fedsplit/quant/message.py",
        "if _checksum(self.payload, self.shape, self.dtype) != self.checksum:",
        "if self.checksum and _checksum(self.payload, self.shape, self.dtype) != self.checksum:",
        ("tests/quant/test_message.py",),
    ),
    Fault(
        "labels-of-256-classes-take-two-bytes",
        "quant",
        "src/fedsplit/quant/codecs/label_codec.py",
        "if largest <= torch.iinfo(dtype).max",
        "if largest < torch.iinfo(dtype).max",
        ("tests/quant/test_labels.py",),
    ),
    Fault(
        "a-place-may-come-twice",
        "quant",
        "src/fedsplit/quant/codecs/topk.py",
        "(places.diff(dim=1) <= 0).any()",
        "(places.diff(dim=1) < 0).any()",
        ("tests/quant/test_topk.py",),
    ),
    Fault(
        "padding-counts-in-the-mean",
        "quant",
        "src/fedsplit/quant/codecs/sign.py",
        "        values[-1] -= rows.numel() - x.numel()  # the padding of a last block\n",
        "",
        ("tests/quant/test_sign.py",),
    ),
    Fault(
        "what-was-rounded-away-is-lost",
        "quant",
        "src/fedsplit/quant/weights_link.py",
        "change + residual[name] if name in residual else change for",
        "change for",
        ("tests/quant/test_weights_link.py",),
    ),
    Fault(
        "variances-are-rounded",
        "quant",
        "src/fedsplit/quant/weights_link.py",
        '("running_mean", "running_var", "running_min", "running_max")',
        '("running_mean", "running_min", "running_max")',
        ("tests/quant/test_weights_link.py",),
    ),
    Fault(
        "a-loaded-link-does-not-know-its-rounds",
        "quant",
        "src/fedsplit/quant/weights_link.py",
        "self._rounds = (before, last_round)",
        "self._rounds = (-1, -1)",
        ("tests/quant/test_weights_link.py",),
    ),
    Fault(
        "largest-payload-without-the-first-byte",
        "quant",
        "src/fedsplit/quant/codecs/zstd.py",
        "return 1 + self.codec.max_size(shape)",
        "return self.codec.max_size(shape)",
        ("tests/quant/test_zstd.py",),
    ),
    Fault(
        "frames-may-declare-twice-as-much",
        "quant",
        "src/fedsplit/quant/codecs/zstd.py",
        "if declared_size > limit:",
        "if declared_size > 2 * limit:",
        ("tests/quant/test_zstd.py",),
    ),
    Fault(
        "scales-are-rounded-to-the-nearest",
        "quant",
        "src/fedsplit/quant/scales.py",
        "(bits + 0xFFFF) & ~0xFFFF",
        "(bits + 0x7FFF) & ~0xFFFF",
        ("tests/quant/test_scales.py",),
    ),
    Fault(
        "one-bit-scale-is-the-largest",
        "quant",
        "src/fedsplit/quant/weight_grid.py",
        "weight.flatten(1).abs().mean(1)",
        "weight.flatten(1).abs().amax(1)",
        ("tests/quant/test_weight_grid.py",),
    ),
    Fault(
        "every-step-is-rounded-by-the-same-draws",
        "quant",
        "src/fedsplit/quant/quantization.py",
        "client=client, round=round, step=step)",
        "client=client, round=round)",
        ("tests/test_randomness.py",),
    ),
    # attacks
    Fault(
        "psnr-of-the-mean-over-images",
        "tasks",
        "src/fedsplit/tasks/attack/measures.py",
        ".square().flatten(1).mean(1)\n    return -10",
        ".square().flatten(1).mean(1).mean(0)\n    return -10",
        ("tests/tasks/attack/test_measures.py",),
    ),
    Fault(
        "distance-correlation-is-biased",
        "tasks",
        "src/fedsplit/tasks/attack/measures.py",
        "rows = distances.sum(1) / (n - 2)",
        "rows = distances.sum(1) / n",
        ("tests/tasks/attack/test_measures.py",),
    ),
    Fault(
        "targets-are-a-prefix",
        "tasks",
        "src/fedsplit/tasks/attack/victim.py",
        "return held[order[:count]]",
        "return held[:count]",
        ("tests/tasks/attack/test_attack.py",),
    ),
    Fault(
        "an-attacker-that-adapts-does-not",
        "tasks",
        "src/fedsplit/tasks/attack/inversion.py",
        "if exact or not adapted else",
        "if exact or adapted else",
        ("tests/tasks/attack/test_inversion.py",),
    ),
    Fault(
        "clusters-of-lengths",
        "tasks",
        "src/fedsplit/tasks/attack/labels.py",
        "directions, best = functional.normalize(x.double()),",
        "directions, best = x.double(),",
        ("tests/tasks/attack/test_labels.py",),
    ),
    Fault(
        "bias-moves-the-other-way",
        "tasks",
        "src/fedsplit/tasks/attack/updates.py",
        "(softmax + (after[bias] - before[bias]) / rate)",
        "(softmax - (after[bias] - before[bias]) / rate)",
        ("tests/tasks/attack/test_labels.py",),
    ),
    Fault(
        "clients-are-driven-away",
        "tasks",
        "src/fedsplit/tasks/attack/imposter.py",
        'torch.ones_like(logits), reduction="sum")',
        'torch.zeros_like(logits), reduction="sum")',
        ("tests/tasks/attack/test_hijack.py",),
    ),
    Fault(
        "a-defence-is-forgotten",
        "tasks",
        "src/fedsplit/tasks/attack/channel.py",
        "if self.release.releases:",
        "if not self.release.releases:",
        ("tests/tasks/attack/test_attack.py",),
    ),
    # results
    Fault(
        "checksum-of-values-is-not-checked",
        "recording",
        "src/fedsplit/recording/checkpoint.py",
        "_checksum(path / name) for name in (_TENSORS, _VALUES, *shared)):",
        "_checksum(path / name) for name in (_TENSORS, *shared)):",
        ("tests/recording/test_checkpoint.py",),
    ),
    Fault(
        "copies-of-checkpoints-count",
        "recording",
        "src/fedsplit/recording/checkpoint.py",
        "int(path.name[6:])) == path)",
        "int(path.name[6:])) != folder)",
        ("tests/recording/test_checkpoint.py",),
    ),
    Fault(
        "a-forked-process-keeps-the-lock",
        "recording",
        "src/fedsplit/recording/run_lock.py",
        "os.register_at_fork(after_in_child=_drop_in_child)",
        "",
        ("tests/recording/test_run_lock.py",),
    ),
    Fault(
        "a-run-that-is-written-is-listed-as-stopped",
        "recording",
        "src/fedsplit/recording/run_lock.py",
        "    except BlockingIOError:\n        return True\n",
        "    except BlockingIOError:\n        return False\n",
        ("tests/cli/test_subcommands.py",),
    ),
    Fault(
        "a-new-run-is-not-looked-for-again-once-claimed",
        "recording",
        "src/fedsplit/recording/run_directory.py",
        "            new_directory(path, key)  # another process",
        "            pass  # another process",
        ("tests/recording/test_run_lock.py",),
    ),
    Fault(
        "only-the-last-checkpoint-is-kept",
        "recording",
        "src/fedsplit/recording/checkpoint.py",
        "older[: -(KEPT - 1)]",
        "older",
        ("tests/recording/test_checkpoint.py",),
    ),
    Fault(
        "a-resumed-ledger-forgets-what-was-sent-again",
        "recording",
        "src/fedsplit/recording/ledger.py",
        '                self.add_again(int(round), direction, entry["again"][direction])\n',
        "",
        ("tests/recording/test_ledger.py",),
    ),
    Fault(
        "a-run-without-a-format-is-read",
        "recording",
        "src/fedsplit/recording/config_file.py",
        'content.get("format") != FORMAT',
        'content.get("format", FORMAT) != FORMAT',
        ("tests/recording/test_other_formats.py",),
    ),
    Fault(
        "a-finished-job-of-another-format-is-skipped",
        "sweeps",
        "src/fedsplit/sweeps/sweep.py",
        "            except OtherFormat:\n                raise\n",
        "",
        ("tests/recording/test_other_formats.py",),
    ),
    Fault(
        "an-abandoned-round-costs-nothing",
        "recording",
        "src/fedsplit/recording/ledger.py",
        "sum(traffic.bytes for traffic in kinds.values()))",
        "0)",
        ("tests/recording/test_ledger.py",),
    ),
    Fault(
        "a-milestone-must-be-surpassed",
        "recording",
        "src/fedsplit/recording/metrics.py",
        "r.test_accuracy >= accuracy",
        "r.test_accuracy > accuracy",
        ("tests/recording/test_summary.py",),
    ),
    Fault(
        "variance-of-differences-is-of-the-population",
        "tasks",
        "src/fedsplit/tasks/compare/comparison.py",
        "/ (n - 1)",
        "/ n",
        ("tests/tasks/compare/test_paired.py",),
    ),
    Fault(
        "class-accuracy-is-precision",
        "recording",
        "src/fedsplit/recording/classification.py",
        "self.counts.sum(1).tolist()",
        "self.counts.sum(0).tolist()",
        ("tests/recording/test_classification.py",),
    ),
    Fault(
        "numbers-are-compared-as-texts",
        "reports",
        "src/fedsplit/reports/selection.py",
        "return one == other or float(one) == float(other)",
        "return one == other",
        ("tests/reports/test_selection.py",),
    ),
    Fault(
        "of-equal-repeats-the-first-stands",
        "reports",
        "src/fedsplit/reports/runs.py",
        'len(run.columns["round"]) >= len(other.columns["round"])',
        'len(run.columns["round"]) > len(other.columns["round"])',
        ("tests/reports/figures/test_curve.py",),
    ),
    Fault(
        "a-budget-must-not-be-used-up",
        "reports",
        "src/fedsplit/reports/figures/measures.py",
        "used[t] <= float(budget)",
        "used[t] < float(budget)",
        ("tests/reports/figures/test_bars.py", "tests/reports/figures/test_against.py"),
    ),
    Fault(
        "targets-of-losses-are-reached-from-below",
        "reports",
        "src/fedsplit/reports/figures/curve.py",
        "sign = -1 if lower_is_better(self.y) else 1",
        "sign = 1",
        ("tests/reports/figures/test_curve.py",),
    ),
    Fault(
        "intervals-of-means-are-those-of-single-values",
        "reports",
        "src/fedsplit/reports/spread.py",
        "stdev(values) / sqrt(len(values))",
        "stdev(values)",
        ("tests/reports/test_spread.py",),
    ),
    Fault(
        "panels-hold-what-is-of-others",
        "reports",
        "src/fedsplit/reports/figures/curve.py",
        'bool({hue, hue.partition("=")[2]} & set(names))',
        "bool({hue} | set(names))",
        ("tests/reports/figures/test_curve.py",),
    ),
    Fault(
        "figures-of-studies-take-the-worst-seed",
        "tasks",
        "src/fedsplit/tasks/attack/study_figure.py",
        'fmean(number(row["psnr"]) for row in group)',
        'min(number(row["psnr"]) for row in group)',
        ("tests/tasks/attack/test_study_figure.py",),
    ),
    Fault(
        "tables-count-an-accuracy-only-once-surpassed",
        "reports",
        "src/fedsplit/reports/tables/measures.py",
        "accuracy >= target",
        "accuracy > target",
        ("tests/reports/tables/test_of_runs.py",),
    ),
    Fault(
        "worst-client-is-the-best",
        "recording",
        "src/fedsplit/recording/metrics.py",
        "pstdev(found), min(found)",
        "pstdev(found), max(found)",
        ("tests/recording/test_local_accuracy.py",),
    ),
    Fault(
        "a-new-run-keeps-old-checkpoints",
        "recording",
        "src/fedsplit/recording/run_directory.py",
        '                checkpoint.clear(self.path / "checkpoint")\n',
        "                pass\n",
        ("tests/recording/test_run_directory.py",),
    ),
    # sweeps
    Fault(
        "the-progress-bar-makes-another-job",
        "sweeps",
        "src/fedsplit/sweeps/record.py",
        '_WITHOUT_EFFECT = ("progress", "sweep", "trust")',
        '_WITHOUT_EFFECT = ("sweep", "trust")',
        ("tests/sweeps/test_record.py",),
    ),
    Fault(
        "an-experiments-list-beats-what-is-given",
        "sweeps",
        "src/fedsplit/sweeps/grid.py",
        "if each.get_key_element() not in keys]",
        "if each.get_key_element() in keys]",
        ("tests/sweeps/test_grid.py",),
    ),
    Fault(
        "a-job-shows-its-best-accuracy",
        "sweeps",
        "src/fedsplit/sweeps/status.py",
        "accuracies[-1] if accuracies else None",
        "max(accuracies) if accuracies else None",
        ("tests/sweeps/test_watch.py",),
    ),
    Fault(
        "a-job-with-many-threads-never-starts",
        "machine",
        "src/fedsplit/machine/cores.py",
        "max(1, cores // threads)",
        "cores // threads",
        ("tests/machine/test_cores.py",),
    ),
    Fault(
        "a-job-without-a-result-is-done",
        "sweeps",
        "src/fedsplit/sweeps/watch.py",
        'status.state == "done" and self._is_finished(row)',
        'status.state == "done"',
        ("tests/sweeps/test_watch.py",),
    ),
    Fault(
        "a-job-that-was-trained-and-not-attacked-is-finished",
        "sweeps",
        "src/fedsplit/sweeps/status.py",
        "return (directory / last).is_file()",
        "return (directory / RESULTS).is_file()",
        ("tests/tasks/attack/test_train_and_attack.py",),
    ),
    Fault(
        "a-run-that-was-gone-on-with-is-not-followed",
        "tasks",
        "src/fedsplit/tasks/task.py",
        "    config.task.build(Task).follow(config, directory)",
        "    config.task.build(Task)",
        ("tests/tasks/attack/test_train_and_attack.py",),
    ),
    Fault(
        "keys-of-a-defence-are-not-taken",
        "tasks",
        "src/fedsplit/tasks/attack/channels.py",
        "for key, value in keys.items()}).defence",
        "for key, value in keys.items() if not key}).defence",
        ("tests/tasks/attack/test_train_and_attack.py",),
    ),
    # models of clients' own
    Fault(
        "own-models-are-measured-without-what-is-their-own",
        "algorithms",
        "src/fedsplit/algorithms/algorithm.py",
        "shared | self.own_weights[client] if client in self.own_weights else shared",
        "shared if client in self.own_weights else shared",
        ("tests/algorithms/test_own_models.py",),
    ),
    Fault(
        "heads-of-clients-own-are-dropped-with-their-state",
        "building",
        "src/fedsplit/building/blueprint.py",
        'parts.estimates or parts.algorithm_class.own_half == "server"',
        "parts.estimates",
        ("tests/algorithms/test_own_models.py",),
    ),
    Fault(
        "local-accuracy-of-own-models-is-that-of-the-first-client",
        "training",
        "src/fedsplit/training/evaluation.py",
        "self.local.correct(full, auxiliary, samples_of_client)",
        "self.local.correct(models[0], auxiliary, samples_of_client)",
        ("tests/algorithms/test_own_models.py",),
    ),
    # two cuts
    Fault(
        "labels-are-uploaded-though-the-client-holds-the-tail",
        "transport",
        "src/fedsplit/transport/local.py",
        "                if not self._has_tail:\n",
        "                if True:\n",
        ("tests/algorithms/test_two_cuts.py",),
    ),
    Fault(
        "the-trunk-steps-before-its-gradient-is-known",
        "parties",
        "src/fedsplit/parties/local_step.py",
        "gradients_along([(h, along.view_as(h))], [z, *trunk.trainable.values()])",
        "gradients_along([(h, torch.ones_like(h))], [z, *trunk.trainable.values()])",
        ("tests/algorithms/test_two_cuts.py",),
    ),
    Fault(
        "tails-are-not-averaged-with-the-client-model",
        "parties",
        "src/fedsplit/parties/engine.py",
        'if part == "full" or (part == "client" and self.trunk_shape is not None):',
        'if part == "full":',
        ("tests/algorithms/test_two_cuts.py",),
    ),
    Fault(
        "a-client-takes-outputs-of-the-trunk-for-any-batch",
        "transport",
        "src/fedsplit/transport/grpc/client/worker.py",
        "return self.expectations.trunk_output(len(self._labels))",
        "return self.expectations.trunk_output(frame.tensors[0].shape[0])",
        ("tests/algorithms/test_two_cuts.py",),
    ),
    # tasks
    Fault(
        "sampled-clients-align-as-if-they-were-always-there",
        "algorithms",
        "src/fedsplit/algorithms/round_load.py",
        "(self.align_interval + 1 / self.share - 1)",
        "self.align_interval",
        ("tests/tasks/cuts/test_cuts.py",),
    ),
    Fault(
        "the-server-computes-the-whole-model",
        "tasks",
        "src/fedsplit/tasks/cuts/cuts.py",
        "macs[-1] - macs[cut.end]",
        "macs[-1]",
        ("tests/tasks/cuts/test_cuts.py",),
    ),
    Fault(
        "compression-is-upside-down",
        "tasks",
        "src/fedsplit/tasks/compare/compare.py",
        "sizes[REFERENCE] / sizes[name]",
        "sizes[name] / sizes[REFERENCE]",
        ("tests/tasks/compare/test_compare.py",),
    ),
    Fault(
        "codecs-are-tried-on-the-first-samples",
        "tasks",
        "src/fedsplit/tasks/codecs.py",
        '("smashed data", torch.cat(smashed)[-self.samples :].contiguous(), True)',
        '("smashed data", torch.cat(smashed)[: self.samples].contiguous(), True)',
        ("tests/tasks/test_codecs.py",),
    ),
    # trackers
    Fault(
        "a-broken-tracker-is-told-more",
        "trackers",
        "src/fedsplit/trackers/tracker.py",
        "            self._tracker = None\n",
        "",
        ("tests/trackers/test_harmless.py",),
    ),
    Fault(
        "a-tracker-is-given-the-runs-own-configuration",
        "trackers",
        "src/fedsplit/trackers/tracker.py",
        "tracker.start(deepcopy(dict(config)), directory",
        "tracker.start(dict(config), directory",
        ("tests/trackers/test_harmless.py",),
    ),
    Fault(
        "void-rounds-stay-in-the-log",
        "trackers",
        "src/fedsplit/trackers/tensorboard.py",
        'str(directory / "tensorboard"), purge_step=0)',
        'str(directory / "tensorboard"))',
        ("tests/trackers/test_tensorboard.py",),
    ),
    # transport
    Fault(
        "labels-are-not-counted",
        "transport",
        "src/fedsplit/transport/local.py",
        '        self.tally.message("up", "labels", upload.client, '
        "self._end.labels(upload.y), upload.step)\n",
        "",
        ("tests/training/test_communication_load.py", "tests/network/test_simulated_runs.py"),
    ),
    Fault(
        "weights-to-many-are-counted-once",
        "transport",
        "src/fedsplit/transport/tally.py",
        "copies * sent.size",
        "sent.size",
        ("tests/training/test_communication_load.py",),
    ),
    Fault(
        "a-checkpoint-lacks-what-was-rounded-away",
        "transport",
        "src/fedsplit/transport/local.py",
        '"up": up[part]}',
        '"up": {}}',
        ("tests/training/test_resume.py", "tests/training/test_quantized_runs.py"),
    ),
    Fault(
        "weights-are-rounded-alike-in-every-round",
        "transport",
        "src/fedsplit/transport/links.py",
        '{direction}", client=client, round=round)',
        '{direction}", client=client)',
        ("tests/test_randomness.py",),
    ),
    # transport/grpc
    Fault(
        "the-type-of-a-tensor-is-not-checked",
        "transport/grpc",
        "src/fedsplit/transport/grpc/protocol/frames.py",
        "tuple(tensor.shape) != self.shape or TYPES.get(tensor.data_type) is not self.dtype",
        "tuple(tensor.shape) != self.shape",
        ("tests/transport/test_wire.py",),
    ),
    Fault(
        "announced-sizes-may-be-twice-the-largest",
        "transport/grpc",
        "src/fedsplit/transport/grpc/protocol/frames.py",
        "tensor.size > self.codec.largest(self.shape, self.dtype)",
        "tensor.size > 2 * self.codec.largest(self.shape, self.dtype)",
        ("tests/transport/test_wire.py",),
    ),
    Fault(
        "the-first-uri-names-the-client",
        "transport/grpc",
        "src/fedsplit/transport/grpc/protocol/tls.py",
        "if len(uris) == 1 else None",
        "if uris else None",
        ("tests/transport/test_tls.py",),
    ),
    Fault(
        "private-networks-need-no-tls",
        "transport/grpc",
        "src/fedsplit/transport/grpc/protocol/tls.py",
        "else host.is_loopback",
        "else host.is_private",
        ("tests/transport/test_tls.py",),
    ),
    Fault(
        "proxies-stand-before-loopback",
        "transport/grpc",
        "src/fedsplit/transport/grpc/client/dialling.py",
        '("grpc.enable_http_proxy", 0)',
        '("grpc.enable_http_proxy", 1)',
        ("tests/transport/test_dialling.py",),
    ),
    Fault(
        "older-streams-of-a-client-stay",
        "transport/grpc",
        "src/fedsplit/transport/grpc/server/server.py",
        "            before.cancel()\n",
        "            pass\n",
        ("tests/transport/test_entrance.py",),
    ),
    Fault(
        "streams-that-left-count-on",
        "transport/grpc",
        "src/fedsplit/transport/grpc/server/server.py",
        "count[key] -= 1",
        "count[key] -= 0",
        ("tests/transport/test_entrance.py",),
    ),
    Fault(
        "dollars-begin-mathematics",
        "reports",
        "src/fedsplit/reports/figures/style.py",
        '{"text.parse_math": False}',
        '{"text.parse_math": True}',
        ("tests/reports/figures/test_house_style.py",),
    ),
    Fault(
        "results-come-after-the-classification",
        "training",
        "src/fedsplit/training/final_report.py",
        '"auc": None}\n        self.directory.save_results(results)\n',
        '"auc": None}\n',
        ("tests/training/test_experiment.py",),
    ),
    Fault(
        "colours-of-16-bits-lose-8",
        "data",
        "src/fedsplit/data/decoding.py",
        'if ";16" in str(mode) or',
        'if ";17" in str(mode) or',
        ("tests/data/test_image_folder.py",),
    ),
    Fault(
        "accents-tell-classes-apart",
        "data",
        "src/fedsplit/data/sources/image_folder.py",
        'normalize("NFC", name)',
        "name",
        ("tests/data/test_image_folder.py",),
    ),
    Fault(
        "everyone-can-read-private-keys",
        "transport/grpc",
        "src/fedsplit/tasks/certificates/directories.py",
        "mode = 0o600 if name == KEY else 0o644",
        "mode = 0o644",
        ("tests/tasks/certificates/test_directories.py",),
    ),
    Fault(
        "a-plan-may-look-up-the-environment",
        "transport/grpc",
        "src/fedsplit/transport/grpc/protocol/plan.py",
        'len(text) <= _LONGEST and "${" not in text and',
        "len(text) <= _LONGEST and",
        ("tests/transport/test_plan.py",),
    ),
    Fault(
        "a-server-may-set-what-is-the-clients-own",
        "transport/grpc",
        "src/fedsplit/transport/grpc/protocol/plan.py",
        "if _is_own(key, config) or not _KEY.fullmatch(key):",
        "if not _KEY.fullmatch(key):",
        ("tests/transport/test_plan.py",),
    ),
    Fault(
        "a-repeated-upload-is-taken-again",
        "transport/grpc",
        "src/fedsplit/transport/grpc/server/streams.py",
        "return same and not before and not self.done",
        "return same and not self.done",
        ("tests/transport/test_hostile.py",),
    ),
    Fault(
        "what-is-sent-again-is-not-counted",
        "transport/grpc",
        "src/fedsplit/transport/grpc/server/streams.py",
        '"down", pending.verb.size)',
        '"down", 0)',
        ("tests/transport/test_failures.py",),
    ),
    Fault(
        "the-joined-batch-is-too-large",
        "transport/grpc",
        "src/fedsplit/transport/grpc/protocol/expectations.py",
        "1 <= samples <= self._batch_size + 1:",
        "1 <= samples <= self._batch_size:",
        ("tests/transport/test_hostile.py",),
    ),
    Fault(
        "a-client-goes-back-without-what-was-rounded-away",
        "transport/grpc",
        "src/fedsplit/transport/client_end.py",
        "uplink.load_state(state.get(part, {}))",
        "uplink.load_state({})",
        ("tests/transport/test_failures.py",),
    ),
    Fault(
        "other-logits-than-were-sent-are-taken",
        "transport/grpc",
        "src/fedsplit/inference/grpc/devices.py",
        "        if measured.checksum != answered.checksum:\n"
        '            raise Corrupt("the logits that arrived are not those that the server sent")\n',
        "",
        ("tests/inference/test_inference.py",),
    ),
    # top
    Fault(
        "cosine-begins-again",
        "optim",
        "src/fedsplit/optim/schedules.py",
        "min(round / self.period, 1.0)",
        "round / self.period",
        ("tests/optim/test_schedules.py",),
    ),
    Fault(
        "a-milestone-comes-a-round-late",
        "optim",
        "src/fedsplit/optim/schedules.py",
        "bisect_right(sorted(self.milestones), round)",
        "bisect_right(sorted(self.milestones), round - 1)",
        ("tests/optim/test_schedules.py",),
    ),
    Fault(
        "draws-are-the-same-in-every-epoch",
        "top",
        "src/fedsplit/randomness.py",
        "{round}/{epoch}/{step}",
        "{round}/{step}",
        ("tests/test_randomness.py",),
    ),
    Fault(
        "counters-are-those-of-the-first-client",
        "state",
        "src/fedsplit/state/weights.py",
        "torch.stack(values).amax(0)",
        "first",
        ("tests/state/test_weights.py",),
    ),
    Fault(
        "rows-of-a-stack-have-the-shares-of-others",
        "state",
        "src/fedsplit/state/weights.py",
        "[shares[p] for p in positions]",
        "shares[: len(positions)]",
        ("tests/state/test_weights.py",),
    ),
    Fault(
        "the-first-step-is-dampened",
        "optim",
        "src/fedsplit/optim/optimizers.py",
        "(steps > 1).to(torch.float64)",
        "(steps > 0).to(torch.float64)",
        ("tests/optim/test_optimizers.py", "tests/computing/test_stacked_state.py"),
    ),
    Fault(
        "stacked-adam-corrects-by-the-wrong-moment",
        "optim",
        "src/fedsplit/optim/optimizers.py",
        "lr / (1 - self.betas[0] ** counts)",
        "lr / (1 - self.betas[1] ** counts)",
        ("tests/optim/test_optimizers.py", "tests/computing/test_stacked_state.py"),
    ),
    Fault(
        "a-memory-budget-is-never-used-up",
        "computing",
        "src/fedsplit/computing/memory.py",
        "self.used_bytes + needed <= self.budget",
        "needed <= self.budget",
        ("tests/computing/test_memory.py",),
    ),
    Fault(
        "a-name-of-a-choice-may-be-a-path",
        "config",
        "src/fedsplit/config/choices.py",
        "if not _NAME.fullmatch(choice):",
        "if not choice:",
        ("tests/config/test_choices.py",),
    ),
    Fault(
        "files-of-fedsplit-may-be-hidden-by-ones-own",
        "config",
        "src/fedsplit/config/choices.py",
        "(place := file.relative_to(root))).is_file():",
        "(place := file.relative_to(root))).is_socket():",
        ("tests/config/test_choices.py",),
    ),
    Fault(
        "tasks-of-ones-own-have-no-traits",
        "config",
        "src/fedsplit/config/traits.py",
        "class_literals(_TASK) | class_literals(target)",
        "class_literals(target) | class_literals(_TASK)",
        ("tests/config/test_traits.py",),
    ),
    Fault(
        "every-choice-of-a-class-has-its-place-in-figures",
        "config",
        "src/fedsplit/config/traits.py",
        'if target.split(".")[-2:-1] == [name] else {}',
        "if target else {}",
        ("tests/config/test_traits.py",),
    ),
    Fault(
        "int8-is-deployed-on-the-default-backend-only",
        "inference",
        "src/fedsplit/inference/deploying.py",
        'own = f"{by_default}_{self.backend}"',
        "own = by_default",
        ("tests/inference/test_deploying.py",),
    ),
    Fault(
        "infinity-is-a-number",
        "config",
        "src/fedsplit/config/values.py",
        "not isinstance(value, bool) and abs(value) <= LARGEST",
        "not isinstance(value, bool)",
        ("tests/config/test_values.py",),
    ),
    Fault(
        "true-is-a-whole-number",
        "config",
        "src/fedsplit/config/values.py",
        "return isinstance(value, int) and not isinstance(value, bool)",
        "return isinstance(value, int)",
        ("tests/config/test_values.py",),
    ),
    Fault(
        "constants-of-a-class-are-arguments",
        "config",
        "src/fedsplit/config/signature.py",
        'and "ClassVar" not in ast.unparse(member.annotation)',
        "and member.simple",
        ("tests/config/test_signature.py",),
    ),
    Fault(
        "a-cohort-of-all-is-refused",
        "config",
        "src/fedsplit/config/checks.py",
        "size is not None and size > clients",
        "size is not None and size >= clients",
        ("tests/config/test_checks.py",),
    ),
    Fault(
        "a-resumed-run-takes-another-batch-size",
        "config",
        "src/fedsplit/config/checks.py",
        'RESUMABLE = (\n    "rounds",\n',
        'RESUMABLE = (\n    "rounds",\n    "batch_size",\n',
        ("tests/cli/test_command_line.py",),
    ),
    Fault(
        "strides-do-not-travel",
        "cluster",
        "src/fedsplit/cluster/packing.py",
        "PackedTensor(name, tuple(tensor.shape), tensor.stride(), of_device, values)",
        "PackedTensor(name, tuple(tensor.shape), torch.empty(tensor.shape).stride(), of_device, values)",
        ("tests/cluster/test_packing.py",),
    ),
    Fault(
        "weights-of-stacks-come-by-worker",
        "parties",
        "src/fedsplit/parties/spread/engine.py",
        "return StackedWeights(sorted(stacks, key=lambda stack: self._unit_of[clients[stack[0][0]]]))",
        "return StackedWeights(stacks)",
        ("tests/cluster/test_same_results.py",),
    ),
    Fault(
        "states-stay-with-the-worker-that-had-them",
        "parties",
        "src/fedsplit/parties/spread/engine.py",
        "if self.homes.get(c, worker) != worker",
        "if self.homes.get(c, worker) is None",
        ("tests/cluster/test_same_results.py",),
    ),
    Fault(
        "copies-lose-their-optimizer-where-they-change-workers",
        "parties",
        "src/fedsplit/parties/spread/copies.py",
        "for state in self._engine.gather(pending):\n            self._local_state |= state",
        "for state in self._engine.gather(pending):\n            self._local_state |= {}",
        ("tests/cluster/test_same_results.py",),
    ),
    Fault(
        "all-units-go-to-one-worker",
        "parties",
        "src/fedsplit/parties/spread/placement.py",
        "min(workers, key=lambda worker: (load[worker], worker))",
        "min(workers)",
        ("tests/parties/spread/test_placement.py",),
    ),
    Fault(
        "algorithms-that-take-turns-are-spread",
        "building",
        "src/fedsplit/building/cluster.py",
        "if parts.algorithm_class.takes_turns:",
        "if not parts.algorithm_class.takes_turns and False:",
        ("tests/cluster/test_same_results.py",),
    ),
    Fault(
        "bytes-of-a-round-that-begins-again-are-not-counted",
        "training",
        "src/fedsplit/training/recovery.py",
        "self._ledger.add_again(t, direction, size)",
        "pass",
        ("tests/cluster/test_lost_workers.py",),
    ),
    Fault(
        "a-lost-worker-costs-a-round-that-clients-do-not-need",
        "training",
        "src/fedsplit/training/recovery.py",
        "if self._every_round or (saved == 0 and self._last_checkpoint is None):",
        "if saved == 0 and self._last_checkpoint is None:",
        ("tests/cluster/test_lost_workers.py",),
    ),
    Fault(
        "clients-keep-what-they-had-when-a-run-goes-back",
        "parties",
        "src/fedsplit/parties/spread/engine.py",
        'self.tell(worker, "clear")',
        "pass",
        ("tests/cluster/test_lost_workers.py",),
    ),
    Fault(
        "a-cluster-goes-on-without-those-it-needs",
        "cluster",
        "src/fedsplit/cluster/in_process.py",
        "if len(self.there) < self.min_workers:",
        "if len(self.there) < 0:",
        ("tests/cluster/test_lost_workers.py",),
    ),
    Fault(
        "a-worker-that-the-memory-monitor-ended-ends-the-recovery",
        "cluster",
        "src/fedsplit/cluster/ray_workers.py",
        "except RayError:  # OutOfMemoryError, of those that the memory monitor ended, is no RayActorError",
        "except ray.exceptions.RayActorError:",
        ("tests/cluster/test_ray.py",),
    ),
    Fault(
        "an-edited-key-is-taken-at-a-resume",
        "recording",
        "src/fedsplit/recording/identity.py",
        "if not below(key, OF_NO_CONSEQUENCE)}",
        "if below(key, OF_NO_CONSEQUENCE)}",
        ("tests/training/test_changed_runs.py",),
    ),
    Fault(
        "a-checkpoint-is-without-the-time-of-its-round",
        "training",
        "src/fedsplit/training/experiment.py",
        "self.elapsed += time.perf_counter() - began  # before the checkpoint, which keeps it",
        "pass",
        ("tests/training/test_changed_runs.py",),
    ),
    Fault(
        "evaluation-comes-a-round-early",
        "training",
        "src/fedsplit/training/rounds.py",
        "divmod(t + 1, self._config.evaluation.eval_interval)",
        "divmod(t, self._config.evaluation.eval_interval)",
        ("tests/training/test_experiment.py",),
    ),
    Fault(
        "a-resumed-run-has-all-its-time-again",
        "training",
        "src/fedsplit/training/run_state.py",
        'float(state["elapsed"])',
        "0.0",
        ("tests/training/test_resume.py", "tests/training/test_experiment.py"),
    ),
    Fault(
        "the-threshold-is-in-mebibytes",
        "training",
        "src/fedsplit/training/stopping.py",
        "self.comm_threshold_mb * 1e6",
        "self.comm_threshold_mb * 2**20",
        ("tests/training/test_stopping.py",),
    ),
    Fault(
        "a-codec-may-be-null",
        "config",
        "src/fedsplit/config/overrides.py",
        'if value == "null":',
        'if value == "":',
        ("tests/cli/test_quant_command_line.py",),
    ),
    # cli/ and hydra_config
    Fault(
        "a-run-from-python-leaves-its-threads-behind",
        "cli",
        "src/fedsplit/cli/python.py",
        "torch.set_num_threads(threads)",
        "pass",
        ("tests/cli/test_python.py",),
    ),
    Fault(
        "an-error-of-a-callback-is-taken-for-one-of-the-run",
        "training",
        "src/fedsplit/training/round_callback.py",
        "raise _CallbackError(error) from error",
        "raise",
        ("tests/cli/test_python.py",),
    ),
    Fault(
        "a-text-that-reads-as-a-number-is-not-quoted",
        "config",
        "src/fedsplit/config/overrides.py",
        "[A-Za-z_/][",
        "[A-Za-z0-9_/][",
        ("tests/config/test_grammar.py",),
    ),
    Fault(
        "a-run-that-failed-ends-like-a-mistake",
        "cli",
        "src/fedsplit/cli/run.py",
        "return error.exit_code",
        "return 2",
        ("tests/cli/test_command_line.py",),
    ),
    Fault(
        "an-alias-names-the-other-algorithm",
        "hydra_config",
        "hydra_config/algorithm/sl_multi_server.yaml",
        "- splitfed_v1",
        "- splitfed_v2",
        ("tests/test_every_choice.py",),
    ),
    Fault(
        "int8-leaves-cut-gradients-as-they-are",
        "hydra_config",
        "hydra_config/quant/int8.yaml",
        "/codec@cut_gradient: int8_block",
        "/codec@cut_gradient: none",
        ("tests/cli/test_quant_command_line.py", "tests/training/test_quantized_runs.py"),
    ),
    Fault(
        "labels-of-text-lose-their-lengths-in-closed-forms",
        "quant",
        "src/fedsplit/quant/codecs/token_labels.py",
        "return samples * self._length.itemsize + codes",
        "return codes",
        ("tests/quant/test_token_labels.py",),
    ),
    Fault(
        "a-label-beyond-the-vocabulary-arrives",
        "quant",
        "src/fedsplit/quant/codecs/token_labels.py",
        "if ((codes < 0) | (codes > self.vocabulary)).any():",
        "if (codes < 0).any():",
        ("tests/quant/test_token_labels.py",),
    ),
    Fault(
        "a-position-behind-the-end-travels",
        "quant",
        "src/fedsplit/quant/positions.py",
        "< lengths[:, None]",
        "<= lengths[:, None]",
        ("tests/quant/test_positions.py",),
    ),
    Fault(
        "positions-of-the-context-count-as-targets",
        "objectives",
        "src/fedsplit/objectives/next_token.py",
        "return int((y >= 0).sum())",
        "return int((y != PADDING).sum())",
        ("tests/objectives",),
    ),
    Fault(
        "the-loss-that-is-measured-is-smoothed",
        "objectives",
        "src/fedsplit/objectives/next_token.py",
        'loss = F.cross_entropy(logits, tokens, reduction="sum")',
        "loss = self.total(outputs, y)",
        ("tests/objectives",),
    ),
    Fault(
        "heads-are-computed-at-every-position",
        "models",
        "src/fedsplit/models/zoo/causal_lm.py",
        "made.head = _head_at_some_positions(made)",
        "made.head = None",
        ("tests/training/test_exact_language_models.py",),
    ),
    Fault(
        "alignments-compute-the-head-at-every-position",
        "estimators",
        "src/fedsplit/estimators/gradient_of_loss.py",
        "at=losses.targets(y)",
        "at=None",
        ("tests/training/test_exact_language_models.py",),
    ),
    Fault(
        "padding-is-attended-to-at-the-server",
        "models",
        "src/fedsplit/models/splitting/stubs.py",
        "x = x.masked_fill(padded, _PAD)",
        "x = x.masked_fill(padded, 0)",
        ("tests/models/test_stubs.py",),
    ),
    Fault(
        "halves-copy-what-they-hold",
        "models",
        "src/fedsplit/models/splitting/stubs.py",
        "tensors = (*module.parameters(), *module.buffers())",
        "tensors = ()",
        ("tests/models/test_stubs.py",),
    ),
    Fault(
        "a-derived-auxiliary-has-all-blocks",
        "models",
        "src/fedsplit/models/splitting/stubs.py",
        "list(server.following.items())[depth:]",
        "list(server.following.items())[:0]",
        ("tests/models/test_stubs.py",),
    ),
    Fault(
        "a-cut-may-be-behind-what-runs-twice",
        "models",
        "src/fedsplit/models/splitting/probed.py",
        "if len(calls.ends) > 1:",
        "if not calls.ends:",
        ("tests/models/test_stubs.py",),
    ),
    Fault(
        "first-factors-learn-though-frozen",
        "models",
        "src/fedsplit/models/adapters/lora.py",
        "parameter.requires_grad_(learns and not frozen)",
        "parameter.requires_grad_(learns)",
        ("tests/models/test_language_models.py",),
    ),
    Fault(
        "files-of-an-adapter-leave-its-second-factors-out",
        "models",
        "src/fedsplit/models/adapters/lora.py",
        'if "lora_" in name or name.partition',
        'if "lora_A" in name or name.partition',
        ("tests/models/test_language_models.py",),
    ),
    Fault(
        "layers-of-an-adapter-may-share-what-learns",
        "building",
        "src/fedsplit/building/models.py",
        "    _refuse_shared_state(config, whole, own)\n",
        "",
        ("tests/training/test_language_models.py",),
    ),
    Fault(
        "code-of-a-folder-is-no-reason-to-refuse-it",
        "models",
        "src/fedsplit/models/zoo/language_models.py",
        'elif "auto_map" in config:',
        'elif "map" in told:',
        ("tests/models/test_language_models.py",),
    ),
    Fault(
        "a-parameter-that-does-not-learn-is-each-states-own",
        "computing",
        "src/fedsplit/computing/model_state.py",
        "if not parameter.requires_grad:",
        "if False:",
        ("tests/training/test_exact_language_models.py",),
    ),
    Fault(
        "another-base-model-takes-part",
        "transport/grpc",
        "src/fedsplit/transport/grpc/client/client.py",
        "if setting.frozen_digest != plan.frozen_weights:",
        "if False:",
        ("tests/transport/test_language_models.py",),
    ),
    Fault(
        "a-server-names-the-folder-of-a-model",
        "transport/grpc",
        "src/fedsplit/transport/grpc/protocol/plan.py",
        "return {*_FILES, *config.of_this_machine()}",
        "return set(_FILES)",
        ("tests/transport/test_plan.py",),
    ),
)


# Copies of a checkout


def copied(root: Path, folder: Path) -> None:
    """Copy what git tracks or would add, as it is in the working tree."""
    asked = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(asked, check=True, stdout=subprocess.PIPE).stdout.decode()
    for name in sorted(set(filter(None, listed.split("\0")))):
        if (root / name).is_file():  # one that was removed is listed until that is committed
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            copy2(root / name, folder / name)


def environment(copy: Path) -> dict[str, str]:
    """Environment variables by which the package of a copy is imported, and not the one that is installed."""
    return {**os.environ, "PYTHONPATH": str(copy / "src"), "COLUMNS": "200"}


def check_import(copy: Path) -> None:
    """Raise where Python finds another package than that of a copy.

    Raises:
        Unusable: it does.
    """
    asked = [sys.executable, "-c", "import fedsplit; print(fedsplit.__file__)"]
    found = subprocess.run(asked, cwd=copy, env=environment(copy), check=True, capture_output=True, text=True)
    where = found.stdout.strip()
    if Path(where) != copy / "src" / "fedsplit" / "__init__.py":
        raise Unusable(f"fedsplit comes from {where}, not from the copy in {copy}")


@contextmanager
def present(fault: Fault, copy: Path) -> Iterator[None]:
    """While a fault is in the source of a copy."""
    path = copy / fault.file
    sound = path.read_text("utf-8")
    try:
        _write(path, sound.replace(fault.before, fault.after))
        yield
    finally:
        _write(path, sound)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    # what was compiled goes by seconds and size, and both may be the same with a fault and without
    Path(cache_from_source(str(path))).unlink(missing_ok=True)


# Tests


def first_failure(output: str) -> str:
    """The test that failed first, as pytest's summary names it; empty where it names none."""
    for line in output.splitlines():
        if line.startswith(("FAILED ", "ERROR ")):
            return line.split(maxsplit=1)[1].split(" - ", 1)[0]
    return ""


def report_on(fault: Fault, ended: Ended) -> Report:
    """What tests say of a fault; without it they pass.

    Raises:
        Unusable: pytest itself failed, or found no test.
    """
    test = first_failure(ended.output)
    match ended.code:
        case None:
            return Report("timed out", "", ended.seconds)
        case code if code == _PASSED:
            return Report("not noticed", "", ended.seconds)
        case code if code == _FAILED:
            return Report("noticed", test, ended.seconds)
        case code if code in (_NOT_COLLECTED, _WRONG_CALL):
            return Report("noticed at import", test or fault.tests[0], ended.seconds)
    raise Unusable(f"{fault.name}: pytest ended with {ended.code}\n{_end_of(ended.output)}")


def _end_of(output: str) -> str:
    return "\n".join(output.splitlines()[-40:])


class Copies:
    """Copies of a checkout, one for each thing that is done at once.

    Args:
        root: the checkout.
        folder: for the copies.
        number: of them.
        long: whether tests that are marked long run too.
        timeout_s: seconds that the tests of one fault may take.
    """

    def __init__(self, root: Path, folder: Path, number: int, *, long: bool, timeout_s: float) -> None:
        self._free: SimpleQueue[Path] = SimpleQueue()
        self._running: set[subprocess.Popen[str]] = set()
        self._long, self._timeout_s = long, timeout_s
        for place in range(number):
            copy = folder / str(place)
            copied(root, copy)
            check_import(copy)
            self._free.put(copy)

    @contextmanager
    def _taken(self) -> Iterator[Path]:
        copy = self._free.get()
        try:
            yield copy
        finally:
            self._free.put(copy)

    def check_sound(self, tests: Sequence[str]) -> None:
        """Raise where tests do not pass without a fault.

        Raises:
            Unusable: they do not, or there are none.
        """
        with self._taken() as copy:
            ended = self._run(copy, tests, self._timeout_s * len(tests))
        if ended.code != _PASSED:
            what = "take too long" if ended.code is None else f"end with {ended.code}"
            raise Unusable(f"without a fault {' '.join(tests)} {what}\n{_end_of(ended.output)}")

    def try_fault(self, fault: Fault) -> Report:
        """Run the tests of a fault with it in the source."""
        with self._taken() as copy, present(fault, copy):
            return report_on(fault, self._run(copy, fault.tests, self._timeout_s))

    def _run(self, copy: Path, tests: Sequence[str], timeout_s: float) -> Ended:
        """Run tests in a copy until one fails, or they take too long."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        if self._long:
            command += ["-m", "long or not long"]
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
            began = time.monotonic()
            process = subprocess.Popen(
                command,
                cwd=copy,
                env=environment(copy),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                text=True,
            )
            self._running.add(process)
            code: int | None = None
            try:
                code = process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                _kill(process)
            finally:
                self._running.discard(process)
            seconds = time.monotonic() - began
            output.seek(0)
            return Ended(code, output.read(), seconds)

    def stop(self) -> None:
        """End all tests that run."""
        for process in list(self._running):
            _kill(process)


def _kill(process: "subprocess.Popen[str]") -> None:
    """End a process, and what it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


# The command


def selected(names: Sequence[str], rooms: Sequence[str]) -> list[Fault]:
    """The faults of some names or rooms; all where neither is given.

    Raises:
        Unusable: there is no fault of such a name, or no such room.
    """
    known = {"name": {fault.name for fault in FAULTS}, "room": {fault.room for fault in FAULTS}}
    for kind, asked in (("name", names), ("room", rooms)):
        for each in asked:
            if each not in known[kind]:
                raise Unusable(f"no fault has the {kind} {each}; known: {', '.join(sorted(known[kind]))}")
    return [each for each in FAULTS if not (names or rooms) or each.name in names or each.room in rooms]


def check_faults(faults: Sequence[Fault], root: Path) -> None:
    """Raise where faults do not fit the source or the tests of a checkout.

    Raises:
        Unusable: says of each what does not fit.
    """
    wrong = [
        f"{name}: of several faults" for name, n in Counter(each.name for each in FAULTS).items() if n > 1
    ]
    for fault in faults:
        path = root / fault.file
        times = path.read_text("utf-8").count(fault.before) if path.is_file() else 0
        if times != 1:
            wrong.append(f"{fault.name}: {fault.file} holds its text {times} times, and not once")
        if fault.before == fault.after:
            wrong.append(f"{fault.name}: changes nothing")
        wrong += [f"{fault.name}: no {test}" for test in fault.tests if not (root / test).exists()]
    if wrong:
        raise Unusable("\n".join(wrong))


def table_of(reports: Sequence[tuple[Fault, Report]]) -> Table:
    """A row a fault, by room."""
    table = Table()
    for name in ("room", "fault", "outcome", "by", "s"):
        table.add_column(name, justify="right" if name == "s" else "left", overflow="fold")
    for fault, report in reports:
        style = None if report.outcome in NOTICED else "bold red"
        row = (fault.room, fault.name, report.outcome, report.test, f"{report.seconds:.0f}")
        table.add_row(*row, style=style)
    return table


def write_json(path: Path, root: Path, reports: Sequence[tuple[Fault, Report]]) -> None:
    """Write what became of each fault."""
    faults = [{**asdict(fault), **asdict(report)} for fault, report in reports]
    totals = Counter(report.outcome for _, report in reports)
    content = {"root": str(root), "totals": dict(totals), "faults": faults}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def try_all(faults: Sequence[Fault], copies: Copies, jobs: int, console: Console) -> list[Report]:
    """Run all tests without a fault, then those of each fault with it."""
    tests = sorted({test for fault in faults for test in fault.tests})
    chunks = [tests[start :: _CHUNKS_A_JOB * jobs] for start in range(_CHUNKS_A_JOB * jobs)]
    with ThreadPoolExecutor(jobs) as pool:
        try:
            console.print(f"{len(tests)} files of tests without a fault")
            list(pool.map(copies.check_sound, filter(None, chunks)))
            console.print(f"{len(faults)} faults")
            reports = []
            for fault, report in zip(faults, pool.map(copies.try_fault, faults), strict=True):
                console.print(f"{fault.name}: {report.outcome} ({report.seconds:.0f} s)", highlight=False)
                reports.append(report)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            copies.stop()
            raise
    return reports


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="faults of these names")
    parser.add_argument("--room", nargs="+", default=[], metavar="ROOM", help="faults of these rooms")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="faults at once; default: cores"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what became of each fault there")
    parser.add_argument("--root", type=Path, default=ROOT, help="checkout whose source and tests are used")
    parser.add_argument("--long", action="store_true", help="also run tests that are marked long")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for the tests of a fault")
    asked = parser.parse_args(arguments)
    if asked.jobs < 1:
        parser.error("--jobs must be 1 or more")
    return asked


def main(arguments: Sequence[str]) -> int:
    """Exit code; see above."""
    asked, console = parsed(arguments), Console(soft_wrap=True)
    root = asked.root.resolve()
    began = time.monotonic()
    try:
        faults = selected(asked.only, asked.room)
        check_faults(faults, root)
        with tempfile.TemporaryDirectory(prefix="fedsplit-faults-") as folder:
            copies = Copies(root, Path(folder), asked.jobs, long=asked.long, timeout_s=asked.timeout)
            reports = list(zip(faults, try_all(faults, copies, asked.jobs, console), strict=True))
    except Unusable as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    table = table_of(reports)
    if not console.is_terminal:  # a file is as wide as it needs to be
        wide = Measurement.get(console, console.options.update(max_width=10_000), table).maximum
        console = Console(width=max(wide, console.width), soft_wrap=True)
    console.print(table)
    if asked.json:
        write_json(asked.json, root, reports)
    missed = sum(report.outcome not in NOTICED for _, report in reports)
    noticed = f"{len(reports) - missed} of {len(reports)} faults noticed"
    console.print(f"{noticed}, {missed} not, in {time.monotonic() - began:.0f} s")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
