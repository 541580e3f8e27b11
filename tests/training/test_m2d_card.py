"""Cards of M2D-CLAP: what the system, its form without text encoder and the encoder alone say about themselves."""

import pytest
from tiny import tiny_m2d_clap_audio_config, tiny_m2d_clap_config, tiny_tokenizer

from hf_audiolang import AudioLangProcessor, LogMelFeatureExtractor, M2dClapAudioModel, M2dClapModel
from hf_audiolang.model_card import CardContent, write_card

EXTRACTOR = LogMelFeatureExtractor.from_preset("m2d_clap")
SETTINGS = {"train_data": "sound_scenes", "output_dir": "runs/small", "batch_size": 64}
NOTHING_MEASURED = {"records": []}


def card(folder, model, processor, report=NOTHING_MEASURED, table="", /, **settings):
    return write_card(folder, model, processor, CardContent(SETTINGS | settings, report, table, 7, 3600.0))


def test_the_system_says_how_it_is_asked_and_what_was_measured(tmp_path):
    model = M2dClapModel(tiny_m2d_clap_config())
    report = {"zero_shot/accuracy": 0.25, "records": [{"task": "zero_shot", "data": "scenes"}]}
    written = card(tmp_path, model, AudioLangProcessor(EXTRACTOR, tiny_tokenizer()), report, "| a table |")
    assert written.data.license == "apache-2.0"
    assert written.data.pipeline_tag == "zero-shot-audio-classification"
    assert written.data.eval_results[0].metric_value == 0.25
    for words in (
        "| a table |", "synthetic data only", "hf-audiolang classify", "hf-audiolang explain", "| shared space | 24 ",
        "3 layers, width 24, 3 heads, patches of 16 frames x 16 mel bins, 112 frames at once",
        "contrastive x 0.01, masked x 1.0", "conventional tasks, 120 wide, one vector for each\n160 ms",
        "longer than 1.12 s", "So are these weights.",
    ):  # fmt: skip
        assert words in written.text, words
    mean = M2dClapModel(tiny_m2d_clap_config(projector_config={"projector_type": "mean", "hidden_size": 24}))
    assert "explain" not in card(tmp_path, mean, EXTRACTOR).text


def test_without_text_encoder_no_words_are_promised(tmp_path):
    config = tiny_m2d_clap_config(text_config=None, text_embedding_model="some/embedder")
    written = card(tmp_path, M2dClapModel(config), EXTRACTOR, text_embeddings="runs/store")
    assert written.data.pipeline_tag == "feature-extraction"
    assert "classify" not in written.text
    assert "embeddings of the same model as `text_embeddings` (some/embedder)" in written.text
    assert "get_audio_features(**inputs).pooler_output  # (1, 24)" in written.text


def test_the_encoder_alone_has_a_card_too(tmp_path):
    written = card(tmp_path, M2dClapAudioModel(tiny_m2d_clap_audio_config()), EXTRACTOR)
    assert "An audio encoder of the M2D family" in written.text
    assert "model(**inputs).pooler_output  # (1, 120)" in written.text
    assert "shared space" not in written.text
    assert "contrastive" not in written.data.tags


@pytest.mark.parametrize("start", ["model", "audio_model", "audio_projection", "text_model"])
def test_weights_from_elsewhere_get_no_licence_from_us(tmp_path, start):
    model = M2dClapAudioModel(tiny_m2d_clap_audio_config())
    written = card(tmp_path, model, EXTRACTOR, **{start: "somebody/weights"})
    assert written.data.license is None
    assert "So are these weights" not in written.text
