"""Building of what evaluates the model of a run."""

from fedsplit.building.parts import Ingredients
from fedsplit.data.samples import Samples
from fedsplit.errors import UserError
from fedsplit.parties.evaluation import Evaluator


def build_evaluator(parts: Ingredients) -> Evaluator:
    """Evaluates on the test samples."""
    return _on(parts.data.dataset.test, parts)


def build_local_evaluator(parts: Ingredients) -> Evaluator | None:
    """Evaluates on what is held out, one client's after the other's; None where nothing is."""
    if parts.data.local_test is None:
        return None
    evaluator = _on(parts.data.dataset.train.select(parts.data.local_test.indices), parts)
    if evaluator.classes is None:
        message = "must be 0: local accuracy is that of classification"
        raise UserError("dataset.local_test_fraction", parts.data.dataset.local_test_fraction, message)
    return evaluator


def _on(samples: Samples, parts: Ingredients) -> Evaluator:
    size, objective = parts.config.evaluation.eval_batch_size, parts.data.dataset.objective
    auxiliary = parts.models.auxiliary
    return Evaluator(parts.models.halves, samples, objective=objective, batch_size=size, auxiliary=auxiliary)
