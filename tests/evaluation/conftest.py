# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Fixtures of the evaluation tests."""

import matplotlib.figure
import pytest


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved."""
    saved = []
    original = matplotlib.figure.Figure.savefig

    def savefig(figure, *args, **kwargs):
        saved.append(figure)
        return original(figure, *args, **kwargs)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", savefig)
    return saved
