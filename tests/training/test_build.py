import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import tiny_captionstew_config, tiny_mga_clap_config
from tokenizers import processors
from transformers import AutoModel, ModernBertConfig

from hf_audiolang import CaptionStewForPreTraining, LogMelFeatureExtractor, SlapConfig, SlapForPreTraining
from hf_audiolang.data import Record
from hf_audiolang.training.build import _waveforms, build_model, build_processor, fit_vocabulary, plan_batches
from hf_audiolang.training.config import load_run_config
from hf_audiolang.training.devices import choose_precision, num_available_cores, set_threads
from hf_audiolang.training.objectives import override_objective
from hf_audiolang.training.tokenizer import train_tokenizer

TOWER = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 32}


def small_config() -> SlapConfig:
    text = {**TOWER, "model_type": "modernbert", "vocab_size": 400, "pad_token_id": 9, "local_attention": 8}
    decoder = {**TOWER, "vocab_size": 400, "encoder_hidden_size": 24, "pad_token_id": 9}
    return SlapConfig(
        audio_config=TOWER, text_config=text, decoder_config=decoder, num_prototypes=16, prototype_hidden_size=8
    )


@pytest.fixture
def config_folder(tmp_path):
    small_config().save_pretrained(tmp_path / "config")
    return tmp_path / "config"


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["a dog barks", "rain falls"] * 3)


def settings(*arguments: str):
    return load_run_config(["--model_config", "x", "--max_steps", "3", *arguments])


def test_vocabulary_and_special_tokens_reach_every_part_that_has_text(tokenizer):
    config = small_config()
    fit_vocabulary(config, tokenizer, is_exact=True)
    for part in (config.text_config, config.decoder_config):
        assert part.vocab_size == len(tokenizer) < 400
        assert part.pad_token_id == tokenizer.pad_token_id
        assert part.bos_token_id == tokenizer.cls_token_id
        assert part.eos_token_id == tokenizer.sep_token_id
    assert not hasattr(config.audio_config, "vocab_size")


def test_captions_begin_and_end_with_what_the_tokenizer_writes(tokenizer):
    config, named = small_config(), copy.deepcopy(tokenizer)
    named.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})  # as BigBird's, which writes neither
    assert named.bos_token_id != named.cls_token_id == named("a dog")["input_ids"][0]
    fit_vocabulary(config, named, is_exact=True)
    decoder = config.decoder_config
    assert (decoder.bos_token_id, decoder.eos_token_id) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert config.text_config.bos_token_id == named.bos_token_id


def test_a_tokenizer_that_writes_no_end_cannot_train_a_captioner(tokenizer):
    config, bare = small_config(), copy.deepcopy(tokenizer)
    bare.backend_tokenizer.post_processor = processors.Sequence([])  # as GPT-2's
    assert bare("a dog")["input_ids"] == bare("a dog", add_special_tokens=False)["input_ids"]
    fit_vocabulary(config, bare, is_exact=True)
    with pytest.raises(ValueError, match=r"`bos_token_id`, got None.*token and writes it around captions"):
        SlapForPreTraining(config)


def test_a_published_models_rounded_vocabulary_stays_unless_it_is_too_small(tokenizer):
    config = small_config()
    fit_vocabulary(config, tokenizer, is_exact=False)
    assert config.text_config.vocab_size == 400
    config.decoder_config.vocab_size = 20
    fit_vocabulary(config, tokenizer, is_exact=False)
    assert config.decoder_config.vocab_size == len(tokenizer)


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("decoder_config", "norm_position", "pre"),
        ("decoder_config", "norm_type", "rmsnorm"),
        ("", "pooling", "attention"),
    ],
)
def test_a_captioner_under_a_config_of_another_form_is_refused(tmp_path, tokenizer, part, field, value):
    config = tiny_captionstew_config(text_config=None, contrastive_weight=0.0)
    fit_vocabulary(config, tokenizer, is_exact=True)
    CaptionStewForPreTraining(config).save_pretrained(tmp_path / "there")
    setattr(getattr(config, part) if part else config, field, value)
    config.save_pretrained(tmp_path / "here")
    given = settings("--model", str(tmp_path / "there"), "--model_config", str(tmp_path / "here"))
    with pytest.raises(ValueError, match=f"was trained with `.*{field}`"):
        build_model(given, tokenizer)


def test_going_on_without_the_trained_decoder_is_said(tmp_path, tokenizer, caplog):
    config = tiny_captionstew_config(text_config=None, contrastive_weight=0.0)
    fit_vocabulary(config, tokenizer, is_exact=True)
    trained = CaptionStewForPreTraining(config)
    trained.exported_model.save_pretrained(tmp_path / "model")
    trained.exported_captioner.save_pretrained(tmp_path / "captioner")
    found = build_model(load_run_config(["--max_steps", "3", "--model", str(tmp_path / "captioner")]), tokenizer)
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in found.state_dict().items())
    assert "without its caption decoder" not in caplog.text
    build_model(load_run_config(["--max_steps", "3", "--model", str(tmp_path / "model")]), tokenizer)
    assert f"Give {str(tmp_path / 'captioner')!r} to go on" in caplog.text


def test_objective_keys_overwrite_the_models_config_and_nothing_else():
    config = small_config()
    before = copy.deepcopy(config.to_dict())
    override_objective(config, settings("--caption_weight", "0", "--masking_ratio", "0.3").model)
    changed = {name for name, value in config.to_dict().items() if before[name] != value}
    assert changed == {"caption_weight", "masking_ratio"}
    assert (config.caption_weight, config.masking_ratio) == (0.0, 0.3)


def test_an_objective_key_that_the_model_does_not_know_is_refused():
    with pytest.raises(ValueError, match=r"`masking_ratio` is 0\.3, but a ModernBertConfig has no such field"):
        override_objective(ModernBertConfig(), settings("--masking_ratio", "0.3").model)


def test_special_tokens_are_no_words(tokenizer):
    config = tiny_mga_clap_config()
    fit_vocabulary(config, tokenizer, is_exact=True)
    ids = {tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id}
    assert set(config.special_token_ids) == ids
    assert config.text_config.vocab_size == len(tokenizer)


def test_keys_of_mga_clap_reach_the_system_and_its_audio_tower():
    config = tiny_mga_clap_config()
    keys = ["--aggregation", "mean", "--hard_negative_gamma", "0", "--affinity_divisor", "7", "--locality_blocks", "0"]
    override_objective(config, settings(*keys).model)
    assert (config.aggregation, config.hard_negative_gamma, config.affinity_divisor) == ("mean", 0.0, 7.0)
    assert config.audio_config.locality_blocks == 0
    with pytest.raises(ValueError, match="does not allow"):
        override_objective(config, settings("--locality_blocks", "9").model)
    with pytest.raises(ValueError, match="does not allow"):
        override_objective(config, settings("--aggregation", "sum").model)
    with pytest.raises(ValueError, match="`locality_blocks` is 1, but a SlapAudioConfig has no such field"):
        override_objective(small_config(), settings("--locality_blocks", "1").model)


def test_keys_of_captionstew_reach_its_objective():
    config = tiny_captionstew_config()
    override_objective(config, settings("--parallel_share", "0.75", "--label_smoothing", "0").model)
    assert (config.parallel_share, config.label_smoothing) == (0.75, 0.0)
    with pytest.raises(ValueError, match=r"`parallel_share` is 0\.5, but a MgaClapConfig has no such field"):
        override_objective(tiny_mga_clap_config(), settings("--parallel_share", "0.5").model)


def test_the_built_model_follows_the_run(config_folder, tokenizer):
    model = build_model(settings("--model_config", str(config_folder), "--caption_weight", "0"), tokenizer)
    assert not hasattr(model, "caption_decoder")
    assert model.slap.text_model.get_input_embeddings().num_embeddings == len(tokenizer)


def test_the_text_tower_starts_from_published_weights(config_folder, tokenizer, tmp_path):
    text_config = small_config().text_config
    fit_vocabulary_size = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    published = AutoModel.from_config(type(text_config).from_dict({**text_config.to_dict(), **fit_vocabulary_size}))
    published.save_pretrained(tmp_path / "bert")
    arguments = ("--model_config", str(config_folder), "--text_model", str(tmp_path / "bert"))
    model = build_model(settings(*arguments), tokenizer)
    for name, value in published.state_dict().items():
        assert torch.equal(model.slap.text_model.state_dict()[name], value), name
    wider = AutoModel.from_config(type(text_config).from_dict({**text_config.to_dict(), "intermediate_size": 40}))
    wider.save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match=r"`text_model` .* does not fit the text tower"):
        build_model(settings(*arguments), tokenizer)


def test_open_statistics_are_measured_on_the_training_clips_and_closed_ones_kept():
    generator = np.random.default_rng(0)
    clips = [Record(str(n), 0.1 * generator.standard_normal(4000 + 97 * n), 16000, captions=("a",)) for n in range(5)]
    clips.append(Record("bad", np.zeros(0, dtype=np.float32), 16000, captions=("b",)))
    extractor = LogMelFeatureExtractor.from_preset("slap")
    processor = build_processor(settings(), copy.deepcopy(extractor), clips)
    values = []
    for record in clips[:5]:
        features = extractor([record.audio], sampling_rate=16000, return_tensors="pt").input_features  # not normalised
        values.append(features.flatten())
    values = torch.cat(values).double()
    assert processor.feature_extractor.mean == pytest.approx(values.mean().item(), rel=1e-6)
    assert processor.feature_extractor.std == pytest.approx(2 * values.std(correction=0).item(), rel=1e-6)
    extractor.set_statistics(-1.0, 2.0)
    assert build_processor(settings(), extractor, clips).feature_extractor.mean == -1.0


def test_epochs_become_steps_and_a_batch_never_exceeds_the_data():
    accelerator = SimpleNamespace(process_index=0, num_processes=1)
    config = load_run_config(["--model_config", "x", "--num_epochs", "2.5", "--batch_size", "4"])
    assert plan_batches(config, range(19), accelerator)[1] == 10  # 4 batches per epoch
    config.train.gradient_accumulation_steps = 3
    assert plan_batches(config, range(19), accelerator)[1] == math.ceil(10 / 3)
    config.train.batch_size = 50
    sampler, num_steps = plan_batches(config, range(19), accelerator)
    assert (sampler.batch_size, num_steps) == (19, 1)
    with pytest.raises(ValueError, match="Lower `batch_size`, or add data"):
        plan_batches(config, range(1), accelerator)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--warmup_steps", "10"], r"`warmup_steps` is 10 but the run has 10 step\(s\) on 19 clips.*Lower"),
        (["--export", "best", "--eval_steps", "11"], r"`export` is 'best' but `eval_steps` is 11 and the run has 10"),
    ],
)
def test_epochs_that_are_too_few_steps_are_refused(arguments, message):
    accelerator = SimpleNamespace(process_index=0, num_processes=1)
    config = load_run_config(["--model_config", "x", "--num_epochs", "2.5", "--batch_size", "4", *arguments])
    with pytest.raises(ValueError, match=message):
        plan_batches(config, range(19), accelerator)
    plan_batches(config, range(23), accelerator)  # control: 12.5 batches


def test_the_clips_that_are_measured_spread_over_all_of_the_data(monkeypatch):
    monkeypatch.setattr("hf_audiolang.training.build.MAX_MEASURED_CLIPS", 4)
    clips = [Record(str(n), np.full(50, n / 10, dtype=np.float32), 16000) for n in range(7)]
    assert [round(float(clip[0]) * 10) for clip in _waveforms(clips, 16000, 1.0)] == [0, 1, 3, 5]
    assert len(list(_waveforms(clips[:3], 16000, 1.0))) == 3


def test_automatic_precision_takes_bf16_only_where_it_gains(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    for capability, expected in (("amx_bf16", "bf16"), ("avx512_bf16", "bf16"), ("avx2", "no")):
        monkeypatch.setattr("torch.cpu.get_capabilities", lambda name=capability: {name: True})
        assert choose_precision("auto", cpu) == expected
    assert choose_precision("bf16", cpu) == "bf16"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert choose_precision("auto", cpu) == "bf16"
    assert choose_precision("fp32", cpu) == "no"


def test_the_single_thread_that_accelerate_launch_sets_is_undone(monkeypatch):
    chosen = []
    monkeypatch.setattr("torch.set_num_threads", chosen.append)
    accelerator = SimpleNamespace(device=torch.device("cpu"), num_processes=1, mixed_precision="no")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    set_threads(None, accelerator)
    assert chosen == []  # the user's own wish
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    set_threads(None, accelerator)
    set_threads(3, accelerator)
    assert chosen == [num_available_cores(), 3]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    set_threads(None, accelerator)
    assert chosen == [num_available_cores(), 3]
