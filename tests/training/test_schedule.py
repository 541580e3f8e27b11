import json
import math

import pytest
import torch
from record_timm import LOWEST_RATE, OUTPUT, SCHEDULES, STEPS_PER_EPOCH, steps_of_schedule

from hf_audiolang.training.config import TrainArguments
from hf_audiolang.training.schedule import (
    build_cosine,
    build_cosine_from_start,
    build_lr_schedule,
    ema_decay,
    restore_schedule,
    schedule_state,
    warmup_length,
)


def rates(num_steps: int, **options) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    schedule = build_cosine(optimizer, num_steps=num_steps, **options)
    seen = []
    for _ in range(num_steps):
        seen.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return seen


def test_warm_up_is_linear_and_no_step_is_wasted():
    assert rates(14, warmup_steps=4, end_ratio=0.1)[:4] == pytest.approx([0.5, 1.0, 1.5, 2.0])


def test_the_cosine_is_half_way_in_the_middle_and_ends_at_its_ratio():
    seen = rates(14, warmup_steps=4, end_ratio=0.1)
    assert seen[8] == pytest.approx(2.0 * (0.1 + 0.9 / 2))  # 5 of 10 steps after the warm-up
    assert seen[-1] == pytest.approx(0.2)
    assert seen[4:] == sorted(seen[4:], reverse=True)


def test_ratio_one_keeps_the_peak():
    assert rates(6, warmup_steps=2, end_ratio=1.0)[1:] == pytest.approx([2.0] * 5)


def audiomae_rate(step: int, peak: float, lowest: float, warmup: int, num_steps: int) -> float:
    """AudioMAE's rate: linear from 0 at step 0, then half a cosine over what is left."""
    if step < warmup:
        return peak * step / warmup
    return lowest + (peak - lowest) * (1 + math.cos(math.pi * (step - warmup) / (num_steps - warmup))) / 2


def test_the_cosine_is_that_of_audiomae_one_step_earlier():
    seen = rates(14, warmup_steps=4, end_ratio=0.1)
    assert seen == pytest.approx([audiomae_rate(step, 2.0, 0.2, 4, 14) for step in range(1, 15)])


def from_start(peak: float, num_steps: int, **options) -> list[float]:
    """The rate of each step, and the one behind the last."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    schedule = build_cosine_from_start(optimizer, num_steps=num_steps, **options)
    seen = [schedule.get_last_lr()[0]]
    for _ in range(num_steps):
        optimizer.step()
        schedule.step()
        seen.append(schedule.get_last_lr()[0])
    return seen


def test_a_cosine_from_the_start_by_hand():
    seen = from_start(2.0, 12, warmup_steps=3, end_ratio=0.1)
    assert seen[:3] == pytest.approx([0.0, 2 / 3, 4 / 3])
    assert seen[3] == pytest.approx(0.2 + 1.8 * (1 + 2**-0.5) / 2)  # cos(pi / 4): not from the peak
    assert seen[4] == pytest.approx(0.2 + 1.8 * 0.75)  # cos(pi / 3)
    assert seen[6] == pytest.approx(1.1)
    assert seen[12] == pytest.approx(0.2)
    assert from_start(2.0, 12, warmup_steps=0, end_ratio=0.1)[0] == 2.0


def test_after_five_of_two_hundred_epochs_the_rate_is_below_the_peak():
    seen = from_start(0.5, 200, warmup_steps=5, end_ratio=LOWEST_RATE / 0.5)
    assert seen[5] == max(seen) == pytest.approx(0.4992, abs=5e-5)
    assert seen[200] == pytest.approx(1e-7)


@pytest.mark.parametrize("recipe", SCHEDULES)
def test_a_cosine_from_the_start_is_timms(recipe):
    peak, epochs, warmup = SCHEDULES[recipe]
    recorded = json.loads(OUTPUT.read_text(encoding="utf-8"))["cosine"][recipe]
    steps = {"num_steps": epochs * STEPS_PER_EPOCH, "warmup_steps": warmup * STEPS_PER_EPOCH}
    seen = from_start(peak, end_ratio=LOWEST_RATE / peak, **steps)
    assert [seen[step] for step in steps_of_schedule(epochs)] == pytest.approx(recorded, rel=1e-9)


def test_every_group_follows_at_its_own_rate():
    weights = [torch.zeros(1, requires_grad=True) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": weights[:1]}, {"params": weights[1:], "lr": 0.5}], lr=2.0)
    schedule = build_cosine_from_start(optimizer, warmup_steps=2, num_steps=8, end_ratio=0.1)
    for _ in range(5):
        optimizer.step()
        schedule.step()
        first, second = schedule.get_last_lr()
        assert first == pytest.approx(4 * second)
        assert first > 0


def test_the_runs_keys_choose_the_cosine_and_its_numbers():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    schedule = build_lr_schedule(optimizer, TrainArguments(warmup_steps=0.25, lr_end_ratio=0.1), num_steps=14)
    seen = []
    for _ in range(14):
        seen.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert seen == rates(14, warmup_steps=4, end_ratio=0.1)
    assert seen != rates(14, warmup_steps=3, end_ratio=0.1)  # control


def test_the_runs_keys_choose_the_cosine_from_the_start():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    settings = TrainArguments(lr_schedule="cosine_from_start", warmup_steps=0.25, lr_end_ratio=0.1)
    schedule = build_lr_schedule(optimizer, settings, num_steps=12)
    seen = [schedule.get_last_lr()[0]]
    for _ in range(12):
        optimizer.step()
        schedule.step()
        seen.append(schedule.get_last_lr()[0])
    assert seen == from_start(2.0, 12, warmup_steps=3, end_ratio=0.1)


def test_ema_decay_starts_crosses_the_middle_and_ends_as_stated():
    assert ema_decay(0, 240, 0.96, 1.0) == pytest.approx(0.96)
    assert ema_decay(120, 240, 0.96, 1.0) == pytest.approx(0.98)
    assert ema_decay(240, 240, 0.96, 1.0) == 1.0
    assert ema_decay(60, 240, 0.994, 1.0) == pytest.approx(1 - 0.006 * (1 + 2**-0.5) / 2)


def test_a_linear_ema_decay_reaches_its_end_at_the_last_step():
    seen = [ema_decay(step, 5, 0.9, 0.98, "linear") for step in range(5)]
    assert seen == pytest.approx([0.9, 0.92, 0.94, 0.96, 0.98], abs=1e-12)
    m2d = [ema_decay(step, 1001, 0.99995, 0.99999, "linear") for step in (0, 250, 1000)]
    assert m2d == pytest.approx([0.99995, 0.99996, 0.99999], abs=1e-12)
    assert ema_decay(0, 1, 0.9, 0.98, "linear") == 0.9  # a run of one step
    assert ema_decay(1, 5, 0.9, 0.98) != pytest.approx(0.92)  # control: the cosine differs
    with pytest.raises(ValueError, match=r"Unknown `schedule` 'line'.*\['cosine', 'linear'\]"):
        ema_decay(0, 5, 0.9, 0.98, "line")


def test_a_warm_up_below_one_is_a_share_of_the_steps():
    assert [warmup_length(share, 30) for share in (0.1, 0.11, 0.001)] == [3, 4, 1]
    assert [warmup_length(steps, 30) for steps in (0, 1, 29)] == [0, 1, 29]


@pytest.mark.parametrize("build", [build_cosine, build_cosine_from_start])
def test_a_schedule_goes_on_from_json_to_the_bit(build):
    optimizers = [torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1) for _ in range(2)]
    first, second = (build(o, warmup_steps=3, num_steps=11, end_ratio=0.07) for o in optimizers)
    for _ in range(6):
        optimizers[0].step()
        first.step()
    restore_schedule(second, json.loads(json.dumps(schedule_state(first))))
    optimizers[1].load_state_dict(optimizers[0].state_dict())
    assert second.get_last_lr() == first.get_last_lr() != [0.1]
    for _ in range(5):
        for optimizer, schedule in zip(optimizers, (first, second), strict=True):
            optimizer.step()
            schedule.step()
        assert second.get_last_lr() == first.get_last_lr()
    assert second.state_dict()["_step_count"] == first.state_dict()["_step_count"]
    with pytest.raises(ValueError, match=r"lacks \['base_lrs'"):
        restore_schedule(second, {})
