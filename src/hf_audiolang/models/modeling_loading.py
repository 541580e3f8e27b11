# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Loading of audio encoders and systems that refuses to return random weights."""

import re


class StrictTowersMixin:
    """Makes `from_pretrained` raise when weights of a pretrained part are missing from the checkpoint.

    transformers fills missing weights at random and only reports it. For an encoder that is the worst failure: it
    looks loaded. Classes say in `_required_weights` which parts must come from the checkpoint.
    """

    _required_weights = r".*"  # regular expression over parameter names

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, allow_random_encoder: bool = False, **kwargs):
        """Loads as transformers does, and checks that the encoders' weights were there.

        Args:
            pretrained_model_name_or_path: folder or Hub id.
            *args: passed on.
            allow_random_encoder: keep missing encoder weights at their random initialisation.
            **kwargs: passed on.

        Raises:
            ValueError: if encoder weights are missing and `allow_random_encoder` is False.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        model, info = super().from_pretrained(pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs)
        if not cls.can_generate():
            model.config.is_encoder_decoder = False  # as a captioner's folder says, whose text is the decoder's
        missing = sorted(name for name in info["missing_keys"] if re.match(cls._required_weights, name))
        if missing and not allow_random_encoder:
            raise ValueError(
                f"`{pretrained_model_name_or_path}` lacks {len(missing)} weights of {cls.__name__}, for instance "
                f"{missing[0]!r}: they would be random. Load a checkpoint of this architecture, or pass "
                "`allow_random_encoder=True` to start from random weights on purpose."
            )
        return (model, info) if wants_info else model


__all__ = ["StrictTowersMixin"]
