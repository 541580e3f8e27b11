# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Tasks that measure a model, one per file with `evaluate(model, processor, dataset, ...)`, and reports of them."""
