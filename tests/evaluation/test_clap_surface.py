"""transformers' own CLAP has the surface that evaluation and the file functions need."""

import numpy as np
import pytest
import soundfile
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, ClapProcessor, PreTrainedTokenizerFast

from hf_audiolang.inference import classify_files, load_model


@pytest.fixture(scope="module")
def clap():
    torch.manual_seed(0)
    vocabulary = {word: index for index, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", "a", "dog", "rain"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", model_max_length=30,
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
    audio = {"patch_embeds_hidden_size": 16, "hidden_size": 32, "depths": [1, 1], "num_attention_heads": [2, 2]}
    audio |= {"num_hidden_layers": 2, "projection_dim": 16}
    text = {"vocab_size": 7, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text |= {"intermediate_size": 16, "max_position_embeddings": 40, "pad_token_id": 1}
    config = ClapConfig(audio_config=audio, text_config=text, projection_dim=16)
    return ClapModel(config).eval(), ClapProcessor(ClapFeatureExtractor(truncation="rand_trunc"), fast)


def test_a_clap_folder_classifies_files_as_the_model_itself(clap, tmp_path):
    model, processor = clap
    generator = np.random.default_rng(0)
    long = generator.standard_normal(13 * 48000) / 10  # over CLAP's 10 s: two pieces instead of its random crop
    soundfile.write(tmp_path / "long.wav", long, 48000, subtype="FLOAT")
    soundfile.write(tmp_path / "short.wav", generator.standard_normal(16000) / 10, 16000)
    labels = ["a dog", "rain"]
    found = classify_files([tmp_path], labels, model, processor, templates="{label}")
    with torch.no_grad():
        pieces = [
            model.get_audio_features(
                **processor.feature_extractor(piece.astype(np.float32), sampling_rate=48000, return_tensors="pt")
            ).pooler_output
            for piece in np.array_split(long, 2)
        ]
        texts = model.get_text_features(**processor.tokenizer(labels, padding=True, return_tensors="pt")).pooler_output
    mean = torch.nn.functional.normalize(torch.cat(pieces).mean(0), dim=0)
    np.testing.assert_allclose(found.similarities[0], (texts @ mean).numpy(), atol=1e-5)
    scaled = (texts @ mean) * model.logit_scale_a.exp()
    np.testing.assert_allclose(found.probabilities[0], scaled.softmax(0).detach().numpy(), atol=1e-5)

    model.save_pretrained(tmp_path / "clap")
    processor.save_pretrained(tmp_path / "clap")
    again = classify_files([tmp_path], labels, *load_model(tmp_path / "clap", "cpu"), templates="{label}")
    np.testing.assert_allclose(again.similarities, found.similarities, atol=1e-6)
