"""Prompts as the networks' token numbers."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from fergi.files import FergiError, require
from fergi.scorers.interface import offline_import
from fergi.weights import BERT_VOCABULARY


@cache
def _clip_tokenizer() -> Any:
    with offline_import():
        from open_clip.tokenizer import SimpleTokenizer
    return SimpleTokenizer()


def clip_tokens(prompts: Sequence[str], length: int) -> Tensor:
    """Token numbers of CLIP's vocabulary, which open_clip brings along; shape (n, length).

    Start token, text, end token, zeros. A text that is too long loses its end, and the last token is the end token.
    These networks read from left to right up to the end token, so the tokens behind it do not matter.
    """
    return _clip_tokenizer()(list(prompts), context_length=length)


def bert_tokenizer(root: Path, vocabulary_size: int) -> Any:
    """The tokenizer of BLIP: BERT's vocabulary, which lies below ``root``, and two tokens of its own behind it.

    ``vocabulary_size`` counts the tokens that the network knows, the two included.

    Raises
    ------
    FergiError
        If the vocabulary is missing or has another size: each number would stand for another word.
    """
    path = BERT_VOCABULARY.under(root)
    require([path], "vocabulary", BERT_VOCABULARY.advice)
    with offline_import():
        from transformers import BertTokenizer
    try:
        tokenizer = BertTokenizer(vocab_file=str(path), do_lower_case=True)
    except UnicodeDecodeError as error:
        raise FergiError(f"{path} is not a text file with one token a line. {BERT_VOCABULARY.advice}") from error
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    tokenizer.add_special_tokens({"additional_special_tokens": ["[ENC]"]})
    missing = [token for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]") if token not in tokenizer.vocab]
    if missing or len(tokenizer) != vocabulary_size:
        lack = f"lacks {missing[0]}" if missing else f"has {len(tokenizer) - 2} tokens, not {vocabulary_size - 2}"
        raise FergiError(f"{path} is not the vocabulary of this network: it {lack}. {BERT_VOCABULARY.advice}")
    return tokenizer
