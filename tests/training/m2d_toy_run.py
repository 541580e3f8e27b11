"""Tiny M2D-CLAP runs on a few scenes of a second, with and without a text store. Also a script, for two processes."""

import argparse
import json
import os
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import set_seed
from transformers import AutoModel, BertConfig, BertModel, PreTrainedTokenizerBase

from hf_audiolang import LogMelFeatureExtractor, M2dClapForPreTraining
from hf_audiolang.data.records import RecordView
from hf_audiolang.data.sound_scenes import SoundScenes
from hf_audiolang.data.text_embeddings import TextEmbedderSettings, TextStore, precompute
from hf_audiolang.training import RunResult, load_run_config, pretrain
from hf_audiolang.training.build import scene_options
from hf_audiolang.training.captions import training_captions
from hf_audiolang.training.config import RunConfig
from hf_audiolang.training.loop import train
from hf_audiolang.training.objectives import freeze_parameters
from hf_audiolang.training.tokenizer import train_tokenizer

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny import tiny_batch, tiny_m2d_clap_config

SCENES = [
    "--train_size",
    "12",
    "--batch_size",
    "4",
    "--min_seconds",
    "1",
    "--max_seconds",
    "1.6",
    "--num_workers",
    "0",
]
SMALL = ["--test_size", "10", "--composition_size", "4", "--zero_shot_size", "32", "--num_threads", "1"]
STEPS = ["--max_steps", "4", "--log_steps", "1", "--save_steps", "2", "--learning_rate", "1e-3"]
ALIGN = {"masked_weight": 0.0, "masking_ratio": 0.3, "mask_style": "structured"}


def settings(*arguments: str) -> RunConfig:
    """A run's settings from its keys; four steps unless they say more."""
    return load_run_config([*SCENES, *SMALL, *STEPS, *arguments])


def run(output_dir: Path, *arguments: str) -> RunResult:
    """One whole run on twelve scenes."""
    return pretrain(settings("--output_dir", str(output_dir), *arguments))


def scene_captions() -> list[str]:
    """What a run's twelve scenes may be described with."""
    data = settings("--model_config", "x").data
    return list(training_captions(RecordView(SoundScenes("train", data.train_size, **scene_options(data)))))


def save_config(folder: Path, **overrides: object) -> str:
    """A `model_config` folder of the tiny model, long enough for the scenes, features still to be measured."""
    audio = {"max_frames": 161, **overrides.pop("audio_config", {})}
    tiny_m2d_clap_config(audio_config=audio, **overrides).save_pretrained(folder)
    LogMelFeatureExtractor.from_preset("m2d_clap", mean=None, std=None).save_pretrained(folder)
    return str(folder)


def save_text_model(folder: Path) -> tuple[str, BertConfig]:
    """A tiny BERT with dropout and a tokenizer of the scenes' words; (its folder, its config)."""
    tokenizer = train_tokenizer(scene_captions(), max_length=40)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=28,
        max_position_embeddings=64, initializer_range=0.15, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(11)
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder), config


def save_store(folder: Path, text_model: str) -> TextStore:
    """The scenes' captions, embedded by a text model in a folder."""
    numbers = TextEmbedderSettings(text_model, pooling="mean", dtype="float32")
    return precompute(scene_captions(), folder, numbers)


def text_keys(text_model: str) -> list[str]:
    """Keys of a run whose text tower starts from a text model with its tokenizer."""
    return ["--text_model", text_model, "--tokenizer", text_model]


def same_weights(first: Path, second: Path) -> bool:
    """Whether two exported models are equal to the bit."""
    states = [AutoModel.from_pretrained(folder / "model").state_dict() for folder in (first, second)]
    assert states[0].keys() == states[1].keys()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def tokenizer_of(folder: Path) -> PreTrainedTokenizerBase | None:
    """Words of an exported tokenizer's vocabulary, None without one."""
    path = folder / "model" / "tokenizer.json"
    return json.loads(path.read_text())["model"]["vocab"] if path.is_file() else None


def store_loader(start: int, batch_size: int, index: int = 0, count: int = 1):
    """Endless batches of features and caption embeddings; process `index` of `count` gets its share of the rows."""
    config = tiny_m2d_clap_config()
    for number in range(start, 10**6):
        parts = [tiny_batch(config, seed=100 * number + part) for part in range(batch_size * count // 4)]
        batch = {name: torch.cat([part[name] for part in parts]) for name in ("input_features", "input_features_mask")}
        generator = torch.Generator().manual_seed(number)
        batch["text_embeddings"] = torch.randn(batch_size * count, config.text_embedding_size, generator=generator)
        share = slice(index * batch_size, (index + 1) * batch_size)
        yield {**{name: value[share] for name, value in batch.items()}, "audio_seconds": 1.95}


def train_frozen(config: RunConfig) -> M2dClapForPreTraining:
    """Stage 2 on embeddings: encoder and unused text tower frozen, nothing masked, so that nothing is drawn."""
    AcceleratorState._reset_state(reset_partial_state=False)
    GradientState._reset_state()
    accelerator = Accelerator(cpu=True)
    set_seed(config.train.seed)
    model = M2dClapForPreTraining(tiny_m2d_clap_config(**{**ALIGN, "masking_ratio": 0.0, "contrastive_weight": 1.0}))
    freeze_parameters(model, config.model.freeze)
    share = (accelerator.process_index, accelerator.num_processes)
    train(
        model,
        lambda start: store_loader(start, config.train.batch_size, *share),
        config,
        accelerator,
        num_steps=config.train.max_steps,
    )
    return model


def main() -> None:
    """`m2d_toy_run.py FOLDER OVERRIDES...`: `train_frozen` in this process of a group; writes `state.pt`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("output_dir", type=Path)
    options, overrides = parser.parse_known_args()
    torch.set_num_threads(1)
    config = load_run_config(["--model_config", "x", "--output_dir", str(options.output_dir), *STEPS, *overrides])
    model = train_frozen(config)
    if int(os.environ.get("RANK", 0)) == 0:
        torch.save(model.state_dict(), options.output_dir / "state.pt")


if __name__ == "__main__":
    main()
