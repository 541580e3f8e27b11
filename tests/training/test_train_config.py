import dataclasses

import pytest
import yaml

from hf_audiolang.training.config import RunConfig, TrainArguments, load_run_config

MINIMAL = ["--model_config", "somewhere", "--max_steps", "10"]


@pytest.fixture
def write(tmp_path):
    def write_yaml(text: str) -> str:
        path = tmp_path / "run.yaml"
        path.write_text(text)
        return str(path)

    return write_yaml


def test_the_command_line_wins_over_the_file_and_the_file_over_the_defaults(write):
    path = write("model_config: here\nmax_steps: 240\nlearning_rate: 1e-3\nema_decay: [0.96, 1]\nresume: true\n")
    config = load_run_config([path, "--learning_rate", "5e-4", "--num-events", "2", "4", "--max_steps=30"])
    assert config.train.learning_rate == 5e-4
    assert config.train.max_steps == 30
    assert config.train.ema_decay == [0.96, 1.0]
    assert config.data.num_events == [2, 4]
    assert config.train.resume is True
    assert config.train.weight_decay == TrainArguments().weight_decay
    assert load_run_config([path]).train.learning_rate == 1e-3  # YAML 1.1 reads 1e-3 as text


def test_saved_settings_are_read_back_equal(write, tmp_path):
    config = load_run_config([*MINIMAL, "--ema_decay", "0.9", "1.0", "--caption_weight", "0.25", "--tensorboard"])
    config.save(tmp_path / "deep" / "run.yaml")
    assert load_run_config([str(tmp_path / "deep" / "run.yaml")]) == config
    assert yaml.safe_load((tmp_path / "deep" / "run.yaml").read_text())["caption_weight"] == 0.25


def test_keys_of_all_groups_are_distinct():
    config = load_run_config(MINIMAL)
    parts = [getattr(config, field.name) for field in dataclasses.fields(RunConfig)]
    assert len(config.to_dict()) == sum(len(dataclasses.fields(part)) for part in parts)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--learning_rat", "1"], r"Unknown key `--learning_rat`.*nearest known one is `--learning_rate`"),
        (["--learn", "1"], r"Unknown key `--learn`"),
        (["stray"], r"Unknown key `stray`"),
        (["--batch_size", "many"], r"argument --batch_size.*invalid int value: 'many'.*--help"),
        (["--precision", "fp8"], r"--precision.*fp8"),
        (["--batch_size", "1"], r"`batch_size` must be at least 2, got 1"),
        (["--learning_rate", "0"], r"`learning_rate` must be above 0, got 0"),
        (["--learning_rate", "nan"], r"`learning_rate` must be a finite number, got nan"),
        (["--learning_rate", "inf"], r"`learning_rate` must be a finite number, got inf"),
        (["--adam_betas", "0.9", "nan"], r"`adam_betas` must be a finite number, got \[0.9, nan\]"),
        (["--export", "best"], r"`export` is 'best' but `eval_steps` is 0.*`export: last`"),
        (["--eval_data", "sound_scenes", "--train_data", "x", "--max_seconds", "1"], r"`min_seconds` is 2.0, above"),
        (["--ema_decay", "0.9"], r"`ema_decay` must be two numbers, got \[0.9\]"),
        (["--ema_decay", "0.9", "1.1"], r"`ema_decay` must be from 0 to 1, got \[0.9, 1.1\]"),
        (["--masking_ratio", "1.5"], r"`masking_ratio` must be from 0 to 0.99, got 1.5"),
        (["--num_events", "4", "2"], r"`num_events` must be \[fewest, most\], got \[4, 2\]"),
        (["--min_seconds", "9"], r"`min_seconds` is 9.0, above `max_seconds` = 8.0"),
        (["--crop_step_seconds", "10"], r"`crop_step_seconds` is 10.0, above `max_seconds`"),
        (["--num_epochs", "2", "--max_steps", "3"], r"Exactly one of `max_steps` and `num_epochs`.*got .*2.0"),
        (["--model", "x", "--audio_model", "y"], r"`model` 'x' brings all of its weights, got \{'audio_model': 'y'\}"),
        (["--resume", "--overwrite"], r"`resume` and `overwrite` are both true"),
        (["--warmup_steps", "10"], r"`warmup_steps` is 10 but the run has 10 steps"),
        (
            ["--warmup_steps", "2.5"],
            r"`warmup_steps` must be a whole number, or a share.*below 1, got 2.5",
        ),
        (["--warmup_steps", "-0.1"], r"`warmup_steps` must be at least 0, got -0.1"),
        (["--ema_schedule", "step"], r"--ema_schedule.*step"),
        (["--lr_schedule", "line"], r"--lr_schedule.*line"),
        (["--optimizer", "adam"], r"--optimizer.*adam"),
        (["--lr_batches", "0"], r"`lr_batches` must be above 0, got 0"),
        (["--lr_epochs", "-1"], r"`lr_epochs` must be above 0, got -1"),
        (["--text_learning_rate_scale", "0"], r"`text_learning_rate_scale` must be above 0, got 0"),
        (["--clipping_scale", "0"], r"`clipping_scale` must be above 0, got 0"),
        (["--lr_steps_per_epoch", "0"], r"`lr_steps_per_epoch` must be at least 1, got 0"),
        (["--lr_steps_per_epoch", "9"], r"`lr_steps_per_epoch` is 9, but `lr_schedule` 'cosine'.*Remove the key"),
        (["--parallel_share", "1.5"], r"`parallel_share` must be from 0 to 1, got 1.5"),
        (["--label_smoothing", "1"], r"`label_smoothing` must be from 0 to 0.99, got 1"),
        (["--best_metric", "R@1"], r"Unknown `best_metric` 'R@1'. Choose one of .*'text_to_audio/R@1'"),
        (["--train_size", "0"], r"`train_size` must be at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_refused_with_what_to_do(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_run_config([*MINIMAL, *arguments])


def test_scaled_adam_wants_no_other_clipping_and_no_decay():
    keys = [*MINIMAL, "--optimizer", "scaled_adam"]
    with pytest.raises(
        ValueError, match=r"'scaled_adam', which clips.*Set `max_grad_norm: 0` and `weight_decay: 0`\."
    ):
        load_run_config(keys)
    with pytest.raises(ValueError, match=r"got \{'max_grad_norm': 1.0\}\. Set `max_grad_norm: 0`\."):
        load_run_config([*keys, "--weight_decay", "0"])
    settings = load_run_config([*keys, "--weight_decay", "0", "--max_grad_norm", "0", "--lr_schedule", "eden"]).train
    assert (settings.clipping_scale, settings.lr_batches, settings.lr_epochs) == (2.0, 7500, 3.5)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("learning_rat: 1.0", r"Unknown key `learning_rat` in .*run.yaml.*`learning_rate`"),
        ("train_datasets: x", r"Unknown key `train_datasets`.*nearest known one is `train_data`"),
        ("batch_size: 2.5", r"`batch_size` in .* must be of type int, got 2.5"),
        ("batch_size: lots", r"`batch_size` in .* must be of type int, got 'lots'"),
        ("learning_rate: true", r"`learning_rate` in .* must be of type float, got True"),
        ("resume: 3", r"`resume` in .* must be of type bool, got 3"),
        ("output_dir: 3", r"`output_dir` in .* must be of type str, got 3"),
        ("ema_decay: [a, b]", r"`ema_decay` in .* must be of type float, got 'a'"),
        ("on_bad_example: drop", r"Unknown `on_bad_example` 'drop'. Choose one of \['skip', 'error'\]"),
        ("- 1\n- 2", "holds a list, not `key: value` lines"),
    ],
)
def test_wrong_files_are_refused_with_the_file_and_what_to_do(write, line, message):
    base = "" if line.startswith("-") else "model_config: x\nmax_steps: 10\n"
    with pytest.raises(ValueError, match=message):
        load_run_config([write(base + line)])


def test_a_missing_file_and_missing_keys_are_named():
    with pytest.raises(FileNotFoundError, match=r"'configs/none\.yaml' does not exist"):
        load_run_config(["configs/none.yaml"])
    with pytest.raises(ValueError, match="Exactly one of `max_steps` and `num_epochs` is needed, got none"):
        load_run_config(["--model_config", "x"])
    with pytest.raises(ValueError, match="`model_config` or `model` is needed, got none"):
        load_run_config(["--max_steps", "1"])


def test_the_command_line_may_choose_the_other_of_a_pair(write):
    path = write("model_config: here\nmax_steps: 240\n")
    config = load_run_config([path, "--num_epochs", "1.5", "--model", "runs/x/model"])
    assert (config.train.max_steps, config.train.num_epochs) == (None, 1.5)
    assert (config.model.model_config, config.model.model) == (None, "runs/x/model")


def test_a_model_of_the_command_line_puts_out_the_starts_of_a_new_one(write):
    path = write("model_config: here\naudio_model: a\naudio_projection: b\ntext_model: c\nmax_steps: 240\n")
    config = load_run_config([path, "--model", "runs/x/model"])
    assert (config.model.audio_model, config.model.audio_projection, config.model.text_model) == (None,) * 3
    assert load_run_config([path]).model.audio_model == "a"
    both = write("model_config: here\nmodel: runs/x/model\nmax_steps: 240\n")  # the weights under another config
    assert load_run_config([both]).model.model == "runs/x/model"
    assert load_run_config([both]).model.model_config == "here"
    assert load_run_config([both, "--model_config", "there"]).model.model is None


def test_warm_up_is_a_number_of_steps_or_a_share_of_them(write):
    path = write("model_config: here\nmax_steps: 240\nwarmup_steps: 50\nfreeze: audio_model.*\n")
    config = load_run_config([path])
    assert config.train.warmup_steps == 50
    assert isinstance(config.train.warmup_steps, int)
    assert load_run_config([path, "--warmup_steps", "0.25"]).train.warmup_steps == 0.25
    assert config.model.freeze == ["audio_model.*"]
    assert load_run_config([path, "--freeze", "a.*", "b.*"]).model.freeze == ["a.*", "b.*"]
    assert load_run_config([*MINIMAL, "--masking_ratio", "0"]).model.masking_ratio == 0.0


def test_a_smoke_run_leaves_weights_out_unless_the_command_line_names_them(write):
    path = write("model_config: here\naudio_model: a\ntext_model: b\nmax_steps: 240\ntext_embeddings: mine\n")
    config = load_run_config([path, "--smoke", "--output_dir", "runs/x"])
    assert (config.model.audio_model, config.model.text_model) == (None, None)
    assert config.data.text_embeddings == "runs/x_smoke/text_embeddings"  # made there; the real one is not needed
    assert config.eval.eval_steps == 0
    config = load_run_config([path, "--smoke", "--audio_model", "c", "--eval_steps", "100"])
    assert (config.model.audio_model, config.model.text_model, config.eval.eval_steps) == ("c", None, 2)
    path = write("model: there\nmax_steps: 240\n")
    config = load_run_config([path, "--smoke"])
    assert (config.model.model_config, config.model.model) == ("there", None)
    config = load_run_config([path, "--smoke", "--model", "other"])
    assert (config.model.model_config, config.model.model) == (None, "other")


def test_smoke_is_small_and_leaves_the_real_run_alone():
    config = load_run_config([*MINIMAL, "--smoke", "--output_dir", "runs/real/", "--train_data", "mine", "--resume"])
    assert config.train.max_steps == 2
    assert config.train.output_dir == "runs/real_smoke"
    assert config.data.train_data == "sound_scenes"
    assert config.data.train_size <= 32
    assert config.data.max_seconds <= 2
    load_run_config([*MINIMAL, "--smoke", "--warmup_steps", "2000"])  # a real run's warm-up does not stand in the way


def test_the_command_line_takes_back_what_need_not_be_set(write):
    path = write(
        "model_config: here\nmax_steps: 240\ntext_embeddings: e\ntext_model: t\nmasked_weight: 0.5\nfreeze: a.*\n"
        "tokenizer: t\n"
    )
    keys = ["--text_embeddings", "none", "--text-model=NULL", "--masked_weight", "null", "--freeze"]
    config = load_run_config([path, *keys, "--resume"])
    assert (config.data.text_embeddings, config.model.text_model, config.model.masked_weight) == (None, None, None)
    assert (config.model.freeze, config.train.resume, config.model.tokenizer) == ([], True, "t")
    for empty in (["--freeze", "none"], ["--freeze=null"], ["--freeze", "b.*", "--freeze", "none"]):
        assert load_run_config([path, *empty]).model.freeze == []
    assert load_run_config([path, "--freeze", "none", "--freeze", "b.*"]).model.freeze == ["b.*"]
    swapped = load_run_config([path, "--max_steps", "none", "--num_epochs", "2"])
    assert (swapped.train.max_steps, swapped.train.num_epochs) == (None, 2.0)
    smoke = load_run_config([path, *keys, "--smoke"])
    assert (smoke.data.text_embeddings, smoke.model.freeze) == (None, [])
    assert load_run_config([path, "--tokenizer", "none"]).model.tokenizer == "none"  # a name: it cannot be unset
    for key, message in [("batch_size", "invalid int value: 'none'"), ("ema_decay", "expected at least one arg")]:
        with pytest.raises(ValueError, match=message):
            load_run_config([path, f"--{key}", *(["none"] if key == "batch_size" else [])])
    with pytest.raises(ValueError, match="`model_config` or `model` is needed"):
        load_run_config([path, "--model_config", "none"])


def test_the_length_of_scenes_does_not_bind_ones_own_clips():
    config = load_run_config([*MINIMAL, "--train_data", "mine", "--max_seconds", "1.5"])
    assert (config.uses_scenes, config.tests_on_scenes) == (False, False)
    config = load_run_config([*MINIMAL, "--train_data", "mine", "--eval_data", "sound_scenes"])
    assert (config.uses_scenes, config.tests_on_scenes) == (True, True)
    config = load_run_config([*MINIMAL, "--eval_data", "mine"])
    assert (config.uses_scenes, config.tests_on_scenes) == (True, False)


def test_help_lists_every_key(capsys):
    with pytest.raises(SystemExit) as stop:
        load_run_config(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(f"--{name}" in text for name in load_run_config(MINIMAL).to_dict())
