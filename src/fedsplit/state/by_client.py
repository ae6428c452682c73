"""States of clients, beside each other in a state."""

from typing import Any


class ByClient(dict[str, dict[str, Any]]):
    """States by the client's number: checkpoints share the file of a client that no round has changed."""
