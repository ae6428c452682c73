"""Nobody imports this: a server that means harm asks for it."""


class Sentinel:
    """What it asks for."""
