# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Captions of the embedded scenes: a captioner that knows one caption of each clip, its chance level and ceiling."""

import json
from types import SimpleNamespace

import pytest
import torch
from evaluation_fakes import TableExtractor
from torch import nn

from hf_audiolang.data.sound_scenes import SoundScenes
from hf_audiolang.evaluation.captioning import reference_scores
from hf_audiolang.evaluation.metrics import caption_scores
from hf_audiolang.evaluation.report import collect, extended, markdown_table, metrics_of, write_report
from hf_audiolang.evaluation.report_scenes import scene_captions
from hf_audiolang.evaluation.results import TaskResult

SCENES = {"duration": 2.0, "n_events": [1, 2], "seed": 5}
NUM_CLIPS = 12


class SceneExtractor(TableExtractor):
    sampling_rate = 16000

    def __call__(self, waveforms, sampling_rate, return_tensors):
        lengths = torch.tensor([[len(waveform)] for waveform in waveforms])
        padded = nn.utils.rnn.pad_sequence([torch.as_tensor(waveform) for waveform in waveforms], batch_first=True)
        return {"input_features": padded, "input_features_mask": torch.arange(padded.shape[1]) < lengths}


class OracleCaptioner(nn.Module):
    """Recognises the clips by their samples and gives their number, for which `texts` has the caption."""

    def __init__(self, scenes):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.config = SimpleNamespace(_name_or_path="oracle")
        self.clips = [torch.as_tensor(scenes[index]["audio"]["array"]) for index in range(len(scenes))]
        self.settings = []

    def generate(self, input_features, input_features_mask, **generation):
        self.settings.append(generation)
        rows = [features[real] for features, real in zip(input_features, input_features_mask, strict=True)]
        differences = torch.tensor([[(row - clip).abs().mean() for clip in self.clips] for row in rows])
        return differences.argmin(1, keepdim=True)  # (B, 1)


class OracleProcessor:
    def __init__(self, texts):
        self.feature_extractor = SceneExtractor()
        self.tokenizer = SimpleNamespace(
            batch_decode=lambda ids, skip_special_tokens: [texts[number] for number in ids[:, 0].tolist()]
        )


@pytest.fixture(scope="module")
def scenes():
    return SoundScenes("test", NUM_CLIPS, **SCENES)


@pytest.fixture(scope="module")
def references(scenes):
    return [scenes[index]["captions"] for index in range(NUM_CLIPS)]


def score(scenes, texts, **given):
    model = OracleCaptioner(scenes)
    results, ceiling = scene_captions(
        model, OracleProcessor(texts), test_size=NUM_CLIPS, scene_options=SCENES, **given
    )
    return model, results, ceiling


def test_captions_are_compared_with_those_of_their_own_clip(scenes, references):
    firsts = [captions[0] for captions in references]
    model, (result,), ceiling = score(scenes, firsts, num_beams=2)
    expected = caption_scores(firsts, references).corpus
    assert {name: result[f"captioning/{name}"] for name in expected} == pytest.approx(expected)
    assert {settings["num_beams"] for settings in model.settings} == {2}
    about = {"task": "captioning", "model": "oracle", "num_clips": NUM_CLIPS, "num_skipped": 0, "seed": 5}
    assert {name: result.record[name] for name in about} == about
    assert result.record["data"] == f"synthetic-scenes v{scenes.version} test"
    assert result.record["data_options"] == {"sampling_rate": 16000, **SCENES}
    assert result.record["num_references"] == sum(map(len, references))
    of_people = reference_scores(references)
    assert ceiling == {name: of_people[name] for name in result.chance}
    for name in ("captioning/CIDEr-D", "captioning/BLEU_4", "captioning/ROUGE_L"):
        assert result.chance[name] < ceiling[name] < result[name]  # its words are among the references


def test_the_captions_of_other_clips_score_far_below(scenes, references):
    firsts = [captions[0] for captions in references]
    _, (right,), _ = score(scenes, firsts)
    _, (wrong,), ceiling = score(scenes, [*firsts[5:], *firsts[:5]])
    assert wrong["captioning/CIDEr-D"] < 0.2 * right["captioning/CIDEr-D"]
    assert wrong["captioning/CIDEr-D"] < 0.5 * ceiling["captioning/CIDEr-D"]


def test_captions_join_a_report_and_its_table(scenes, references, tmp_path):
    _, results, ceiling = score(scenes, [captions[1] for captions in references])
    before = collect([TaskResult({"probe/accuracy": 0.5}, {"probe/accuracy": 0.1}, _record("probe"))])
    report = extended(before, results, ceiling)
    assert metrics_of(report) == {"probe/accuracy": 0.5, **results[0]}
    assert report["chance"] == {"probe/accuracy": 0.1, **results[0].chance}
    assert report["ceiling"] == ceiling
    assert [record["task"] for record in report["records"]] == ["probe", "captioning"]
    as_json, as_table = write_report(report, tmp_path)
    assert json.loads(as_json.read_text()) == report
    values = [results[0], results[0].chance, ceiling]
    cells = " | ".join(f"{100 * numbers['captioning/CIDEr-D']:.1f}" for numbers in values)
    assert f"| captions CIDEr-D | {cells} |" in as_table.read_text().splitlines()
    assert "a clip's own captions against each other" in as_table.read_text()
    assert markdown_table(collect(results, ceiling)).count("captions") >= 4  # a report of captions alone


def _record(task):
    return {"task": task, "data": "test", "num_clips": 1, "num_skipped": 0}
