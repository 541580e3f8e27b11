# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""How well captions agree with reference captions of the same clips: CIDEr-D, BLEU and ROUGE-L, in plain Python.

captions, references -> words -> n-grams -> CIDEr-D (weighted by rarity), BLEU_1..4 (precision)
                              -> longest common subsequence -> ROUGE_L

The values are those of the package pycocoevalcap on the same words: its `Cider` is CIDEr-D, its BLEU takes the length
of the closest reference. Its tokenizer needs Java; `simple_words` here gives the same words for caption-like text
without hyphens, brackets, abbreviations or numbers with units.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

TOKENIZER = "simple"  # recorded beside every value: other words give other scores
MAX_NGRAM = 4
LENGTH_SIGMA = 6.0  # words; CIDEr-D's Gaussian of the difference in length
ROUGE_BETA = 1.2  # weight of recall against precision
# pycocoevalcap's BLEU adds these to matches and to n-grams, so that a caption without any n-gram is no division by 0
BLEU_TINY, BLEU_SMALL = 1e-15, 1e-9

# what the Penn Treebank cuts off a word: possessive and contractions
_CLITIC = r"(?:n't|'(?:s|m|d|ll|re|ve))\b"
# a clitic, what stands before one, or a word with inner apostrophes such as o'clock
_WORD = re.compile(rf"{_CLITIC}|[^\W_]+?(?={_CLITIC})|[^\W_]+(?:'[^\W_]+)*")

Words = Sequence[str]
NgramCounts = list[Counter[tuple[str, ...]]]


@dataclass(frozen=True)
class CaptionScores:
    """Scores of captions against references.

    Attributes:
        corpus: `CIDEr-D` in [0, 10], `BLEU_1` to `BLEU_4` and `ROUGE_L` in [0, 1], of all captions together.
        per_clip: the same names -> (N,) values; corpus BLEU is not their mean, the other two are.
    """

    corpus: dict[str, float]
    per_clip: dict[str, np.ndarray]


def caption_scores(captions: Sequence[str], references: Sequence[Sequence[str]]) -> CaptionScores:
    """`CIDEr-D`, `BLEU_1` to `BLEU_4` and `ROUGE_L` of one caption per clip; an empty caption scores 0.

    Args:
        captions: N texts, N >= 2: CIDEr-D weighs words by how few clips of the set have them in a reference.
        references: for each clip its reference texts, any number, at least one with a word.

    Raises:
        TypeError: if a caption or a reference is not a text.
        ValueError: if the two differ in length, there are fewer than two clips, or no reference of a clip has a word.
    """
    caption_words, reference_words = _checked_words(captions, references)
    cider = cider_d(caption_words, reference_words)
    bleu_corpus, bleu_per_clip = bleu(caption_words, reference_words)
    rouge = rouge_l(caption_words, reference_words)
    bleu_names = [f"BLEU_{n}" for n in range(1, MAX_NGRAM + 1)]
    per_clip = {"CIDEr-D": cider, **dict(zip(bleu_names, bleu_per_clip.T, strict=True)), "ROUGE_L": rouge}
    corpus = {"CIDEr-D": cider.mean(), **dict(zip(bleu_names, bleu_corpus, strict=True)), "ROUGE_L": rouge.mean()}
    return CaptionScores({name: float(value) for name, value in corpus.items()}, per_clip)


def caption_diversity(captions: Sequence[str]) -> dict[str, float]:
    """How varied captions are, without looking at references.

    Args:
        captions: at least one text.

    Returns:
        `vocabulary_size`, different words; `distinct_1` and `distinct_2`, different words and pairs of words divided
        by all of them; `mean_words`; `duplicates`, share of the captions whose words another one before has;
        `empty`, share without a word.

    Raises:
        TypeError: if a caption is not a text.
        ValueError: if there is none.
    """
    if len(captions) == 0:
        raise ValueError("`captions` is empty, got 0 captions. Give at least one.")
    words = [tuple(simple_words(_checked_text(caption, "captions", i))) for i, caption in enumerate(captions)]
    singles = [word for caption in words for word in caption]
    pairs = [pair for caption in words for pair in pairwise(caption)]
    return {
        "vocabulary_size": float(len(set(singles))),
        "distinct_1": len(set(singles)) / max(1, len(singles)),
        "distinct_2": len(set(pairs)) / max(1, len(pairs)),
        "mean_words": len(singles) / len(words),
        "duplicates": 1 - len(set(words)) / len(words),
        "empty": sum(not caption for caption in words) / len(words),
    }


def simple_words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation; 's, n't and the like are words of their own."""
    return _WORD.findall(text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))


def cider_d(captions: Sequence[Words], references: Sequence[Sequence[Words]]) -> np.ndarray:
    """(N,) CIDEr-D of each clip, in [0, 10] (Vedantam et al. 2015, with clipping and length penalty).

    Of n-grams of 1 to 4 words, weighted by count x log(N / number of clips that have it in a reference):
    10 x mean over n and references of sum min(caption, reference) x reference / (|caption| |reference|) x
    exp(-(difference in words)^2 / (2 x 6^2)).

    Args:
        captions: the words of one caption per clip.
        references: the words of the references of each clip.
    """
    reference_counts = [[_ngram_counts(words) for words in clip] for clip in references]
    clips_with: Counter[tuple[str, ...]] = Counter()
    for clip in reference_counts:
        clips_with.update({ngram for counts in clip for of_length in counts for ngram in of_length})
    log_clips = math.log(len(captions))

    def weighted(counts: NgramCounts) -> list[dict[tuple[str, ...], float]]:
        return [
            {ngram: count * (log_clips - math.log(max(1, clips_with[ngram]))) for ngram, count in of_length.items()}
            for of_length in counts
        ]

    scores = np.zeros(len(captions))
    for index, (words, counts_of_clip) in enumerate(zip(captions, reference_counts, strict=True)):
        caption_vectors = weighted(_ngram_counts(words))
        for reference_words, counts in zip(references[index], counts_of_clip, strict=True):
            difference = len(words) - len(reference_words)
            penalty = math.exp(-(difference**2) / (2 * LENGTH_SIGMA**2))
            cosines = map(_clipped_cosine, caption_vectors, weighted(counts))
            scores[index] += 10 * penalty * sum(cosines) / (MAX_NGRAM * len(counts_of_clip))
    return scores


def bleu(captions: Sequence[Words], references: Sequence[Sequence[Words]]) -> tuple[np.ndarray, np.ndarray]:
    """((4,) BLEU_1 to BLEU_4 of the set, (N, 4) the same of each clip), as pycocoevalcap counts them.

    BLEU_n is the geometric mean of the shares of n-grams of 1 to n words that a reference has (each as often as the
    reference with most of it), times exp(1 - r / c) for c words of captions that are fewer than r words of
    references: of each clip the reference closest in length, of two equally close ones the shorter.

    Args:
        captions: the words of one caption per clip.
        references: the words of the references of each clip.
    """
    totals = np.array([_bleu_counts(*clip) for clip in zip(captions, references, strict=True)])  # (N, 10)
    return _bleu_values(totals.sum(axis=0, keepdims=True))[0], _bleu_values(totals)


def rouge_l(captions: Sequence[Words], references: Sequence[Sequence[Words]]) -> np.ndarray:
    """(N,) ROUGE-L of each clip: F-score, beta 1.2, of the longest common subsequence with a reference.

    Precision and recall are each the best over the references, as in pycocoevalcap.

    Args:
        captions: the words of one caption per clip.
        references: the words of the references of each clip.
    """
    scores = np.zeros(len(captions))
    for index, (words, clip) in enumerate(zip(captions, references, strict=True)):
        common = [_common_length(words, reference) for reference in clip]
        if max(common) > 0:
            precision = max(common) / len(words)
            recall = max(length / max(1, len(reference)) for length, reference in zip(common, clip, strict=True))
            scores[index] = (1 + ROUGE_BETA**2) * precision * recall / (recall + ROUGE_BETA**2 * precision)
    return scores


def _checked_words(
    captions: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[list[list[str]], list[list[list[str]]]]:
    if len(captions) != len(references):
        raise ValueError(
            f"`references` must have one list per caption, got {len(references)} for {len(captions)} captions. "
            "Give the references of each clip, in the order of the captions."
        )
    if len(captions) < 2:
        raise ValueError(
            f"`captions` must be of two clips at least, got {len(captions)}. CIDEr-D is 0 for one: it weighs words by "
            "how few clips of the set have them. Score more clips together."
        )
    caption_words = [simple_words(_checked_text(caption, "captions", i)) for i, caption in enumerate(captions)]
    reference_words = []
    for index, texts in enumerate(references):
        if isinstance(texts, str):
            raise TypeError(f"`references` of clip {index} is one text, got {texts!r}. Give a list of texts.")
        reference_words.append([simple_words(_checked_text(text, "references", index)) for text in texts])
        if not any(reference_words[-1]):
            raise ValueError(
                f"`references` of clip {index} has no text with a word, got {list(texts)}. Give it one, or leave the "
                "clip out."
            )
    return caption_words, reference_words


def _checked_text(text: str, name: str, index: int) -> str:
    if not isinstance(text, str):
        raise TypeError(f"`{name}` must be texts, got {type(text).__name__} for clip {index}. Give strings.")
    return text


def _ngram_counts(words: Words) -> NgramCounts:
    """How often each n-gram occurs, for n = 1 to 4."""
    words = tuple(words)
    return [Counter(words[start : start + n] for start in range(len(words) - n + 1)) for n in range(1, MAX_NGRAM + 1)]


def _clipped_cosine(caption: dict[tuple[str, ...], float], reference: dict[tuple[str, ...], float]) -> float:
    """Cosine in which no n-gram of the caption counts for more than it has in the reference."""
    shared = caption.keys() & reference.keys()
    product = sum(min(caption[ngram], reference[ngram]) * reference[ngram] for ngram in shared)
    norms = math.hypot(*caption.values()) * math.hypot(*reference.values())
    return product / norms if norms else 0.0


def _bleu_counts(words: Words, references: Sequence[Words]) -> list[int]:
    """(10,) matched n-grams of 1 to 4 words, n-grams of the caption, its words, words of the closest reference."""
    highest: NgramCounts = [Counter() for _ in range(MAX_NGRAM)]
    for reference in references:
        for most, counts in zip(highest, _ngram_counts(reference), strict=True):
            most |= counts
    matched = [(counts & most).total() for counts, most in zip(_ngram_counts(words), highest, strict=True)]
    guessed = [max(0, len(words) - n) for n in range(MAX_NGRAM)]
    closest = min((abs(len(reference) - len(words)), len(reference)) for reference in references)[1]
    return [*matched, *guessed, len(words), closest]


def _bleu_values(counts: np.ndarray) -> np.ndarray:
    """(M, 4) BLEU_1 to BLEU_4 of each row of (M, 10) counts."""
    matched, guessed = counts[:, :MAX_NGRAM], counts[:, MAX_NGRAM : 2 * MAX_NGRAM]
    precisions = (matched + BLEU_TINY) / (guessed + BLEU_SMALL)  # (M, 4)
    means = np.cumprod(precisions, axis=1) ** (1 / np.arange(1, MAX_NGRAM + 1))
    ratio = (counts[:, -2] + BLEU_TINY) / (counts[:, -1] + BLEU_SMALL)
    penalty = np.exp(np.minimum(0.0, 1 - 1 / ratio))
    return means * penalty[:, None]


def _common_length(first: Words, second: Words) -> int:
    """Words of the longest common subsequence."""
    row = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for column, other in enumerate(second, start=1):
            above = row[column]
            row[column] = diagonal + 1 if word == other else max(above, row[column - 1])
            diagonal = above
    return row[-1]


__all__ = [
    "TOKENIZER",
    "CaptionScores",
    "bleu",
    "caption_diversity",
    "caption_scores",
    "cider_d",
    "rouge_l",
    "simple_words",
]
