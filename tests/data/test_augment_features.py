# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The recipes' SpecAugment against torchaudio's masking, and random resize crop against a naive one."""

import pytest
import torch
import torchaudio

from hf_audiolang.data.augment_features import random_resize_crop, spec_augment_bands


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def features(*shape, seed=0):
    """Log-mels without zeros."""
    return torch.randn(*shape, generator=seeded(seed)).abs() + 0.5


# SpecAugment


@pytest.mark.parametrize(("mel_width", "time_width"), [(30, 192), (15, 48), (30, 0), (0, 48)])
def test_bands_are_those_of_torchaudio_on_a_batch(mel_width, time_width):
    batch = features(3, 301, 80)
    mel = torchaudio.transforms.FrequencyMasking(mel_width)
    time = torchaudio.transforms.TimeMasking(time_width)
    hidden = []
    for seed in range(25):
        got = spec_augment_bands(batch, mel_width, time_width, seeded(seed))
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            image = batch.transpose(1, 2).unsqueeze(1)  # (B, 1, F, T), as EVAR has it
            image = mel(image) if mel_width else image
            image = time(image) if time_width else image
        assert torch.equal(got, image.squeeze(1).transpose(1, 2))
        hidden.append((got == 0).float().mean().item())
    assert max(hidden) > 0.1  # something was compared
    assert torch.equal(batch, features(3, 301, 80))


def test_one_band_for_the_batch_or_one_for_each_clip():
    batch = features(5, 101, 40)
    shared = spec_augment_bands(batch, 30, 60, seeded(3)) == 0
    assert shared.any()
    assert torch.equal(shared, shared[:1].expand_as(shared))
    own = spec_augment_bands(batch, 30, 60, seeded(4), per_clip=True) == 0
    mel_bands = {tuple(clip.all(0).tolist()) for clip in own}
    stretches = {tuple(clip.all(1).tolist()) for clip in own}
    assert len(mel_bands) == len(stretches) == 5
    for clip in own:  # each is one rectangle over all frames and one over all bins
        assert torch.equal(clip, clip.all(0) | clip.all(1, keepdim=True))
        assert int(clip.all(0).int().diff().abs().sum()) <= 2


def test_a_band_wider_than_the_clip_stays_inside_and_leaves_something():
    batch = features(2, 7, 40)
    kept = [(spec_augment_bands(batch, 0, 192, seeded(seed))[0, :, 0] != 0).sum().item() for seed in range(200)]
    assert set(kept) == set(range(1, 8))  # 0 to 6 of 7 frames are hidden


def test_no_width_changes_nothing():
    batch = features(2, 7, 40)
    assert torch.equal(spec_augment_bands(batch, 0, 0, seeded(0)), batch)


# random resize crop


def cubic(distance):
    """Keys' convolution kernel with a = -0.75."""
    x, a = abs(distance), -0.75
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def stretched(rows, number):
    """Rows (n, D) at `number` places, the first and last on the corners, the edge rows repeated."""
    result = []
    for index in range(number):
        place = index * (len(rows) - 1) / max(number - 1, 1)
        near = range(int(place) - 1, int(place) + 3)
        result.append(sum(cubic(place - at) * rows[min(max(at, 0), len(rows) - 1)] for at in near))
    return torch.stack(result)


def naive_crop(clip, generator):
    num_frames, num_bins = clip.shape
    canvas = torch.zeros(num_frames * 3 // 2, num_bins)
    start = (len(canvas) - num_frames) // 2
    canvas[start : start + num_frames] = clip
    scales = [0.6 + 0.9 * torch.rand((), generator=generator).item() for _ in range(2)]
    bins = min(max(int(scales[0] * num_bins), 1), num_bins)
    frames = min(max(int(scales[1] * num_frames), 1), len(canvas))
    low = torch.randint(num_bins - bins + 1, (), generator=generator).item()
    first = torch.randint(len(canvas) - frames + 1, (), generator=generator).item()
    crop = canvas[first : first + frames, low : low + bins]
    return stretched(stretched(crop, num_frames).T, num_bins).T


def test_crops_equal_a_naive_implementation():
    batch, generator, same = features(4, 21, 10), seeded(5), seeded(5)
    cropped = random_resize_crop(batch, generator)
    for clip, got in zip(batch, cropped, strict=True):
        torch.testing.assert_close(got, naive_crop(clip, same), rtol=1e-5, atol=1e-5)  # computed in float32
    assert (cropped - batch).abs().max() > 0.5


def test_corners_of_crops_are_uniform_in_the_canvas():
    """With corners aligned, the first and last values tell where a crop began and ended."""
    ramp = 1 + torch.arange(40.0).unsqueeze(1) + 1000 * torch.arange(20.0)  # 1 + frame + 1000 * bin, 0 outside
    cropped = random_resize_crop(ramp.expand(8000, 40, 20), seeded(0))
    inside = (cropped[:, 0, 0] > 0.5) & (cropped[:, -1, -1] > 0.5)
    first, last = cropped[inside, 0, 0].round().long() - 1, cropped[inside, -1, -1].round().long() - 1
    heights = last // 1000 - first // 1000 + 1
    lengths = last % 1000 - first % 1000 + 1
    assert set(heights.tolist()) == set(range(12, 21))  # int(0.6 * 20) to 20
    assert (heights == 20).float().mean().item() == pytest.approx(0.5 / 0.9, abs=0.05)  # a scale of 1 to 1.5
    assert lengths.min() == 24  # int(0.6 * 40)
    assert lengths.max() <= 40
    assert set((first // 1000).tolist()) == set(range(9))  # a crop of the lowest height begins at 0 to 8
    assert set((last // 1000).tolist()) == set(range(11, 20))
    assert 0.55 < (cropped == 0).any(2).any(1).float().mean() < 0.95  # most reach into the canvas


def test_clips_of_a_ragged_batch_are_cropped_alone_and_padding_stays():
    batch, lengths = features(4, 21, 10), (21, 13, 1, 0)
    mask = torch.arange(21) < torch.tensor(lengths).unsqueeze(1)
    cropped = random_resize_crop(batch, seeded(2), mask)
    same = seeded(2)
    for clip, got, length in zip(batch, cropped, lengths, strict=True):
        assert torch.equal(got[length:], clip[length:])
        if length:
            torch.testing.assert_close(got[:length], naive_crop(clip[:length], same), rtol=1e-5, atol=1e-5)
    changed = batch.masked_fill(~mask.unsqueeze(-1), 77.0)
    again = random_resize_crop(changed, seeded(2), mask)
    assert torch.equal(again[mask], cropped[mask])
    assert not torch.equal(cropped[0], random_resize_crop(batch, seeded(3), mask)[0])
