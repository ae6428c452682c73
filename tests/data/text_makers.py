"""Small files of texts in the formats that they are published in."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

NAMES = ("Aromi", "Zizzi", "The Punter", "Wildwood")


def table(path: Path, rows: Iterable[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def descriptions(names: Iterable[str], areas: Sequence[str]) -> list[tuple[str, str]]:
    """Rows of E2E: two texts of each meaning representation."""
    return [
        (f"name[{name}], area[{area}]", text)
        for name in names
        for area in areas
        for text in (f"{name} is in the {area}.", f'In the {area}, "{name}" is found.')
    ]


def e2e_nlg(root: Path, patch: pytest.MonkeyPatch) -> list[str]:
    head = [("mr", "ref")]
    table(root / "devset.csv", head + descriptions(NAMES, ("riverside", "city centre", "north")))
    table(root / "testset_w_refs.csv", head + descriptions(("Cotto", "Aromi"), ("south",)))
    return [f"dataset.root={root}"]


def json_lines(path: Path, lines: Iterable[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")


def jsonl(root: Path, patch: pytest.MonkeyPatch) -> list[str]:
    for split, count in (("train", 12), ("test", 3)):
        json_lines(
            root / f"{split}.jsonl",
            (
                {"context": f"{i} + 1", "completion": str(i + 1), "owner": f"o{i % 3}", "stratum": str(i % 2)}
                for i in range(count)
            ),
        )
    return [f"dataset.root={root}"]


def plays(path: Path, lines: dict[str, str], seen: int = 80) -> None:
    """LEAF's JSON: by role, each `seen` characters of its lines, and the next one."""
    data = {
        role: {
            "x": [text[i : i + seen] for i in range(len(text) - seen)],
            "y": [text[i + seen] for i in range(len(text) - seen)],
        }
        for role, text in lines.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"users": list(data), "num_samples": [len(each["y"]) for each in data.values()]}
    path.write_text(json.dumps({**content, "user_data": data}))


def shakespeare(root: Path, patch: pytest.MonkeyPatch) -> list[str]:
    line = "shall i compare thee to a summer's day? thou art more lovely and more temperate:"
    for split, more in (("train", 6), ("test", 2)):
        roles = {f"SONNETS_{i}": (line[i:] + line)[: 80 + more] for i in range(4)}
        plays(root / "shakespeare" / split / f"all_data_niid_0_{split}_9.json", roles)
    return [f"dataset.root={root}"]


def ag_news(root: Path, patch: pytest.MonkeyPatch) -> list[str]:
    for split, count in (("train", 24), ("test", 4)):
        rows = [(i % 4 + 1, f'"{split}" {i}', f"Something about topic {i % 4}") for i in range(count)]
        table(root / f"{split}.csv", rows)
    return [f"dataset.root={root}"]


def sst2(root: Path, patch: pytest.MonkeyPatch) -> list[str]:
    root.mkdir(exist_ok=True)
    for split, count in (("train", 24), ("dev", 4)):
        rows = [f'it \'s "{("bad", "good")[i % 2]}" {i}\t{i % 2}\n' for i in range(count)]
        (root / f"{split}.tsv").write_text("".join(["sentence\tlabel\n", *rows]))
    return [f"dataset.root={root}"]


def text_folder(root: Path, patch: pytest.MonkeyPatch) -> list[str]:
    for split, count in (("train", 8), ("test", 2)):
        for name in ("neg", "pos"):
            for i in range(count):
                file = root / split / name / f"{i}.txt"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(f"{name} film {i}")
    return [f"dataset.root={root}"]


TEXT_MAKERS = {each.__name__: each for each in (e2e_nlg, jsonl, shakespeare, ag_news, sst2, text_folder)}
"""Functions that write small files of each text dataset, by the name of its choice."""
