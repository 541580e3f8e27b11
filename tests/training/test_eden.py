import json
from fractions import Fraction

import pytest
import torch
from record_icefall_optim import BASE_RATE, BATCHES, EDEN, EDEN_SETTINGS, OUTPUT, STEPS_PER_EPOCH

from hf_audiolang.training.config import TrainArguments
from hf_audiolang.training.eden import build_eden3, eden2_factor, eden_factor
from hf_audiolang.training.schedule import build_lr_schedule, restore_schedule, schedule_state

RECORDED = json.loads(OUTPUT.read_text(encoding="utf-8"))


def optimizer_of(*rates: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": [torch.zeros(1, requires_grad=True)], "lr": rate} for rate in rates])


def rates_of(settings: TrainArguments, num_steps: int, **options) -> list[float]:
    optimizer = optimizer_of(BASE_RATE)
    schedule = build_lr_schedule(optimizer, settings, num_steps=num_steps, **options)
    seen = []
    for _ in range(num_steps):
        seen.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return seen


def test_eden_gives_the_official_rates():
    factors = [eden_factor(batch, epoch, **EDEN_SETTINGS, warmup_steps=500) for batch, epoch in EDEN]
    assert [BASE_RATE * factor for factor in factors] == pytest.approx(RECORDED["eden"], rel=1e-12)
    assert len(set(RECORDED["eden"])) == len(EDEN)


def test_eden2_gives_the_official_rates():
    factors = [eden2_factor(batch, lr_batches=7500, warmup_steps=500) for batch in BATCHES]
    assert [BASE_RATE * factor for factor in factors] == pytest.approx(RECORDED["eden2"], rel=1e-12)


def test_eden3_gives_the_official_rates():
    schedule = build_eden3(optimizer_of(BASE_RATE), **EDEN_SETTINGS, steps_per_epoch=STEPS_PER_EPOCH, warmup_steps=500)
    (factor,) = schedule.lr_lambdas
    rates = [BASE_RATE * factor(batch - 1) for batch in BATCHES]  # step k is batch k + 1
    assert rates == pytest.approx(RECORDED["eden3"], rel=1e-12)
    assert RECORDED["eden3"][-1] > RECORDED["eden2"][-1]  # control: another schedule


def test_eden_crosses_the_stated_points():
    stated = {  # captionstew.md 1.13
        (0, 0): 0.0225,
        (250, 0): 0.033741,
        (500, 0): 0.044950,
        (7500, 1): 0.037105,
        (20000, 3): 0.023235,
        (100000, 12): 0.0065120,
    }
    for (batch, epoch), rate in stated.items():
        found = 0.045 * eden_factor(batch, epoch, lr_batches=7500, lr_epochs=3.5, warmup_steps=500)
        assert found == pytest.approx(rate, rel=2e-5)


def test_without_warm_up_eden_begins_at_the_base_rate_and_falls():
    assert eden_factor(0, 0, lr_batches=7, lr_epochs=3, warmup_steps=0) == 1.0
    assert eden_factor(7, 0, lr_batches=7, lr_epochs=3, warmup_steps=0) == pytest.approx(2**-0.25)
    assert eden_factor(7, 3, lr_batches=7, lr_epochs=3, warmup_steps=0) == pytest.approx(2**-0.5)
    assert eden2_factor(7, lr_batches=7, warmup_steps=0) == pytest.approx(2**-0.5)


def test_a_run_counts_its_batches_from_one_and_its_epochs_from_zero():
    settings = TrainArguments(lr_schedule="eden", lr_batches=5, lr_epochs=2, warmup_steps=3)
    places = [(step + 1, step // 4) for step in range(11)]
    expected = [BASE_RATE * eden_factor(*place, lr_batches=5, lr_epochs=2, warmup_steps=3) for place in places]
    assert rates_of(settings, 11, batches_per_epoch=4) == pytest.approx(expected, rel=1e-12)
    settings.lr_steps_per_epoch = 4  # wins over the data's
    assert rates_of(settings, 11, batches_per_epoch=9) == pytest.approx(expected, rel=1e-12)
    assert expected[4] < 0.95 * BASE_RATE * eden_factor(5, 0, lr_batches=5, lr_epochs=2, warmup_steps=3)  # control


def test_epochs_of_accumulated_batches_end_between_two_steps():
    """Ten batches per epoch and three per step: the epochs begin at steps 4, 7, 10 and 14."""
    settings = TrainArguments(lr_schedule="eden", lr_batches=1e9, lr_epochs=1, gradient_accumulation_steps=3)
    seen = [(rate / BASE_RATE) ** -4 - 1 for rate in rates_of(settings, 15, batches_per_epoch=10)]  # epoch squared
    epochs = [0] * 4 + [1] * 3 + [2] * 3 + [3] * 4 + [4]
    assert seen == pytest.approx([epoch**2 for epoch in epochs], abs=1e-9)


def test_eden3_lets_epochs_grow_with_every_step():
    settings = TrainArguments(lr_schedule="eden3", lr_batches=1e9, lr_epochs=1, gradient_accumulation_steps=3)
    seen = [(rate / BASE_RATE) ** -4 - 1 for rate in rates_of(settings, 7, batches_per_epoch=10)]
    assert seen == pytest.approx([float(Fraction(3 * (step + 1), 10) ** 2) for step in range(7)], abs=1e-9)


@pytest.mark.parametrize("name", ["eden", "eden2", "eden3"])
def test_a_schedule_of_two_groups_goes_on_from_json_to_the_bit(name):
    optimizers = [optimizer_of(0.045, 0.0045) for _ in range(2)]
    settings = TrainArguments(lr_schedule=name, lr_batches=4, lr_epochs=1, warmup_steps=3)
    first, second = (build_lr_schedule(o, settings, num_steps=11, batches_per_epoch=3) for o in optimizers)
    for _ in range(5):
        optimizers[0].step()
        first.step()
    restore_schedule(second, json.loads(json.dumps(schedule_state(first))))
    optimizers[1].load_state_dict(optimizers[0].state_dict())
    assert second.get_last_lr() == first.get_last_lr()
    seen = [first.get_last_lr()]
    for _ in range(5):
        for optimizer, schedule in zip(optimizers, (first, second), strict=True):
            optimizer.step()
            schedule.step()
        assert second.get_last_lr() == first.get_last_lr()
        assert [group["lr"] for group in optimizers[1].param_groups] == first.get_last_lr()
        seen.append(first.get_last_lr())
    assert [fast / slow for fast, slow in seen] == pytest.approx([10.0] * 6)
    assert len({fast for fast, _ in seen}) == 6


@pytest.mark.parametrize("name", ["eden", "eden3"])
def test_epochs_of_unknown_length_are_refused(name):
    with pytest.raises(ValueError, match=rf"`lr_schedule` is '{name}'.*Set `lr_steps_per_epoch`, pass"):
        build_lr_schedule(optimizer_of(0.1), TrainArguments(lr_schedule=name), num_steps=5)
    assert rates_of(TrainArguments(lr_schedule="eden2"), 2)  # needs none
