"""Language of docstrings: each can be understood alone, as `help()` shows it."""

import ast
import re
from collections.abc import Iterator, Set
from itertools import pairwise
from pathlib import Path

import pytest

import fedsplit

REPOSITORY = Path(__file__).parents[1]
SHORTEST = 5
"""Fewest words of a docstring."""
FRAGMENTS = {"Of", "By", "At", "What", "Whether"}
"""First words of docstrings that need what stands before them."""
CLAUSES = {
    *("That", "Which", "Who", "Whose", "Where", "When", "While", "Until", "How", "Why", "If", "As", "So"),
    *("For", "From", "In", "On", "Over", "Per", "To", "With", "Once", "After", "Before", "Its", "Those"),
}
"""First words of clauses, which may be titles of modules, but do not name what a class or function is."""

SECTIONS = ("Args:", "Attributes:", "Returns:")
"""Headings of the parts of a docstring that say what arguments and values are."""
CLAUSES_OF_ARGUMENTS = FRAGMENTS | {"How", "That", "Where", "Which", "Who", "Whom", "Whose", "When"}
"""First words of what is said of an argument that leave out the noun that it is."""
ENTRY = re.compile(r"\*{0,2}\w+(?:, \*{0,2}\w+)*: (.*)")
"""Name of an argument, or of several, and what is said of it."""
PARTICIPLES = {
    *(
        "told",
        "asked",
        "found",
        "made",
        "chosen",
        "own",
        "each",
        "given",
        "taken",
        "kept",
        "sent",
        "held",
        "built",
    ),
    *(
        "drawn",
        "written",
        "said",
        "seen",
        "shown",
        "done",
        "gone",
        "begun",
        "brought",
        "got",
        "laid",
        "led",
        "left",
    ),
    *("known", "lost", "met", "put", "spent", "thrown", "worn", "broken", "driven", "hidden"),
}
"""Participles, and words that stand for a noun, which do not end in -ed."""
ENDS_IN_ED = {"seed", "speed", "need", "embed", "feed"}
"""Nouns and verbs that look like participles."""
VERBS = {
    *(
        "build",
        "check",
        "configure",
        "copy",
        "count",
        "describe",
        "draw",
        "freeze",
        "install",
        "load",
        "measure",
    ),
    *(
        "parse",
        "read",
        "refuse",
        "run",
        "select",
        "simulate",
        "code",
        "add",
        "show",
        "print",
        "fail",
        "raise",
    ),
    *("is", "has", "may", "can", "counts", "for", "await", "keep", "lose", "wait", "find"),
}
"""First words of names that say what is done with what the participle is of, as `run_quantized`."""
EXCEPTED = {
    "WorkerLost": "an error, which says what happened",
    "ClientLost": "an error, which says what happened",
    "DeviceGone": "an error, which says what happened",
    "GradientLost": "an error, which says what happened",
    "StreamRefused": "an error, which says what happened",
    "NotExposed": "an error, which says what happened",
    "_CutReached": "an error, which says what happened",
    "smashed": "smashed data, which is what the field calls them",
    "elapsed": "seconds so far, as progress bars call them",
    "num_batches_tracked": "of torch's batch normalisation",
    "allowed": "of `UserError`, which users read",
    "held": "a column of metrics.csv",
    "observed": "a column of metrics.csv",
    "lost": "a key of results.json",
    "known": "a key of task=attack",
    "reidentified": "a column of attack.csv",
    "unquantized": "a key of compare's results",
    "hidden": "a key of estimator=mlp_regression",
    "own": "a key of the file that tells a client who it is",
    "gathered": "set by tasks, which may be plug-ins",
    "coloured": "set by types of figures, which may be plug-ins",
    "shared": "read by the template of the page",
    "written": "the configuration as a file holds it",
    "decoded": "a tensor as its receiver decodes it, whose original is beside it",
    "received": "smashed data as the server receives them, whose exact ones are beside them",
    "DynamicallyQuantized": "named by `_target_` in configurations of runs that are kept",
    "Own": "named by `_target_` in configurations of runs that are kept",
    "Resampled": "named by `_target_` in configurations of runs that are kept",
    "Vectorized": "named by `_target_` in configurations of runs that are kept",
}
"""Names that end in a participle nevertheless, with the reason."""


def is_fragment(text: str, fragments: Set[str] = FRAGMENTS) -> bool:
    """True if a text needs its neighbours to be understood."""
    words = text.split()
    return len(words) < SHORTEST or words[0].rstrip(",") in fragments


def fragments_of_docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Docstrings of a module, its classes and functions that do not stand alone, with their lines."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            continue
        fragments = FRAGMENTS if isinstance(node, ast.Module) else FRAGMENTS | CLAUSES
        if (text := ast.get_docstring(node)) and is_fragment(text, fragments):
            yield node.body[0].lineno, text


def fragments_of_notes(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Texts below assignments, which say what a constant or field is, that do not stand alone."""
    for node in ast.walk(tree):
        body = getattr(node, "body", [])
        for above, below in pairwise(body if isinstance(body, list) else []):
            match above, below:
                case ast.Assign() | ast.AnnAssign(), ast.Expr(ast.Constant(str(text))) if is_fragment(text):
                    yield below.lineno, text.strip()


def fragments_of_arguments(text: str) -> Iterator[str]:
    """Lines in the sections of a docstring that begin without the noun that they are about."""
    section, indent = "", 0
    for line in text.splitlines():
        content, depth = line.strip(), len(line) - len(line.lstrip())
        if content in SECTIONS:
            section, indent = content, depth + 4
        elif content and depth < indent:
            section = ""
        elif content and section and depth == indent:
            entry = ENTRY.fullmatch(content)
            words = (entry.group(1) if entry and section != "Returns:" else content).split()
            if words[0].rstrip(",:;").capitalize() in CLAUSES_OF_ARGUMENTS:
                yield content


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Docstrings of a module, its classes and functions, with their lines."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if text := ast.get_docstring(node):
            yield node.body[0].lineno, text


def test_every_docstring_is_a_phrase_that_stands_alone() -> None:
    house = Path(fedsplit.__file__).parent
    assert [
        f"{path.relative_to(house)}:{line}: {text.splitlines()[0]}"
        for path in sorted(house.rglob("*.py"))
        if not path.name.startswith("federation_pb2")
        for line, text in fragments_of_docstrings(ast.parse(path.read_text("utf-8")))
    ] == []


def test_every_note_below_a_constant_or_field_is_a_phrase_that_stands_alone() -> None:
    assert [
        f"{path.relative_to(REPOSITORY)}:{line}: {text.splitlines()[0]}"
        for folder in ("src", "benchmarks", "docs", "examples", "tests")
        for path in sorted((REPOSITORY / folder).rglob("*.py"))
        for line, text in fragments_of_notes(ast.parse(path.read_text("utf-8")))
    ] == []


def test_every_argument_and_attribute_is_said_to_be_a_noun() -> None:
    house = Path(fedsplit.__file__).parent
    assert [
        f"{path.relative_to(house)}:{line}: {entry}"
        for path in sorted(house.rglob("*.py"))
        for line, text in docstrings(ast.parse(path.read_text("utf-8")))
        for entry in fragments_of_arguments(text)
    ] == []


def test_no_docstring_begins_by_sending_the_reader_elsewhere() -> None:
    """`@override` marks what fulfils an interface; what is special of it is a sentence of its own."""
    house = Path(fedsplit.__file__).parent
    assert [
        f"{path.relative_to(house)}:{line}: {text.splitlines()[0]}"
        for path in sorted(house.rglob("*.py"))
        for line, text in docstrings(ast.parse(path.read_text("utf-8")))
        if text.startswith("See ")
    ] == []


@pytest.mark.parametrize(
    "line",
    [
        "lr: of the optimizer.",
        "device: where models are.",
        "apart: whether clients are apart.",
        "a, *b: by name.",
    ],
)
def test_line_without_the_noun_is_found(line: str) -> None:
    arguments = f"    rounds: number of rounds.\n    {line}\n        of its second line no noun is asked."
    text = f"Train.\n\nArgs:\n{arguments}\n"
    assert list(fragments_of_arguments(text)) == [line]


def is_participle(name: str) -> bool:
    """True if a name ends in a participle, and does not begin with the verb that makes it understood."""
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+", name)]
    if not words or words[0] in VERBS:
        return False
    return words[-1] in PARTICIPLES or (words[-1].endswith("ed") and words[-1] not in ENDS_IN_ED)


def names_of_things(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Names of classes, functions and public attributes of a module, without attributes that are flags."""
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield node.lineno, name
            case ast.Attribute(value=ast.Name("self"), attr=name, ctx=ast.Store()) if name[0] != "_":
                yield node.lineno, name
        for line in node.body if isinstance(node, ast.ClassDef) else ():
            match line:
                case ast.AnnAssign(target=ast.Name(name), annotation=kind) if "bool" not in ast.unparse(kind):
                    yield line.lineno, name
                case ast.Assign(targets=[ast.Name(name)], value=value) if not isinstance(
                    getattr(value, "value", None), bool
                ):
                    yield line.lineno, name


def test_no_function_class_or_attribute_is_named_by_a_participle_without_a_reason() -> None:
    """A function is a verb, and a class or attribute a noun; what is excepted says why, and is there."""
    house = Path(fedsplit.__file__).parent
    found = {
        name: f"{path.relative_to(house)}:{line}"
        for path in sorted(house.rglob("*.py"))
        if not path.name.startswith("federation_pb2")
        for line, name in names_of_things(ast.parse(path.read_text("utf-8")))
        if is_participle(name)
    }
    assert {name: place for name, place in found.items() if name not in EXCEPTED} == {}
    assert set(EXCEPTED) - set(found) == set()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *(("told", True), ("_built", True), ("seeds_drawn", True), ("Shown", True), ("of_each", True)),
        *(
            ("build", False),
            ("run_quantized", False),
            ("is_used", False),
            ("seed", False),
            ("rounding_seed", False),
        ),
    ],
)
def test_participle_is_told_from_a_verb_and_a_noun(name: str, expected: bool) -> None:
    assert is_participle(name) is expected
