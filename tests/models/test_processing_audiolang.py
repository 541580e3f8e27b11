"""The processor: what reaches which side, one file on disk, and the calls that pipelines and other libraries make."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import soundfile
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import AutoFeatureExtractor, AutoProcessor, PreTrainedConfig, PreTrainedModel, pipeline
from transformers import PreTrainedTokenizerFast as FastTokenizer
from transformers.utils import ModelOutput

from hf_audiolang.models.feature_extraction_log_mel import LogMelFeatureExtractor
from hf_audiolang.models.processing_audiolang import AudioLangProcessor

WORDS = ["[PAD]", "[UNK]", "a", "dog", "barks", "and", "rain", "falls", "This", "is", "sound", "of", "."]
NUM_FRAMES = {3001: 17, 16000: 98}


def make_tokenizer(**options) -> FastTokenizer:
    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return FastTokenizer(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", **options)


@pytest.fixture
def processor() -> AudioLangProcessor:
    return AudioLangProcessor(LogMelFeatureExtractor(mean=-4.3, std=9.1, max_seconds=2.0), make_tokenizer())


@pytest.fixture
def audio() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.normal(0, 0.1, length).astype(np.float32) for length in NUM_FRAMES]


def test_text_and_audio_together_equal_each_alone(processor, audio):
    text = ["a dog barks", "rain falls and a dog barks"]
    options = {"padding": True, "return_tensors": "pt"}
    both = processor(text=text, audio=audio, sampling_rate=16000, **options)
    assert set(both) == {"input_ids", "attention_mask", "input_features", "input_features_mask"}
    assert both["input_ids"].tolist() == [[2, 3, 4, 0, 0, 0], [6, 7, 5, 2, 3, 4]]
    assert both["attention_mask"].sum(1).tolist() == [3, 6]
    assert both["input_features_mask"].sum(1).tolist() == list(NUM_FRAMES.values())
    alone = processor(text=text, **options) | processor(audio=audio, sampling_rate=16000, **options)
    direct = processor.feature_extractor(audio, sampling_rate=16000, return_tensors="pt")
    for name, value in both.items():
        assert torch.equal(value, alone[name])
    assert torch.equal(both["input_features"], direct["input_features"])


@pytest.mark.parametrize("padding", [True, "longest", "max_length"])
def test_options_that_count_text_tokens_do_not_cut_audio(processor, audio, padding):
    inputs = processor(
        text=["rain falls and a dog barks", "rain"],
        audio=audio,
        sampling_rate=16000,
        padding=padding,
        truncation=True,
        max_length=4,
        pad_to_multiple_of=2,
        return_tensors="pt",
    )
    assert inputs["input_ids"].tolist() == [[6, 7, 5, 2], [6, 0, 0, 0]]
    assert inputs["input_features"].shape == (2, 98, 64)


def test_options_stored_in_the_tokenizer_do_not_cut_audio(audio):
    tokenizer = make_tokenizer(max_length=4, truncation=True, padding="max_length", model_max_length=4)
    processor = AudioLangProcessor(LogMelFeatureExtractor(mean=-4.3, std=9.1), tokenizer)
    inputs = processor(text="a dog", audio=audio, sampling_rate=16000)
    assert inputs["input_features"].shape == (2, 98, 64)


def test_audio_options_reach_the_feature_extractor(processor, audio):
    assert processor(audio=audio, sampling_rate=16000, max_seconds=0.5)["input_features"].shape == (2, 48, 64)
    explicit = processor(audio=audio, audio_kwargs={"padding": "max_length", "sampling_rate": 16000})
    assert explicit["input_features"].shape == (2, 198, 64)
    multiple = processor(audio=audio, audio_kwargs={"pad_to_multiple_of": 16, "sampling_rate": 16000})
    assert multiple["input_features"].shape == (2, 112, 64)
    assert processor(audio=audio, audio_kwargs={"max_length": 8000})["input_features"].shape == (2, 48, 64)
    with pytest.raises(ValueError, match="`sampling_rate` must be 16000 Hz"):
        processor(text=["rain"], audio=audio, sampling_rate=8000)


def test_every_kind_of_audio_passes(processor, audio, tmp_path):
    soundfile.write(tmp_path / "clip.wav", audio[0], 16000, subtype="FLOAT")
    expected = processor(audio=audio[:1], sampling_rate=16000, return_tensors="pt")["input_features"]
    row = {"array": audio[0], "sampling_rate": 16000}
    for form in (
        audio[0],
        torch.from_numpy(audio[0]),
        row,
        [row],
        str(tmp_path / "clip.wav"),
        [tmp_path / "clip.wav"],
    ):
        inputs = processor(audio=form, return_tensors="pt")
        assert torch.equal(inputs["input_features"], expected)


def test_nothing_given_is_refused(processor):
    with pytest.raises(ValueError, match="at least one input"):
        processor()


def test_tokens_decode(processor):
    assert processor.batch_decode([[2, 3, 4], [6, 7]]) == ["a dog barks", "rain falls"]
    assert processor.decode([6, 7]) == "rain falls"


class ToyConfig(PreTrainedConfig):
    model_type = "toy_audiolang_for_processor_tests"


@dataclass
class ToyOutput(ModelOutput):
    logits_per_audio: torch.Tensor | None = None


class ToyModel(PreTrainedModel):
    """A dual encoder of means: enough for the pipeline's calls."""

    config: ToyConfig
    main_input_name = "input_ids"

    def __init__(self, config: ToyConfig):
        super().__init__(config)
        self.embedding = nn.Embedding(len(WORDS), 64)
        self.post_init()

    def forward(self, input_ids=None, input_features=None, attention_mask=None, input_features_mask=None, **kwargs):
        clip = (input_features * input_features_mask.unsqueeze(-1)).sum(1) / input_features_mask.sum(1, keepdim=True)
        texts = self.embedding(input_ids).mul(attention_mask.unsqueeze(-1)).sum(1)
        return ToyOutput(logits_per_audio=clip @ texts.T)


def test_one_file_on_disk_and_auto_classes(processor, audio, tmp_path):
    AutoProcessor.register(ToyConfig, AudioLangProcessor, exist_ok=True)
    AutoFeatureExtractor.register(ToyConfig, LogMelFeatureExtractor, exist_ok=True)
    ToyConfig().save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json"}
    stored = json.loads((tmp_path / "processor_config.json").read_text())
    assert stored["processor_class"] == "AudioLangProcessor"
    assert stored["feature_extractor"]["feature_extractor_type"] == "LogMelFeatureExtractor"
    expected = processor(text=["a dog"], audio=audio, sampling_rate=16000, return_tensors="pt")
    for load in (AudioLangProcessor.from_pretrained, AutoProcessor.from_pretrained):
        loaded = load(tmp_path)
        assert type(loaded) is AudioLangProcessor
        inputs = loaded(text=["a dog"], audio=audio, sampling_rate=16000, return_tensors="pt")
        assert all(torch.equal(value, expected[name]) for name, value in inputs.items())
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert type(extractor) is LogMelFeatureExtractor
    assert extractor.to_dict() == processor.feature_extractor.to_dict()


def test_zero_shot_pipeline(processor, audio):
    torch.manual_seed(0)
    model = ToyModel(ToyConfig()).eval()
    classify = pipeline(
        "zero-shot-audio-classification",
        model=model,
        feature_extractor=processor.feature_extractor,
        tokenizer=processor.tokenizer,
    )
    labels = ["rain", "a dog"]
    texts = [f"This is a sound of {label}." for label in labels]
    for answer, clip in zip(classify(audio, candidate_labels=labels), audio, strict=True):
        inputs = processor(text=texts, audio=clip, sampling_rate=16000, padding=True, return_tensors="pt")
        with torch.no_grad():
            scores = model(**inputs).logits_per_audio[0].softmax(-1)
        assert {item["label"]: item["score"] for item in answer} == pytest.approx(
            dict(zip(labels, scores.tolist(), strict=True)), abs=1e-6
        )


def test_calls_of_sentence_transformers(processor, audio):
    """Its Transformer module passes options by modality and `common_kwargs`, the rate with the audio options."""
    options = {
        "text_kwargs": {"padding": True, "truncation": "longest_first"},
        "images_kwargs": {},
        "videos_kwargs": {},
        "common_kwargs": {"return_tensors": "pt"},
    }
    sounds = processor(audio=audio, audio_kwargs={"padding": True, "sampling_rate": 16000}, **options)
    texts = processor(text=["a dog barks", "rain"], audio_kwargs={"padding": True}, **options)
    assert set(sounds) == {"input_features", "input_features_mask"}
    assert sounds["input_features"].shape == (2, 98, 64)
    assert texts["input_ids"].tolist() == [[2, 3, 4], [6, 0, 0]]
