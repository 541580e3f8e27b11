import pytest
from transformers import AutoTokenizer

from hf_audiolang.training.tokenizer import PROMPT_WORDS, load_tokenizer, train_tokenizer

CAPTIONS = [
    "A dog barks twice, then a siren wails.",
    "a siren wails while a dog barks",
    "An electronic beep is followed by a knock; the knock repeats.",
    "an electronic beep, then a dog barks",
] * 3


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(CAPTIONS)


def test_special_tokens_have_modernberts_names_and_frame_the_text(tokenizer):
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("a dog barks").input_ids)
    assert pieces == ["[CLS]", "Ġa", "Ġdog", "Ġbarks", "[SEP]"]
    assert tokenizer.special_tokens_map == {
        "unk_token": "[UNK]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
    }
    assert tokenizer.model_max_length == 128


def test_case_does_not_matter(tokenizer):
    assert tokenizer("A DOG Barks").input_ids == tokenizer("a dog barks").input_ids


@pytest.mark.parametrize("text", ["a dog barks", "ein großer hund bellt", "狗在叫 🐕", "tab\tand  spaces", "[cls] x"])
def test_every_text_survives_the_round_trip(tokenizer, text):
    ids = tokenizer(text).input_ids
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip() == text


def test_prompt_words_are_single_tokens_even_if_no_caption_has_them(tokenizer):
    assert len(tokenizer.tokenize(PROMPT_WORDS)) == len(PROMPT_WORDS.split())
    assert len(tokenizer.tokenize("xylophonist")) > 1  # control: an unseen word is not


def test_a_batch_is_padded_on_the_right_and_masked(tokenizer):
    batch = tokenizer(["a dog", "a dog barks twice"], padding=True, return_tensors="pt")
    assert set(batch) == {"input_ids", "attention_mask"}
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 0, 0], [1] * 6]
    assert (batch["input_ids"][0, 4:] == tokenizer.pad_token_id).all()


def test_truncation_keeps_the_closing_token(tokenizer):
    ids = tokenizer("a dog barks twice then a siren wails", truncation=True, max_length=5).input_ids
    assert len(ids) == 5
    assert ids[-1] == tokenizer.sep_token_id


def test_the_same_captions_in_any_order_give_the_same_tokenizer(tokenizer):
    again = train_tokenizer(reversed(CAPTIONS))
    assert again.get_vocab() == tokenizer.get_vocab()
    assert again("a siren wails, a knock").input_ids == tokenizer("a siren wails, a knock").input_ids


def test_saved_and_loaded_it_gives_the_same_ids(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    for loaded in (AutoTokenizer.from_pretrained(tmp_path), load_tokenizer(str(tmp_path))):
        assert loaded("A dog, then a SIREN").input_ids == tokenizer("A dog, then a SIREN").input_ids
        assert loaded.model_max_length == 128
        assert len(loaded) == len(tokenizer)


def test_the_vocabulary_keeps_its_limit():
    small = train_tokenizer(CAPTIONS, vocab_size=270)
    assert len(small) == 270
    assert len(train_tokenizer(CAPTIONS)) > 270


def test_bad_input_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`captions` holds 0 texts"):
        train_tokenizer(["", "  "])
    with pytest.raises(ValueError, match="`vocab_size` is 100, below the 261"):
        train_tokenizer(CAPTIONS, vocab_size=100)
    with pytest.raises(OSError, match=r"neither a folder with a tokenizer nor reachable on the Hub.*tokenizer: train"):
        load_tokenizer(str(tmp_path))
