# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The report on what the codewords of a model mean, written into a folder.

    CodewordFindings -> codewords.json (all numbers), codewords.md (to read),
                        usage.png, frames.png, similarity_maps.png

Without matplotlib there are no pictures, and the report says which extra is missing.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from transformers import ProcessorMixin

from hf_audiolang.models.layers_codebook import MANY_DEAD

from .codewords import dead_note
from .codewords_findings import BlockFindings, CodewordFindings, CurveFindings, PairFindings
from .figures_codewords import plot_block_maps, plot_codeword_frames, plot_usage
from .metrics import MissingResourceError
from .results import package_version

TABLE_CODEWORDS = 20
TABLE_NAMES = 3
MAX_NAMES, MAX_LANE_NAMES = 100, 60  # characters of a codeword's names in a table and in a picture
DENSE = (
    "Clips are sums of more than half of the codewords: little is selected, and the name of a codeword says little "
    "about it. A smaller `affinity_divisor` selects more."
)
UNTRAINED = (
    "The last block of this encoder is locality-aware: nothing trains its queries and keys, so their map shows the "
    "weights that they began with."
)
PICTURES = (
    ("usage.png", "In how many clips and captions each codeword is, and with how much weight"),
    ("frames.png", "Cosine of the clip's codewords with its frames; shaded: when a sound is really there"),
    ("similarity_maps.png", "How alike frames are in the last block: by queries and keys, and by values"),
)


def write_codewords_report(
    findings: CodewordFindings, processor: ProcessorMixin, folder: str | Path
) -> tuple[CodewordFindings, list[Path]]:
    """Writes the report; returns the findings, with the pictures that were left out and why, and the files' paths.

    Args:
        findings: of one model and one corpus.
        processor: the model's, for the log-mel.
        folder: made if it does not exist.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        pictures = _draw(findings, processor, folder)
    except MissingResourceError as error:
        pictures = []
        findings = replace(findings, left_out={**findings.left_out, "pictures": str(error)})
    as_json, as_text = folder / "codewords.json", folder / "codewords.md"
    entries = {name: json.dumps(value, allow_nan=False) for name, value in findings_json(findings).items()}
    lines = ",\n".join(f"  {json.dumps(name)}: {value}" for name, value in entries.items())
    as_json.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    as_text.write_text(findings_markdown(findings, [path.name for path in pictures]), encoding="utf-8")
    return findings, [as_json, as_text, *pictures]


def summary_rows(findings: CodewordFindings) -> list[tuple[str, str]]:
    """(what, value) of the main numbers, ready to print."""
    usage, codebook = findings.usage, findings.codebook
    in_clips, in_captions = usage.audio_counts > 0, usage.text_counts > 0
    captions = "-" if usage.active_per_caption is None else f"{usage.active_per_caption:.1f}"
    rows = [
        ("model", findings.model),
        ("corpus", f"{findings.data}: {usage.num_clips} clips ({usage.audio_seconds / 60:.1f} min), "
                   f"{usage.num_captions} captions"),
        ("codebook", f"{codebook['num_codewords']} codewords of width {codebook['width']}, {codebook['activation']}, "
                     f"divisor {codebook['affinity_divisor']:g}"),
        ("codewords per clip / caption", f"{usage.active_per_clip:.1f} / {captions}"),
        ("dead codewords", f"{len(usage.dead)} ({usage.dead_share:.1%})"),
        ("in clips and captions / only in clips / only in captions",
         f"{(in_clips & in_captions).sum()} / {(in_clips & ~in_captions).sum()} / {(~in_clips & in_captions).sum()}"),
        ("codewords per frame alone", f"{findings.curves.active_per_frame:.1f} in the clip of frames.png"),
        ("named by", f"{len(findings.names.texts)} {findings.named_by}"),
    ]  # fmt: skip
    block = findings.block
    if block and block.query_key_ratio is not None:
        ratios = f"{block.query_key_ratio:.2f} / {block.value_value_ratio:.2f} over {block.num_clips} clips"
        rows.append(("alike inside / across events, by q-k / by v-v", ratios))
    return rows


def notes_of(findings: CodewordFindings) -> list[str]:
    """What a reader should know, a sentence or two each."""
    notes = [dead_note(findings.usage)] if findings.usage.dead_share > MANY_DEAD else []
    if findings.codebook["activation"] == "softmax":
        notes.append("Softmax gives every codeword a weight: none can be dead, and supports say nothing.")
    elif findings.usage.active_per_clip > findings.usage.num_codewords / 2:
        notes.append(DENSE)
    if findings.block and not findings.block.has_trained_queries:
        notes.append(UNTRAINED)
    notes += [f"Left out: {part}. {reason}" for part, reason in findings.left_out.items()]
    if findings.usage.skipped:
        notes.append(f"{len(findings.usage.skipped)} clips could not be read.")
    return notes


def findings_json(findings: CodewordFindings) -> dict[str, object]:
    """All numbers; weights are means over clips or captions, times are seconds."""
    usage = findings.usage
    return {
        "model": findings.model,
        "data": findings.data,
        "package_version": package_version(),
        "codebook": findings.codebook,
        "num_clips": usage.num_clips,
        "num_captions": usage.num_captions,
        "audio_seconds": round(usage.audio_seconds, 2),
        "active_per_clip": usage.active_per_clip,
        "active_per_caption": usage.active_per_caption,
        "dead_share": usage.dead_share,
        "dead": usage.dead.tolist(),
        "named_by": findings.named_by,
        "naming_texts": list(findings.names.texts),
        "codewords": [_codeword_json(findings, codeword) for codeword in range(usage.num_codewords)],
        "pairs": [_pair_json(pair) for pair in findings.pairs],
        "curves": _curve_json(findings.curves),
        "last_block": None if findings.block is None else _block_json(findings.block),
        "left_out": findings.left_out,
        "skipped": usage.skipped,
    }


def findings_markdown(findings: CodewordFindings, pictures: Sequence[str]) -> str:
    """The report to read: main numbers, notes, pictures, the most used codewords, a few pairs.

    Args:
        findings: of one model and one corpus.
        pictures: names of the files that were drawn, in the folder of the report.
    """
    lines = [f"# What the codewords of {findings.model} mean", "", "| | |", "|---|---|"]
    lines += [f"| {_cell(what)} | {_cell(value)} |" for what, value in summary_rows(findings)]
    lines += ["", *(f"- {note}" for note in notes_of(findings))]
    for name, text in PICTURES:
        if name in pictures:
            lines += ["", f"![{text}]({name})", "", f"{text}."]
    lines += _most_used(findings)
    for pair in findings.pairs:
        lines += _pair_lines(findings, pair)
    return "\n".join(lines) + "\n"


def names_text(findings: CodewordFindings, codeword: int, max_length: int = MAX_NAMES) -> str:
    """The first texts of a codeword with their cosines, as many of three as fit into a line; at least one, cut off."""
    text = ""
    for name, cosine in findings.names.of(codeword)[:TABLE_NAMES]:
        room = max_length - len(" 0.00")
        name = name if text or len(name) <= room else f"{name[: room - 3]}..."
        more = f"{', ' if text else ''}{name} {cosine:.2f}"
        if len(text) + len(more) > max_length:
            break
        text += more
    return text


def _draw(findings: CodewordFindings, processor: ProcessorMixin, folder: Path) -> list[Path]:
    curves, block = findings.curves, findings.block
    drawn = [plot_usage(findings.usage, folder / "usage.png", note=findings.model)]
    names = [
        f"codeword {codeword}: {names_text(findings, codeword, MAX_LANE_NAMES)}   ·   weight {weight:.2%}"
        for codeword, weight in zip(curves.codewords, curves.weights, strict=True)
    ]
    note = "codewords that this clip has more of than others, no two of one name"
    if curves.record.events:
        note += "   ·   bars and shading: when a sound is really there"
    drawn.append(
        plot_codeword_frames(curves.record, processor, curves.scores, names, folder / "frames.png", note=note)
    )
    if block:
        note = "" if block.has_trained_queries else UNTRAINED
        drawn.append(plot_block_maps(block.clips, folder / "similarity_maps.png", note=note))
    return drawn


def _most_used(findings: CodewordFindings) -> list[str]:
    """Table of the codewords with most weight."""
    usage = findings.usage
    lines = [
        "", f"## The {min(TABLE_CODEWORDS, usage.num_codewords)} most used codewords", "",
        f"By their mean weight in clips and captions. Names: the nearest of {len(findings.names.texts)} "
        f"{findings.named_by}, with the cosine. Weight 1 = all codewords alike.", "",
        "| codeword | names | clips | captions | weight in clips | weight in captions |",
        "|---:|---|---:|---:|---:|---:|",
    ]  # fmt: skip
    for codeword in usage.ranked()[:TABLE_CODEWORDS].tolist():
        one = _codeword_json(findings, codeword)
        weights = [one[side] * usage.num_codewords for side in ("clip_weight", "caption_weight")]
        names = _cell(names_text(findings, codeword))
        lines.append(
            f"| {codeword} | {names} | {one['clips']} | {one['captions']} | {weights[0]:.2f} | {weights[1]:.2f} |"
        )
    return lines


def _pair_lines(findings: CodewordFindings, pair: PairFindings) -> list[str]:
    """A clip, its caption, and the codewords that both have."""
    shared = pair.shared
    others = ", ".join(f"{overlap:.2f}" for overlap in pair.other_overlaps)
    lines = [
        "", f"## {pair.clip}", "", f"“{pair.caption}”", "",
        f"{shared.num_audio} codewords in the clip, {shared.num_text} in the caption, {shared.num_shared} in both: "
        f"{shared.audio_share:.0%} of the clip's weight and {shared.text_share:.0%} of the caption's. Overlap (sum of "
        f"the smaller weights) {shared.overlap:.2f}"
        + (f"; with the captions of the other clips here {others}." if others else "."), "",
    ]  # fmt: skip
    if len(shared.codewords):
        lines += ["| codeword | names | shared weight | in the clip | in the caption |", "|---:|---|---:|---:|---:|"]
    for row, codeword in enumerate(shared.codewords.tolist()):
        weights = (shared.shared_weights[row], shared.audio_weights[row], shared.text_weights[row])
        names = _cell(names_text(findings, codeword))
        lines.append(f"| {codeword} | {names} | " + " | ".join(f"{weight:.2%}" for weight in weights) + " |")
    return lines


def _cell(text: str) -> str:
    """A text that does not end its cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")


def _codeword_json(findings: CodewordFindings, codeword: int) -> dict[str, object]:
    usage = findings.usage
    return {
        "id": codeword,
        "names": [[name, round(cosine, 4)] for name, cosine in findings.names.of(codeword)],
        "clips": int(usage.audio_counts[codeword]),
        "captions": int(usage.text_counts[codeword]),
        "clip_weight": _number(usage.audio_weights[codeword] / usage.num_clips),
        "caption_weight": _number(usage.text_weights[codeword] / max(usage.num_captions, 1)),
    }


def _pair_json(pair: PairFindings) -> dict[str, object]:
    shared = pair.shared
    numbers = ("num_audio", "num_text", "num_shared", "audio_share", "text_share", "overlap")
    columns = ("shared_weights", "audio_weights", "text_weights")
    return {
        "clip": pair.clip,
        "caption": pair.caption,
        **{name: getattr(shared, name) for name in numbers},
        "other_overlaps": list(pair.other_overlaps),
        "codewords": shared.codewords.tolist(),
        **{name: _numbers(getattr(shared, name)) for name in columns},
    }


def _curve_json(curves: CurveFindings) -> dict[str, object]:
    return {
        "clip": curves.record.id,
        "active_per_frame": curves.active_per_frame,
        "edges": _numbers(curves.scores.edges),
        "codewords": list(curves.codewords),
        "weights": _numbers(curves.weights),
        "cosines": _numbers(curves.scores.scores.T),  # (K, T)
    }


def _block_json(block: BlockFindings) -> dict[str, object]:
    return {
        "has_trained_queries": block.has_trained_queries,
        "num_clips": block.num_clips,
        "query_key_ratio": block.query_key_ratio,
        "value_value_ratio": block.value_value_ratio,
        "clips": [
            {
                "clip": record.id,
                "query_key_ratio": maps.query_key_ratio,
                "value_value_ratio": maps.value_value_ratio,
                "edges": _numbers(maps.edges),
                "query_key": _numbers(maps.query_key),
                "value_value": _numbers(maps.value_value),
            }
            for record, maps in block.clips
        ],
    }


def _number(value: float) -> float:
    return float(f"{value:.5g}")


def _numbers(values: np.ndarray) -> list:
    """An array as lists of numbers with five digits."""
    return [_numbers(row) if np.ndim(row) else _number(row) for row in values]


__all__ = ["findings_json", "findings_markdown", "names_text", "notes_of", "summary_rows", "write_codewords_report"]
