"""What measures the model of a run."""

from fedsplit.building.parts import Ingredients
from fedsplit.data.dataset import Images
from fedsplit.errors import UserError
from fedsplit.objectives.classification import Classification
from fedsplit.parties.evaluation import Evaluator


def build_evaluator(parts: Ingredients) -> Evaluator:
    """Evaluates on the test images."""
    return _on(parts.data.dataset.test, parts)


def build_local_evaluator(parts: Ingredients) -> Evaluator | None:
    """Evaluates on what is held out, one client's after the other's; None where nothing is."""
    if parts.data.local_test is None:
        return None
    if not isinstance(parts.data.dataset.objective, Classification):
        told = "must be 0: local accuracy is that of classification"
        raise UserError("dataset.local_test_fraction", parts.data.dataset.local_test_fraction, told)
    return _on(parts.data.dataset.train.chosen(parts.data.local_test.indices), parts)


def _on(images: Images, parts: Ingredients) -> Evaluator:
    size = parts.config.evaluation.eval_batch_size
    return Evaluator(
        parts.models.halves,
        images,
        objective=parts.data.dataset.objective,
        normalise=parts.data.normalise,
        batch_size=size,
    )
