"""Reference pages of keys and choices, generated from `hydra_config/` and the annotations of its keys."""

import ast
import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fedsplit.config.choices import CONFIGS, names_of, target_of
from fedsplit.config.settings import CODECS, TOPICS, keys_of
from fedsplit.config.signature import signature
from fedsplit.config.values import describe_allowed

_LINE = re.compile(r"(?P<indent> *)(?P<key>[\w.@/-]+):(?: (?P<value>[^#]*?))?(?: *# (?P<comment>.*))?$")


@dataclass(frozen=True)
class Entry:
    """A key of a YAML file, as it is written there.

    Args:
        key: with dots between levels.
        value: its default; empty where further keys follow below it.
        comment: what the file says of it.
    """

    key: str
    value: str
    comment: str


def entries(file: Path) -> Iterator[Entry]:
    """Keys of a file in its order, with their comments; the list of defaults is left out."""
    above: list[str] = []
    for line in file.read_text("utf-8").splitlines():
        found = _LINE.fullmatch(line)
        if found is None:
            continue
        level = len(found["indent"]) // 2
        above = [*above[:level], found["key"]]
        if above[0] not in ("defaults", "hydra"):
            yield Entry(".".join(above), (found["value"] or "").strip(), found["comment"] or "")


def keys_page() -> str:
    """Page of all keys of `config.yaml`: default, what is allowed, and meaning."""
    kinds = {
        f"{topic.PLACE}.{key}".lstrip("."): kind
        for topic in TOPICS.values()
        for key, kind in keys_of(topic).items()
    }
    written = {entry.key: entry for entry in entries(CONFIGS / "config.yaml")}
    lines = [
        "# Keys",
        "",
        "Every key with its default, what it may be, and what it means; set as `key=value`. Keys below a "
        "group, as `algorithm.align_interval`, are those of [its choices](choices.md).",
    ]
    for topic in TOPICS.values():
        known = [f"{topic.PLACE}.{key}".lstrip(".") for key in keys_of(topic)]
        shown = [written[key] for key in known if key in written]
        if shown:
            lines += ["", f"## {_heading(topic.__name__)}", "", (topic.__doc__ or "").splitlines()[0], ""]
            lines += _table([(each, kinds[each.key]) for each in shown])
    return "\n".join(lines) + "\n"


def choices_page() -> str:
    """Page of all groups and their choices, with the keys of each."""
    lines = [
        "# Groups and choices",
        "",
        "A group is a folder of `hydra_config/` and a choice a file in it: `group=choice` on the command "
        "line, and `group.key=value` for a key of the choice.",
    ]
    groups = sorted({str(file.parent.relative_to(CONFIGS)) for file in CONFIGS.rglob("*/*.yaml")})
    for group in groups:
        if group.startswith("hydra"):
            continue
        lines += ["", f"## {group}", ""]
        if group == "codec":
            lines += [f"Chosen at {', '.join(f'`{place}`' for place in CODECS)}.", ""]
        for choice in names_of(group):
            lines += _choice(group, choice)
    return "\n".join(lines) + "\n"


def _choice(group: str, choice: str) -> list[str]:
    file = CONFIGS / group / f"{choice}.yaml"
    target = target_of(group, choice)
    known = signature(target) if target else None
    annotations = known.annotations if known else {}
    shown = [each for each in entries(file) if not each.key.endswith("_target_")]
    lines = [f"### {group}={choice}", "", _summary(file, target), ""]
    if shown:
        lines += _table([(each, annotations.get(each.key)) for each in shown])
    return [*lines, ""]


def _table(rows: list[tuple[Entry, object]]) -> list[str]:
    lines = ["| key | default | allowed | meaning |", "|---|---|---|---|"]
    for entry, kind in rows:
        words = describe_allowed(kind) if kind is not None else ""
        cells = [f"`{entry.key}`", f"`{entry.value}`" if entry.value else "", words, entry.comment]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines


def _summary(file: Path, target: str | None) -> str:
    """First comment of a choice's file, or else the first line of what its `_target_` says of itself."""
    first = file.read_text("utf-8").partition("\n")[0]
    if first.startswith("# ") and not first.startswith("# @"):
        return first.removeprefix("# ")
    return _docstring(target) if target else ""


def _docstring(target: str) -> str:
    module, _, name = target.rpartition(".")
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None or not module.startswith("fedsplit."):
        return f"`{target}`."
    for node in ast.parse(Path(spec.origin).read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return (ast.get_docstring(node) or "").partition("\n\n")[0].replace("\n", " ")
    return f"`{target}`."


def _heading(name: str) -> str:
    words = re.findall(r"[A-Z][a-z]+", name.removesuffix("Settings"))
    return " ".join(words).capitalize()


PYTHON_PAGE = """# Python

[fedsplit from Python](../python.md) is the guide; these are its functions, and the interfaces of parts that
one can write.

::: fedsplit
    options:
      members: [run, load_run, load_runs, compose, split]

::: fedsplit.cli.results.RunResults

## Interfaces of parts

::: fedsplit.algorithms.algorithm.Algorithm

::: fedsplit.parties.cohort.Cohort

::: fedsplit.quant.codec.Codec

::: fedsplit.estimators.estimator.GradientEstimator

::: fedsplit.data.distributions.distribution.Distribution
"""
