"""A two-tower toy on random features: the loop without audio. Also a script, for tests that kill it."""

import argparse
import json
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import set_seed
from torch import nn

from hf_audiolang import SlapForPreTraining
from hf_audiolang.models.losses_contrastive import contrastive_loss
from hf_audiolang.models.losses_distributed import sum_over_processes, world_size
from hf_audiolang.training.config import RunConfig, load_run_config
from hf_audiolang.training.loop import TrainResult, train

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny import tiny_batch, tiny_slap_config

NUM_FEATURES, VOCABULARY, WIDTH = 7, 20, 16


class ToldPart(nn.Module):
    """A part of a model that wants to know how far training is."""

    def __init__(self):
        super().__init__()
        self.seen_progress = []

    def set_progress(self, step, num_steps):
        self.seen_progress.append((step, num_steps))


class ToyModel(nn.Module):
    """Mean features and mean word vectors in one space, a dropout that needs its random state, an EMA teacher."""

    def __init__(self, dropout: float = 0.2):
        super().__init__()
        self.config = SimpleNamespace(to_dict=lambda: {"contrastive_weight": 1.0})
        self.audio = nn.Sequential(nn.Linear(NUM_FEATURES, WIDTH), nn.LayerNorm(WIDTH), nn.Dropout(dropout))
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.text = nn.Linear(WIDTH, WIDTH, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(1.0))
        self.teacher = nn.Linear(NUM_FEATURES, WIDTH).requires_grad_(False)
        self.teacher.load_state_dict(self.audio[0].state_dict())
        self.register_buffer("center", torch.zeros(WIDTH))
        self.part = ToldPart()
        self.seen_progress, self.decays, self.losses = [], [], []

    def forward(self, input_features, input_ids, return_loss=None):
        assert return_loss is True
        audio = nn.functional.normalize(self.audio(input_features.mean(1)), dim=-1)
        text = nn.functional.normalize(self.text(self.words(input_ids).mean(1)), dim=-1)
        contrastive = contrastive_loss(audio, text, self.logit_scale.exp())
        target = self.teacher(input_features.mean(1)).detach() - self.center
        mean = sum_over_processes(target.mean(0)) / world_size()
        self.center.mul_(0.9).add_(mean, alpha=0.1)
        distance = (self.audio[0](input_features.mean(1)) - target).square().mean()
        loss = contrastive + 0.1 * distance
        self.losses.append(loss.item())
        terms = {"contrastive": contrastive, "distance": distance}
        return SimpleNamespace(loss=loss, loss_terms=terms, metrics={"spread": audio.detach().std(0).mean()})

    def set_progress(self, step, num_steps):
        self.seen_progress.append((step, num_steps))

    def update_teacher(self, decay):
        self.decays.append(decay)
        with torch.no_grad():
            for old, new in zip(self.teacher.parameters(), self.audio[0].parameters(), strict=True):
                old.mul_(decay).add_(new, alpha=1 - decay)

    def after_optimizer_step(self):
        with torch.no_grad():
            self.logit_scale.clamp_(max=1.05)


def toy_loader(start: int, batch_size: int, index: int = 0, count: int = 1):
    """Endless batches, each a function of its number; process `index` of `count` gets its share of the rows."""
    for number in range(start, 10**6):
        generator = torch.Generator().manual_seed(number)
        rows = batch_size * count
        features = torch.randn(rows, 5, NUM_FEATURES, generator=generator)
        words = torch.randint(VOCABULARY, (rows, 3), generator=generator)
        share = slice(index * batch_size, (index + 1) * batch_size)
        yield {
            "input_features": features[share],
            "input_ids": words[share],
            "audio_seconds": 1.5 * batch_size,
            "padding_waste": 1.0,
            "skipped": [f"`bad_{number}.wav` is empty"] if number == 4 else [],
        }


def slap_loader(start: int, kill_at: int | None = None):
    """Endless batches for the tiny SLAP; the process is killed when batch number `kill_at` is asked for."""
    for number in range(start, 10**6):
        if number == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        yield {**tiny_batch(tiny_slap_config(), seed=number), "audio_seconds": 1.95}


def run_slap(config: RunConfig, kill_at: int | None = None) -> tuple[SlapForPreTraining, TrainResult]:
    """Trains the tiny SLAP with all its losses on the CPU."""
    AcceleratorState._reset_state(reset_partial_state=False)
    GradientState._reset_state()
    accelerator = Accelerator(cpu=True)
    set_seed(config.train.seed)
    model = SlapForPreTraining(tiny_slap_config())
    make_loader = partial(slap_loader, kill_at=kill_at)
    return model, train(model, make_loader, config, accelerator, num_steps=config.train.max_steps)


def toy_config(output_dir: Path, *overrides: str) -> RunConfig:
    """A run of nine steps on batches of six with checkpoints every two steps."""
    defaults = ["--model_config", "toy", "--output_dir", str(output_dir), "--max_steps", "9", "--batch_size", "6"]
    defaults += ["--learning_rate", "0.05", "--warmup_steps", "2", "--save_steps", "2", "--log_steps", "3"]
    return load_run_config([*defaults, *overrides])


def run_toy(
    config: RunConfig, *, dropout: float = 0.2, batches=None, evaluate_model=None, slow_seconds: float = 0.0
) -> tuple[ToyModel, TrainResult]:
    """Trains the toy in this process (or this process of a group) on the CPU."""
    AcceleratorState._reset_state(reset_partial_state=False)
    GradientState._reset_state()
    accumulation = config.train.gradient_accumulation_steps
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulation)
    set_seed(config.train.seed)
    model = ToyModel(dropout)

    def make_loader(start):
        share = (accelerator.process_index, accelerator.num_processes)
        for batch in batches or toy_loader(start, config.train.batch_size, *share):
            time.sleep(slow_seconds)
            yield batch

    result = train(
        model, make_loader, config, accelerator, num_steps=config.train.max_steps, evaluate_model=evaluate_model
    )
    return model, result


def main() -> None:
    """`toy_run.py FOLDER [--slow S] [--no_dropout] [--slap [--kill_at STEP]] OVERRIDES...`; writes `state.pt`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("--slow", type=float, default=0.0)
    parser.add_argument("--no_dropout", action="store_true")
    parser.add_argument("--slap", action="store_true")
    parser.add_argument("--kill_at", type=int)
    options, overrides = parser.parse_known_args()
    torch.set_num_threads(1)
    config = toy_config(options.output_dir, *overrides)
    if options.slap:
        model, result = run_slap(config, options.kill_at)
    else:
        model, result = run_toy(config, dropout=0.0 if options.no_dropout else 0.2, slow_seconds=options.slow)
    if int(os.environ.get("RANK", 0)) == 0:
        torch.save(model.state_dict(), options.output_dir / "state.pt")
        report = {"num_processes": result.progress.num_processes, "signal": result.signal_number}
        (options.output_dir / "report.json").write_text(json.dumps(report))
    sys.exit(0 if result.signal_number is None else 128 + result.signal_number)


if __name__ == "__main__":
    main()
