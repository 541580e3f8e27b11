"""Folders of short labelled sounds for the tests of `hf_audiolang.data.labels*`."""

from data_helpers import tone, write_sound


def write_sounds(root, names):
    """A sound of 0.1 s under each of the names below `root`; returns `root`."""
    for name in names:
        write_sound(root / name, tone(0.1))
    return root


def write_table(root, *lines, name="metadata.csv"):
    """A text table in `root`, one line each; returns `root`."""
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def labels_by_id(part):
    """Id -> labels of a part of labelled data, from its records."""
    return {record.id: record.labels for record in part}


def all_clips(data):
    """Id -> (part, labels) of every clip, which must be in one part only."""
    found = {}
    for name, part in data.parts.items():
        for record in part:
            assert record.id not in found
            found[record.id] = (name, record.labels)
    return found
