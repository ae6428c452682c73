"""The two ways a run can end badly, and how each is told."""

_LONGEST = 400
"""Characters of a value that an error shows: paths are longer than most."""


def shorten(text: str) -> str:
    """Shorten a text for an error where it is longer than anybody reads."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def format_count(number: int, noun: str) -> str:
    """A number with its noun, e.g. `1 round` or `2,000 rounds`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def first_line(error: BaseException) -> str:
    """The first line of what an error says; the name of its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class UserError(Exception):
    """Something asked for cannot be: names the key, its value and what is allowed. Exit code 2."""

    exit_code = 2

    def __init__(self, key: str, value: object, allowed: str) -> None:
        super().__init__(key, value, allowed)
        self.key, self.value, self.allowed = key, value, allowed

    def __str__(self) -> str:
        shown = "null" if self.value is None else shorten(str(self.value))
        return r"\n".join(f"{self.key}={shown}: {self.allowed}".splitlines())


class RunFailed(RuntimeError):
    """A correct request that could not be carried to its end. Exit code 3."""

    exit_code = 3


class NonFinite(RunFailed):
    """A loss or a message that is no longer a number; `client` is whose, None the server's."""

    def __init__(self, what: str, client: int | None) -> None:
        super().__init__(what, client)
        self.what, self.client = what, client

    def __str__(self) -> str:
        whose = "the server" if self.client is None else f"client {self.client}"
        return f"{self.what} of {whose} is not finite"
