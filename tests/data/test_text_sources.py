import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fedsplit.config.choices import CONFIGS
from fedsplit.config.run_config import RunConfig
from fedsplit.data.language_source import LanguageSource
from fedsplit.data.samples import PAD_INPUT
from fedsplit.data.sources.ag_news import AgNews
from fedsplit.data.sources.e2e_nlg import E2eNlg
from fedsplit.data.sources.jsonl import Jsonl
from fedsplit.data.sources.shakespeare import Shakespeare
from fedsplit.data.sources.sst2 import Sst2
from fedsplit.data.sources.text_folder import TextFolder
from fedsplit.data.text_source import TextSource
from fedsplit.data.texts import Texts
from fedsplit.data.tokenizers.utf8_bytes import Utf8Bytes
from fedsplit.errors import UserError
from fedsplit.objectives.next_token import IGNORED, PADDING, NextToken
from fedsplit.objectives.sequence_classification import SequenceClassification
from tests.data import text_makers as makers

Made = Callable[..., Any]
BYTES = Utf8Bytes()
END, SEPARATOR = BYTES.end, BYTES.separator
REAL = Path(os.environ.get("FEDSPLIT_E2E_NLG", CONFIGS.parent / "datas" / "e2e_nlg"))
real = pytest.mark.skipif(
    not REAL.is_dir(), reason=f"no E2E data in {REAL}; FEDSPLIT_E2E_NLG names their folder"
)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of all sources, in a folder each."""
    for name, make in makers.TEXT_MAKERS.items():
        make(tmp_path / name, monkeypatch)
    return tmp_path


def e2e(root: Path, **settings: Any) -> E2eNlg:
    return E2eNlg(root=str(root / "e2e_nlg"), **{"tokenizer": "bytes", **settings})


def shown(texts: Texts, number: int) -> tuple[str, str]:
    """A text's inputs, and the labels of its targets, of byte tokens; `|` separates, `.` ends."""
    index = torch.tensor([number])
    signs = {END: "$", SEPARATOR: "|"}

    def text_of(ids: torch.Tensor) -> str:
        return "".join(signs.get(each, chr(each % 256)) for each in ids.tolist() if each >= 0)

    return text_of(texts.inputs_at(index)[0]), text_of(texts.labels_at(index)[0])


def refusal(source: TextSource) -> UserError:
    with pytest.raises(UserError) as caught:
        source.load()
    assert "\n" not in str(caught.value)
    return caught.value


def test_e2e_text_is_representation_separator_reference_and_end_of_which_the_last_two_are_targets(
    root: Path,
) -> None:
    data = e2e(root).load()
    assert (len(data.train), len(data.test)) == (24, 4)
    assert isinstance(data.train, Texts)
    assert shown(data.train, 1) == (
        'name[Aromi], area[riverside]|In the riverside, "Aromi" is found.',
        'In the riverside, "Aromi" is found.$',
    )
    assert isinstance(data.objective, NextToken)
    assert data.sizes.arguments == {"vocabulary": BYTES.size, "context": 128}
    assert data.tokenizer == BYTES.digest


def test_loss_on_all_tokens_has_labels_of_the_context_too(root: Path) -> None:
    found = shown(e2e(root, loss_on="all").load().train, 0)
    assert found[0][1:] + "$" == found[1]


def test_training_set_is_taken_where_it_is_there(root: Path) -> None:
    rows = [("mr", "ref"), ("name[X]", "X.")]
    makers.table(root / "e2e_nlg" / "trainset.csv", rows)
    assert len(e2e(root).load().train) == 1


def test_strata_are_names_or_representations_and_first_those_of_training_texts(root: Path) -> None:
    data = e2e(root).load()
    assert data.train.strata.tolist() == [n for n in range(4) for _ in range(6)]
    assert data.test.strata.tolist() == [4, 4, 0, 0]  # of a name that no training text has
    assert e2e(root, strata="mr").load().train.strata.tolist() == [n for n in range(12) for _ in range(2)]


@pytest.mark.parametrize("size", [1, 2, 5, 22])
def test_validation_takes_whole_representations_and_no_test_text(root: Path, size: int) -> None:
    train, held_out = e2e(root, validation=size).splits()
    representations = [{each.context for each in part} for part in (train, held_out)]
    assert not representations[0] & representations[1]
    assert len(train) + len(held_out) == 24
    assert len(held_out) == size + size % 2
    assert not representations[1] & {each.context for each in e2e(root).splits()[1]}


def test_validation_that_leaves_nothing_to_train_on_is_refused(root: Path) -> None:
    assert refusal(e2e(root, validation=23)).key == "dataset.validation"


def test_max_train_keeps_texts_evenly_spaced_and_no_more_than_there_are(root: Path) -> None:
    whole, some = e2e(root).splits()[0], e2e(root, max_train=4).splits()[0]
    assert list(some) == list(whole[::6])
    assert refusal(e2e(root, max_train=25)).key == "dataset.max_train"
    assert refusal(e2e(root, max_test=5)).key == "dataset.max_test"


def test_tokenizer_that_learns_sees_training_texts_alone(root: Path) -> None:
    known = e2e(root, tokenizer="characters").load()
    held_out = e2e(root, tokenizer="characters", validation=22).load()
    assert held_out.tokenizer != known.tokenizer
    letters = {letter for each in e2e(root).splits()[0] for letter in each.context + each.text}
    assert known.num_classes == len(letters) + 3


def test_text_longer_than_the_context_loses_the_beginning_of_its_representation(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = shown(e2e(root, context=30).load().train, 0)
    assert found == ("de]|Aromi is in the riverside.", "Aromi is in the riverside.$")
    assert "24 of 24 texts with a context are longer" in capsys.readouterr().err


def test_text_that_alone_is_longer_than_the_context_loses_its_end(root: Path) -> None:
    assert shown(e2e(root, context=9).load().train, 0) == ("|Aromi is", "Aromi is ")


def test_prompts_are_each_representation_once_with_all_its_references(root: Path) -> None:
    prompts = e2e(root).prompts()
    assert prompts.contexts == ("name[Cotto], area[south]", "name[Aromi], area[south]")
    assert prompts.references[1] == ("Aromi is in the south.", 'In the south, "Aromi" is found.')
    assert prompts.ids[0] == [*b"name[Cotto], area[south]", SEPARATOR]
    assert e2e(root, context=5).prompts().ids[0] == [*b"uth]", SEPARATOR]


def test_prompts_with_validation_are_of_the_texts_held_out(root: Path) -> None:
    _, held_out = e2e(root, validation=4).splits()
    assert set(e2e(root, validation=4).prompts().contexts) == {each.context for each in held_out}


@real
def test_real_e2e_data_have_the_published_numbers_and_share_no_representation() -> None:
    train, test = E2eNlg(root=str(REAL)).splits()
    assert len(train) in (4_672, 42_061)
    assert len(test) == 4_693
    representations = [{each.context for each in part} for part in (train, test)]
    assert len(representations[1]) == 630
    assert not representations[0] & representations[1]


def test_json_lines_without_a_context_are_cut_into_pieces_that_overlap_by_a_token(tmp_path: Path) -> None:
    for split in ("train", "test"):
        makers.json_lines(tmp_path / f"{split}.jsonl", [{"completion": "abcdefg"}, {"completion": ""}])
    train = Jsonl(root=str(tmp_path), tokenizer="bytes", context=3).load().train
    assert [shown(train, n) for n in range(len(train))] == [("abc", "bcd"), ("def", "efg"), ("g", "$")]


def test_json_lines_say_contexts_strata_and_owners(root: Path) -> None:
    train = Jsonl(root=str(root / "jsonl"), tokenizer="bytes").load().train
    assert shown(train, 9) == ("9 + 1|10", "10$")
    assert train.owners is not None
    assert train.owners.tolist() == [n % 3 for n in range(12)]
    assert train.strata.tolist() == [n % 2 for n in range(12)]


def test_shakespeare_predicts_each_next_character_of_a_role(root: Path) -> None:
    source = Shakespeare(root=str(root / "shakespeare"), tokenizer="bytes", context=80, loss_on="all")
    data = source.load()
    assert len(data.train) == 24
    assert data.train.owners is not None
    assert data.train.owners.tolist() == [n for n in range(4) for _ in range(6)]
    inputs, labels = shown(data.train, 0)
    assert (len(inputs), inputs[1:]) == (80, labels[:-1])
    with pytest.raises(UserError, match="no contexts whose continuation"):
        source.prompts()


def test_shakespeare_with_loss_on_targets_predicts_the_last_character_alone(root: Path) -> None:
    train = Shakespeare(root=str(root / "shakespeare"), tokenizer="bytes", loss_on="targets").load().train
    inputs, labels = shown(train, 3)
    assert (len(inputs), len(labels)) == (80, 1)


def test_validation_of_shakespeare_takes_whole_roles(root: Path) -> None:
    train, held_out = Shakespeare(root=str(root / "shakespeare"), validation=7).splits()
    assert not {each.owner for each in train} & {each.owner for each in held_out}
    assert len(held_out) == 12


CLASSIFIED = {
    "ag_news": (AgNews, ("World", "Sports", "Business", "Sci/Tech"), '"train" 1 Something about topic 1', 1),
    "sst2": (Sst2, ("negative", "positive"), 'it \'s "good" 1', 1),
    "text_folder": (TextFolder, ("neg", "pos"), "neg film 1", 0),
}


@pytest.mark.parametrize("name", CLASSIFIED)
def test_classified_texts_have_their_class_for_a_label(root: Path, name: str) -> None:
    kind, names, text, label = CLASSIFIED[name]
    data = kind(root=str(root / name), tokenizer="bytes").load()
    index = torch.tensor([1])
    assert data.train.inputs_at(index).tolist() == [list(text.encode())]
    assert data.train.labels_at(index).tolist() == [[label] + [IGNORED] * (len(text) - 1)]
    assert (data.class_names, data.num_classes) == (names, len(names))
    assert isinstance(data.objective, SequenceClassification)
    assert data.train.strata.unique().tolist() == list(range(len(names)))


def test_classified_texts_are_cut_at_the_end_and_kept_by_class(root: Path) -> None:
    source = Sst2(root=str(root / "sst2"), tokenizer="bytes", context=4, max_train=6, validation=2)
    data = source.load()
    assert data.train.inputs_at(slice(0, 2)).tolist() == [list(b"it '")] * 2
    assert data.train.strata.tolist() == [0, 1] * 3
    assert [each.text for each in source.splits()[1]] == ['it \'s "bad" 22', 'it \'s "good" 23']


def test_empty_text_to_classify_is_an_end(tmp_path: Path) -> None:
    for split in ("train", "dev"):
        (tmp_path / f"{split}.tsv").write_text("sentence\tlabel\n\t1\nab\t0\n")
    train = Sst2(root=str(tmp_path), tokenizer="bytes").load().train
    assert train.inputs_at(slice(0, 2)).tolist() == [[END, PAD_INPUT], [97, 98]]
    assert train.labels_at(slice(0, 2)).tolist() == [[1, PADDING], [0, IGNORED]]


@pytest.mark.parametrize("kind", [E2eNlg, Jsonl, Shakespeare, AgNews, Sst2, TextFolder])
def test_missing_files_are_refused_with_the_layout_that_is_wanted(tmp_path: Path, kind: Any) -> None:
    for place in (tmp_path, tmp_path / "none"):
        error = refusal(kind(root=str(place)))
        assert (error.key, error.value) == ("dataset.root", str(place))
        assert error.allowed.startswith("must hold ")


DAMAGED = {
    "a quote that nothing ends": ("e2e_nlg/devset.csv", b'mr,ref\n"a,b\n'),
    "no such column": ("e2e_nlg/devset.csv", b"mr,text\na,b\n"),
    "a short row": ("e2e_nlg/devset.csv", b"mr,ref\na\n"),
    "no row": ("e2e_nlg/devset.csv", b"mr,ref\n"),
    "nothing": ("e2e_nlg/devset.csv", b""),
    "a long cell": ("e2e_nlg/testset_w_refs.csv", b"mr,ref\na," + b"x" * 200_000),
    "no UTF-8": ("e2e_nlg/testset_w_refs.csv", b"mr,ref\na,\xff\n"),
    "no JSON": ("jsonl/train.jsonl", b"{"),
    "no object": ("jsonl/train.jsonl", b"3"),
    "deep": ("jsonl/train.jsonl", b"[" * 100_000),
    "no completion": ("jsonl/train.jsonl", b'{"context": "a"}'),
    "no text": ("jsonl/test.jsonl", b'{"completion": 3}'),
    "another key": ("jsonl/test.jsonl", b'{"completion": "a", "x": "y"}'),
    "an owner of some": ("jsonl/train.jsonl", b'{"completion": "a", "owner": "b"}\n{"completion": "a"}'),
    "empty texts": ("jsonl/train.jsonl", b'{"completion": ""}'),
    "no file of LEAF": ("shakespeare/shakespeare/train/all_data_niid_0_train_9.json", b"[]"),
    "a number for a text": (
        "shakespeare/shakespeare/train/all_data_niid_0_train_9.json",
        b'{"users": ["a"], "user_data": {"a": {"x": ["b"], "y": [3]}}}',
    ),
    "lists of two lengths": (
        "shakespeare/shakespeare/train/all_data_niid_0_train_9.json",
        b'{"users": ["a"], "user_data": {"a": {"x": ["b"], "y": []}}}',
    ),
    "a topic beyond four": ("ag_news/train.csv", b"5,a,b\n"),
    "a label beyond one": ("sst2/dev.tsv", b"sentence\tlabel\na\t2\n"),
    "a class of test alone": ("text_folder/test/other/1.txt", b"a"),
}


@pytest.mark.parametrize(("file", "content"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_files_are_refused_in_one_line(root: Path, file: str, content: bytes) -> None:
    name = file.partition("/")[0]
    (root / file).parent.mkdir(exist_ok=True)
    (root / file).write_bytes(content)
    kinds = {"e2e_nlg": E2eNlg, "jsonl": Jsonl, "shakespeare": Shakespeare, "ag_news": AgNews, "sst2": Sst2}
    error = refusal(kinds.get(name, TextFolder)(root=str(root / name)))
    assert error.key == "dataset.root"


def test_mark_of_the_encoding_at_the_start_is_left_out(root: Path) -> None:
    (root / "e2e_nlg" / "devset.csv").write_bytes(b"\xef\xbb\xbfmr,ref\r\nname[A],b\r\n")
    assert e2e(root).splits()[0][0].context == "name[A]"


@pytest.mark.parametrize("name", makers.TEXT_MAKERS)
def test_every_choice_of_texts_builds_a_source_with_its_keys(
    root: Path, name: str, configured: Callable[..., RunConfig]
) -> None:
    source = configured(f"dataset={name}", f"dataset.root={root / name}").dataset.build(TextSource)
    assert len(source.load().train) >= 12
    assert isinstance(source, LanguageSource) == (name in ("e2e_nlg", "jsonl", "shakespeare"))
