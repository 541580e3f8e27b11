"""Cards of M2D-CLAP: what the system, its form without text encoder and the encoder alone say about themselves."""

import pytest
from tiny import tiny_m2d_clap_audio_config, tiny_m2d_clap_config, tiny_slap_config, tiny_tokenizer

from hf_audiolang import AudioLangProcessor, LogMelFeatureExtractor, M2dClapAudioModel, M2dClapModel, SlapModel
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
    for words in ("on synthetic data only", "these are not weights of that paper's authors"):
        assert words not in written.text
        assert words in card(tmp_path, model, EXTRACTOR).text  # control
    assert f"\nStarted from: {start}=somebody/weights.\n" in written.text
    assert "The audio-text pairs of this run are synthetic" in written.text
    own = card(tmp_path, model, EXTRACTOR, train_data="org/sounds", **{start: "somebody/weights"}).text
    assert "Started from" in own
    assert "synthetic" not in own


LICENCE = {"license": "other", "license_name": "their-licence", "license_link": "https://example.org/licence"}


def start_folder(folder, readme):
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(readme)
    return str(folder)


def with_licence(**licence):
    return "---\n" + "".join(f"{key}: {value}\n" for key, value in licence.items()) + "---\n\n# A model\n"


def write(tmp_path, family, **starts):
    if family == "slap":
        model, processor = SlapModel(tiny_slap_config()), AudioLangProcessor(EXTRACTOR, tiny_tokenizer())
    else:
        model, processor = M2dClapModel(tiny_m2d_clap_config()), EXTRACTOR
    return card(tmp_path, model, processor, max_seconds=10.0, **starts)


@pytest.mark.parametrize("family", ["m2d_clap", "slap"])
def test_the_licence_of_the_start_is_carried_over(tmp_path, family):
    first = start_folder(tmp_path / "runs" / "first" / "model", with_licence(**LICENCE))
    written = write(tmp_path, family, model=first, text_model="org/words")
    assert {key: written.data.get(key) for key in LICENCE} == LICENCE
    assert "Started from: model=first, text_model=org/words." in written.text
    assert "- model=first: their-licence (https://example.org/licence)\n" in written.text
    assert str(tmp_path) not in written.content
    assert write(tmp_path, family).data.license == "apache-2.0"  # control
    other = start_folder(tmp_path / "other", with_licence(license="cc-by-4.0"))
    both = write(tmp_path, family, model=first, audio_model=other)
    assert both.data.license is None  # no single one
    assert "- audio_model=other: cc-by-4.0\n" in both.text
    assert "- model=first: their-licence (" in both.text


@pytest.mark.parametrize("readme", ["# no metadata", "---\n: [\n---\n", with_licence(license="apache-2.0")])
def test_a_start_that_states_no_other_licence_changes_nothing(tmp_path, readme):
    written = write(tmp_path, "m2d_clap", model=start_folder(tmp_path / "start", readme))
    assert written.data.license is None
    assert "What the run started from states" not in written.text


@pytest.mark.parametrize("family", ["m2d_clap", "slap"])
def test_an_adapter_says_what_it_needs(tmp_path, family):
    (tmp_path / "adapter_config.json").write_text("{}")
    written = write(tmp_path, family, model="org/base")
    assert (written.data.library_name, written.data.base_model) == ("peft", "org/base")
    assert "low-rank adapter (LoRA)**: adapters and heads alone, for the model `org/base`" in written.text
    (tmp_path / "adapter_config.json").unlink()
    whole = write(tmp_path, family, model=start_folder(tmp_path / "start", "# no metadata"))
    assert (whole.data.library_name, whole.data.base_model) == ("transformers", None)
    assert "low-rank" not in whole.text
