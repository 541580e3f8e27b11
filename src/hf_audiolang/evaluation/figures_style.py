# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""What all pictures share: colours, style, a figure of given size, saving, and the log-mel with its axes.

waveform -> feature extractor -> level in dB (T, F) and mel bins in Hz (F,) -> `draw_level`

Needs matplotlib (the extra `viz`) where something is drawn.
"""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from transformers.audio_utils import hertz_to_mel, mel_to_hertz

from .metrics import MissingResourceError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

# Okabe and Ito's colours, which stay apart for colour-blind readers, without the yellow that is faint on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
INK, FAINT = "#222222", "#8A8A8A"
STYLE = {
    "font.size": 10,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
DECIBELS_PER_LOG = {"ln": 10 / np.log(10), "log10": 10.0, "db": 1.0}  # of a power
TICKS_HZ = (250, 500, 1000, 2000, 4000, 8000, 16000)
RANGE_DB = 70  # below the peak; quieter is drawn like this


def level_of(extractor: object, waveform: np.ndarray) -> np.ndarray:
    """Log-mel (T, F) of one waveform (S,) in dB, without the extractor's normalisation.

    Args:
        extractor: a feature extractor that returns `input_features`; its `mean`, `std` and `log` are used if it has
            them.
        waveform: (S,) samples at the extractor's rate.
    """
    features = extractor([waveform], sampling_rate=extractor.sampling_rate, return_tensors="np")["input_features"]
    log_mel = np.asarray(features).reshape(-1, np.asarray(features).shape[-1])  # (T, F)
    if getattr(extractor, "std", None):
        log_mel = log_mel * extractor.std + extractor.mean
    return log_mel * DECIBELS_PER_LOG.get(getattr(extractor, "log", "db"), 1.0)


def mel_centres_hz(extractor: object, num_mel_bins: int) -> np.ndarray:
    """Centre frequency (F,) of each mel bin in Hz.

    Args:
        extractor: has `f_min`, `f_max` (or CLAP's `frequency_min`, `frequency_max`) in Hz and, unless it is Slaney's,
            `mel_scale`.
        num_mel_bins: F.
    """
    scale = getattr(extractor, "mel_scale", "slaney")
    names = ("f_min", "f_max") if hasattr(extractor, "f_min") else ("frequency_min", "frequency_max")
    low, high = (hertz_to_mel(getattr(extractor, name), scale) for name in names)
    return mel_to_hertz(np.linspace(low, high, num_mel_bins + 2)[1:-1], scale)


def draw_level(
    axes: "Axes", level_db: np.ndarray, mel_hz: np.ndarray, seconds: float, *, colour_map: "str | Colormap" = "magma"
) -> "AxesImage":
    """Draws a log-mel with frequency up in kHz and time to the right, and returns the image for a colour bar.

    Args:
        axes: where to draw; y runs over mel bins from -0.5, x over seconds from 0.
        level_db: (T, F) level in dB.
        mel_hz: (F,) centre of each mel bin in Hz, ascending.
        seconds: duration of the T frames.
        colour_map: one of matplotlib's, or its name.
    """
    level_db = level_db.T - level_db.max()  # (F, T)
    if not level_db.any():  # silence has no peak
        level_db = level_db - RANGE_DB
    image = axes.imshow(
        level_db, origin="lower", aspect="auto", cmap=colour_map, vmin=max(-RANGE_DB, level_db.min()), vmax=0,
        extent=(0, seconds, -0.5, len(level_db) - 0.5), interpolation="nearest",
    )  # fmt: skip
    edge_hz = 1.001 * mel_hz[-1] ** 2 / mel_hz[-2]  # about f_max, where the last filter ends
    shown = [hertz for hertz in TICKS_HZ if mel_hz[0] < hertz <= edge_hz]
    rows = np.interp(shown, [*mel_hz, edge_hz], [*range(len(mel_hz)), len(mel_hz) - 0.5])
    axes.set_yticks(rows, [f"{hertz / 1000:g}" for hertz in shown])
    axes.set_ylabel("frequency (kHz)")
    return image


def add_colour_bar(figure: "Figure", axes: "Axes", image: "AxesImage", label: str) -> "Axes":
    """A narrow colour bar to the right of `axes`; returns its own axes."""
    colour_bar = figure.colorbar(image, cax=axes.inset_axes((1.012, 0, 0.012, 1)))
    colour_bar.set_label(label, fontsize=8)
    colour_bar.ax.tick_params(labelsize=8)
    colour_bar.outline.set_visible(False)
    return colour_bar.ax


def house_style() -> AbstractContextManager:
    """Context in which figures are drawn in this file's style; the user's settings are untouched.

    Raises:
        MissingResourceError: if matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise MissingResourceError(
            f"Figures need the package {error.name!r}, which is not installed. Run `pip install 'hf-audiolang[viz]'`; "
            "everything else works without it."
        ) from error
    return mpl.rc_context(STYLE)


def new_figure(width: float, height: float) -> "Figure":
    """A figure outside pyplot's global state, in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: "Figure", output: str | Path) -> Path:
    """Writes a figure as .png, .pdf or what else the suffix names, makes its folder, and returns the path."""
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=150, bbox_inches="tight", pad_inches=0.15, facecolor="white")
    return output


__all__ = [
    "COLOURS",
    "FAINT",
    "INK",
    "add_colour_bar",
    "draw_level",
    "house_style",
    "level_of",
    "mel_centres_hz",
    "new_figure",
    "save_figure",
]
