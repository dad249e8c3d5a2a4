"""Texts: their forms, their splits, and what is wrong with them."""

import json
from pathlib import Path

import pytest
from forms import SHARED, real, refused, text_folder

from nas_nb.text import load_text

pytestmark = pytest.mark.usefixtures("roots")


def test_text(tmp_path, roots):
    text_folder(roots[0] / "ptb", train="b a b\n\nc c b\n", valid="a d <unk>\n", test="c\n")
    t = load_text("ptb")
    assert t.name == "Penn Treebank" and t.vocab == ("<eos>", "b", "c", "a", "<unk>")
    words = {s: [t.vocab[i] for i in v] for s, v in t.splits.items()}
    assert (
        words["train"] == "b a b <eos> <eos> c c b <eos>".split()
        and words["valid"] == "a <unk> <unk> <eos>".split()
        and words["test"] == ["c", "<eos>"]
    )
    chars = load_text("ptb", level="char")
    assert (
        "".join(chars.vocab[i] for i in chars.splits["train"]) == "b a b\n\nc c b\n" and chars.hash != t.hash
    )
    assert chars.vocab[-1] == "<unk>" and "d" not in chars.vocab
    assert load_text(roots[0] / "ptb").hash == t.hash
    (roots[0] / "ptb" / "test.txt").write_text("b\n")
    assert load_text("ptb").hash != t.hash
    json.dumps(t.about)
    (roots[0] / "ptb" / "train.txt").write_text("<unk> a <unk>\n")
    assert load_text("ptb").vocab == (
        "<unk>",
        "<eos>",
        "a",
    )  # a text that has its own <unk> gets no second one


def test_text_without_a_training_part(roots):
    lines = [f"w{i}" for i in range(20)]
    text_folder(roots[0] / "wikitext-2", valid="\n".join(lines) + "\n", test="w1\n")
    t = load_text("wikitext-2")
    assert t.name == "WikiText-2 (trained on its validation part)" and t.about["source"] == [
        "valid.txt",
        "test.txt",
    ]
    assert [len(v) for v in t.splits.values()] == [36, 4, 2] and t.vocab[t.splits["train"][0]] == "w0"


def test_text_of_one_file(tmp_path, roots):
    (tmp_path / "book.txt").write_bytes("\ufeff".encode() + b"".join(b"%d x\r\n" % i for i in range(10)))
    t = load_text(tmp_path / "book.txt")
    assert (
        t.name == "book"
        and [len(v) for v in t.splits.values()] == [24, 3, 3]
        and t.vocab[t.splits["train"][0]] == "0"
    )
    assert "hash" in load_text().about and load_text().about["form"].startswith("embedded in Python 3.")


def test_bad_text(tmp_path, roots):
    bad = {
        b"\xff\xfe\x00a\n" * 20: "is not UTF-8 .* save it as UTF-8",
        b"": "has no text for",
        b"one line\n": "has no text",
        b"\n" * 50: "no text",
    }
    for content, match in bad.items():
        (tmp_path / "a.txt").write_bytes(content)
        assert "a.txt" in refused(match, load_text, tmp_path / "a.txt")
    refused("no text ptb in .*: it needs", load_text, "ptb")
    refused("lacks train.txt", load_text, text_folder(tmp_path / "half", valid="a\n"))
    refused("no level", load_text, level="sentence")
    (tmp_path / "loop.txt").symlink_to(tmp_path / "loop.txt")
    refused("it needs|cannot be read", load_text, tmp_path / "loop.txt")


@real
@pytest.mark.parametrize("name", ["ptb", "wikitext-2"])
def test_real_text(monkeypatch, name):
    monkeypatch.setenv("NAS_NB_DATA", SHARED)
    if not (Path(SHARED) / name).exists():
        pytest.skip(f"no {name} there")
    t = load_text(name)
    assert len(t.splits["train"]) > 60_000 and t.vocab[0] in ("the", "<eos>", "<unk>")
