"""What measures the model of a run."""

from fedsplit.building.data import Data
from fedsplit.building.models import Models
from fedsplit.config.run_config import RunConfig
from fedsplit.data.dataset import Images
from fedsplit.parties.evaluation import Evaluator


def build_evaluator(config: RunConfig, data: Data, models: Models) -> Evaluator:
    """Evaluates on the test images."""
    return _on(data.dataset.test, config, data, models)


def build_local_evaluator(config: RunConfig, data: Data, models: Models) -> Evaluator | None:
    """Evaluates on what is held out, one client's after the other's; None where nothing is."""
    if data.local_test is None:
        return None
    return _on(data.dataset.train.chosen(data.local_test.indices), config, data, models)


def _on(images: Images, config: RunConfig, data: Data, models: Models) -> Evaluator:
    return Evaluator(
        models.halves, images, normalise=data.normalise, batch_size=config.evaluation.eval_batch_size
    )
