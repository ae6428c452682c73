"""Texts of one's own, with or without a context, one a line."""

import json
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import override

from fedsplit.data.language_source import LanguageSource
from fedsplit.data.text_files import lines, reading
from fedsplit.data.text_source import Passage
from fedsplit.files.bounded import Damage

_KEYS = {"context", "completion", "stratum", "owner"}
_LAYOUT = (
    'train.jsonl and test.jsonl, each line an object with "completion", and where there are any "context", '
    '"stratum" and "owner"'
)


@dataclass(frozen=True, kw_only=True)
class Jsonl(LanguageSource):
    """`train.jsonl` and `test.jsonl`: an object a line, with the text `completion`, and more if there is.

    That is a text `context`, which comes before; `stratum`, what divisions go by; and `owner`, whose it is,
    for `distribution=natural`: of all training texts or none. `validation` divides no context.
    """

    @override
    def read(self) -> tuple[list[Passage], list[Passage]]:
        with reading(self.root, _LAYOUT) as folder:
            train, test = (_passages(folder / f"{split}.jsonl") for split in ("train", "test"))
            if len({each.owner is None for each in train}) == 2:
                raise Damage('train.jsonl has lines with "owner" and lines without')
        return train, test


def _passages(path: Path) -> list[Passage]:
    found = []
    for number, line in enumerate(lines(path), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise Damage(f"line {number} of {path.name} is no JSON") from error
        if not (
            isinstance(entry, dict)
            and "completion" in entry
            and entry.keys() <= _KEYS
            and all(isinstance(each, str) for each in entry.values())
        ):
            keys = ", ".join(sorted(_KEYS))
            raise Damage(f"line {number} of {path.name} must hold texts by {keys}, at least completion")
        context = entry.get("context", "")
        found.append(
            Passage(
                context=context,
                text=entry["completion"],
                group=context or str(number),
                stratum=entry.get("stratum", ""),
                owner=entry.get("owner"),
            )
        )
    return found
