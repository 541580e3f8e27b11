# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The examples in the docstrings of public model classes run as written."""

import doctest
import inspect

import pytest
import torch
from transformers import PreTrainedModel

import hf_audiolang

MODELS = [
    value
    for name, value in vars(hf_audiolang).items()
    if name in hf_audiolang.__all__ and inspect.isclass(value) and issubclass(value, PreTrainedModel)
]


@pytest.mark.parametrize("model_class", MODELS, ids=lambda value: value.__name__)
def test_example_runs(model_class):
    names = {name: getattr(hf_audiolang, name) for name in hf_audiolang.__all__} | {"torch": torch}
    examples = doctest.DocTestFinder(recurse=False).find(model_class, model_class.__name__, globs=names)
    assert sum(len(example.examples) for example in examples) >= 2, "a model class shows how it is used"
    runner = doctest.DocTestRunner(verbose=False)
    report = []
    for example in examples:
        runner.run(example, out=report.append)
    assert runner.failures == 0, "".join(report)
    assert runner.tries > 0


def test_all_public_models_are_found():
    assert {cls.__name__ for cls in MODELS} >= {"SlapAudioModel", "SlapModel", "SlapForPreTraining", "CaptionDecoder"}
