"""The plug-ins that CONTRIBUTING.md prints."""

import re
from collections.abc import Mapping
from pathlib import Path

PRINTED = re.compile(
    r"`((?:src|hydra_config)/\S+)`:\n\n```(?:python|yaml)\n(.*?)^```", re.DOTALL | re.MULTILINE
)


def printed(guide: Path) -> Mapping[str, Mapping[str, str]]:
    """The content of each file, by its path; by the group that its choice is of."""
    found: dict[str, dict[str, str]] = {}
    python: dict[str, str] = {}
    for path, content in PRINTED.findall(guide.read_text("utf-8")):
        if path.endswith(".py"):
            python = {path: content}
        else:
            found[path.split("/")[1]] = python | {path: content}
    return found
