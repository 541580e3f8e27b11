# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Patchout: which rows and columns are left out, by hand and in the encoders' own order of tokens."""

import pytest
import torch
from tiny import CLIP_FRAMES, tiny_batch, tiny_m2d_clap_audio_config, tiny_slap_audio_config

from hf_audiolang import M2dClapAudioModel, SlapAudioModel
from hf_audiolang.models import layers_masking
from hf_audiolang.models.layers_packing import PackedLayout
from hf_audiolang.models.layers_patchout import masked_positions_2d, structured_patchout_positions

BANDS = 5


def grids(columns, bands=BANDS):
    """Frequency-major token mask of clips with so many columns."""
    return (torch.arange(max(columns)) < torch.tensor(columns).unsqueeze(1)).repeat(1, bands)


def drawn(function, seed, *arguments, **options):
    torch.manual_seed(seed)
    return function(*arguments, **options)


# M2D


def fix_draws(monkeypatch, uniform, orders):
    """Lets the functions draw u for the number of rows, and for each clip the order of rows, then of columns."""
    given = iter(orders)
    monkeypatch.setattr(layers_masking.torch, "rand", lambda *shape, **options: torch.tensor(uniform))
    monkeypatch.setattr(layers_masking.torch, "randperm", lambda number: torch.tensor(next(given)))


def picture(hidden, bands):
    """Rows of `#` for tokens that are left out."""
    return ["".join("#" if one else "." for one in row) for row in hidden.view(bands, -1).tolist()]


def test_structured_patchout_of_three_by_four_by_hand(monkeypatch):
    """r = 0.5, F = 3, T = 4, u = 0.5: NF = min(2, int(3 * (1/2 + 1/3) / 2)) = 1; NT = int(4 * (5/8 - 1/3)) = 1.

    Row 1 and column 2 are marked, 6 of 12 tokens: 6 stay, which are just the marked ones.
    """
    mask = torch.ones(1, 12, dtype=torch.bool)
    fix_draws(monkeypatch, 0.5, [[1, 0, 2], [2, 0, 1, 3]])
    assert picture(structured_patchout_positions(mask, 0.5, 3), 3) == ["##.#", "....", "##.#"]
    fix_draws(monkeypatch, 0.5, [[1, 0, 2], [2, 0, 1, 3]])
    assert picture(structured_patchout_positions(mask, 0.5, 3, keep="unmarked"), 3) == ["..#.", "####", "..#."]


def test_structured_patchout_fills_up_with_the_first_unmarked_tokens(monkeypatch):
    """r = 0.3, u = 0: NF = 0, NT = int(4 * (0.3 + 1/8)) = 1: 3 of 12 are marked, 9 stay, 6 of them unmarked."""
    fix_draws(monkeypatch, 0.0, [[1, 0, 2], [2, 0, 1, 3]])
    hidden = structured_patchout_positions(torch.ones(1, 12, dtype=torch.bool), 0.3, 3)
    assert picture(hidden, 3) == ["....", "....", "##.#"]


def test_structured_patchout_drops_kept_marks_where_most_are_marked(monkeypatch):
    """r = 0.8, u = 0.99: NF = int(3.4 * 0.99) = 2 of 3 rows, NT = int(4 * (0.925 - 2/3)) = 1: 9 of 12 are marked.

    Three tokens stay: the first marked ones in the order of the grid, here rows 0 and 2 and column 3.
    """
    fix_draws(monkeypatch, 0.99, [[2, 0, 1], [3, 0, 1, 2]])
    hidden = structured_patchout_positions(torch.ones(1, 12, dtype=torch.bool), 0.8, 3)
    assert picture(hidden, 3) == ["...#", "####", "####"]


@pytest.mark.parametrize(("ratio", "kept", "marked_among_kept"), [(0.5, 0.51, 0.90), (0.3, 0.68, 0.47)])
def test_shares_of_the_published_code_on_ten_seconds(ratio, kept, marked_among_kept):
    mask, stay, marked = grids((62,)), [], []
    for seed in range(500):
        visible = ~drawn(structured_patchout_positions, seed, mask, ratio, BANDS)
        marks = drawn(structured_patchout_positions, seed, mask, ratio, BANDS, keep="unmarked")
        stay.append(visible.float().mean().item())
        marked.append((visible & marks).sum().item() / visible.sum().item())
    assert sum(stay) / 500 == pytest.approx(kept, abs=0.012)
    assert sum(marked) / 500 == pytest.approx(marked_among_kept, abs=0.02)


def test_equal_clips_lose_equally_many_and_no_clip_all():
    for seed in range(40):
        hidden = drawn(structured_patchout_positions, seed, grids((7, 7, 7, 1, 2)), 0.9, BANDS)
        assert len(set(hidden[:3].sum(1).tolist())) == 1
        assert not (hidden | ~grids((7, 7, 7, 1, 2))).all(1).any()
        assert not (hidden & ~grids((7, 7, 7, 1, 2))).any()


def test_patchout_of_clips_in_pieces_reaches_the_encoder():
    """A clip of one piece beside one of three: its two empty pieces stay empty."""
    model = M2dClapAudioModel(tiny_m2d_clap_audio_config()).eval()
    frames = torch.tensor([250, 98])
    mask = torch.arange(250) < frames.unsqueeze(1)
    batch = torch.randn(2, 250, 80, generator=torch.Generator().manual_seed(0))
    grid = model.patch_grid(batch, mask)
    rows = drawn(structured_patchout_positions, 3, grid.token_mask, 0.5, 5)
    assert not rows[~grid.token_mask].any()
    positions = grid.of_clips(rows)
    with torch.no_grad():
        output = model(batch, mask, masked_positions=positions)
    left = (grid.of_clips(grid.token_mask) & ~positions).sum(1)
    assert output.token_mask.sum(1).tolist() == left.tolist()
    assert (left < grid.of_clips(grid.token_mask).sum(1)).all()


# AudioMAE


def test_two_masks_on_64_by_8_leave_51_by_6():
    mask = torch.ones(3, 64 * 8, dtype=torch.bool)
    visible = ~drawn(masked_positions_2d, 0, mask, 0.2, 0.2, 8, is_time_major=True).view(3, 64, 8)
    columns, rows = visible.any(2), visible.any(1)
    assert columns.sum(1).tolist() == [51, 51, 51]
    assert rows.sum(1).tolist() == [6, 6, 6]
    assert torch.equal(visible, columns.unsqueeze(2) & rows.unsqueeze(1))
    assert not torch.equal(columns[0], columns[1])  # drawn for each clip
    assert len({tuple(clip) for clip in rows.tolist()}) > 1


def test_the_order_of_tokens_is_that_of_the_encoder():
    """Half of 4 columns and nothing of 3 rows: whole columns, told apart by the order alone."""
    mask = torch.ones(1, 12, dtype=torch.bool)
    by_time = drawn(masked_positions_2d, 1, mask, 0.5, 0.0, 3, is_time_major=True).view(4, 3)
    by_frequency = drawn(masked_positions_2d, 1, mask, 0.5, 0.0, 3, is_time_major=False).view(3, 4)
    assert torch.equal(by_time, by_frequency.T)
    assert sorted(by_time.sum(1).tolist()) == [0, 0, 3, 3]
    rows_only = drawn(masked_positions_2d, 1, mask, 0.0, 0.4, 3, is_time_major=True).view(4, 3)
    assert sorted(rows_only.sum(0).tolist()) == [0, 4, 4]  # int(3 * 0.6) = 1 row stays


def test_a_short_clip_keeps_a_column_and_padding_is_not_hidden():
    mask = grids((9, 1, 4, 0))
    hidden = drawn(masked_positions_2d, 0, mask, 0.6, 0.9, BANDS, is_time_major=False)
    assert not (hidden & ~mask).any()
    assert (mask & ~hidden).sum(1).tolist() == [3, 1, 1, 0]  # int(9 * 0.4) columns, int(4 * 0.4), of one row


def test_columns_and_rows_are_uniform():
    mask = torch.ones(4000, 21, dtype=torch.bool)
    visible = ~drawn(masked_positions_2d, 0, mask, 0.3, 0.4, 3, is_time_major=True).view(4000, 7, 3)
    assert visible.any(2).float().mean(0).sub(4 / 7).abs().max() < 0.032  # four standard deviations
    assert visible.any(1).float().mean(0).sub(1 / 3).abs().max() < 0.03


def test_slap_computes_on_the_tokens_that_stay():
    """A layout without the masked tokens leaves them out of the computation; their content is never read."""
    config = tiny_slap_audio_config()
    model, batch = SlapAudioModel(config).eval(), tiny_batch(config, seed=1)
    layout = model.layout_of(**batch)
    hidden = drawn(masked_positions_2d, 0, layout.token_mask, 0.5, 0.5, 4, is_time_major=True)
    visible = layout.token_mask & ~hidden
    with torch.no_grad():
        tokens, _ = model.encode(**batch, layout=PackedLayout.from_mask(visible))
        poisoned = batch["input_features"].clone()
        for row, number in zip(*hidden.nonzero(as_tuple=True), strict=True):
            step, band = divmod(int(number), 4)
            poisoned[row, 16 * step : 16 * step + 16, 16 * band : 16 * band + 16] = 99.0
        again, _ = model.encode(poisoned, batch["input_features_mask"], layout=PackedLayout.from_mask(visible))
    assert len(tokens) == sum(max(int(-(-frames // 16) * 0.5), 1) * 2 for frames in CLIP_FRAMES)
    assert torch.equal(tokens, again)
    assert not torch.equal(poisoned, batch["input_features"])
