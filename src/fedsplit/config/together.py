"""Which keys of a configuration do not go together."""

from fedsplit.config.settings import ConfigFields
from fedsplit.errors import UserError

_VECTORIZED = "fedsplit.parties.vectorized.Vectorized"


def check_together(config: ConfigFields) -> None:
    """Check keys against each other, once each is allowed by itself.

    Raises:
        UserError: names one of two keys that do not go together.
    """
    size, clients = config.population.cohort_size, config.population.num_clients
    if size is not None and size > clients:
        raise UserError("cohort_size", size, f"at most num_clients, {clients}")
    if config.computation.cuda_graphs and config.computation.compile:
        raise UserError("cuda_graphs", True, "must be false with compile=true")
    if (config.rounding.qat or config.rounding.weight_bits is not None) and not config.client_precisions:
        _check_rounding(config)


def _check_rounding(config: ConfigFields) -> None:
    """What rounding of the client model, while it trains, does not go with."""
    qat, bits, computation = config.rounding.qat, config.rounding.weight_bits, config.computation
    asked = "qat=true" if qat else f"weight_bits={bits}"
    if qat and bits == 16:
        told = "must be 8, 4, 2, 1 or null with qat=true: its layers compute in int8"
        raise UserError("weight_bits", 16, told)
    if computation.precision != "fp32":
        told = f"must be fp32 with {asked}: others round it away"
        raise UserError("precision", computation.precision, told)
    if config.engine.target == _VECTORIZED:
        raise UserError("engine", "vectorized", f"must be auto or sequential with {asked}")
    if computation.cuda_graphs:
        raise UserError("cuda_graphs", True, f"must be false with {asked}: never tried on a GPU")
