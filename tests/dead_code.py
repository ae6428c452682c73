"""Dead code: what no line of the checkout calls, reads or names, by vulture.

    python tests/dead_code.py  # a line for each place, as `src/fedsplit/x.py:3: unused function 'f'`

Tests do not count as users: what they alone call is dead. Choices of `hydra_config` and tests name classes by
their dotted path, and count. Its settings are in pyproject.toml. Exit code: 0 if there is none, 1 otherwise.
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from vulture import Vulture

ROOT = Path(__file__).parents[1]
_DOTTED_PATH = re.compile(r"\b[a-z_]\w*(?:\.\w+)+")


def names_in_texts() -> Iterator[str]:
    """Last parts of the dotted paths, as `fedsplit.trackers.none.NoTracker`, by which classes are chosen."""
    texts = [*(ROOT / "hydra_config").rglob("*.yaml"), *(ROOT / "tests").rglob("*.py")]
    for text in texts:
        for path in _DOTTED_PATH.findall(text.read_text("utf-8")):
            if path.startswith(("fedsplit.", "benchmarks.")):
                yield path.rpartition(".")[2]


def dead_code() -> list[str]:
    """Places of dead code, a line each; imports are left to ruff."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["vulture"]
    vulture = Vulture(ignore_names=settings["ignore_names"], ignore_decorators=settings["ignore_decorators"])
    vulture.scavenge([ROOT / path for path in settings["paths"]], exclude=settings["exclude"])
    vulture.used_names.update(names_in_texts())
    return [
        f"{item.filename.relative_to(ROOT)}:{item.first_lineno}: {item.message}"
        for item in vulture.get_unused_code(settings["min_confidence"])
        if item.typ != "import"
    ]


if __name__ == "__main__":
    places = dead_code()
    print(*places, sep="\n", end="\n" if places else "")
    sys.exit(1 if places else 0)
