# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Exported folders load, equal to the bit, in a process where the package cannot be imported."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from tiny import tiny_batch, tiny_processor, tiny_slap_audio_config, tiny_slap_config
from transformers import AutoModel

from hf_audiolang import SlapAudioModel, SlapForPreTraining, SlapModel, export_with_code

# -I and the path hook keep the package out, however it was installed
SCRIPT = """
import sys


class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("hf_audiolang", "torchaudio"):
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, Refuse())
import torch
import transformers

folder, auto_class, inputs, result = sys.argv[1:]
model = getattr(transformers, auto_class).from_pretrained(folder, trust_remote_code=True).eval()
torch.manual_seed(7)
with torch.no_grad():
    outputs = model(**torch.load(inputs, weights_only=True))
tensors = {name: value for name, value in outputs.items() if isinstance(value, torch.Tensor)}
torch.save(tensors, result)
assert "hf_audiolang" not in sys.modules
"""


def run_without_package(tmp_path, script, *arguments):
    path = tmp_path / "script.py"
    path.write_text(script)
    environment = {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-I", str(path), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**environment, "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize(
    ("model_class", "auto_class"),
    [(SlapAudioModel, "AutoModel"), (SlapModel, "AutoModel"), (SlapForPreTraining, "AutoModelForPreTraining")],
)
def test_model_loads_without_the_package(tmp_path, model_class, auto_class):
    torch.manual_seed(2)
    is_audio = model_class is SlapAudioModel
    model = model_class(tiny_slap_audio_config() if is_audio else tiny_slap_config()).eval()
    batch = tiny_batch(tiny_slap_config(), seed=1)
    wanted = {SlapAudioModel: ("input_features", "input_features_mask")}.get(model_class, tuple(batch))
    inputs = {name: batch[name] for name in wanted if name != "labels"}
    export_with_code(model, None, tmp_path / "model")
    torch.save(inputs, tmp_path / "inputs.pt")
    run_without_package(
        tmp_path, SCRIPT, tmp_path / "model", auto_class, tmp_path / "inputs.pt", tmp_path / "result.pt"
    )
    result = torch.load(tmp_path / "result.pt", weights_only=True)
    torch.manual_seed(7)
    with torch.no_grad():
        outputs = model(**inputs)
    expected = {name: value for name, value in outputs.items() if isinstance(value, torch.Tensor)}
    assert set(result) == set(expected)
    for name, value in expected.items():
        assert torch.equal(result[name], value), name


PIPELINE = """
import sys


class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("hf_audiolang", "torchaudio"):
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, Refuse())
import json

import numpy as np
from transformers import AutoProcessor, pipeline

folder = sys.argv[1]
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
assert type(processor).__name__ == "AudioLangProcessor", type(processor)
classify = pipeline("zero-shot-audio-classification", model=folder, trust_remote_code=True, device="cpu")
tone = np.sin(np.arange(20000, dtype=np.float32) / 9)
print(json.dumps({row["label"]: row["score"] for row in classify(tone, candidate_labels=["a dog", "a siren"])}))
"""


def test_processor_and_pipeline_work_without_the_package(tmp_path):
    torch.manual_seed(2)
    model, processor = SlapModel(tiny_slap_config()).eval(), tiny_processor()
    export_with_code(model, processor, tmp_path / "model")
    printed = run_without_package(tmp_path, PIPELINE, tmp_path / "model")
    tone = np.sin(np.arange(20000, dtype=np.float32) / 9)
    texts = [f"This is a sound of {label}." for label in ("a dog", "a siren")]
    inputs = processor(text=texts, audio=tone, sampling_rate=16000, padding=True, return_tensors="pt")
    with torch.no_grad():
        scores = model(**inputs).logits_per_audio[0].softmax(-1)
    found = json.loads(printed.splitlines()[-1])
    assert found["a dog"] == pytest.approx(float(scores[0]), abs=1e-5)
    assert found["a siren"] == pytest.approx(float(scores[1]), abs=1e-5)


def test_export_leaves_later_saves_without_code(tmp_path):
    model = SlapModel(tiny_slap_config())
    export_with_code(model, tiny_processor(), tmp_path / "with")
    model.save_pretrained(tmp_path / "without")
    assert list((tmp_path / "with").glob("modeling_*.py"))
    assert not list((tmp_path / "without").glob("*.py"))
    assert type(AutoModel.from_pretrained(tmp_path / "with")) is SlapModel  # the installed package wins


def test_export_refuses_what_no_auto_class_loads(tmp_path):
    with pytest.raises(ValueError, match="no auto class loads"):
        export_with_code(torch.nn.Linear(2, 3), None, tmp_path)
