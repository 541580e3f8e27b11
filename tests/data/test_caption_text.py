"""Caption cleaning on the examples of the MGA-CLAP authors' code."""

import pytest

from hf_audiolang.data.caption_text import clean_caption, clean_captions


@pytest.mark.parametrize(
    ("caption", "wanted"),
    [
        ("A dog barks, then a man speaks.", "a dog barks then a man speaks "),
        ("it's 5:30; ok?", "it's 5 30 ok "),
        ("A Siren (far) | rain * wind", "a siren far  rain  wind"),  # single spaces once only: triples leave two
        ('he says "stop" !', "he says stop "),
        ("? ! .", "  "),
        ("a-b_c", "a-b_c"),
        ("", ""),
    ],
)
def test_punctuation_becomes_space(caption, wanted):
    assert clean_caption(caption) == wanted


def test_a_caption_of_punctuation_alone_stays():
    assert clean_captions(["A dog.", "..."]) == ["a dog ", "..."]
