"""What a run was set to, as a number or a name."""

from fedsplit.errors import UserError
from fedsplit.reports.runs import Run

ALPHA, AUXILIARY, BITS = "distribution.alpha", "auxiliary", "bits"


def setting(run: Run, x: str) -> float | str:
    """What a run was set to: a number, or a name.

    Raises:
        UserError: it has no such setting.
    """
    if x == BITS:
        return _bits(run)
    if x == AUXILIARY:
        size = (run.results or {}).get("parameters", {}).get("auxiliary")
        if not size:
            raise UserError("run", run.path, "must have an auxiliary model, its size in results.json")
        return float(size)
    named = run.named(x)
    if not named or named[-1] == "null":
        if x == ALPHA and run.choices.get("distribution") == "iid":
            return "iid"
        raise UserError("run", run.path, f"has no {x} in config.yaml")
    try:
        return float(named[-1])
    except ValueError:
        return named[-1]


def _bits(run: Run) -> float:
    """All bits sent by all values sent, labels aside."""
    bits = values = 0.0
    for name in run.columns:
        _, _, link = name.partition("bits.")
        if link and not link.endswith(".labels") and f"bytes.{link}" in run.columns:
            for size, each in zip(run.columns[f"bytes.{link}"], run.columns[name], strict=True):
                if size and each:
                    bits += 8 * size
                    values += 8 * size / each
    if not values:
        raise UserError("run", run.path, "must have columns bits.<direction>.<kind> in metrics.csv")
    return bits / values
