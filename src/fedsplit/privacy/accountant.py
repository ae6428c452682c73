"""Accountant of a run's defence: an epsilon for each of the things that leave a client."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf, sqrt

from fedsplit.privacy.accounting import epsilon, mu_square
from fedsplit.privacy.defence import Defence
from fedsplit.privacy.releases import Counts

COLUMNS = ("smashed", "weights", "features", "labels")
"""Kinds of data that leave a client; features are smashed data and weights together."""

_RAW = "weights move with raw samples; defence=dp_sgd with a clip and noise bounds that"


@dataclass(frozen=True)
class Accountant:
    """Bounds for the most exposed sample of a run.

    Args:
        defence: defence of its clients.
        sends_smashed: True if clients send smashed data; else they train the whole model and send that.
        gets_gradients: True if clients descend along gradients that the server made, or made the model of.
        says_uploads: True if the algorithm says what clients upload.
        uploads_labels: True if clients that send smashed data send labels.
        mixing: name of a layer of the client model by which samples of a batch depend on each other.
    """

    defence: Defence
    sends_smashed: bool
    gets_gradients: bool
    says_uploads: bool
    uploads_labels: bool
    mixing: str | None

    def reasons(self) -> dict[str, str]:
        """Reasons why there is no bound, by column; columns with one are not in it."""
        found: dict[str, str | None] = {
            "smashed": self._reason_for_smashed_data(),
            "weights": self._weights(),
        }
        found["features"] = found["smashed"] or found["weights"]
        found["labels"] = self._labels() if self.sends_smashed else found["weights"]
        return {column: why for column, why in found.items() if why is not None}

    def _reason_for_smashed_data(self) -> str | None:
        if not self.sends_smashed:
            return None
        if self.defence.smashed_sigma is None:
            return "no Gaussian noise on clipped smashed data"
        if not self.says_uploads:
            return "the algorithm does not say what its clients upload"
        if self.mixing is not None:
            return f"{self.mixing} in the client model lets a sample change the smashed data of others"
        return None

    def _labels(self) -> str:
        if self.uploads_labels:
            return "clients upload labels as they are"
        return "gradients of clients' tails carry labels as they are"

    def _weights(self) -> str | None:
        if self.defence.gradient_sigma is None:
            return _RAW
        if self.gets_gradients and (why := self._reason_for_smashed_data()) is not None:
            return f"gradients from the server carry raw smashed data: {why}"
        return None

    def epsilons(self, counts: Iterable[Counts]) -> dict[str, float]:
        """Epsilon of each column for the sample that was released most; infinite where nothing bounds it.

        Args:
            counts: counts of all samples.
        """
        all_counts, reasons, found = list(counts), self.reasons(), {}
        for column in COLUMNS:
            if column in reasons or (column == "smashed" and not self.sends_smashed):
                found[column] = inf if column in reasons else 0.0
                continue
            smashed = self.sends_smashed and (
                column in ("smashed", "features") or (column == "weights" and self.gets_gradients)
            )
            found[column] = self._epsilon(all_counts, smashed=smashed, gradients=column != "smashed")
        return found

    def _epsilon(self, counts: Iterable[Counts], *, smashed: bool, gradients: bool) -> float:
        """Epsilon of some of the releases; mechanisms that are composed add up in squares of mu."""
        unit, delta = self.defence.unit, self.defence.delta
        assert unit is not None
        assert delta is not None
        most = 0.0
        for each in counts:
            squares = each.smashed.new_zeros(each.smashed.shape).double()
            for counted, releases, sigma in (
                (smashed, each.smashed, self.defence.smashed_sigma),
                (gradients, each.gradients, self.defence.gradient_sigma),
            ):
                if counted and sigma is not None:
                    squares += releases * mu_square(1, sigma, unit)
            most = max(most, float(squares.max()))
        return epsilon(sqrt(most), delta)
