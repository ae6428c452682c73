import json
import os
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFWriter, TokenType
from hypothesis import given
from hypothesis import strategies as st

from fedsplit.config.choices import CONFIGS
from fedsplit.data.tokenizers import subwords
from fedsplit.data.tokenizers.by_name import TokenizerName, build_tokenizer
from fedsplit.data.tokenizers.tokenizer import Tokenizer
from fedsplit.errors import UserError

TEXTS = ("name[Aromi], area[city centre]", "Aromi is in the city centre. £20!", "the thing; the other thing")
LEARNED: tuple[TokenizerName, ...] = ("characters", "bpe")
OWN = {name: build_tokenizer(name, None, 300, TEXTS) for name in ("bytes", *LEARNED)}
REAL = Path(os.environ.get("FEDSPLIT_GPT2_TOKENIZER", CONFIGS.parent / "datas" / "gpt2_tokenizer"))
real = pytest.mark.skipif(
    not REAL.is_dir(), reason=f"no vocabulary of GPT-2 in {REAL}; FEDSPLIT_GPT2_TOKENIZER names its folder"
)


def small_gpt2(folder: Path) -> Path:
    """The files of a vocabulary that knows all bytes, `he` and `hel`."""
    alphabet = sorted(subwords.pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, "he", "hel", "<|endoftext|>"]
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\nh e\nhe l\n")
    return folder


def described(folder: Path, end: str = "<|endoftext|>", **parts: Any) -> Path:
    """A `tokenizer.json` of few words."""
    vocabulary = {"[UNK]": 0, "a": 1, "b": 2, "[CLS]": 3, end: 4}
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    content = {
        "version": "1.0",
        "added_tokens": [
            {"id": number, "content": token} | special for number, token in ((3, "[CLS]"), (4, end))
        ],
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": end, "type_id": 0}},
            ],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {
                token: {"id": token, "ids": [number], "tokens": [token]}
                for number, token in ((3, "[CLS]"), (4, end))
            },
        },
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    }
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(content | parts))
    return folder


def gguf(path: Path, tokens: list[str], merges: list[str], way: str = "gpt-2", kind: str = "gpt2") -> Path:
    """A GGUF file that holds a tokenizer alone, whose last token is a special one."""
    writer = GGUFWriter(path, "llama")
    writer.add_tokenizer_model(kind)
    writer.add_tokenizer_pre(way)
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.NORMAL] * (len(tokens) - 1) + [TokenType.CONTROL])
    writer.add_token_merges(merges)
    writer.add_eos_token_id(len(tokens) - 1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def refusal(name: Any, folder: str | None = None, vocabulary: int = 300) -> UserError:
    with pytest.raises(UserError) as caught:
        build_tokenizer(name, folder, vocabulary, TEXTS)
    assert "\n" not in str(caught.value)
    return caught.value


def special(tokenizer: Tokenizer) -> set[int]:
    return {tokenizer.end, tokenizer.separator}


@pytest.mark.parametrize("name", ["bytes", "bpe"])
@given(text=st.text(st.sampled_from("a ez\n\0é£漢🙂\u0301\ufffd<|>")))  # all of Unicode takes seconds
def test_text_of_any_characters_comes_back_from_its_ids(name: str, text: str) -> None:
    tokenizer = OWN[name]
    (ids,) = tokenizer.encode([text])
    assert tokenizer.decode(ids) == text
    assert all(0 <= each < tokenizer.size for each in ids)
    assert not set(ids) & special(tokenizer)


@pytest.mark.parametrize("name", OWN)
def test_special_ids_are_two_below_the_size_and_decode_to_nothing(name: str) -> None:
    tokenizer = OWN[name]
    assert len(special(tokenizer)) == 2
    assert max(special(tokenizer)) < tokenizer.size
    (ids,) = tokenizer.encode([TEXTS[0]])
    assert tokenizer.decode([tokenizer.end, *ids, tokenizer.separator]) == TEXTS[0]


def test_bytes_are_the_ids_and_damaged_ones_decode_to_the_replacement_character() -> None:
    assert OWN["bytes"].encode(["aé"]) == [[97, 0xC3, 0xA9]]
    assert OWN["bytes"].decode([97, 0xC3]) == "a\ufffd"


def test_characters_are_those_of_the_training_split_in_order() -> None:
    tokenizer = build_tokenizer("characters", None, 300, ["cab", "b"])
    assert tokenizer.encode(["abc", "xa"]) == [[0, 1, 2], [3, 0]]
    assert (tokenizer.size, tokenizer.end, tokenizer.separator) == (6, 4, 5)
    assert tokenizer.decode([0, 3, 1]) == "a\ufffdb"


def test_byte_pairs_learned_twice_in_any_order_of_texts_are_the_same() -> None:
    again = build_tokenizer("bpe", None, 300, TEXTS[::-1])
    assert again.digest == OWN["bpe"].digest
    assert again.encode(TEXTS) == OWN["bpe"].encode(TEXTS)


def test_byte_pairs_merge_the_most_frequent_pair_first_and_no_more_than_the_vocabulary_holds() -> None:
    tokenizer = build_tokenizer("bpe", None, 259, ["xyxyxy zz"])
    assert tokenizer.size == 259
    (ids,) = tokenizer.encode(["xyz"])
    assert ids[0] == 258
    assert len(ids) == 2


def test_digests_tell_tokenizers_of_other_texts_or_kinds_apart(tmp_path: Path) -> None:
    others = [build_tokenizer(name, None, 300, ["other"]) for name in LEARNED]
    files = [build_tokenizer("files", str(small_gpt2(tmp_path)), 0, ())]
    assert len({each.digest for each in (*OWN.values(), *others, *files)}) == 6


def test_files_of_gpt2_are_read_by_either_name(tmp_path: Path) -> None:
    folder = str(small_gpt2(tmp_path))
    tokenizer = build_tokenizer("gpt2", folder, 0, ())
    assert tokenizer.digest == build_tokenizer("files", folder, 0, ()).digest
    (ids,) = tokenizer.encode(["hello"])
    assert ids[0] == 257
    assert tokenizer.decode(ids) == "hello"
    assert (tokenizer.size, tokenizer.end, tokenizer.separator) == (259, 258, 258)


def test_text_that_spells_a_special_token_gives_none(tmp_path: Path) -> None:
    for tokenizer in (build_tokenizer("files", str(small_gpt2(tmp_path)), 0, ()), OWN["bpe"]):
        (ids,) = tokenizer.encode([subwords.END])
        assert tokenizer.end not in ids
        assert tokenizer.decode(ids) == subwords.END


@real
def test_vocabulary_of_gpt2_gives_its_published_ids() -> None:
    """Ids as in the README of https://huggingface.co/openai-community/gpt2 and `encoder.py` of OpenAI."""
    tokenizer = build_tokenizer("gpt2", str(REAL), 0, ())
    assert tokenizer.encode(["Hello world", " I'm"]) == [[15496, 995], [314, 1101]]
    assert (tokenizer.size, tokenizer.end) == (50_257, 50_256)


def test_tokenizer_json_is_read_with_what_a_classifier_expects_around_a_text(tmp_path: Path) -> None:
    tokenizer = build_tokenizer("files", str(described(tmp_path)), 0, ())
    assert tokenizer.encode(["b a", "c"]) == [[2, 1], [0]]
    assert tokenizer.encode_for_classifier(["b a"]) == [[3, 2, 1, 4]]
    assert (tokenizer.size, tokenizer.end, tokenizer.separator) == (5, 4, 4)


@pytest.mark.parametrize("said", ["b", {"content": "b"}])
def test_end_of_a_text_is_the_one_that_the_folder_names(tmp_path: Path, said: object) -> None:
    folder = described(tmp_path)
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": said}))
    assert build_tokenizer("files", str(folder), 0, ()).end == 2


@pytest.mark.parametrize("said", ["[]", '{"eos_token": 3}', '{"eos_token": "nowhere"}', "{}"])
def test_end_of_a_text_is_a_usual_one_where_the_folder_names_none(tmp_path: Path, said: str) -> None:
    folder = described(tmp_path)
    (folder / "tokenizer_config.json").write_text(said)
    assert build_tokenizer("files", str(folder), 0, ()).end == 4


def test_padding_and_truncation_that_a_file_asks_for_are_left_out(tmp_path: Path) -> None:
    folder = described(
        tmp_path,
        truncation={"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0},
        padding={
            "strategy": {"Fixed": 9},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "[UNK]",
        },
    )
    assert build_tokenizer("files", str(folder), 0, ()).encode(["a b"]) == [[1, 2]]


@pytest.mark.parametrize(("way", "pieces"), [("gpt-2", 1), ("smollm", 2)])
def test_gguf_file_gives_its_byte_pairs_and_says_whether_digits_stand_alone(
    tmp_path: Path, way: str, pieces: int
) -> None:
    alphabet = sorted(subwords.pre_tokenizers.ByteLevel.alphabet())
    path = gguf(tmp_path / "a.gguf", [*alphabet, "he", "12", "<|im_end|>"], ["h e", "1 2"], way)
    tokenizer = build_tokenizer("files", str(path), 0, ())
    he, digits = tokenizer.encode(["he", "12"])
    assert (he, len(digits), tokenizer.end, tokenizer.size) == ([256], pieces, 258, 259)
    assert tokenizer.decode([256, *digits, 258]) == "he12"


def test_gguf_file_of_another_kind_or_damaged_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    whole = gguf(path, ["a", "b"], []).read_bytes()
    for content in (b"", b"GGUF", whole[: len(whole) // 2], b"\xff" * 100):
        path.write_bytes(content)
        assert refusal("files", str(path)).key == "dataset.tokenizer_files"
    assert "of kind llama" in refusal("files", str(gguf(path, ["a", "b"], [], kind="llama"))).allowed
    assert "damaged" in refusal("files", str(gguf(path, ["a", "b"], ["a c"]))).allowed


DAMAGED = {
    "no JSON": "{",
    "no tokenizer": "[]",
    "no model": "{}",
    "deep": "[" * 100_000,
    "an id below 0": json.dumps({"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}),
    "a large id": json.dumps({"model": {"type": "BPE", "vocab": {"a": 2**31}, "merges": []}}),
    "no token": json.dumps({"model": {"type": "BPE", "vocab": {}, "merges": []}}),
    "no end": json.dumps({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}),
    "a failing part": json.dumps(
        {
            "normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
            "model": {"type": "BPE", "vocab": {"</s>": 0}, "merges": []},
        }
    ),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_tokenizer_json_is_refused_in_one_line(
    tmp_path: Path, content: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    error = refusal("files", str(tmp_path))
    assert error.key == "dataset.tokenizer_files"
    assert "tokenizer.json" in error.allowed
    assert capfd.readouterr().err == ""  # the package would tell of a failing thread


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(("vocab.json", each) for each in ("[]", "{}", '{"a": 1.5}', '{"a": true}', '{"a": 9999999}')),
        *(("merges.txt", each) for each in ("a", "a b c", "q1 q2", "\udcff")),
    ],
)
def test_damaged_files_of_gpt2_are_refused_in_one_line(tmp_path: Path, name: str, content: str) -> None:
    (small_gpt2(tmp_path) / name).write_text(content, errors="surrogateescape")
    error = refusal("gpt2", str(tmp_path))
    assert (error.key, error.value) == ("dataset.tokenizer_files", str(tmp_path))
    assert name in error.allowed


def test_missing_files_are_refused_with_what_is_wanted(tmp_path: Path) -> None:
    assert "vocab.json" in refusal("gpt2", str(tmp_path / "none")).allowed
    assert "vocab.json" in refusal("gpt2", str(tmp_path)).allowed
    assert "tokenizer.json" in refusal("files").allowed


def test_vocabulary_that_holds_no_pair_is_refused() -> None:
    error = refusal("bpe", vocabulary=258)
    assert (error.key, error.value) == ("dataset.vocabulary", 258)
