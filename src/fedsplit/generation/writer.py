"""Lets a model continue the contexts of a dataset, and scores what it writes."""

import json
from dataclasses import asdict, dataclass
from functools import partial

from fedsplit.config.component import Component
from fedsplit.config.values import PositiveInt
from fedsplit.data.dataset import Source
from fedsplit.data.language_source import LanguageSource, Prompts
from fedsplit.errors import UserError
from fedsplit.generation.decoding import Logits, beam_search, greedy
from fedsplit.machine.extras import extra
from fedsplit.recording.text_scores import TextScores


@dataclass(frozen=True)
class GeneratedTexts:
    """Texts of a model, and how near they come to the references.

    Args:
        texts: texts that continue each prompt.
    """

    prompts: Prompts
    texts: tuple[str, ...]
    scores: TextScores

    def lines(self) -> bytes:
        """A line of JSON for each text: its context, the text, and the references."""
        rows = zip(self.prompts.contexts, self.texts, self.prompts.references, strict=True)
        entries = [{"context": context, "text": text, "references": own} for context, text, own in rows]
        return "".join(f"{json.dumps(each, ensure_ascii=False)}\n" for each in entries).encode()

    def results(self) -> dict[str, object]:
        """The number of texts, and their scores."""
        return {"texts": len(self.texts), **asdict(self.scores)}


@dataclass(frozen=True, kw_only=True)
class Writer:
    """Continues prompts, batch by batch.

    Args:
        max_tokens: most tokens of a text.
        batch_size: prompts at a time.
        beams: likely texts that each step keeps; with 1 each token is the likeliest.
    """

    prompts: Prompts
    max_tokens: PositiveInt
    batch_size: PositiveInt
    beams: PositiveInt = 1

    def write(self, logits: Logits) -> GeneratedTexts:
        """Texts of a model whose dropout is off."""
        from fedsplit.generation.scores import score  # noqa: PLC0415  (an extra)

        prompts, texts = self.prompts, list[str]()
        search = greedy if self.beams == 1 else partial(beam_search, width=self.beams)
        for start in range(0, len(prompts.ids), self.batch_size):
            found = search(
                logits,
                prompts.ids[start : start + self.batch_size],
                max_tokens=self.max_tokens,
                end=prompts.tokenizer.end,
                context=prompts.context,
            )
            texts += map(prompts.tokenizer.decode, found)
        return GeneratedTexts(prompts, tuple(texts), score(texts, prompts.references))


def build_prompts(dataset: Component, samples: int | None, *, key: str, value: object) -> Prompts:
    """The contexts that a dataset is tested on, each once.

    Args:
        samples: number of samples, evenly spaced; None takes all.
        key: key that asked for texts.
        value: value of that key.

    Raises:
        UserError: the dataset has none, or what scores texts is not installed.
    """
    source = dataset.build(Source)
    if not isinstance(source, LanguageSource):
        raise UserError(key, value, "needs a dataset with contexts that can be continued, such as e2e_nlg")
    with extra(key, value):
        import fedsplit.generation.scores  # noqa: F401, PLC0415  (now, and not after the first rounds)
    return source.prompts().select_spaced(samples)
