"""Choice of the engine that is faster."""

from dataclasses import dataclass

from fedsplit.config.values import PositiveFloat


@dataclass(frozen=True, kw_only=True)
class Auto:
    """Engine that stacks clients where one client's step is too small to keep a processor busy.

    Args:
        largest_step_mmac: million multiply-adds of a local step's forward passes up to which stacking pays.
        stack_mb: see `Vectorized`.
    """

    largest_step_mmac: PositiveFloat
    stack_mb: PositiveFloat

    def pays(self, step_mmac: float) -> bool:
        """True if clients whose local step has so many million multiply-adds are computed faster together."""
        return step_mmac <= self.largest_step_mmac
