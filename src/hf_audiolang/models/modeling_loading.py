# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Loading of audio encoders and systems that refuses to return random weights, and adapters of other models."""

import re

from .modeling_adapters import find_adapter


class StrictTowersMixin:
    """Makes `from_pretrained` raise when weights of a pretrained part are missing from the checkpoint.

    transformers fills missing weights at random and only reports it. For an encoder that is the worst failure: it
    looks loaded. Classes say in `_required_weights` which parts must come from the checkpoint.
    """

    _required_weights = r".*"  # regular expression over parameter names

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, allow_random_encoder: bool = False, **kwargs):
        """Loads as transformers does, and checks that the encoders' weights were there.

        The folder of an adapter gives its base with the adapter in it, and with the head that the adapter brings.

        Args:
            pretrained_model_name_or_path: folder or Hub id.
            *args: passed on.
            allow_random_encoder: keep missing encoder weights at their random initialisation.
            **kwargs: passed on.

        Raises:
            ValueError: if encoder weights are missing and `allow_random_encoder` is False, or if an adapter does not
                fit the model.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        adapter = find_adapter(pretrained_model_name_or_path, kwargs)
        if adapter is not None:
            adapter_name = kwargs.get("adapter_name", "default")
            checks = {"allow_random_encoder": allow_random_encoder, "output_loading_info": True}
            model, info = cls.from_pretrained(adapter.base, *args, **checks, **adapter.options_of_base(kwargs))
            adapter.check_base(info)
            model.load_adapter(adapter.name, adapter_name=adapter_name, adapter_kwargs=adapter.download)
            return (model, info) if wants_info else model
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

    def load_adapter(self, peft_model_id=None, *args, **kwargs):
        """Loads an adapter as transformers does, and checks that it was trained on such a model.

        Raises:
            ValueError: if tensors are missing, too many or of another shape, or if the model has other weights than
                the one it was trained on; names both models.
        """
        kwargs.setdefault("ignore_mismatched_sizes", True)  # they are refused here, in words
        try:
            info = super().load_adapter(peft_model_id, *args, **kwargs)
        except ValueError as error:
            raise ValueError(f"{self._refusal(peft_model_id, kwargs)}: {error}") from error
        misfits = sorted({*info.missing_and_mismatched(), *info.unexpected_keys})
        if misfits:
            raise ValueError(
                f"{self._refusal(peft_model_id, kwargs)}: {len(misfits)} tensors are missing, too many or of another "
                f"shape, for instance {misfits[0]!r}. Load it on the model that it was trained on."
            )
        adapter = None if peft_model_id is None else find_adapter(peft_model_id, kwargs)
        if adapter is not None and not adapter.fits_weights(self):
            raise ValueError(
                f"{self._refusal(peft_model_id, kwargs)}, whose weights are others, as after another training. Load "
                "it on the weights that it was trained on; peft's `PeftModel.from_pretrained` puts it on any."
            )
        return info

    def _refusal(self, name, options: dict) -> str:
        adapter = None if name is None else find_adapter(name, options)
        origin = f", trained on {adapter.origin}," if adapter is not None else ""
        return f"The adapter {str(name)!r}{origin} does not fit this {type(self).__name__} of {self.name_or_path!r}"


__all__ = ["StrictTowersMixin"]
