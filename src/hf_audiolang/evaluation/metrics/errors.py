# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The error of a metric or figure whose optional package is not installed."""


class MissingResourceError(ImportError):
    """Something optional is missing: the message says what, the command that gets it, and what works without."""


__all__ = ["MissingResourceError"]
