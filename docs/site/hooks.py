"""Hooks of MkDocs: pages that stand beside `docs/` or are generated, and the links of all pages."""

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from struct import unpack

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).parent))

from reference import PYTHON_PAGE, choices_page, keys_page  # noqa: E402  (needs the path)

BESIDE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "BENCHMARKS.md": "benchmarks.md"}
"""Pages beside `docs/`, and their names on the site."""
GENERATED: Mapping[str, Callable[[], str]] = {
    "reference/keys.md": keys_page,
    "reference/choices.md": choices_page,
    "reference/python.md": lambda: PYTHON_PAGE,
}
_IMAGE = re.compile(r'(?P<before><img [^>]*?src="(?P<source>[^":]+\.png)")(?P<after>[^>]*>)')
_SCALE = 0.72
"""Pixels of the page for a pixel of a figure, which makes its text as large as the page's own."""
_LINK = re.compile(r"(?P<text>\[[^\]\[]*\])\((?P<path>(?!https?:|#|mailto:)[^)#\s]+)(?P<anchor>#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are no files of `docs/`, and leave out what is no page."""
    for file in list(files):
        if file.src_uri.endswith(".py"):
            files.remove(file)
    for name, uri in BESIDE.items():
        files.append(File.generated(config, uri, content=(ROOT / name).read_text("utf-8")))
    for uri, page in GENERATED.items():
        files.append(File.generated(config, uri, content=page()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace links of the checkout by those of the site, or by plain text where it has no such page."""
    uri = page.file.src_uri
    if uri in GENERATED:
        return markdown
    place = next((name for name, other in BESIDE.items() if other == uri), f"docs/{uri}")

    def replaced(link: "re.Match[str]") -> str:
        target = ((ROOT / place).parent / link["path"]).resolve()
        if not target.is_relative_to(ROOT) or not target.exists():
            return link[0]  # a dead link, which MkDocs finds
        inside = str(target.relative_to(ROOT))
        if inside.startswith("hydra_config"):
            on_site, anchor = "reference/choices.md", ""
        elif inside in BESIDE or inside.startswith("docs/"):
            on_site, anchor = BESIDE.get(inside, inside.removeprefix("docs/")), link["anchor"] or ""
        else:
            return link["text"][1:-1]
        return f"{link['text']}({'../' * uri.count('/')}{on_site}{anchor})"

    return _LINK.sub(replaced, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Give images the width that they are drawn for: others would be as wide as the page, or half of it."""
    folder = (ROOT / "docs" / page.file.src_uri).parent

    def sized(image: "re.Match[str]") -> str:
        file = folder / image["source"]
        if not file.is_file():
            return image[0]
        (width,) = unpack(">I", file.read_bytes()[16:20])
        return f'{image["before"]} width="{round(width * _SCALE)}"{image["after"]}'

    return _IMAGE.sub(sized, html)
