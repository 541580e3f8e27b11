import copy
import io
import json
from itertools import chain

import pytest
import torch
from record_icefall_optim import OUTPUT, SHOWN_STEPS, put_gradients, start_values, trajectory
from torch import Tensor, nn

from hf_audiolang.training.scaled_adam import ScaledAdam

RECORDED = json.loads(OUTPUT.read_text(encoding="utf-8"))


def noise(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def run(
    start: list[Tensor], num_steps: int, *, factor: float = 1.0, seed: int = 0, **options
) -> tuple[list[Tensor], ScaledAdam]:
    """Parameters after steps on seeded gradients, and the optimizer."""
    parameters = [nn.Parameter(value.clone()) for value in start]
    optimizer = ScaledAdam(parameters, **options)
    for step in range(num_steps):
        for number, parameter in enumerate(parameters):
            parameter.grad = factor * noise(parameter.shape, seed + 100 * step + number)
        optimizer.step()
    return [parameter.detach() for parameter in parameters], optimizer


@pytest.mark.parametrize(("dtype", "rtol", "atol"), [(torch.float64, 1e-10, 1e-12), (torch.float32, 1e-4, 1e-5)])
def test_every_step_is_the_official_one(dtype, rtol, atol):
    """Scalars and tensors at, below and above their limits, two groups, clipped steps, thresholds of all ages."""
    official = RECORDED[str(dtype).removeprefix("torch.")]
    found = trajectory(lambda groups: ScaledAdam(groups, clipping_scale=2.0), dtype)
    for step in SHOWN_STEPS:
        tolerance = {"rtol": rtol, "atol": atol} if step > 48 else {"rtol": min(rtol, 1e-5), "atol": min(atol, 1e-6)}
        want, got = (torch.tensor(values, dtype=torch.float64) for values in (official[str(step)], found[step]))
        torch.testing.assert_close(got, want, **tolerance)


def test_the_recorded_problem_is_clipped():
    official, plain = RECORDED["float64"], trajectory(lambda g: ScaledAdam(g, clipping_scale=torch.inf), torch.float64)
    assert plain[11] == pytest.approx(official["11"], rel=1e-10, abs=1e-12)  # before the first spike
    assert plain[24] != pytest.approx(official["24"], rel=1e-2)


def test_the_first_step_by_hand():
    matrix, scalar = torch.tensor([[3.0, -4.0], [0.0, 5.0]]).double(), torch.tensor([2.0]).double()
    parameters = [nn.Parameter(matrix.clone()), nn.Parameter(scalar.clone())]
    parameters[0].grad = torch.tensor([[1.0, -7.0], [0.0, 0.01]]).double()
    parameters[1].grad = torch.tensor([-6.0]).double()
    ScaledAdam(parameters, lr=0.02, betas=(0.9, 0.98)).step()
    size = (50 / 4) ** 0.5
    moved = 0.1 * 0.02 * size * torch.tensor([[-1.0, 1.0], [0.0, -1.0]]).double()  # each at its full rate
    torch.testing.assert_close(parameters[0].detach(), matrix + moved, rtol=0, atol=1e-7)  # epsilon over 0.01
    torch.testing.assert_close(parameters[1].detach(), scalar + 0.1 * 0.1 * 0.02, rtol=0, atol=1e-9)


def test_a_factor_on_the_loss_changes_nothing():
    start = [noise((3, 5), 1), 0.1 * noise((7,), 2), noise((), 3)]
    plain, scaled = run(start, 25)[0], run(start, 25, factor=1000.0)[0]
    for first, second, origin in zip(plain, scaled, start, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-6)  # epsilon
        assert not torch.allclose(first, origin, rtol=1e-2)


def test_a_smaller_tensor_takes_smaller_steps_in_proportion():
    start = 0.3 * noise((3, 5), 1)
    whole, part = run([start], 25)[0][0], run([0.01 * start], 25, factor=100.0)[0][0]
    torch.testing.assert_close(0.01 * whole, part, rtol=1e-5, atol=1e-8)
    adam = [nn.Parameter(start.clone()), nn.Parameter(0.01 * start)]  # control: torch's Adam does not care
    for parameter, factor in zip(adam, (1.0, 100.0), strict=True):
        parameter.grad = factor * noise((3, 5), 0)
    torch.optim.Adam(adam, lr=0.01).step()
    changes = [adam[0].detach() - start, adam[1].detach() - 0.01 * start]
    torch.testing.assert_close(changes[0], changes[1], rtol=1e-4, atol=0)


def test_values_stay_within_their_limits():
    start = [torch.tensor([9.99]).double(), torch.tensor(-9.99).double(), torch.full((3, 2), 2.99).double()]
    parameters = [nn.Parameter(value) for value in start]
    optimizer = ScaledAdam(parameters, clipping_scale=torch.inf)
    for _ in range(60):
        for parameter, sign in zip(parameters, (-1.0, 1.0, -1.0), strict=True):
            parameter.grad = torch.full_like(parameter, sign)
        optimizer.step()
    assert [parameters[0].item(), parameters[1].item()] == [10.0, -10.0]
    # Its entries all grow at the learning rate; the size pulls back with at least a tenth of what is too much.
    assert parameters[2].square().mean().sqrt() < 2.99 + 0.2 * 60 * 0.045 * 3


def test_a_parameter_without_gradient_is_left_alone_and_begins_later_as_new():
    late, early = noise((3, 2), 1), noise((3, 2), 2)
    parameters = [nn.Parameter(late.clone()), nn.Parameter(early.clone())]  # the first also keeps the clipping's state
    optimizer = ScaledAdam(parameters, clipping_scale=torch.inf)
    for step in range(12):
        parameters[0].grad = noise((3, 2), step) if step >= 6 else None
        parameters[1].grad = noise((3, 2), 50 + step) if step != 8 else None
        before = [parameter.detach().clone() for parameter in parameters]
        optimizer.step()
        moved = [not torch.equal(parameter, old) for parameter, old in zip(parameters, before, strict=True)]
        assert moved == [step >= 6, step != 8]
    alone = nn.Parameter(late.clone())
    reference = ScaledAdam([alone], clipping_scale=torch.inf)
    for step in range(6, 12):
        alone.grad = noise((3, 2), step)
        reference.step()
    torch.testing.assert_close(parameters[0].detach(), alone.detach(), rtol=0, atol=0)
    assert [optimizer.state[parameter]["step"] for parameter in parameters] == [6, 11]


def test_a_step_without_any_gradient_is_none():
    parameter = nn.Parameter(noise((3, 2), 1))
    optimizer = ScaledAdam([parameter])
    optimizer.step()
    assert optimizer.state_dict()["state"] == {}
    assert optimizer.step(lambda: parameter.sum().detach()) == parameter.sum()


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_a_gradient_that_is_not_finite_counts_as_zero_once_there_is_a_threshold(value):
    start = [noise((3, 5), 1), noise((), 2)]
    zero, spoiled = (run(start, 13, seed=3)[1] for _ in range(2))
    for optimizer in (zero, spoiled):
        for parameter in optimizer.param_groups[0]["params"]:
            parameter.grad.zero_()
    spoiled.param_groups[0]["params"][0].grad[1, 2] = value
    zero.step()
    spoiled.step()
    for first, second in zip(zero.param_groups[0]["params"], spoiled.param_groups[0]["params"], strict=True):
        assert torch.equal(first, second)
        for name in ("exp_avg_sq", "delta"):
            assert torch.equal(zero.state[first][name], spoiled.state[second][name])


def test_lost_gradients_are_refused_when_the_threshold_is_due():
    _, optimizer = run([noise((3, 5), 1)], 11)
    (parameter,) = optimizer.param_groups[0]["params"]
    parameter.grad.fill_(torch.nan)
    for _ in range(9):
        optimizer.step()
    assert parameter.isfinite().all()
    with pytest.raises(FloatingPointError, match=r"last 20 gradient norms is nan.*Lower the learning rate"):
        optimizer.step()


@pytest.mark.parametrize("stop", [1, 6, 10, 41, 103])
def test_a_run_goes_on_from_its_state_dict_to_the_bit(stop):
    groups = start_values(torch.float32)
    optimizer = ScaledAdam([{"params": groups[0], "lr": 0.045}, {"params": groups[1], "lr": 0.6}])
    for step in range(stop):
        put_gradients(groups, step)
        optimizer.step()
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    others = copy.deepcopy(groups)
    resumed = ScaledAdam([{"params": group} for group in others])
    resumed.load_state_dict(state)
    forgetful = copy.deepcopy(groups)  # control
    fresh = ScaledAdam([{"params": group, "lr": rate} for group, rate in zip(forgetful, (0.045, 0.6), strict=True)])
    for step in range(stop, stop + 24):
        for values, one in ((groups, optimizer), (others, resumed), (forgetful, fresh)):
            put_gradients(values, step)
            one.step()
    for mine, other, third in zip(
        *(chain.from_iterable(values) for values in (groups, others, forgetful)), strict=True
    ):
        assert torch.equal(mine, other)
        # A scalar at its limit forgets; all else remembers.
        assert mine.abs().max() == 10 or not torch.equal(mine, third)


def test_the_state_has_the_clipping_history_and_plain_values_only():
    _, optimizer = run([noise((3, 5), 1), noise((), 2)], 12)
    state = optimizer.state_dict()["state"]
    assert state[0]["group_step"] == 12
    assert (state[0]["model_norms"] > 0).tolist() == [False] + [True] * 11 + [False] * 88
    median = state[0]["model_norms"][1:11].sort().values[4]
    assert state[0]["model_norm_threshold"].item() == pytest.approx(4 * median.item())
    kept = {"step", "exp_avg_sq", "delta", "param_rms"}
    assert set(state[1]) == kept
    sizes = {"scale_grads", "scale_exp_avg_sq"}
    assert set(state[0]) == kept | sizes | {"group_step", "model_norms", "model_norm_threshold"}


def relative_errors(build) -> list[float]:
    """Distances to targets of sizes 1e-3, 1 and 2, over these sizes, after 200 steps on noisy gradients."""
    targets = [size * noise((4, 3), number) for number, size in enumerate((1e-3, 1.0, 2.0))]
    parameters = [nn.Parameter(0.7 * target.roll(1)) for target in targets]
    optimizer = build(parameters)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (1 + (step / 40) ** 2) ** -0.5)
    for step in range(200):
        for number, (parameter, target) in enumerate(zip(parameters, targets, strict=True)):
            error = (parameter.detach() - target) / target.norm() + 0.1 * noise((4, 3), 10 + 3 * step + number)
            parameter.grad = error / target.norm()
        optimizer.step()
        schedule.step()
    return [
        ((value - target).norm() / target.norm()).item() for value, target in zip(parameters, targets, strict=True)
    ]


def test_tensors_of_very_different_sizes_are_learned_at_one_rate():
    assert max(relative_errors(lambda parameters: ScaledAdam(parameters, lr=0.1))) < 0.1
    for rate in (1e-4, 1e-3, 1e-2, 1e-1):  # control: no rate of Adam fits them all
        errors = relative_errors(lambda values, rate=rate: torch.optim.Adam(values, lr=rate, betas=(0.9, 0.98)))
        assert max(errors) > 0.3
