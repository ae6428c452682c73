"""The documentation as a site: its map has every page, and its reference every key and choice."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files

from docs.site.hooks import on_page_content
from docs.site.reference import choices_page, keys_page
from fedsplit.config.choices import CONFIGS
from fedsplit.config.compose import compose_config, composing, plain

DOCS = Path(__file__).resolve().parents[1] / "docs"


def test_map_of_the_site_has_every_page_of_the_documentation(root: Path) -> None:
    shelves = re.findall(r"[\w./-]+\.md", (root / "mkdocs.yml").read_text("utf-8").partition("\nnav:\n")[2])
    pages = {str(page.relative_to(root / "docs")) for page in (root / "docs").rglob("*.md")}
    beside = {"index.md", "contributing.md", "benchmarks.md"}
    assert set(shelves) == pages | beside | {
        "reference/keys.md",
        "reference/choices.md",
        "reference/python.md",
    }
    assert len(shelves) == len(set(shelves))


def test_reference_has_every_key_of_the_configuration_with_its_default() -> None:
    with composing():
        config = plain(compose_config([]))
    rows = dict(re.findall(r"^\| `([\w.]+)` \| `(.*?)` \|", keys_page(), re.MULTILINE))
    top = {key: value for key, value in config.items() if not isinstance(value, dict) and key != "choices"}
    below = {f"client.{key}": value for key, value in config["client"].items()}
    for key, value in (top | below).items():
        if not key.endswith("_optimizer"):
            assert yaml.safe_load(rows[key]) == value


def test_reference_has_every_choice_and_each_of_its_keys() -> None:
    page = choices_page()
    sections = dict(re.findall(r"^### (\S+)\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL))
    files = [
        file.relative_to(CONFIGS) for file in CONFIGS.rglob("*/*.yaml") if "hydra" not in file.parts[-2:]
    ]
    assert {f"{file.parent}={file.stem}" for file in files if not str(file).startswith("hydra/")} == set(
        sections
    )
    for name, section in sections.items():
        group, _, choice = name.partition("=")
        content = yaml.safe_load((CONFIGS / group / f"{choice}.yaml").read_text("utf-8")) or {}
        for key in content.keys() - {"defaults", "_target_", "hydra"}:
            assert f"| `{key}`" in section, name


def test_figures_on_the_site_have_the_width_that_they_are_drawn_for() -> None:
    page: Any = SimpleNamespace(file=SimpleNamespace(src_uri="tutorials/first-run.md"))
    image = '<p><img alt="a" src="../gallery/digits-accuracy-load.png" /> <img src="nowhere.png" /></p>'
    width = int.from_bytes((DOCS / "gallery/digits-accuracy-load.png").read_bytes()[16:20], "big")
    sized = on_page_content(image, page, MkDocsConfig(), Files([]))
    assert sized.replace(f' width="{round(width * 0.72)}"', "", 1) == image != sized


def test_site_asks_for_nothing_from_elsewhere(root: Path) -> None:
    """The plug-in for search on pages of the disk fetches a script, unless one of its name is there."""
    settings = (root / "mkdocs.yml").read_text("utf-8")
    (polyfill,) = re.findall(r"polyfills: \[(.*)\]", settings)
    assert polyfill.endswith("iframe-worker.js")
    assert "font: false" in settings
    for file in ("style.css", "iframe-worker.js"):
        assert not re.search(r"https?:|//\w+\.", (root / "docs" / "site" / file).read_text("utf-8"))
    assert (root / "docs" / polyfill).is_file()
