import contextlib
import functools
import gc
import json
import math
import os
import pickle
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from toy_run import ToyModel, run_slap, run_toy, toy_config, toy_loader

from hf_audiolang.data import AudioError, BadExampleError, TooManyBadExamples
from hf_audiolang.training import checkpoint as checkpoint_module
from hf_audiolang.training.checkpoint import find_last_checkpoint, read_progress
from hf_audiolang.training.eden import eden_factor
from hf_audiolang.training.log import LOG_FILE, read_log

SCRIPT = Path(__file__).with_name("toy_run.py")


def assert_equal_models(first: torch.nn.Module, second: torch.nn.Module) -> None:
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def steps_in(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step_")) for path in (folder / "checkpoints").glob("step_*"))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    model, result = run_toy(toy_config(folder))
    return model, result, read_log(folder / LOG_FILE)


def test_the_loop_is_the_plain_loop_written_out(uninterrupted):
    model, _, log = uninterrupted
    torch.manual_seed(0)
    reference = ToyModel()
    decayed = [reference.audio[0].weight, reference.text.weight]
    plain = [value for value in reference.parameters() if value.requires_grad and all(value is not d for d in decayed)]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.05, betas=(0.9, 0.98))
    for step, batch in zip(range(9), toy_loader(0, 6), strict=False):
        cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - 2 + 1) / 7))
        rate = 0.05 * ((step + 1) / 2 if step < 2 else cosine)
        for group in optimizer.param_groups:
            group["lr"] = rate
        outputs = reference(batch["input_features"], batch["input_ids"], return_loss=True)
        optimizer.zero_grad()
        outputs.loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
        optimizer.step()
        reference.after_optimizer_step()
        decay = 1.0 - 0.006 * (1 + math.cos(math.pi * step / 9)) / 2
        reference.update_teacher(decay)
        line = log[step]
        assert line["step"] == step + 1
        expected = [outputs.loss.item(), outputs.loss_terms["distance"].item(), norm.item(), rate, decay]
        got = [line[name] for name in ("loss", "distance", "grad_norm", "learning_rate", "ema_decay")]
        torch.testing.assert_close(torch.tensor(got), torch.tensor(expected), rtol=1e-6, atol=1e-7)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, reference.state_dict()[name], rtol=1e-5, atol=1e-6)


def test_the_model_is_told_each_step_and_the_decay_reaches_its_end(uninterrupted):
    model, result, log = uninterrupted
    assert model.seen_progress == model.part.seen_progress == [(step, 9) for step in range(9)]
    assert model.decays[0] == pytest.approx(0.994)
    assert model.decays == sorted(model.decays)
    assert result.progress.step == 9
    assert result.signal_number is None
    assert result.progress.audio_seconds == pytest.approx(9 * 6 * 1.5)
    assert result.progress.bad_examples == ["`bad_4.wav` is empty"]
    assert [line["loss"] for line in log] == pytest.approx(model.losses, rel=1e-6)


def test_a_run_may_warm_up_for_a_share_of_its_steps_and_raise_the_decay_along_a_line(tmp_path):
    arguments = ("--warmup_steps", "0.4", "--ema_schedule", "linear", "--ema_decay", "0.9", "0.98", "--max_steps", "5")
    model, _ = run_toy(toy_config(tmp_path, *arguments))
    assert model.decays == pytest.approx([0.9, 0.92, 0.94, 0.96, 0.98])
    seen = [line["learning_rate"] for line in read_log(tmp_path / LOG_FILE)]
    assert seen[:3] == pytest.approx([0.025, 0.05, 0.05 * (0.01 + 0.99 * (1 + math.cos(math.pi / 3)) / 2)])


@pytest.mark.parametrize("stop_after", [1, 5, 8])
def test_resuming_after_a_failure_equals_the_uninterrupted_run_to_the_bit(uninterrupted, tmp_path, stop_after):
    model, _, log = uninterrupted

    def broken_batches():
        for number, batch in enumerate(toy_loader(0, 6)):
            if number == stop_after:
                raise OSError("the disk is gone")
            yield batch

    with pytest.raises(OSError, match="disk is gone"):
        run_toy(toy_config(tmp_path), batches=broken_batches())
    torch.rand(3)  # whatever happens in between must not matter
    resumed, result = run_toy(toy_config(tmp_path, "--resume"))
    assert_equal_models(model, resumed)
    assert resumed.seen_progress[0][0] == stop_after  # not the last multiple of `save_steps`: no step is lost
    assert read_log(tmp_path / LOG_FILE) == log
    assert result.progress.bad_examples == ["`bad_4.wav` is empty"]


@pytest.mark.parametrize("stop_after", [3, 12])
def test_scaled_adam_and_eden_are_resumed_to_the_bit(tmp_path, stop_after):
    """Before and after the first clipping threshold, which is set in step 11."""
    keys = ("--optimizer", "scaled_adam", "--max_grad_norm", "0", "--weight_decay", "0", "--clipping_scale", "0.4")
    keys += ("--lr_schedule", "eden", "--lr_batches", "6", "--lr_epochs", "1", "--lr_steps_per_epoch", "5")
    keys += ("--max_steps", "15")
    model, _ = run_toy(toy_config(tmp_path / "whole", *keys))
    batches = (batch for _, batch in zip(range(stop_after), toy_loader(0, 6), strict=False))
    with pytest.raises(StopIteration):
        run_toy(toy_config(tmp_path / "parts", *keys, "--save_steps", str(stop_after)), batches=batches)
    path = find_last_checkpoint(tmp_path / "parts" / "checkpoints") / "optimizer.bin"
    kept = torch.load(path, weights_only=True)["state"][0]
    assert (kept["group_step"], "model_norm_threshold" in kept) == (stop_after, stop_after == 12)
    resumed, _ = run_toy(toy_config(tmp_path / "parts", *keys, "--resume"))
    assert_equal_models(model, resumed)
    log = read_log(tmp_path / "whole" / LOG_FILE)
    assert read_log(tmp_path / "parts" / LOG_FILE) == log
    expected = [0.05 * eden_factor(k + 1, k // 5, lr_batches=6, lr_epochs=1, warmup_steps=2) for k in range(15)]
    assert [line["learning_rate"] for line in log] == pytest.approx(expected)
    free, _ = run_toy(toy_config(tmp_path / "free", *keys, "--clipping_scale", "1e9"))
    assert not torch.equal(free.text.weight, model.text.weight)  # control: the run was clipped


def test_another_random_state_would_have_been_noticed(uninterrupted, tmp_path):
    model, _, log = uninterrupted
    other, _ = run_toy(toy_config(tmp_path, "--seed", "1"))
    assert not torch.equal(model.text.weight, other.text.weight)
    assert read_log(tmp_path / LOG_FILE)[3]["loss"] != log[3]["loss"]


def test_kill_nine_at_a_random_moment_loses_nothing(uninterrupted, tmp_path):
    model, _, log = uninterrupted
    wait = random.Random(2026).uniform(0.1, 0.5)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(tmp_path), "--slow", "0.1"], env=environment, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not steps_in(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(wait)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert steps_in(tmp_path)[-1] < 9
    resumed, _ = run_toy(toy_config(tmp_path, "--resume"))
    assert_equal_models(model, resumed)
    assert read_log(tmp_path / LOG_FILE) == log


def test_kill_nine_at_a_random_step_loses_nothing_of_a_slap_either(tmp_path):
    step = random.Random(2027).randrange(3, 9)
    command = [sys.executable, str(SCRIPT), str(tmp_path / "parts"), "--slap", "--kill_at", str(step)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed = subprocess.run(command, env=environment, stderr=subprocess.DEVNULL, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert steps_in(tmp_path / "parts") == [step // 2 * 2]
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the killed process had
    try:
        resumed, _ = run_slap(toy_config(tmp_path / "parts", "--resume"))
        whole, _ = run_slap(toy_config(tmp_path / "whole"))
    finally:
        torch.set_num_threads(num_threads)
    logs = [read_log(tmp_path / name / LOG_FILE) for name in ("whole", "parts")]
    assert logs[0] == logs[1]
    assert [line["step"] for line in logs[0]] == list(range(1, 10))
    assert len({line["masked"] for line in logs[0]}) == 9
    assert_equal_models(whole, resumed)


@pytest.mark.parametrize("moment", ["save_state", "_flush_to_disk", "rename", "_remove_others"])
def test_dying_while_a_checkpoint_is_written_leaves_a_complete_one(uninterrupted, tmp_path, monkeypatch, moment):
    class Death(BaseException):
        pass

    calls = []

    def die(*arguments, **options):
        calls.append(arguments)
        if len(calls) > {"save_state": 1, "_flush_to_disk": 9, "rename": 1, "_remove_others": 1}[moment]:
            raise Death
        return original(*arguments, **options)

    owner = {"save_state": checkpoint_module.Accelerator, "rename": Path}.get(moment, checkpoint_module)
    original = getattr(owner, moment)
    monkeypatch.setattr(owner, moment, die)
    with pytest.raises(Death):
        run_toy(toy_config(tmp_path))
    monkeypatch.undo()
    survivor = find_last_checkpoint(tmp_path / "checkpoints")
    assert read_progress(survivor).step == (4 if moment == "_remove_others" else 2)
    resumed, _ = run_toy(toy_config(tmp_path, "--resume"))
    assert_equal_models(uninterrupted[0], resumed)
    assert steps_in(tmp_path) == [9]
    assert not list((tmp_path / "checkpoints").glob(".*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_after_the_step_with_everything_saved(uninterrupted, tmp_path, number):
    def batches():
        for count, batch in enumerate(toy_loader(0, 6)):
            if count == 4:
                os.kill(os.getpid(), number)
            yield batch

    before = signal.getsignal(number)
    _, result = run_toy(toy_config(tmp_path), batches=batches())
    assert result.signal_number == number
    assert result.progress.step == 5
    assert steps_in(tmp_path) == [5]
    assert signal.getsignal(number) == before
    resumed, result = run_toy(toy_config(tmp_path, "--resume"))
    assert result.signal_number is None
    assert_equal_models(uninterrupted[0], resumed)
    assert read_log(tmp_path / LOG_FILE) == uninterrupted[2]


def test_a_second_signal_is_not_caught(tmp_path, request):
    # A shell's background job starts with SIGINT ignored, and then a second one is ignored again.
    request.addfinalizer(functools.partial(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT)))
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def batches():
        for count, batch in enumerate(toy_loader(0, 6)):
            if count == 2:
                # to this thread, so that each is seen: two that another thread takes may count as one
                signal.pthread_kill(threading.get_ident(), signal.SIGINT)
                signal.pthread_kill(threading.get_ident(), signal.SIGINT)
            yield batch

    with pytest.raises(KeyboardInterrupt):
        run_toy(toy_config(tmp_path), batches=batches())


def test_the_launchers_end_counts_as_sigterm(tmp_path, monkeypatch):
    parents = iter([7] * 4 + [1] * 20)  # asked once at the start, then once per step
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setattr("hf_audiolang.training.interrupt.os.getppid", lambda: next(parents))
    _, result = run_toy(toy_config(tmp_path))
    assert result.signal_number == signal.SIGTERM
    assert steps_in(tmp_path) == [4]


def test_all_checkpoints_are_kept_where_they_are_asked_for(tmp_path):
    for keep, steps in (("all", [2, 4, 6, 8, 9]), ("last", [9])):
        run_toy(toy_config(tmp_path / keep, "--keep_checkpoints", keep))
        found = sorted((tmp_path / keep / "checkpoints").glob("step_*/progress.json"))
        assert [read_progress(path.parent).step for path in found] == steps


def test_best_and_last_checkpoint_are_kept(tmp_path):
    values = iter([0.3, 0.7, 0.5, 0.6])
    modes = []

    def validate(model):
        modes.append((model.training, torch.is_grad_enabled()))
        return {"text_to_audio/R@10": next(values), "other": 1.0}

    model, result = run_toy(toy_config(tmp_path, "--eval_steps", "2"), evaluate_model=validate)
    assert steps_in(tmp_path) == [4, 9]
    assert (result.progress.best_step, result.progress.best_value) == (4, 0.7)
    assert modes == [(False, False)] * 4
    assert model.training
    lines = [line for line in read_log(tmp_path / LOG_FILE) if "validation/other" in line]
    assert [line["step"] for line in lines] == [2, 4, 6, 8]
    assert lines[1]["validation/text_to_audio/R@10"] == 0.7


def test_the_best_value_survives_a_resume(tmp_path):
    def validate(model):
        return {"text_to_audio/R@10": 1.0 / len(model.losses)}

    def broken_batches():
        yield from (batch for _, batch in zip(range(5), toy_loader(0, 6), strict=False))
        raise OSError("stop")

    arguments = ("--eval_steps", "2")
    with pytest.raises(OSError, match="stop"):
        run_toy(toy_config(tmp_path, *arguments), batches=broken_batches(), evaluate_model=validate)
    worse = run_toy(
        toy_config(tmp_path, *arguments, "--resume"), evaluate_model=lambda model: {"text_to_audio/R@10": 0.4}
    )[1]
    assert (worse.progress.best_step, worse.progress.best_value) == (2, 0.5)
    assert steps_in(tmp_path) == [2, 9]


def test_an_unknown_best_metric_is_refused_with_the_known_ones(tmp_path):
    config = toy_config(tmp_path, "--eval_steps", "2")
    config.eval.best_metric = "accuracy"
    with pytest.raises(ValueError, match=r"`best_metric` 'accuracy'.*'R@1', 'mAP'"):
        run_toy(config, evaluate_model=lambda model: {"R@1": 0.1, "mAP": 0.2})


def test_accumulated_gradients_are_the_mean_over_the_batches(tmp_path):
    config = toy_config(tmp_path, "--gradient_accumulation_steps", "3", "--max_steps", "1", "--warmup_steps", "0")
    torch.manual_seed(0)
    reference = ToyModel(dropout=0.0)
    loss = 0.0
    for _, batch in zip(range(3), toy_loader(0, 6), strict=False):
        loss = loss + reference(batch["input_features"], batch["input_ids"], return_loss=True).loss / 3
    loss.backward()
    norm = math.sqrt(sum(p.grad.square().sum().item() for p in reference.parameters() if p.grad is not None))
    model, _ = run_toy(config, dropout=0.0)
    (line,) = read_log(tmp_path / LOG_FILE)
    assert line["loss"] == pytest.approx(loss.item(), rel=1e-6)
    assert line["grad_norm"] == pytest.approx(norm, rel=1e-5)
    assert line["audio_seconds"] == pytest.approx(3 * 6 * 1.5)
    assert len(model.decays) == 1  # the teacher follows optimizer steps, not batches


def test_resuming_with_accumulation_takes_up_the_right_batch(tmp_path):
    arguments = ("--gradient_accumulation_steps", "2", "--max_steps", "4")
    model, _ = run_toy(toy_config(tmp_path / "whole", *arguments))
    short = toy_config(tmp_path / "parts", *arguments)
    with pytest.raises(StopIteration):
        run_toy(short, batches=(batch for _, batch in zip(range(5), toy_loader(0, 6), strict=False)))
    resumed, _ = run_toy(toy_config(tmp_path / "parts", *arguments, "--resume"))
    assert_equal_models(model, resumed)
    assert resumed.seen_progress[0][0] == 2


@pytest.mark.parametrize("kind", [AudioError, BadExampleError, TooManyBadExamples, RuntimeError])
def test_an_error_of_the_data_in_the_middle_of_a_step_keeps_every_step_done(tmp_path, kind):
    arguments = ("--gradient_accumulation_steps", "2", "--max_steps", "5", "--save_steps", "0")
    model, _ = run_toy(toy_config(tmp_path / "whole", *arguments))

    def broken_batches():
        for number, batch in enumerate(toy_loader(0, 6)):
            if number == 7:  # the second batch of the fourth step
                raise kind("the data are bad")
            yield batch

    with pytest.raises(kind, match="the data are bad"):
        run_toy(toy_config(tmp_path / "parts", *arguments), batches=broken_batches())
    assert steps_in(tmp_path / "parts") == [3]
    resumed, _ = run_toy(toy_config(tmp_path / "parts", *arguments, "--resume"))
    assert_equal_models(model, resumed)


def test_a_signal_saves_at_once_and_leaves_a_due_evaluation_out(tmp_path):
    def batches():
        for count, batch in enumerate(toy_loader(0, 6)):
            if count == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    evaluated = []

    def validate(model):
        evaluated.append(len(model.losses))
        return {"text_to_audio/R@10": 0.5}

    _, result = run_toy(toy_config(tmp_path, "--eval_steps", "2"), batches=batches(), evaluate_model=validate)
    assert (result.progress.step, result.signal_number) == (4, signal.SIGTERM)
    assert evaluated == [2]  # not at step 4
    assert steps_in(tmp_path) == [2, 4]


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["custom_checkpoint_0.pkl", "optimizer.bin", "random_states_0.pkl", "scheduler.bin"])
def test_resuming_never_runs_what_a_pickle_in_the_checkpoint_says(tmp_path, name):
    run_toy(toy_config(tmp_path))
    path, trace = find_last_checkpoint(tmp_path / "checkpoints") / name, tmp_path / "executed"
    torch.save({"state": Evil(trace), "last_epoch": 9}, path)
    torch.load(path, weights_only=False)
    assert trace.exists()  # the pickle is dangerous indeed
    trace.unlink()
    with contextlib.suppress(RuntimeError, pickle.UnpicklingError):  # refused or not read at all
        run_toy(toy_config(tmp_path, "--resume"))
    assert not trace.exists()


def test_a_checkpoint_without_the_schedule_is_refused(tmp_path):
    run_toy(toy_config(tmp_path))
    path = find_last_checkpoint(tmp_path / "checkpoints") / "progress.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schedule": {"last_epoch": 9}}))
    with pytest.raises(ValueError, match=r"lacks \['base_lrs', '_step_count', '_last_lr'\].*--overwrite"):
        run_toy(toy_config(tmp_path, "--resume"))


@pytest.mark.parametrize("spoiled", [3, 5])
def test_a_non_finite_loss_stops_the_run_at_its_step_and_spares_the_checkpoint(tmp_path, spoiled):
    def batches():
        for number, batch in enumerate(toy_loader(0, 6)):
            if number == spoiled:
                batch["input_features"][1, 2, 3] = float("nan")
            yield batch

    with pytest.raises(FloatingPointError, match=rf"`loss` is nan at step {spoiled + 1}.*--resume"):
        run_toy(toy_config(tmp_path), batches=batches())
    survivor = find_last_checkpoint(tmp_path / "checkpoints")
    assert read_progress(survivor).step == spoiled // 2 * 2
    resumed, _ = run_toy(toy_config(tmp_path, "--resume"))
    assert all(value.isfinite().all() for value in resumed.state_dict().values())


def test_another_number_of_processes_is_refused(tmp_path):
    run_toy(toy_config(tmp_path))
    path = find_last_checkpoint(tmp_path / "checkpoints") / "progress.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_processes": 2}))
    with pytest.raises(ValueError, match="written by 2 processes, this run has 1"):
        run_toy(toy_config(tmp_path, "--resume"))


def test_lost_random_states_are_noticed(tmp_path):
    run_toy(toy_config(tmp_path))
    path = find_last_checkpoint(tmp_path / "checkpoints") / "random_states_0.pkl"
    states = torch.load(path, weights_only=False)
    torch.save({**states, "random_state": "broken"}, path)  # accelerate notes the failure and goes on
    with pytest.raises(RuntimeError, match="random states"):
        run_toy(toy_config(tmp_path, "--resume"))


def test_the_garbage_collector_is_on_again_after_the_run(tmp_path):
    seen = []

    def batches():
        for batch in toy_loader(0, 6):
            seen.append(gc.isenabled())
            yield batch

    run_toy(toy_config(tmp_path, "--max_steps", "3", "--warmup_steps", "0"), batches=batches())
    assert seen == [False] * 3
    assert gc.isenabled()


@pytest.mark.multiprocess
def test_two_processes_equal_one_on_the_joined_batch(tmp_path):
    single, pair = tmp_path / "single", tmp_path / "pair"
    model, _ = run_toy(toy_config(single), dropout=0.0)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", free_port()]
    command += [str(SCRIPT), str(pair), "--no_dropout", "--batch_size", "3"]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, timeout=240)
    assert json.loads((pair / "report.json").read_text()) == {"num_processes": 2, "signal": None}
    state = torch.load(pair / "state.pt")
    for name, value in model.state_dict().items():
        torch.testing.assert_close(state[name], value, rtol=1e-5, atol=1e-5, msg=name)
    log = read_log(pair / LOG_FILE)
    for line, reference in zip(log, read_log(single / LOG_FILE), strict=True):
        assert line["contrastive"] == pytest.approx(reference["contrastive"], rel=1e-5)
        assert line["audio_seconds"] == reference["audio_seconds"]
    assert sorted(path.name for path in find_last_checkpoint(pair / "checkpoints").glob("random_states_*")) == [
        "random_states_0.pkl",
        "random_states_1.pkl",
    ]


def free_port() -> str:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return str(server.getsockname()[1])
