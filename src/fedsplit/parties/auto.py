"""Which engine pays."""

from dataclasses import dataclass
from typing import Any

from fedsplit.config.values import PositiveFloat

_PARTIES = "fedsplit.parties"


@dataclass(frozen=True, kw_only=True)
class Auto:
    """Stacks clients where one client's step is too small to keep a processor busy; a rule, not a timing.

    Args:
        largest_step_mmac: million multiply-adds of the forward passes of a local step that pay to be stacked.
        stack_mb: see `Vectorized`.
    """

    largest_step_mmac: PositiveFloat
    stack_mb: PositiveFloat

    def chosen(self, step_mmac: float, stackable: bool) -> dict[str, Any]:
        """The configuration of the engine to use.

        Args:
            step_mmac: million multiply-adds of the forward passes of a local step.
            stackable: whether clients can be computed at once at all.
        """
        if stackable and step_mmac <= self.largest_step_mmac:
            return {"_target_": f"{_PARTIES}.vectorized.Vectorized", "stack_mb": self.stack_mb}
        return {"_target_": f"{_PARTIES}.sequential.Sequential"}
