"""Scores and events for which values of sed_scores_eval 0.0.4 were recorded: with and without event-free clips."""

import numpy as np

from hf_audiolang.evaluation.metrics.detections import FrameScores, Segment

LABELS = ["alarm", "dog", "speech"]


def scene_case():
    """40 clips of 10 s with 32 frames; clips i = 0..39, classes c = 0..2; no clip is free of events."""
    centres = (np.arange(32) + 0.5) * 0.3125
    frame_scores, segments = {}, []
    for i in range(40):
        events = []
        for c in range(3):
            if (i + c) % 3 != 2:
                onset = 0.5 + 0.9 * ((3 * i + 5 * c) % 7)
                events.append((c, round(onset, 3), round(onset + 0.8 + 0.6 * ((i + 2 * c) % 4), 3)))
        scores = np.stack([0.16 * np.sin(0.37 * i**2 + 0.9 * np.arange(32) * (c + 1) + c) for c in range(3)], axis=1)
        for c in range(3):
            for label, onset, offset in events:
                gain = 0.6 if label == c else 0.4 * ((i + c) % 4 == 0)
                scores[(onset <= centres) & (centres < offset), c] += gain
        frame_scores[f"clip{i}"] = FrameScores(scores.round(3), np.arange(33) * 0.3125)
        segments += [Segment(f"clip{i}", LABELS[c], onset, offset) for c, onset, offset in events]
    return frame_scores, segments, LABELS, dict.fromkeys(frame_scores, 10.0)


def uneven_case(seed, num_labels, num_heard):
    """12 clips of unequal length and frame number; every third is free of events, and so are the last classes."""
    labels, frame_scores, segments, clip_seconds = [f"label{c}" for c in range(num_labels)], {}, [], {}
    for i in range(12):
        clip, seconds, num_frames = f"clip{i}", 6 + 0.9 * (7 * i % 5), 9 + 5 * (i + seed) % 13
        edges = np.arange(num_frames + 1) * seconds / num_frames
        frame, column = np.arange(num_frames)[:, None], np.arange(num_labels)
        scores = 0.3 * np.sin(0.41 * (i + seed) ** 2 + 1.7 * frame * (column + 1) + column)
        for k in range(0 if i % 3 == 1 else 1 + (i + seed) % 4):
            c = (i + 2 * k + seed) % num_heard
            onset = round(0.2 + 0.73 * ((4 * i + 7 * k + seed) % 6), 3)
            offset = round(onset + 0.3 + 0.37 * ((i + 5 * k) % 4), 3)
            is_heard = (edges[1:] > onset) & (edges[:-1] < offset)
            scores[is_heard, c] += 0.5
            scores[is_heard, (c + 1) % num_labels] += 0.3 * ((i + k) % 2)
            segments.append(Segment(clip, labels[c], onset, offset))
        frame_scores[clip], clip_seconds[clip] = FrameScores(scores.round(1), edges), seconds
    return frame_scores, segments, labels, clip_seconds
