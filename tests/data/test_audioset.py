from itertools import pairwise

import pytest

from hf_audiolang.data.audioset import audioset_classes, audioset_names


def test_the_list_is_complete_and_each_class_is_there_once():
    rows = audioset_classes()
    assert len(rows) == 527
    assert [row.index for row in rows] == list(range(527))
    assert len({row.mid for row in rows}) == 527
    assert len({row.display_name for row in rows}) == 527
    assert all(row.mid.startswith(("/m/", "/t/", "/g/")) for row in rows)
    known = {
        0: ("/m/09x0r", "Speech"),
        72: ("/m/0jbk", "Animal"),
        137: ("/m/04rlf", "Music"),
        345: ("/m/08j51y", "Dental drill, dentist's drill"),
        500: ("/m/028v0c", "Silence"),
        526: ("/m/07hvw1", "Field recording"),
    }
    assert {index: (rows[index].mid, rows[index].display_name) for index in known} == known


def test_the_order_by_class_id_is_that_of_sorted_texts():
    ids = [row.mid for row in audioset_classes("mid")]
    assert ids[:3] == ["/g/122z_qxw", "/m/011k_j", "/m/01280g"]  # digits before `_`, which is before small letters
    assert ids[-1] == "/t/dd00136"
    assert all(before < after for before, after in pairwise(ids))
    assert audioset_names()["/g/122z_qxw"] == "Firecracker"
    assert len(audioset_names()) == 527


def test_another_order_is_refused():
    with pytest.raises(ValueError, match=r"Unknown `order` 'name'\. Choose one of \['index', 'mid'\]"):
        audioset_classes("name")
