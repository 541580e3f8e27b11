# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Further tasks on the embedded data, for models that are compared or that write captions.

evaluate_sound_scenes -> report -> extended(report, scene_probes(...)) -> extended(report, *scene_captions(...))
"""

from collections.abc import Mapping

from torch import nn

from . import captioning, probe
from .capabilities import AudioProcessor, feature_extractor_of
from .embed import AudioOptions
from .report import PROBE_TRAIN_RATIO, rendered_split
from .results import TaskResult

FEWEST_TRAIN_CLIPS = 192  # so many have every class


def scene_probes(
    model: nn.Module,
    processor: AudioProcessor,
    *,
    test_size: int = 300,
    single_size: int = 256,
    num_seeds: int = 3,
    scene_options: Mapping[str, object] | None = None,
    num_workers: int = 0,
    options: AudioOptions | None = None,
) -> list[TaskResult]:
    """Probes on mean and on attention pooling: which sound (single events, accuracy), which sounds (mixtures, mAP).

    Single events are those of zero-shot classification, and for training twice as many of the next seed; mixtures
    are the split `test`, and for training twice as many of the split `train` with the next seed, which no run of the
    usual seed has trained on.

    Args:
        model: a system or an audio encoder.
        processor: holds the model's feature extractor, or is it.
        test_size: mixtures that are tested.
        single_size: single events that are tested.
        num_seeds: of the probes.
        scene_options: further options of `SoundScenes`: `duration`, `n_events`, `seed`.
        num_workers: processes that render the clips.
        options: reading and batching of the clips.
    """
    results = []
    for train_split, test_split, num_clips, is_multi_label in (
        ("zero_shot", "zero_shot", single_size, False),
        ("train", "test", test_size, True),
    ):
        given = {"sampling_rate": feature_extractor_of(processor).sampling_rate, **(scene_options or {})}
        test = rendered_split(test_split, num_clips, given, num_workers)
        given = {**given, "seed": test.scenes.seed + 1}
        num_train = max(PROBE_TRAIN_RATIO * num_clips, FEWEST_TRAIN_CLIPS)
        train = rendered_split(train_split, num_train, given, num_workers)
        found = probe.evaluate(
            model, processor, train.records, test.records,
            is_multi_label=is_multi_label, num_seeds=num_seeds, options=options,
        )  # fmt: skip
        train_data = f"{len(train.rows)} clips of {train_split}, seed {train.scenes.seed}"
        results.append(found.labelled(**test.about, train_data=train_data))
    return results


def scene_captions(
    captioner: nn.Module,
    processor: AudioProcessor,
    *,
    test_size: int = 300,
    num_beams: int = captioning.NUM_BEAMS,
    scene_options: Mapping[str, object] | None = None,
    num_workers: int = 0,
    options: AudioOptions | None = None,
) -> tuple[list[TaskResult], dict[str, float]]:
    """(captions of the split `test` against its five reference captions, what those score against each other).

    Args:
        captioner: a model with `generate`.
        processor: its processor.
        test_size: clips.
        num_beams: hypotheses of the beam search.
        scene_options: further options of `SoundScenes`: `duration`, `n_events`, `seed`.
        num_workers: processes that render the clips.
        options: reading and batching of the clips.
    """
    given = {"sampling_rate": feature_extractor_of(processor).sampling_rate, **(scene_options or {})}
    test = rendered_split("test", test_size, given, num_workers)
    found = captioning.evaluate(captioner, processor, test.records, num_beams=num_beams, options=options)
    references = [test.records[index].captions for index in range(len(test.records))]
    ceiling = captioning.reference_scores(references)
    return [found.labelled(**test.about)], {name: ceiling[name] for name in found.chance if name in ceiling}


__all__ = ["scene_captions", "scene_probes"]
