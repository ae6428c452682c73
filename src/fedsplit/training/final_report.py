"""Final report of a run: its models, its results, and how they classify test images."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from fedsplit.algorithms.algorithm import Algorithm, Half
from fedsplit.building.models import Models
from fedsplit.machine.terminal import optional
from fedsplit.models.adapters.adapter import Adapter
from fedsplit.parties.workers import ClusterSummary
from fedsplit.recording.classification import CONFUSION, MOST_CLASSES, ROC, ConfusionMatrix, RocCurves
from fedsplit.recording.metrics import LOCAL_ACCURACY, Record, StoppedBy, summarise
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.state.weights import Weights
from fedsplit.trackers.tracker import Tracker
from fedsplit.training.evaluation import Evaluation
from fedsplit.training.privacy import PrivacyRecord
from fedsplit.training.stopping import Limits

_LOG = logging.getLogger("fedsplit")


@dataclass(frozen=True, kw_only=True)
class FinalReport:
    """Measures the final model of a run, and writes what the run leaves behind.

    Args:
        directory: directory of the run.
        tracker: tracker that gets what the evaluation of the last round adds to its row.
        algorithm: algorithm that holds the final model.
        models: skeletons of the split model and the auxiliary model.
        adapter: adapter, which may write a form that other software reads.
        class_names: names of the dataset's classes, by label.
        clients: number of clients of the run.
        evaluation: evaluation of the whole model.
        privacy: record of what left clients.
        cluster: use of a cluster by the run; None where its own process computed all clients.
    """

    directory: RunDirectory
    tracker: Tracker
    algorithm: Algorithm
    models: Models
    adapter: Adapter
    class_names: tuple[str, ...]
    clients: int
    evaluation: Evaluation
    privacy: PrivacyRecord
    cluster: ClusterSummary | None

    def write(self, records: list[Record], stopped_by: StoppedBy, limits: Limits) -> dict[str, object]:
        """Write models, results, local accuracies, confusion matrix and ROC curves; return the results.

        Args:
            records: records of all rounds; where the last was not evaluated, or has no texts of the final
                model,
              another replaces it that has them.
            stopped_by: limit that the run reached.
            limits: limits of the run, for whose targets results say what it took to reach them.

        Raises:
            RunFailed: the test loss is not finite.
            OSError: a file cannot be written.
        """
        full, halves, auxiliary = self.algorithm.full_weights(), self.models.halves, self.models.auxiliary
        models = self.algorithm.models(self.clients)
        evaluated_auxiliary = self.algorithm.evaluated_auxiliary()
        self.directory.save_model(
            {
                **self._half("client", *halves.at_client),
                **self._half("server", halves.server),
                **{
                    name: self.models.with_frozen(weights, auxiliary)
                    for name, weights in self.algorithm.auxiliary_weights().items()
                    if auxiliary is not None
                },
            }
        )
        weights_to_export = {k: v for module in halves.modules for k, v in module.state_dict().items()} | full
        self.directory.save_files("model", self.adapter.files(halves.server, weights_to_export))
        local = self.evaluation.locally(models, evaluated_auxiliary)
        last_record, changes = records[-1], dict[str, Any]()
        if last_record.test_loss is None:
            # After the checkpoint, which a longer run could go on from: there this round is not evaluated.
            scores = self.evaluation.globally(models, evaluated_auxiliary)
            changes = {
                "test_accuracy": scores.accuracy,
                "test_loss": scores.loss,
                "test_perplexity": scores.perplexity,
                "local_accuracy": local.summary if local else None,
                "released_accuracy": self.evaluation.released_accuracy(
                    models, evaluated_auxiliary, last_record.round
                ),
            }
        if (
            last_record.text_scores is None
            and (texts := self.evaluation.texts(full, evaluated_auxiliary)) is not None
        ):
            changes["text_scores"] = texts.scores
            self.directory.save_texts(last_record.round, texts.lines())
        if changes:
            records[-1] = replace(last_record, **changes)
            self.directory.rewrite(records)
            before, after = last_record.row(), records[-1].row()
            self.tracker.round({k: v for k, v in after.items() if k == "round" or v != before[k]})
        results = summarise(
            records,
            stopped_by=stopped_by,
            target_accuracy=limits.target_accuracy,
            target_perplexity=limits.target_perplexity,
            parameters={
                "client": sum(map(_parameters, halves.at_client)),
                "server": _parameters(halves.server),
                "auxiliary": _parameters(self.models.auxiliary),
            },
            frozen_bytes={
                "client": sum(map(_frozen_bytes, halves.at_client)),
                "server": _frozen_bytes(halves.server),
                "auxiliary": _frozen_bytes(self.models.auxiliary),
            },
        )
        cluster = self.cluster.plain() if self.cluster else None
        results |= {"privacy": self.privacy.results(records[-1]), "cluster": cluster, "auc": None}
        self.directory.save_results(results)
        if local:
            with optional(LOCAL_ACCURACY):
                local.write(self.directory.path / LOCAL_ACCURACY)
        if (classes := self.evaluation.test.classes) is not None:
            results |= self._classification(models, evaluated_auxiliary, classes)
        self.directory.save_results(results)
        _LOG.info("stopped by %s after %s rounds", stopped_by, len(records))
        return results

    def _half(self, half: Half, *parts: nn.Module) -> dict[str, Weights]:
        """Weights of a half of the model by file name: one for each client where it is their own."""
        if self.algorithm.own_half == half:
            return {
                f"{half}-{k}": self.models.with_frozen(weights, *parts)
                for k, weights in self.algorithm.own_weights.items()
            }
        return {half: self.models.with_frozen(self.algorithm.full_weights(), *parts)}

    def _classification(
        self, models: Sequence[Weights], auxiliary: Weights | None, classes: Tensor
    ) -> dict[str, object]:
        """Write how the model classifies test images, and return what results hold of it.

        Where clients have their own models, these are counted together, each on every image once.
        """
        results: dict[str, object] = {}
        with optional(f"{CONFUSION} and {ROC}"):
            test, names = self.evaluation.test, self.class_names
            logits = np.concatenate([test.logits(full, auxiliary).cpu().numpy() for full in models])
            labels = np.tile(classes.cpu().numpy(), len(models))
            if not np.isfinite(logits).all():
                raise ValueError("the test logits are not finite")
            with optional(ROC):
                curves = RocCurves.of(logits, labels, names)
                curves.write(self.directory.path / ROC)
                results |= {"auc": curves.macro}
            with optional(CONFUSION):
                confusion = ConfusionMatrix.of(logits, labels, names)
                confusion.write(self.directory.path / CONFUSION)
                if len(names) <= MOST_CLASSES:
                    results |= {"class_accuracy": confusion.class_accuracy}
        return results


def _frozen_bytes(module: nn.Module | None) -> int:
    """Bytes of the parameters that do not learn, each counted once whatever names it has."""
    frozen_parameters = (
        [parameter for parameter in module.parameters() if not parameter.requires_grad] if module else []
    )
    return sum(parameter.numel() * parameter.element_size() for parameter in frozen_parameters)


def _parameters(module: nn.Module | None) -> int:
    return sum(parameter.numel() for parameter in module.parameters()) if module else 0
