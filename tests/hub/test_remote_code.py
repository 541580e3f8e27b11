# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Exported folders load, equal to the bit, in a process where the package cannot be imported."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from tiny import (
    tiny_ast_config,
    tiny_batch,
    tiny_captionstew_config,
    tiny_htsat_config,
    tiny_m2d_clap_audio_config,
    tiny_m2d_clap_config,
    tiny_mga_clap_config,
    tiny_processor,
    tiny_slap_audio_config,
    tiny_slap_config,
    tiny_whisper_config,
    tiny_zipformer_config,
)
from transformers import AutoModel

from hf_audiolang import (
    AudioProjector,
    AudioProjectorConfig,
    CaptionStewForConditionalGeneration,
    CaptionStewForPreTraining,
    CaptionStewModel,
    HtsatModel,
    M2dClapAudioModel,
    M2dClapForPreTraining,
    M2dClapModel,
    MgaClapModel,
    NativeAudioModel,
    SlapAudioModel,
    SlapForConditionalGeneration,
    SlapForPreTraining,
    SlapModel,
    ZipformerModel,
    export_with_code,
)
from hf_audiolang.auto import MODELS
from hf_audiolang.models import modeling_audio_classification as heads

# None in sys.modules makes an import fail, however the package was installed
REFUSE = """
import sys

sys.modules["hf_audiolang"] = sys.modules["torchaudio"] = None
"""
SCRIPT = """
import json
from pathlib import Path

import numpy as np
import torch
import transformers

root = Path(sys.argv[1])
for name, auto_class in json.loads(sys.argv[2]).items():
    folder = root / name
    model = getattr(transformers, auto_class).from_pretrained(folder, trust_remote_code=True).eval()
    torch.manual_seed(7)
    with torch.no_grad():
        outputs = model(**torch.load(folder / "inputs.pt", weights_only=True))
        if folder.name.endswith("ForConditionalGeneration"):
            audio = {key: value for key, value in torch.load(folder / "inputs.pt").items() if "features" in key}
            outputs["caption_ids"] = model.generate(**audio, num_beams=2, max_new_tokens=6)
    tensors = {key: value for key, value in outputs.items() if isinstance(value, torch.Tensor)}
    torch.save(tensors, folder / "result.pt")

folder = root / "SlapModel"
processor = transformers.AutoProcessor.from_pretrained(folder, trust_remote_code=True)
assert type(processor).__name__ == "AudioLangProcessor", type(processor)
classify = transformers.pipeline(
    "zero-shot-audio-classification", model=str(folder), trust_remote_code=True, device="cpu"
)
tone = np.sin(np.arange(20000, dtype=np.float32) / 9)
rows = classify(tone, candidate_labels=["a dog", "a siren"])
(root / "rows.json").write_text(json.dumps({row["label"]: row["score"] for row in rows}))
assert sys.modules["hf_audiolang"] is None
"""
AUTO_CLASSES = {
    AudioProjector: "AutoModel",
    CaptionStewForConditionalGeneration: "AutoModelForSpeechSeq2Seq",
    CaptionStewForPreTraining: "AutoModelForPreTraining",
    CaptionStewModel: "AutoModel",
    M2dClapAudioModel: "AutoModel",
    HtsatModel: "AutoModel",
    M2dClapModel: "AutoModel",
    MgaClapModel: "AutoModel",
    M2dClapForPreTraining: "AutoModelForPreTraining",
    NativeAudioModel: "AutoModel",
    SlapAudioModel: "AutoModel",
    SlapModel: "AutoModel",
    SlapForConditionalGeneration: "AutoModelForSpeechSeq2Seq",
    SlapForPreTraining: "AutoModelForPreTraining",
    ZipformerModel: "AutoModel",
}


CONFIGS = {
    AudioProjector: AudioProjectorConfig(hidden_size=24, intermediate_size=24),
    CaptionStewForConditionalGeneration: tiny_captionstew_config(
        audio_config=tiny_zipformer_config(), text_config=None, contrastive_weight=0.0
    ),
    CaptionStewForPreTraining: tiny_captionstew_config(audio_config=tiny_zipformer_config(), parallel_share=0.5),
    CaptionStewModel: tiny_captionstew_config(audio_config=tiny_zipformer_config()),
    M2dClapAudioModel: tiny_m2d_clap_audio_config(),
    HtsatModel: tiny_htsat_config(locality_blocks=1),
    M2dClapModel: tiny_m2d_clap_config(),
    MgaClapModel: tiny_mga_clap_config(affinity_divisor=50.0),
    M2dClapForPreTraining: tiny_m2d_clap_config(),
    NativeAudioModel: tiny_ast_config(locality_blocks=1),
    SlapAudioModel: tiny_slap_audio_config(),
    SlapModel: tiny_slap_config(),
    SlapForConditionalGeneration: tiny_slap_config(),
    SlapForPreTraining: tiny_slap_config(),
    ZipformerModel: tiny_zipformer_config(),
}
HEADS = {
    getattr(heads, f"{family}For{kind}"): (f"AutoModelFor{kind}", config)
    for family, config in {
        "CaptionStew": tiny_captionstew_config(audio_config=tiny_zipformer_config(), num_labels=3),
        "Htsat": tiny_htsat_config(num_labels=3),
        "M2dClap": tiny_m2d_clap_config(num_labels=3),
        "M2dClapAudio": tiny_m2d_clap_audio_config(num_labels=3),
        "MgaClap": tiny_mga_clap_config(num_labels=3),
        "NativeAudio": tiny_ast_config(num_labels=3),
        "Slap": tiny_slap_config(num_labels=3, classifier_pooling="attention", classifier_heads=2),
        "SlapAudio": tiny_slap_audio_config(num_labels=3),
        "Zipformer": tiny_zipformer_config(num_labels=3),
    }.items()
    for kind in ("AudioClassification", "AudioFrameClassification")
}
# folder -> system on a tower that is not its own, which the configuration's file alone must find
ON_OTHER_TOWERS = {
    "slap_on_ast": (SlapModel, tiny_slap_config(audio_config=tiny_ast_config(locality_blocks=1), masked_weight=0.0)),
    "m2d_clap_on_whisper": (
        M2dClapModel,
        tiny_m2d_clap_config(audio_config=tiny_whisper_config(), masked_weight=0.0, masking_ratio=0.0),
    ),
}
CASES = {
    **{cls.__name__: (cls, AUTO_CLASSES[cls], config) for cls, config in CONFIGS.items()},
    **{folder: (cls, AUTO_CLASSES[cls], config) for folder, (cls, config) in ON_OTHER_TOWERS.items()},
    **{cls.__name__: (cls, auto_class, config) for cls, (auto_class, config) in HEADS.items()},
}


def make_inputs(config) -> dict[str, torch.Tensor]:
    if isinstance(config, AudioProjectorConfig):
        return {"hidden_states": torch.randn(2, 9, 24, generator=torch.Generator().manual_seed(1))}
    return {name: value for name, value in tiny_batch(config, seed=1).items() if name != "labels"}


def captioner_inputs(config) -> dict[str, torch.Tensor]:
    batch = tiny_batch(config, seed=1)
    audio = {name: batch[name] for name in ("input_features", "input_features_mask")}
    return {**audio, "decoder_input_ids": batch["input_ids"][:, :-1]}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder per public class, loaded and run once by one process that cannot import the package."""
    root = tmp_path_factory.mktemp("remote")
    for name, (model_class, _, config) in CASES.items():
        torch.manual_seed(2)
        model = model_class(config).eval()
        folder = root / name
        export_with_code(model, tiny_processor() if name == "SlapModel" else None, folder)
        is_captioner = name.endswith("ForConditionalGeneration")
        torch.save((captioner_inputs if is_captioner else make_inputs)(config), folder / "inputs.pt")
    script = root / "script.py"
    script.write_text(REFUSE + SCRIPT)
    classes = json.dumps({name: auto_class for name, (_, auto_class, _) in CASES.items()})
    done = subprocess.run(
        [sys.executable, "-I", str(script), str(root), classes],
        capture_output=True,
        text=True,
        env={
            "HF_MODULES_CACHE": str(root / "modules"),
            "HF_HUB_OFFLINE": "1",
            "HOME": str(root),
            "OMP_NUM_THREADS": str(torch.get_num_threads()),
            "PATH": os.environ["PATH"],
        },
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return root


@pytest.mark.parametrize("name", CASES)
def test_model_loads_without_the_package(exported, name):
    folder = exported / name
    result = torch.load(folder / "result.pt", weights_only=True)
    model = CASES[name][0].from_pretrained(folder).eval()  # the same memory alignment, the same rounding
    torch.manual_seed(7)
    with torch.no_grad():
        inputs = torch.load(folder / "inputs.pt", weights_only=True)
        outputs = model(**inputs)
        if name.endswith("ForConditionalGeneration"):
            audio = {key: value for key, value in inputs.items() if "features" in key}
            outputs["caption_ids"] = model.generate(**audio, num_beams=2, max_new_tokens=6)
    expected = {name: value for name, value in outputs.items() if isinstance(value, torch.Tensor)}
    assert set(result) == set(expected)
    for name, value in expected.items():
        assert torch.equal(result[name], value), name


def test_every_public_class_is_here():
    public = {model for pairs in MODELS.values() for _, model in pairs}
    assert {cls for cls, _, _ in CASES.values()} == public


def test_processor_and_pipeline_work_without_the_package(exported):
    model = SlapModel.from_pretrained(exported / "SlapModel").eval()
    tone = np.sin(np.arange(20000, dtype=np.float32) / 9)
    texts = [f"This is a sound of {label}." for label in ("a dog", "a siren")]
    inputs = tiny_processor()(text=texts, audio=tone, sampling_rate=16000, padding=True, return_tensors="pt")
    with torch.no_grad():
        scores = model(**inputs).logits_per_audio[0].softmax(-1)
    found = json.loads((exported / "rows.json").read_text())
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
