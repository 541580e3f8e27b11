# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""What must be embedded before a run with `text_embeddings`: which captions, and by which text model."""

from hf_audiolang.data.captions import split_held_out
from hf_audiolang.data.records import RecordView
from hf_audiolang.data.registry import build_dataset
from hf_audiolang.data.sound_scenes import SoundScenes

from .build import build_feature_extractor, scene_options
from .captions import training_captions
from .config import SCENES, RunConfig
from .outline import build_model_config


def captions_of_run(config: RunConfig) -> list[str]:
    """Every caption that the run can draw in training, repeated as in its data.

    Scenes are composed but not rendered; own data are checked as training checks them. Captions of held-out data are
    not among them: validation embeds those with the model's own text tower.

    Raises:
        FileNotFoundError: if there is no such data.
        ValueError: if its rows, columns or files cannot be used; names them.
    """
    data = config.data
    if data.train_data == SCENES:
        return list(training_captions(RecordView(SoundScenes("train", data.train_size, **scene_options(data)))))
    columns = {"audio_column": data.audio_column, "caption_column": data.caption_column}
    dataset = build_dataset(data.train_data, "train", on_bad_example=data.on_bad_example, **columns)
    if data.eval_data is None:
        dataset, _ = split_held_out(dataset)
    return list(training_captions(dataset))


def text_model_of_run(config: RunConfig, wanted: str | None = None) -> str | None:
    """The text model to embed a run's captions with: what its model's config names, or else `wanted`.

    Raises:
        OSError: if the run's model has no config.
        ValueError: if the config names another model than the one that is wanted.
    """
    build_feature_extractor(config.model)  # says what is wrong with a folder that is none of a model
    named = getattr(build_model_config(config), "text_embedding_model", None)
    if None not in (named, wanted) and named != wanted:
        raise ValueError(
            f"The text model is to be {wanted!r}, but the config of the run's model has `text_embedding_model` "
            f"{named!r}. Use that one, or name the other in the config."
        )
    return named or wanted


__all__ = ["captions_of_run", "text_model_of_run"]
