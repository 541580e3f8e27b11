# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Cards of fine-tuned heads and of their adapters: true, complete, and readable as metadata."""

import pytest
from finetune_run import save_model
from huggingface_hub import ModelCard
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

from hf_audiolang.evaluation.report import collect, markdown_table
from hf_audiolang.evaluation.results import TaskResult
from hf_audiolang.model_card import CardContent
from hf_audiolang.model_card_head import write_head_card
from hf_audiolang.training.finetune_config import load_finetune_config


@pytest.fixture
def write(tmp_path):
    """Writes the card of a run with these overrides; returns it."""
    base = save_model(tmp_path / "runs" / "base" / "model")

    def run(*overrides, licence=None, is_adapter=False):
        if licence:
            (base / "README.md").write_text(f"---\n{licence}\n---\n")
        arguments = ["--model", str(base), "--data", str(tmp_path / "my_sounds"), "--max_steps", "7", *overrides]
        config = load_finetune_config([*arguments, "--output_dir", str(tmp_path / "runs" / "clf")])
        model = AutoModelForAudioClassification.from_pretrained(base, id2label={0: "cat", 1: "dog"})
        record = {"task": "classification", "data": "my_sounds", "num_clips": 9, "num_skipped": 0}
        values = {"classification/accuracy": 0.75, "classification/balanced_accuracy": 0.7}
        report = collect([TaskResult(values, dict.fromkeys(values, 0.5), record)])
        content = CardContent(config.to_dict(), report, markdown_table(report), 7, 3600.0)
        folder = tmp_path / "runs" / "clf" / "model"
        folder.mkdir(parents=True, exist_ok=True)
        write_head_card(folder, model, AutoFeatureExtractor.from_pretrained(base), content, is_adapter=is_adapter)
        return ModelCard.load(folder / "README.md")

    return run


def test_results_are_metadata_that_the_hub_reads(write):
    card = write()
    (result,) = card.data.eval_results
    assert (result.task_type, result.metric_type, result.metric_value) == ("audio-classification", "accuracy", 0.75)
    assert (result.dataset_name, card.data.pipeline_tag, card.data.library_name) == (
        "my_sounds",
        "audio-classification",
        "transformers",
    )
    assert "Classes, in the order of the outputs: cat; dog." in card.text
    assert "| accuracy | 75.0 | 50.0 |" in card.text
    assert "Fine-tuned from `base`." in card.text


def test_nothing_is_said_that_is_not_known(write, tmp_path):
    card = write()
    assert card.data.license is None  # nobody but the owner of the sounds can say
    assert str(tmp_path) not in card.content
    assert "mixup" not in card.text  # was off
    assert "| mixup_share | 0.5 |" in write("--mixup_alpha", "0.3", "--mixup_share", "0.5").text


def test_the_licence_of_the_start_is_passed_on(write):
    licence = "license: other\nlicense_name: some-licence\nlicense_link: https://example.org"
    card = write(licence=licence)
    assert (card.data.license, card.data.license_name) == ("other", "some-licence")
    assert "some-licence (https://example.org)" in card.text
    ours = write("--data", "sound_scenes", licence="license: apache-2.0")
    assert ours.data.license == "apache-2.0"
    assert "synthetic" in ours.text


def test_data_of_a_plan_are_called_by_its_name(write):
    card = write("--data", "configs/evaluate/esc50.yaml", "--data_folder", "my_copy", "--fold", "1")
    assert "\non esc50." in card.text
    assert "my_copy" not in card.text


def test_an_adapter_says_what_it_needs(write):
    card = write("--lora", is_adapter=True)
    assert card.data.library_name == "peft"
    assert "A low-rank adapter (LoRA)" in card.text
    assert "| lora_rank | 8 |" in card.text
    assert "which it needs" in card.text


def test_frames_are_used_as_frames(write):
    card = write("--task", "frames")
    assert "AutoModelForAudioFrameClassification" in card.text
    assert card.data.pipeline_tag is None
    assert "sound-event-detection" in card.data.tags
