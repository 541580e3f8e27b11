# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Fine-tunes a classifier with transformers' own Trainer, on a folder with one sub-folder of sounds per class.

    python examples/finetune_with_trainer.py runs/slap_scenes/model my_sounds my_classifier
    python examples/finetune_with_trainer.py runs/slap_scenes/model my_sounds my_adapter --lora

`training_scripts/finetune.py` does more: augmentation, tagging, frames, exact resume, the papers' recipes.
"""

import sys
from pathlib import Path

from peft import get_peft_model
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification, Trainer, TrainingArguments

import hf_audiolang  # noqa: F401 - registers the classes
from hf_audiolang.data import record_waveform
from hf_audiolang.data.labels import load_labelled
from hf_audiolang.training.adapters import lora_config, save_adapter


def main(base: str, sounds: str, output_dir: str, num_epochs: float = 10, lora: bool = False) -> dict[str, float]:
    """Trains all weights, or low-rank adapters and the head; saves; returns loss and accuracy on the test clips."""
    data = load_labelled(sounds, task="classification")
    extractor = AutoFeatureExtractor.from_pretrained(base)
    model = AutoModelForAudioClassification.from_pretrained(
        base,
        id2label=dict(enumerate(data.classes)),
        label2id={name: index for index, name in enumerate(data.classes)},
        problem_type="single_label_classification",
    )

    if lora:
        model = get_peft_model(model, lora_config(model))

    def collate(records: list) -> dict:
        clips = [record_waveform(record, extractor.sampling_rate) for record in records]
        batch = extractor(clips, sampling_rate=extractor.sampling_rate, return_tensors="pt")
        labels = [data.classes.index(record.labels[0]) for record in records]
        return {**batch, "labels": batch["input_features"].new_tensor(labels).long()}

    def metrics(prediction: tuple) -> dict[str, float]:
        logits, labels = prediction
        return {"accuracy": float((logits.argmax(-1) == labels).mean())}

    arguments = TrainingArguments(
        output_dir,
        num_train_epochs=num_epochs,
        per_device_train_batch_size=16,
        learning_rate=1e-3 if lora else 1e-4,
        save_strategy="no",
        report_to="none",
        remove_unused_columns=False,
        label_names=["labels"],
    )
    trainer = Trainer(
        model,
        arguments,
        data_collator=collate,
        train_dataset=data.train,
        eval_dataset=data.test,
        compute_metrics=metrics,
    )
    trainer.train()
    if lora:
        save_adapter(model.get_base_model(), output_dir, base)
    else:
        trainer.save_model(output_dir)
    extractor.save_pretrained(output_dir)
    return trainer.evaluate()


if __name__ == "__main__":
    print(main(*sys.argv[1:4], lora="--lora" in sys.argv))
    print(f"written: {Path(sys.argv[3])}")
