"""What both ends of a link agree on: how the weights of a part are counted, and what is drawn for them."""

from fedsplit.parties.messages import Part
from fedsplit.randomness import seed_of
from fedsplit.results.ledger import Direction, Kind

KIND_OF: dict[Part, Kind] = {
    "client": "client_weights",
    "auxiliary": "auxiliary_weights",
    "full": "full_weights",
}
"""How the weights of a part are counted."""


def weights_seed(seed: int, direction: Direction, part: Part, client: int, round: int) -> int:
    """Seed of what codecs draw for weights; `client` is 0 where all clients are sent the same."""
    return seed_of(seed, f"rounding of {KIND_OF[part]} {direction}", client=client, round=round)
