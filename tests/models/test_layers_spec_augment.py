# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""SpecAugment: how wide, how many, where."""

from types import SimpleNamespace

import torch

from hf_audiolang.models.layers_spec_augment import augment_features, spec_augment

FRAMES = torch.tensor([301, 98, 7, 1])
NUMBERS = {
    "time_stripes": 2,
    "time_width": 64,
    "time_share": 0.2,
    "mel_stripes": 2,
    "mel_width": 8,
}


def augment(seed=0, batch=None, **overrides):
    torch.manual_seed(seed)
    features = torch.full((len(FRAMES), 301, 64), 3.0) if batch is None else batch
    return spec_augment(features, FRAMES, **(NUMBERS | overrides))


def runs(hidden):
    """Lengths of the runs of True in a row."""
    edges = torch.nn.functional.pad(hidden.int(), (1, 1)).diff()
    return ((edges == -1).nonzero() - (edges == 1).nonzero()).flatten().tolist()


def test_one_stripe_over_time_keeps_its_limits():
    widths = {row: set() for row in range(len(FRAMES))}
    starts = set()
    for seed in range(150):
        output = augment(seed, time_stripes=1, mel_stripes=0)
        assert set(output.unique().tolist()) <= {0.0, 3.0}
        for row, frames in enumerate(FRAMES.tolist()):
            hidden = (output[row] == 0).all(1)
            assert torch.equal(hidden, (output[row] == 0).any(1))  # whole frames
            assert not hidden[frames:].any()  # inside the clip
            width = runs(hidden)
            assert len(width) <= 1
            widths[row].update(width or [0])
            if row == 0 and hidden.any():
                starts.add(int(hidden.nonzero()[0]))
    assert min(widths[0]) == 0
    assert 55 <= max(widths[0]) <= 60  # 0.2 x 301 = 60.2 is tighter than 64 frames
    assert 16 <= max(widths[1]) <= 19  # 0.2 x 98 = 19.6
    assert max(widths[2]) <= 1
    assert widths[3] == {0}
    assert min(starts) < 20
    assert max(starts) > 250


def test_width_is_also_limited_in_frames():
    widest = max(
        int((augment(seed, time_stripes=1, mel_stripes=0, time_width=9)[0] == 0).all(1).sum()) for seed in range(60)
    )
    assert widest == 8  # [0, 9)


def test_one_stripe_over_mel_bins_keeps_its_limits():
    widths, places = set(), set()
    for seed in range(200):
        output = augment(seed, time_stripes=0, mel_stripes=1)
        hidden = (output[1] == 0).all(0)
        assert torch.equal(hidden, (output[1] == 0).any(0))
        widths.update(runs(hidden) or [0])
        places.update(hidden.nonzero().flatten().tolist())
    assert widths == set(range(8))
    assert places == set(range(64))


def test_stripes_are_as_many_as_asked_and_differ_by_clip():
    output = augment(5, time_share=1.0)
    rows = [runs((output[row] == 0).all(1)) for row in range(2)]
    assert all(1 <= len(row) <= 2 for row in rows)
    counts = {len(runs((augment(seed, mel_stripes=0)[0] == 0).all(1))) for seed in range(40)}
    assert {1, 2} <= counts <= {0, 1, 2}
    assert not torch.equal(output[0, :98] == 0, output[1, :98] == 0)


def test_equal_clips_get_stripes_of_different_width_and_place():
    torch.manual_seed(0)
    output = spec_augment(torch.full((6, 301, 64), 3.0), torch.full((6,), 301), **(NUMBERS | {"time_stripes": 1}))
    hidden = (output == 0).all(2)
    assert len(set(hidden.sum(1).tolist())) > 3
    assert len(set(hidden.int().argmax(1).tolist())) > 3


def test_what_is_not_hidden_is_untouched():
    features = torch.randn(4, 301, 64, generator=torch.Generator().manual_seed(0)) + 9
    before = features.clone()
    output = augment(3, batch=features)
    assert torch.equal(features, before)
    assert torch.equal(output[output != 0], features[output != 0])
    assert 0.02 < (output[0] == 0).float().mean() < 0.6


def test_draws_follow_the_seed():
    assert torch.equal(augment(1), augment(1))
    assert not torch.equal(augment(1), augment(2))


def test_no_stripes_change_nothing():
    assert torch.equal(augment(time_stripes=0, mel_stripes=0), torch.full((4, 301, 64), 3.0))


def test_numbers_come_from_the_configuration_and_lengths_from_the_mask():
    config = SimpleNamespace(**{f"spec_augment_{name}": value for name, value in NUMBERS.items()})
    features = torch.randn(4, 301, 64, generator=torch.Generator().manual_seed(0))
    mask = torch.arange(301) < FRAMES.unsqueeze(1)
    torch.manual_seed(3)
    wanted = spec_augment(features, FRAMES, **NUMBERS)
    torch.manual_seed(3)
    assert torch.equal(augment_features(features, mask, config), wanted)
    torch.manual_seed(3)
    full = spec_augment(features, torch.full((4,), 301), **NUMBERS)
    torch.manual_seed(3)
    assert torch.equal(augment_features(features, None, config), full)
    assert not torch.equal(full, wanted)


def test_stripes_may_hold_the_mean_of_their_clip():
    config = SimpleNamespace(**{f"spec_augment_{name}": value for name, value in NUMBERS.items()})
    features = torch.randn(4, 301, 64, generator=torch.Generator().manual_seed(0)) - 6
    mask = torch.arange(301) < FRAMES.unsqueeze(1)
    features = features.masked_fill(~mask.unsqueeze(-1), -23.0)
    for given, seed in ((mask, 3), (None, 4)):
        torch.manual_seed(seed)
        zero = augment_features(features, given, config)
        torch.manual_seed(seed)
        mean = augment_features(features, given, config, fills_mean=True)
        is_hidden = zero == 0
        assert torch.equal(mean[~is_hidden], features[~is_hidden])
        for row in range(3):
            real = features[row] if given is None else features[row][mask[row]]
            filled = mean[row][is_hidden[row]]
            assert len(filled) > 0
            torch.testing.assert_close(filled, real.mean().expand_as(filled), rtol=1e-5, atol=1e-5)
