"""Data: every form and every way in which it can be broken, splits, batches, downloads.

Batches are compared with a slow reference, and files are downloaded from a server on this machine.
"""

import gzip
import hashlib
import http.server
import io
import json
import lzma
import os
import pickle
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import threading
import time
import warnings
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import nas_nb.batches as batches_py
import nas_nb.core as core
import nas_nb.datasets as datasets_py
import nas_nb.formats as formats_py
import nas_nb.images as images_py
from nas_nb import jobs
from nas_nb.batches import Augment, Batches, eval_batches, few_labels, noisy_labels, resize, split
from nas_nb.datasets import add_data, get_data, list_data, load_images, verify_data
from nas_nb.images import DataError, Images, data_roots
from nas_nb.text import load_text

SHARED, OWN_ROOT = os.environ.get("NAS_NB_DATA"), images_py._own_root
settings.register_profile("data", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("data")
CHECKED = settings.get_profile("data")


@pytest.fixture(autouse=True)
def roots(tmp_path, monkeypatch):
    "Two empty roots instead of the real ones: NAS_NB_DATA, and that of the checkout with the cache."
    (tmp_path / "given").mkdir()
    monkeypatch.setenv("NAS_NB_DATA", str(tmp_path / "given"))
    monkeypatch.setattr(images_py, "_own_root", lambda: tmp_path / "own")
    monkeypatch.setenv("IN_TEST", "1")
    return tmp_path / "given", tmp_path / "own"


def some(n=120, k=4, shape=(1, 6, 6), seed=0):
    "Random images; labels in unequal numbers."
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(k, (n,), generator=g) * torch.randint(2, (n,), generator=g)
    y[:k] = torch.arange(k)
    return Images(torch.randint(256, (n, *shape), generator=g).to(torch.uint8), y, tuple(map(str, range(k))))


def refused(match, f, *args, **kwargs):
    "That it ends as a `DataError` of one line that matches."
    with pytest.raises(DataError, match=match) as e:
        f(*args, **kwargs)
    assert "\n" not in str(e.value)
    return str(e.value)


# -- making data sets --

rng = np.random.default_rng(0)
X = {s: rng.integers(0, 256, (n, 5, 4, 3), dtype=np.uint8) for s, n in (("train", 6), ("test", 4))}
Y = dict(train=np.array([0, 1, 2, 0, 1, 2]), test=np.array([2, 1, 0, 0]))
CLASSES = ("ant", "bee", "cat")


def encoded(a, kind="png", **how):
    f = io.BytesIO()
    (a if isinstance(a, Image.Image) else Image.fromarray(a)).save(f, kind, **how)
    return f.getvalue()


def files(kind="png", splits=("train", "test")):
    "name -> bytes of an image folder"
    return {
        f"{s}/{CLASSES[c]}/{i}.{kind}": encoded(x, dict(jpg="jpeg").get(kind, kind))
        for s in splits
        for i, (x, c) in enumerate(zip(X[s], Y[s]))
    }


def folder(path, content):
    for name, data in content.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def archive(path, content, top=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as z:
            for name, data in content.items():
                z.writestr(top + name, data)
    else:
        with tarfile.open(path, "w:" + {".gz": "gz", ".tgz": "gz", ".xz": "xz"}.get(path.suffix, "")) as t:
            for name, data in content.items():
                info = tarfile.TarInfo(top + name)
                info.size = len(data)
                t.addfile(info, io.BytesIO(data))
    return path


def npz(path, **changes):
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = dict(x_train=X["train"], y_train=Y["train"], x_test=X["test"], y_test=Y["test"]) | changes
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    return path


def idx_bytes(a):
    return bytes([0, 0, 8, a.ndim]) + struct.pack(f">{a.ndim}I", *a.shape) + a.astype(np.uint8).tobytes()


def idx(path, suffix="", **changes):
    path.mkdir(parents=True, exist_ok=True)
    arrays = {
        "train-images-idx3": X["train"][..., 0],
        "train-labels-idx1": Y["train"],
        "t10k-images-idx3": X["test"][..., 0],
        "t10k-labels-idx1": Y["test"],
    }
    for name, a in arrays.items():
        data = idx_bytes(a)
        (path / f"{name}-ubyte{suffix}").write_bytes(gzip.compress(data, mtime=0) if suffix else data)
    return path


def same(data, colour=True, classes=CLASSES):
    for s in ("train", "test"):
        want = torch.from_numpy(X[s].transpose(0, 3, 1, 2) if colour else X[s][..., 0][:, None])
        assert torch.equal(data.splits[s].x, want) and data.splits[s].x.is_contiguous()
        assert data.splits[s].y.tolist() == Y[s].tolist() and data.splits[s].y.dtype == torch.int64
    assert data.train.classes == classes
    return True


# -- the forms --

ALL_ARCHIVES = [".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz"]


def test_digits():
    d = load_images()
    assert (
        d.name == "digits"
        and d.train.shape == (1, 8, 8)
        and len(d.train) + len(d.test) == 1797
        and d.train.x.max() == 255
    )
    shares = np.array(d.test.counts()) / (np.array(d.test.counts()) + d.train.counts())
    assert abs(shares - 0.25).max() < 0.01
    x = d.train.x.double() / 255
    assert abs(x.mean() - d.mean[0]) < 1e-6 and abs(x.std(correction=0) - d.std[0]) < 1e-6
    assert d.hash == load_images().hash and len(d.hash) == 16
    json.dumps(d.about)


def test_one_hash_for_all_forms(tmp_path):
    made = [load_images(folder(tmp_path / "f", files()))]
    made += [load_images(archive(tmp_path / f"a{s}", files())) for s in ALL_ARCHIVES]
    made += [load_images(archive(tmp_path / f"top{s}", files(), top="./some-folder/")) for s in ALL_ARCHIVES]
    for s in ALL_ARCHIVES[:2]:
        for part in ("train", "test"):
            content = {
                n.removeprefix(f"{part}/") if s == ".zip" else n: b
                for n, b in files().items()
                if n.startswith(part)
            }
            archive(tmp_path / f"parts{s}" / f"{part}{s}", content)
        made.append(load_images(tmp_path / f"parts{s}"))
    assert len(made) == 13 and all(same(d) for d in made)
    assert len({d.hash for d in made}) == 1
    forms = [
        "image folder",
        "zip, one for each split",
        "tar, one for each split",
        *(s[1:] for s in ALL_ARCHIVES),
    ]
    assert {d.about["form"] for d in made} == {f"{f} (PNG)" for f in forms}
    numbers = [
        load_images(npz(tmp_path / "n.npz")),
        load_images(npz(tmp_path / "c.npz", x_train=X["train"].transpose(0, 3, 1, 2))),
    ]
    assert (
        all(same(d, classes=("0", "1", "2")) for d in numbers)
        and numbers[0].hash == numbers[1].hash != made[0].hash
    )
    grey = [load_images(idx(tmp_path / "i")), load_images(idx(tmp_path / "g", ".gz"))]
    grey.append(load_images(npz(tmp_path / "grey.npz", x_train=X["train"][..., 0], x_test=X["test"][..., 0])))
    assert all(same(d, False, ("0", "1", "2")) for d in grey) and len({d.hash for d in grey}) == 1


@pytest.mark.parametrize("change", ["pixel", "label", "class", "order", "valid"])
def test_the_hash_sees(tmp_path, change):
    arrays = dict(x_train=X["train"].copy(), y_train=Y["train"].copy())
    before = load_images(npz(tmp_path / "a.npz")).hash
    if change == "class":
        content = {n.replace("cat", "dog"): b for n, b in files().items()}
        before, after = (
            load_images(folder(tmp_path / "f", files())).hash,
            load_images(folder(tmp_path / "g", content)).hash,
        )
    else:
        if change == "pixel":
            arrays["x_train"][3, 2, 1, 0] ^= 1
        if change == "label":
            arrays["y_train"][0] = 1
        if change == "order":
            arrays = {k: v[[3, 1, 2, 0, 4, 5]] for k, v in arrays.items()}
        if change == "valid":
            arrays |= dict(x_valid=X["test"], y_valid=Y["test"])
        after = load_images(npz(tmp_path / "b.npz", **arrays)).hash
    assert before != after


def test_order_and_classes(tmp_path):
    "Numbers count as numbers, and the order of the file names is that of the images whatever their class."
    pixel = lambda v: encoded(np.full((2, 2), v, np.uint8))
    content = {
        f"{s}/{c}/{i}.png": pixel(i)
        for s in ("train", "val")
        for c, i in (("10", 9), ("9", 10), ("9", 100), ("10", 11))
    }
    d = load_images(folder(tmp_path / "f", content | {"test/9/3.png": pixel(3)}))
    assert (
        d.train.classes == ("9", "10")
        and d.train.x[:, 0, 0, 0].tolist() == [9, 10, 11, 100]
        and d.train.y.tolist() == [1, 0, 1, 0]
    )
    assert list(d.splits) == ["train", "test", "valid"] and d.test.counts() == [1, 0]


NAMES = [
    ["①②", "²", "10²", "9²"],
    ["٣", "１", "v2"],
    ["é", "naïve"],
    ["日本", "ü1", "ü10", "ü9"],
    ["a b", "a  b", "A", "a\\b"],
]


@pytest.mark.parametrize("names", NAMES)
def test_classes_of_any_name(tmp_path, names):
    "Names in other scripts, with spaces: the same classes in each form, numbered like their names."
    content = {
        f"{s}/{c}/1.png": encoded(np.full((2, 2), i, np.uint8))
        for s in ("train", "test")
        for i, c in enumerate(names)
    }
    made = [load_images(folder(tmp_path / "f", content)), load_images(archive(tmp_path / "a.tar", content))]
    made += (
        [load_images(archive(tmp_path / "a.zip", content))] if "a\\b" not in names else []
    )  # in a zip it is a folder
    want = {c: i for i, c in enumerate(names)}
    for d in made:
        assert (
            sorted(d.train.classes) == sorted(names)
            and [want[d.train.classes[y]] for y in d.train.y] == d.train.x[:, 0, 0, 0].tolist()
        )
    assert len({d.hash for d in made}) == 1
    assert [c for c in made[0].train.classes if c[0] == "ü"] == ["ü1", "ü9", "ü10"][: 3 * ("ü1" in names)]


def test_one_class_in_two_spellings(tmp_path):
    "macOS takes é apart, others do not; the composed form counts."
    apart, one = "cafe\u0301", "caf\u00e9"
    pixel = lambda v: encoded(np.full((2, 2), v, np.uint8))
    content = {
        f"train/{apart}/1.png": pixel(1),
        f"test/{one}/1.png": pixel(2),
        f"train/{one}/2.png": pixel(3),
    }
    made = [
        load_images(folder(tmp_path / "f", content)),
        *(load_images(archive(tmp_path / f"a{s}", content)) for s in ALL_ARCHIVES),
    ]
    assert (
        all(d.train.classes == (one,) and len(d.train) == 2 for d in made)
        and len({d.hash for d in made}) == 1
    )
    refused(
        "two files of the same name",
        load_images,
        folder(tmp_path / "g", content | {f"train/{one}/1.png": pixel(4)}),
    )


def test_zips_with_backslashes(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as z:
        for name in ("train\\", "train\\ant\\", "test\\"):
            z.writestr(name, b"")
        for name, data in files().items():
            z.writestr(name.replace("/", "\\"), data)
    assert same(load_images(path))
    for name in ("..\\train\\ant\\9.png", "\\train\\ant\\9.png"):
        with zipfile.ZipFile(path, "w") as z:
            z.writestr(name, PNG)
        refused("leads out of it", load_images, path)


def test_a_zip_whose_list_names_a_file_like_a_folder(tmp_path):
    "A NUL ends a name: the file would be taken for a folder, and be missing without a word."
    path = archive(tmp_path / "a.zip", files())
    whole = path.read_bytes()
    at = whole.rindex(b"test/ant/2.png")
    path.write_bytes(whole[: at + 5] + b"\0" + whole[at + 6 :])
    refused("cannot be read .BadZipFile", load_images, path)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_with_a_dot(tmp_path, roots, suffix, monkeypatch):
    f = idx(tmp_path / "i", suffix)
    want = load_images(f).hash
    official_mnist(roots[0] / "MNIST" / "raw", monkeypatch, suffix)
    for path in [*f.iterdir(), *(roots[0] / "MNIST" / "raw").iterdir()]:
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    assert load_images(f).hash == want == load_images("mnist").hash and load_images("mnist").name == "MNIST"
    path = f / f"t10k-labels.idx1-ubyte{suffix}"
    path.unlink()
    refused("lacks t10k-labels-idx1-ubyte", load_images, f)
    raw = roots[0] / "MNIST" / "raw" / path.name
    raw.write_bytes((gzip.compress if suffix else bytes)(idx_bytes(1 - Y["test"] % 2)))
    refused("is not MNIST's", load_images, "mnist")


LITTER = [
    ".DS_Store",
    "._0.png",
    "Thumbs.db",
    "THUMBS.DB",
    "thumbs.db",
    "ehthumbs.db",
    "EhThumbs_Vista.db",
    "Desktop.ini",
    "desktop.ini",
    "Icon\r",
]


@pytest.mark.parametrize("where", ["", "train/", "train/ant/"])
def test_what_systems_leave_behind(tmp_path, where):
    junk = {where + name: b"x" for name in LITTER}
    junk |= {
        f"{where}{top}/{inside}": b"x"
        for top in ("@eaDir", "@EADIR", "__MACOSX", "$RECYCLE.BIN", "#recycle")
        for inside in ("a", "ant/0.png")
    }
    made = [
        load_images(folder(tmp_path / "f", files() | junk)),
        load_images(archive(tmp_path / "a.zip", files() | junk)),
    ]
    assert all(same(d) for d in [*made, load_images(archive(tmp_path / "a.tar", files() | junk))])


def test_modes(tmp_path):
    "Grey stays grey until one file is in colour; palettes, alpha and CMYK become colours."
    grey = Image.fromarray(X["train"][0, :, :, 0])
    colour = Image.fromarray(X["train"][0])
    base = {
        "test/a/1.png": encoded(grey),
        "train/a/1.png": encoded(grey),
        "train/a/2.png": encoded(grey.convert("1")),
    }
    d = load_images(folder(tmp_path / "grey", base))
    assert d.train.shape == (1, 5, 4) and set(d.train.x[1].flatten().tolist()) <= {0, 255}
    more = {"a": colour.convert("P"), "b": colour.convert("RGBA"), "c": grey.convert("LA"), "d": colour}
    d = load_images(
        folder(tmp_path / "all", base | {f"train/a/{k}.png": encoded(v) for k, v in more.items()})
    )
    assert (
        d.train.shape == (3, 5, 4)
        and torch.equal(d.train.x[0, 0], d.train.x[0, 2])
        and torch.equal(d.train.x[0, 0], torch.from_numpy(np.array(grey)))
    )
    assert torch.equal(d.train.x[3], d.train.x[5]) and torch.equal(
        d.train.x[5], torch.from_numpy(X["train"][0].transpose(2, 0, 1))
    )
    cmyk = {
        "test/a/1.jpg": encoded(colour.convert("CMYK"), "jpeg"),
        "train/a/1.gif": encoded(grey, "gif"),
        "train/a/2.webp": encoded(colour, "webp"),
    }
    d = load_images(folder(tmp_path / "cmyk", cmyk))
    assert d.train.shape == (3, 5, 4) and d.about["form"] == "image folder (GIF/JPEG/WEBP)"


# What a person sees: transparency on white, upright. The files are written by hand, bit by bit, so that
# Pillow is not its own judge.


def png(rows, bits, kind, *chunks):
    "A PNG: `rows` of bytes as stored; `kind` 0 grey, 2 colour, 3 palette, 4 and 6 with alpha."
    chunk = lambda name, data: (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    )
    width = len(rows[0]) * 8 // bits // {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    head = struct.pack(">IIBBBBB", width, len(rows), bits, kind, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + bytes(r) for r in rows))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(n, d) for n, d in ((b"IHDR", head), *chunks, (b"IDAT", pixels), (b"IEND", b""))
    )


PALETTE = (b"PLTE", bytes([10, 20, 30, 40, 50, 60, 70, 80, 90, 0, 0, 0]))
W3 = [255, 255, 255]
SEEN = {  # file -> its pixels, one row
    "colour and alpha": (
        png([[9, 8, 7, 255, 9, 8, 7, 0, 0, 0, 0, 51]], 8, 6),
        [[9, 8, 7], W3, [204, 204, 204]],
    ),
    "grey and alpha": (png([[9, 255, 9, 0, 0, 51]], 8, 4), [9, 255, 204]),
    "colour and alpha of 16 bits": (
        png([[9, 0, 8, 0, 7, 0, 255, 255, 9, 0, 8, 0, 7, 0, 0, 0]], 16, 6),
        [[9, 8, 7], W3],
    ),
    "grey and alpha of 16 bits": (png([[9, 0, 255, 255, 9, 0, 0, 0]], 16, 4), [[9, 9, 9], W3]),
    "palette, one entry": (
        png([[0, 1, 2]], 8, 3, PALETTE, (b"tRNS", bytes([255, 0]))),
        [[10, 20, 30], W3, [70, 80, 90]],
    ),
    "palette, many": (png([[0, 1, 2]], 8, 3, PALETTE, (b"tRNS", bytes([0, 255, 0]))), [W3, [40, 50, 60], W3]),
    "palette, half": (
        png([[3, 1, 2]], 8, 3, PALETTE, (b"tRNS", bytes([255, 255, 255, 51]))),
        [[204, 204, 204], [40, 50, 60], [70, 80, 90]],
    ),
    "palette of 2 bits": (
        png([[0b00011011]], 2, 3, PALETTE, (b"tRNS", bytes([255, 0]))),
        [[10, 20, 30], W3, [70, 80, 90], [0, 0, 0]],
    ),
    "one colour": (png([[9, 8, 7, 1, 2, 3]], 8, 2, (b"tRNS", bytes([0, 9, 0, 8, 0, 7]))), [W3, [1, 2, 3]]),
    "one grey": (png([[9, 8, 7]], 8, 0, (b"tRNS", bytes([0, 8]))), [9, 255, 7]),
    "one grey of 4 bits": (png([[0x0A, 0x5F]], 4, 0, (b"tRNS", bytes([0, 5]))), [0, 170, 255, 255]),
    "one grey of 2 bits": (png([[0b00011011]], 2, 0, (b"tRNS", bytes([0, 1]))), [0, 255, 170, 255]),
    "no grey of 2 bits": (png([[0b00011011]], 2, 0, (b"tRNS", bytes([0, 85]))), [0, 85, 170, 255]),
    "black of 1 bit": (png([[0b01010101]], 1, 0, (b"tRNS", bytes([0, 0]))), [255] * 8),
    "white of 1 bit": (png([[0b01010101]], 1, 0, (b"tRNS", bytes([0, 1]))), [0, 255] * 4),
    "colour of 16 bits": (png([[9, 1, 8, 2, 7, 3]], 16, 2), [[9, 8, 7]]),
}


def decoded(content):
    return formats_py._decode(("train", "a", "1", "it", content))[1].tolist()


@pytest.mark.parametrize("case", SEEN)
def test_transparency_is_white(case):
    content, want = SEEN[case]
    assert decoded(content) == [want]


def test_transparency_of_other_formats():
    clear = Image.fromarray(np.array([[[9, 8, 7, 255], [9, 8, 7, 0], [0, 0, 0, 51]]], np.uint8))
    want = [[[9, 8, 7], W3, [204, 204, 204]]]
    assert (
        decoded(encoded(clear, "webp", lossless=True, exact=True)) == decoded(encoded(clear, "tiff")) == want
    )
    palette = Image.new("P", (3, 1))
    palette.putdata([0, 1, 2])
    palette.putpalette([*PALETTE[1]])
    assert decoded(encoded(palette, "gif", transparency=1)) == [[[10, 20, 30], W3, [70, 80, 90]]]
    assert decoded(encoded(palette, "gif")) == [[[10, 20, 30], [40, 50, 60], [70, 80, 90]]]
    assert decoded(encoded(Image.fromarray(np.array([[9, 8]], np.uint8)), "gif", transparency=8)) in (
        [[9, 255]],
        [[[9, 9, 9], W3]],
    )
    multiplied = encoded(
        Image.fromarray(np.array([[[9, 8, 7, 255], [0, 0, 0, 0], [40, 40, 40, 51]]], np.uint8)), "tiff"
    )
    kind = struct.pack(
        "<HHI", 338, 3, 1
    )  # the tag that says what the fourth number is: 2 alpha, 1 alpha that the colours are multiplied with
    assert multiplied.count(kind + b"\2") == 1
    seen = decoded(multiplied.replace(kind + b"\2", kind + b"\1"))
    assert seen[0][:2] == [[9, 8, 7], W3] and max(abs(v - 244) for v in seen[0][2]) <= 1


VISUAL = np.arange(1, 61, dtype=np.uint8).reshape(4, 5, 3)  # as it should be seen


def stored_as(visual, orientation):
    "By the table of the EXIF standard: at which side of the picture the stored row 0 and column 0 lie."
    sides = "top left, top right, bottom right, bottom left"
    sides += ", left top, right top, right bottom, left bottom"
    row, column = sides.split(", ")[orientation - 1].split()
    if row in ("left", "right"):
        visual = visual.transpose(1, 0, 2)
    return np.ascontiguousarray(
        visual[:: -1 if row in ("bottom", "right") else 1, :: -1 if column in ("bottom", "right") else 1]
    )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = stored_as(VISUAL, orientation)
    for kind, how in (("png", {}), ("webp", dict(lossless=True)), ("tiff", {})):
        assert decoded(encoded(turned, kind, exif=exif, **how)) == VISUAL.tolist()
    assert decoded(encoded(Image.fromarray(turned).convert("RGBA"), "png", exif=exif)) == VISUAL.tolist()
    flat = np.kron(np.array([[40, 200], [90, 140]], np.uint8), np.ones((8, 16), np.uint8))[..., None].repeat(
        3, 2
    )
    seen = np.array(decoded(encoded(stored_as(flat, orientation), "jpeg", quality=95, exif=exif)), int)
    assert seen.shape == flat.shape and abs(seen - flat).max() < 12
    grey = Image.fromarray(stored_as(flat, orientation)[..., 0])
    assert (
        load_images(
            folder(tmp_path / "f", {f"{s}/a/1.png": encoded(grey, exif=exif) for s in ("train", "test")})
        )
        .train.x[0, 0]
        .tolist()
        == flat[..., 0].tolist()
    )


def test_an_orientation_that_cannot_be_read(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = encoded(VISUAL, "jpeg", exif=exif)
    at = whole.index(b"MM\0*") + 8
    assert whole[at : at + 2] == b"\0\1"  # the number of entries
    content = {f"{s}/a/1.jpg": whole[:at] + b"\0\3" + whole[at + 2 :] for s in ("train", "test")}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert "train/a/1.jpg" in refused(
            "cannot be read .UserWarning: (Corrupt EXIF|Truncated)",
            load_images,
            folder(tmp_path / "f", content),
        )
    assert told == []


def test_an_orientation_that_is_none_is_left():
    for value in (0, 9, 255):
        exif = Image.Exif()
        exif[0x0112] = value
        assert decoded(encoded(VISUAL, exif=exif)) == VISUAL.tolist()


MOVING = dict(save_all=True, append_images=[Image.fromarray(VISUAL[::-1].copy())])
NOT_ONE_PICTURE = {
    "gif": (encoded(VISUAL, "gif", **MOVING), "several pictures"),
    "webp": (encoded(VISUAL, "webp", **MOVING), "several pictures"),
    "animated png": (encoded(VISUAL, "png", **MOVING), "several pictures"),
    "pages": (encoded(VISUAL, "tiff", **MOVING), "several pictures"),
    "16 bits": (encoded(Image.fromarray(np.zeros((5, 4), np.uint16))), "more than 8 bits"),
    "16 bits, one grey transparent": (
        png([[1, 2, 3, 4]], 16, 0, (b"tRNS", bytes([1, 2]))),
        "more than 8 bits",
    ),
    "16 bits, one colour transparent": (
        png([[1, 2, 3, 4, 5, 6]], 16, 2, (b"tRNS", bytes([1, 2, 3, 4, 5, 6]))),
        "more than 8 bits",
    ),
    "float": (encoded(Image.fromarray(np.zeros((5, 4), np.float32)), "tiff"), "more than 8 bits"),
    "another format": (encoded(VISUAL, "tga"), "cannot identify"),
    "postscript": (encoded(VISUAL, "eps"), "cannot identify"),
}


@pytest.mark.parametrize("case", NOT_ONE_PICTURE)
def test_what_is_not_one_picture(case):
    content, match = NOT_ONE_PICTURE[case]
    assert refused(match, decoded, content).startswith("it ")


CUT = {
    "png": {},
    "jpeg": {},
    "jpeg progressive": dict(progressive=True),
    "gif": {},
    "webp": {},
    "webp lossless": dict(lossless=True),
    "bmp": {},
}
CUT |= {
    "ppm": {},
    "tiff": {},
    "tiff lzw": dict(compression="tiff_lzw"),
    "tiff deflate": dict(compression="tiff_adobe_deflate"),
}


@pytest.mark.parametrize("kind", CUT)
def test_an_image_that_is_cut_off(kind):
    "At every byte, in every format: refused, or nothing that counts is missing."
    whole = encoded(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8), kind.split()[0], **CUT[kind])
    want = decoded(whole)
    for at in range(len(whole)):
        with suppress(DataError):
            assert decoded(whole[:at]) == want, at


def test_a_photograph_with_a_preview():
    assert np.array(decoded(encoded(VISUAL, "mpo", **MOVING))).shape == VISUAL.shape


def test_what_is_ignored(tmp_path):
    junk = {
        ".DS_Store": b"x",
        "train/.DS_Store": b"x",
        "train/ant/Thumbs.db": b"x",
        "README.md": b"x",
        "__MACOSX/train/ant/._0.png": b"x",
    }
    assert same(load_images(folder(tmp_path / "f", files() | junk)))
    assert same(load_images(archive(tmp_path / "a.zip", files() | junk)))
    assert same(
        load_images(
            archive(tmp_path / "b.tar", {f"top/{n}": b for n, b in files().items()} | {"top/LICENSE": b"x"})
        )
    )


# -- what is refused --

BAD_ARRAYS = {
    "float": (dict(x_train=X["train"] / 255), "float64, not uint8: store"),
    "nan": (dict(x_train=np.full((6, 5, 4, 3), np.nan, np.float32)), "float32, not uint8"),
    "object": (dict(x_train=np.array([None] * 6)), "allow_pickle|Object arrays"),
    "int64": (dict(x_train=X["train"].astype(np.int64)), "int64, not uint8"),
    "float labels": (dict(y_train=Y["train"] / 1), "y_train is float64"),
    "one-hot": (dict(y_train=np.eye(3, dtype=int)[Y["train"]]), r"y_train is int64 of shape \(6, 3\)"),
    "label missing": (dict(y_train=Y["train"][:5]), "6 images and 5 labels"),
    "negative": (dict(y_test=Y["test"] - 1), "-1 to 1: they must be 0 to 2"),
    "new class in test": (dict(y_test=Y["test"] + 1), "1 to 3: they must be 0 to 2"),
    "huge label": (dict(y_train=Y["train"] + 2**60), "without gaps"),
    "a class for each": (
        dict(x_train=np.zeros((70_000, 1, 1), np.uint8), y_train=np.arange(70_000)),
        "has 70,000 classes, 65,536 at most",
    ),
    "gap": (dict(y_train=np.array([0, 3, 2, 0, 3, 2])), "class 1 has no training images"),
    "no images": (dict(x_test=X["test"][:0], y_test=Y["test"][:0]), "test has no pixels"),
    "no training images": (dict(x_train=X["train"][:0], y_train=Y["train"][:0]), "train has no pixels"),
    "no pixels": (dict(x_train=X["train"][:, :0]), "train has no pixels"),
    "other size": (dict(x_test=X["test"][:, :3]), "give all the same"),
    "four channels": (dict(x_train=np.zeros((6, 5, 4, 4), np.uint8)), r"shape \(6, 5, 4, 4\)"),
    "flat": (dict(x_train=X["train"].reshape(6, -1)), r"shape \(6, 60\)"),
    "scalar label": (dict(y_train=np.array(3)), "cannot be read"),
    "no test": (dict(x_test=None, y_test=None), "lacks x_test"),
    "half of valid": (dict(x_valid=X["test"]), "lacks y_valid"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays(tmp_path, case):
    changes, match = BAD_ARRAYS[case]
    assert str(tmp_path / "a.npz") in refused(match, load_images, npz(tmp_path / "a.npz", **changes))


def test_nothing_that_records_hash_depends_on_the_hash_seed():
    "A set is shown in another order in each process, and what functions use counts for the hash of the code."
    modules = batches_py, datasets_py, formats_py, images_py
    assert [k for m in modules for k, v in vars(m).items() if isinstance(v, (set, frozenset))] == []


def test_labels_of_any_integer_kind(tmp_path):
    assert same(
        load_images(
            npz(
                tmp_path / "a.npz",
                y_train=Y["train"].astype(np.uint8)[:, None],
                y_test=Y["test"].astype(np.uint64),
            )
        ),
        classes=("0", "1", "2"),
    )


PNG, GREY16 = encoded(X["train"][0]), encoded(Image.fromarray(np.zeros((5, 4), np.uint16)))
BAD_FOLDERS = {
    "no train": ({f"test/ant/{i}.png": PNG for i in range(2)}, "class 'ant' has no training images"),
    "no test": ({"train/ant/1.png": PNG}, "has no split 'test'"),
    "nothing": ({"README": b""}, "holds no <split>/<class>/<image>"),
    "two validations": (files() | {"val/ant/1.png": PNG, "valid/ant/1.png": PNG}, "val and valid"),
    "class in test only": (files() | {"test/dog/9.png": PNG}, "class 'dog' has no training images"),
    "no split": (files() | {"extra/ant/1.png": PNG}, "'extra' is no split"),
    "no class": (files() | {"train/1.png": PNG}, "is not where an image is expected"),
    "too deep": (files() | {"train/ant/more/1.png": PNG}, "is not where an image is expected"),
    "not an image": (
        files() | {"train/ant/notes.txt": b"hello"},
        r"train/ant/notes.txt cannot be read \(UnidentifiedImageError",
    ),
    "empty file": (files() | {"train/ant/9.png": b""}, "train/ant/9.png cannot be read"),
    "cut png": (files() | {"train/ant/9.png": PNG[:-60]}, "train/ant/9.png cannot be read"),
    "cut jpeg": (
        files() | {"train/ant/9.jpg": encoded(X["train"][0], "jpeg")[:-20]},
        "train/ant/9.jpg cannot be read",
    ),
    "16 bits": (files() | {"train/ant/9.png": GREY16}, "more than 8 bits"),
    "other size": (
        files() | {"train/ant/9.png": encoded(np.zeros((9, 9), np.uint8))},
        "train/ant/9.png has 9 × 9 pixels, others have 4 × 5",
    ),
    "enormous": (
        files() | {"train/ant/9.png": encoded(Image.new("1", (5000, 5000)))},
        "has 5000 × 5000 pixels: make it smaller",
    ),
}


@pytest.mark.parametrize("form", ["folder", ".zip", ".tar.xz"])
@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_bad_folders(tmp_path, case, form):
    content, match = BAD_FOLDERS[case]
    path = folder(tmp_path / "f", content) if form == "folder" else archive(tmp_path / f"f{form}", content)
    told = refused(match, load_images, path)
    assert str(path) in told and "object at 0x" not in told


def test_bad_parts(tmp_path):
    "One archive for each split: the second is named wrongly, or there are two for one split."
    for name, part in (("train", "test"), ("test", "test")):
        archive(tmp_path / "p" / f"{name}.tar", {n: b for n, b in files().items() if n.startswith(part)})
    refused("train.tar holds the folder 'test', which is another split", load_images, tmp_path / "p")
    for name in ("train", "test"):
        for suffix in (".tar", ".zip"):
            archive(
                tmp_path / "q" / f"{name}{suffix}", {n: b for n, b in files().items() if n.startswith(name)}
            )
    refused("q has several archives of one split", load_images, tmp_path / "q")


def test_bad_things_in_folders(tmp_path):
    f = folder(tmp_path / "f", files())
    (f / "train" / "dog").mkdir()
    refused("class folder train/dog is empty", load_images, f)
    (f / "train" / "dog").rmdir()
    for make in (lambda p: p.symlink_to("nowhere"), os.mkfifo):
        make(f / "train" / "ant" / "9.png")
        refused("9.png|nowhere", load_images, f)
        (f / "train" / "ant" / "9.png").unlink()
    (f / "train" / "ant" / "up").symlink_to(f)
    refused("is not where an image is expected", load_images, f)
    (f / "train" / "ant" / "up").unlink()
    (f / "train" / "ant" / "linked.png").symlink_to(
        f / "train" / "ant" / "0.png"
    )  # a link to an image is one
    (f / "val").symlink_to(f / "test")
    d = load_images(f)
    assert len(d.train) == 7 and torch.equal(d.splits["valid"].x, d.test.x)


def test_bad_paths(tmp_path, roots):
    for source in (
        "",
        "nonsense",
        tmp_path / "no" / "where",
        "~nobody-of-this-name/x",
        "a\0b",
        "x" * 5000,
        "x/" * 3000,
    ):
        refused("neither a file, nor a folder|cannot be read", load_images, source)
    (tmp_path / "a.txt").write_text("x")
    refused("of no known form", load_images, tmp_path / "a.txt")
    os.mkfifo(tmp_path / "f.npz")
    refused("neither a file nor a folder", load_images, tmp_path / "f.npz")
    (tmp_path / "d.npz").mkdir()
    refused("holds no <split>", load_images, tmp_path / "d.npz")
    for name in ("a.npz", "a.zip", "a.tar", "a.tar.gz", "a.tar.xz"):
        for content in (b"", b"hello", bytes(2000)):
            (tmp_path / name).write_bytes(content)
            assert name in refused("cannot be read|holds no", load_images, tmp_path / name)


def test_unreadable(tmp_path, monkeypatch):
    "Files without permission (patched: tests may run as root, who may read anything)."
    f = folder(tmp_path / "f", files())
    read = Path.read_bytes

    def denied(self):
        if self.name == "3.png":
            raise PermissionError(13, "Permission denied", str(self))
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", denied)
    refused("ant/3.png cannot be read .PermissionError", load_images, f)
    monkeypatch.undo()


def member(name, **fields):
    info = tarfile.TarInfo(name)
    for k, v in fields.items():
        setattr(info, k, v)
    return info


ESCAPES = {
    "absolute": member("/train/ant/9.png"),
    "upwards": member("train/../../9.png"),
    "link": member("train/ant/9.png", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "hard link": member("train/ant/9.png", type=tarfile.LNKTYPE, linkname="train/ant/0.png"),
    "device": member("train/ant/9.png", type=tarfile.CHRTYPE),
    "fifo": member("train/ant/9.png", type=tarfile.FIFOTYPE),
}


@pytest.mark.parametrize("case", ESCAPES)
def test_tar_escapes(tmp_path, case):
    path = archive(tmp_path / "a.tar", files())
    with tarfile.open(path, "a") as t:
        t.addfile(ESCAPES[case])
    refused("a link or a device|leads out of it", load_images, path)


def test_zip_escapes(tmp_path):
    for name, match in (
        ("/train/ant/9.png", "leads out"),
        ("train/../../9.png", "leads out"),
        ("link", "a link"),
    ):
        info = zipfile.ZipInfo(name)
        if name == "link":
            info.external_attr = 0o120777 << 16
        path = archive(tmp_path / "a.zip", files())
        with zipfile.ZipFile(path, "a") as z:
            z.writestr(info, PNG)
        refused(match, load_images, path)
    path = archive(tmp_path / "a.zip", files())
    data = bytearray(path.read_bytes())
    at = data.find(b"PK\x01\x02")
    data[at + 8] |= 1  # the flag of an encrypted member
    path.write_bytes(data)
    refused("which is encrypted", load_images, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(archive(path, files()), "a") as z:
            z.writestr("train/ant/0.png", PNG)
    refused("two files of the same name", load_images, path)


def test_bombs(tmp_path, monkeypatch):
    big = member("train/ant/9.png", size=2**40)
    with tarfile.open(tmp_path / "a.tar", "w") as t:
        t.addfile(big)
    refused("which is no image", load_images, tmp_path / "a.tar")
    monkeypatch.setattr(formats_py, "_LIMIT", 10_000)
    zeros = {f"train/ant/{i}.png": bytes(5000) for i in range(3)}
    for suffix in (".zip", ".tar.gz", ".tar.xz"):
        refused("more than 10,000 bytes", load_images, archive(tmp_path / f"b{suffix}", zeros))
    refused(
        "more than 10,000 bytes",
        load_images,
        npz(tmp_path / "b.npz", x_train=np.zeros((6, 60, 60), np.uint8)),
    )
    claims = idx(tmp_path / "i")
    (claims / "train-images-idx3-ubyte").write_bytes(bytes([0, 0, 8, 3]) + struct.pack(">3I", 2**31, 28, 28))
    refused("claims", load_images, claims)
    png = bytearray(encoded(Image.new("1", (8, 8))))
    png[16:24] = struct.pack(">2I", 10**5, 10**5)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    refused("DecompressionBomb|pixels", load_images, folder(tmp_path / "f", {"train/a/1.png": bytes(png)}))


def seconds(f, *args, **kwargs):
    start = time.process_time()
    refused(*args, **kwargs) if f is refused else f(*args, **kwargs)
    return time.process_time() - start


def test_bombs_are_refused_quickly(tmp_path):
    "By what they would become, before it is there: of each an example that took minutes, or all memory."
    packed = gzip.compress(bytes(2**28), 9)
    (tmp_path / "zeros.tar.gz").write_bytes(packed * 4)  # 1 MiB, a gigabyte of nothing
    assert seconds(refused, "goes on after its end", load_images, tmp_path / "zeros.tar.gz") < 3
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as t:
        for i in range(2):
            t.addfile(member(f"train/a/{i}.bmp", size=2**27 + 2**26), io.BytesIO(bytes(2**27 + 2**26)))
    assert (
        seconds(refused, "would unpack to .* and more, as no images do", load_images, tmp_path / "a.tar.gz")
        < 5
    )
    (tmp_path / "b.tar.gz").write_bytes(
        gzip.compress((tmp_path / "a.tar.gz").read_bytes())
    )  # a second layer is not opened
    refused("cannot be read .ReadError", load_images, tmp_path / "b.tar.gz")
    holes = member("train/ant/9.png", type=tarfile.GNUTYPE_SPARSE, size=512)
    header = bytearray(holes.tobuf(tarfile.GNU_FORMAT))
    header[386 : 386 + 24], header[483:495] = (
        b"%011o\0%011o\0" % (0, 512),
        b"%011o\0" % 2**28,
    )  # 512 bytes and a hole
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:512]))
    path = archive(tmp_path / "c.tar", files())
    path.write_bytes(bytes(header) + bytes(512) + path.read_bytes())
    assert seconds(refused, "a file with holes", load_images, path) < 1
    large = encoded(Image.new("1", (4096, 4096)), optimize=True)
    path = archive(
        tmp_path / "d.zip", {f"{s}/a/{i}.png": large for s in ("train", "test") for i in range(200)}
    )
    assert (
        path.stat().st_size < 10**6
        and seconds(
            refused,
            "d.zip with 400 images of 4096 × 4096 pixels would have more than 4,294,967,296 bytes",
            load_images,
            path,
        )
        < 3
    )
    claims = idx(tmp_path / "i", ".gz")
    (claims / "train-labels-idx1-ubyte.gz").write_bytes(
        gzip.compress(bytes([0, 0, 8, 1]) + struct.pack(">I", 2**29 - 1) + bytes(1000))
    )
    assert seconds(refused, "as no images do", load_images, claims) < 1


def test_the_memory_of_colour_is_counted(tmp_path, monkeypatch):
    f = folder(
        tmp_path / "f",
        {f"{s}/a/{i}.png": encoded(Image.new("L", (30, 30))) for s in ("train", "test") for i in range(5)},
    )
    monkeypatch.setattr(formats_py, "_LIMIT", 10_000)
    assert len(load_images(f).train) == 5
    (f / "test" / "a" / "4.png").write_bytes(encoded(Image.new("RGB", (30, 30))))
    refused("all images in colour would have more than 10,000 bytes", load_images, f)


def test_memory_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(formats_py, "_decode", lambda item: (_ for _ in ()).throw(MemoryError()))
    refused("f does not fit into memory: make it smaller", load_images, folder(tmp_path / "f", files()))


def test_a_text_has_a_limit(tmp_path, monkeypatch):
    with open(tmp_path / "a.txt", "wb") as f:
        f.truncate(2**27 + 1)  # of zeros, none of which takes room on the disk
    assert (
        seconds(
            refused,
            "a.txt has 134,217,729 bytes, 134,217,728 at most: make it smaller",
            load_text,
            tmp_path / "a.txt",
        )
        < 1
    )


# -- a tar, whose end says nothing of what is missing --


def tar_of(n=60):
    small = [encoded(rng.integers(0, 256, (3, 3, 3), dtype=np.uint8)) for _ in range(n)]
    return {
        f"{s}/{CLASSES[i % 3]}/{i}.png": x
        for s, part in (("train", small[:-9]), ("test", small[-9:]))
        for i, x in enumerate(part)
    }


def tars(tmp_path, suffix=".tar"):
    "The bytes of a sound tar, its hash, and a function that loads other bytes: None where they are refused."
    whole = archive(tmp_path / "whole.tar", tar_of()).read_bytes()
    pack = {".tar": bytes, ".tar.gz": gzip.compress, ".tar.xz": lzma.compress}[suffix]

    def load(content):
        (tmp_path / f"a{suffix}").write_bytes(pack(content))
        try:
            return uncached(tmp_path / f"a{suffix}")
        except DataError as e:
            assert "\n" not in str(e)

    return whole, load(whole), load


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.xz"])
def test_a_tar_that_is_cut_off(tmp_path, suffix):
    whole, want, load = tars(tmp_path, suffix)
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512  # of the last file
    cuts = [int(c) for c in rng.integers(0, len(whole), 40)] + [512 * i for i in range(2, 40, 3)]
    assert want and [load(whole[:c]) for c in cuts] == [want if c >= end + 1024 else None for c in cuts]
    for at, expected in ((end, None), (end + 512, None), (end + 1024, want), (end + 1023, None)):
        assert load(whole[:at]) == expected


def test_a_tar_with_a_damaged_header(tmp_path):
    whole, want, load = tars(tmp_path)
    with tarfile.open(fileobj=io.BytesIO(whole)) as t:
        headers = [m.offset for m in t]
    for at, bit in zip(rng.choice(headers, 60), rng.integers(0, 512 * 8, 60)):
        content = bytearray(whole)
        content[at + bit // 8] ^= 1 << bit % 8
        assert load(bytes(content)) in (None, want)
    for at in headers[
        :-1
    ]:  # a lost block: header and pixels of the last file alone cannot be told from the end
        assert load(whole[:at] + bytes(1024) + whole[at + 1024 :]) is None
    refused(
        "is cut off or damaged after 10 entries: get it anew",
        uncached,
        (tmp_path / "a.tar", (tmp_path / "a.tar").write_bytes(whole[: headers[10]]))[0],
    )
    assert load(whole + bytes(10240)) == want and load(whole + whole) is None and load(whole + b"x") is None


def test_the_docs_say_what_a_tar_cannot_tell():
    for text in (
        Path(images_py.__file__).parent.parent / "data" / "README.md",
        Path(images_py.__file__).parent.parent / "nbs" / "01b_formats.ipynb",
    ):
        assert "has a check sum for each header and none for" in text.read_text()


def test_an_archive_is_what_its_bytes_say(tmp_path):
    "Browsers unpack `.tar.gz` on the way and keep the name, others compress and drop the suffix."
    made = {s: archive(tmp_path / f"a{s}", files()) for s in ALL_ARCHIVES[1:]}
    for name, content in (
        ("b.tar.gz", made[".tar"]),
        ("c.tar", made[".tar.gz"]),
        ("d.tar", made[".tar.xz"]),
        ("e.tgz", made[".tar.xz"]),
    ):
        shutil.copy(content, tmp_path / name)
        assert same(load_images(tmp_path / name))


# -- damage: the same data or a DataError, never anything else --


def damaged(data, how, where, value):
    at = int(where * len(data))
    return data[:at] if how == "cut" else data[:at] + bytes([data[at] ^ value]) + data[at + 1 :]


DAMAGE = dict(
    how=st.sampled_from(["cut", "flip"]), where=st.floats(0, 1, exclude_max=True), value=st.integers(1, 255)
)
MADE = {}


@pytest.mark.parametrize("form", ["npz", "zip", "tar.gz", "tar.xz", "idx.gz", "png"])
@given(**DAMAGE)
@settings(CHECKED, max_examples=100)
def test_damage(tmp_path_factory, form, how, where, value):
    if form not in MADE:
        base = tmp_path_factory.mktemp("whole")
        path = base / f"whole.{form}"
        if form == "npz":
            npz(path)
        elif form == "idx.gz":
            path = idx(base / "idx", ".gz") / "train-images-idx3-ubyte.gz"
        elif form == "png":
            path = folder(base / "png", files()) / "train" / "ant" / "0.png"
        else:
            archive(path, files())
        MADE[form] = path, path.read_bytes(), {}
    path, whole, kept = MADE[form]
    source = path.parents[2] if form == "png" else path.parent if form == "idx.gz" else path
    if not kept:
        kept["hash"] = uncached(source)
    path.write_bytes(damaged(whole, how, where, value))
    try:
        assert uncached(source) == kept["hash"]
    except DataError as e:
        assert "\n" not in str(e)
    finally:
        path.write_bytes(whole)


def uncached(source):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return datasets_py._read(datasets_py._place(source), fresh=True)[1]["hash"]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_bad_idx(tmp_path, suffix):
    pack = (lambda b: gzip.compress(b)) if suffix else bytes
    whole = idx_bytes(X["train"][..., 0])
    f = idx(tmp_path / "i", suffix)
    path = f / f"train-images-idx3-ubyte{suffix}"
    bad = {"fewer": whole[:-1], "more": whole + b"x", "is not an idx": b"\0\0\x09\3" + whole[4:]}
    bad |= {
        "6 images|5 images|has shape": idx_bytes(X["train"][:5, ..., 0]),
        "not an idx file of bytes": whole[:9],
    }
    for match, content in bad.items():
        path.write_bytes(pack(content))
        assert str(f) in refused(match, load_images, f)
    path.unlink()
    refused("lacks train-images-idx3-ubyte", load_images, f)


# -- places, names, provenance --


def test_precedence(roots, monkeypatch):
    given_, own = roots
    for r in (own, given_):
        archive(r / "flowers.tar", files())
        archive(r / "flowers.zip", files())
        folder(r / "flowers", files())
        npz(r / "flowers.npz")
    names = [f"flowers{s}" for s in (".npz", "", ".zip", ".tar")]
    for i in range(8):
        d = load_images("flowers")
        assert d.about["source"] == names[i % 4] and d.name == "flowers"
        assert d.about.get("also here, not used", []) == (names + names)[i + 1 :]
        assert str(given_) not in json.dumps(d.about)
        first = datasets_py._places("flowers")[0][1]
        assert first.is_relative_to(given_ if i < 4 else own)
        shutil.rmtree(first) if first.is_dir() else first.unlink()
    refused("neither a file, nor a folder, nor a data set", load_images, "flowers")
    monkeypatch.delenv("NAS_NB_DATA")
    assert data_roots() == [own]


def test_roots(monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.setenv("NAS_NB_DATA", str(tmp_path))
    assert data_roots() == [tmp_path.resolve(), Path(images_py.__file__).resolve().parent.parent / "data"]
    monkeypatch.setattr(images_py, "root", lambda: (_ for _ in ()).throw(FileNotFoundError()))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert data_roots()[1] == tmp_path / "xdg" / "nas_nb"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_roots()[1] == tmp_path / ".cache" / "nas_nb"


def test_a_relative_root_is_one_folder(monkeypatch, tmp_path):
    "Wherever one is: a command at the top, a notebook in `nbs/`, somebody elsewhere."
    project = core.root()
    monkeypatch.setenv("NAS_NB_DATA", "some/where")
    for place in (project, project / "nbs", tmp_path):
        monkeypatch.chdir(place)
        assert data_roots()[0] == core.data_folder() == project / "some" / "where"
        assert jobs._data(LOADS)[0] == [str(project / "some" / "where"), []]
    monkeypatch.setattr(
        core, "root", lambda: (_ for _ in ()).throw(FileNotFoundError())
    )  # outside a checkout
    assert core.data_folder() == tmp_path.resolve() / "some" / "where"
    for value, want in (
        (str(tmp_path), tmp_path.resolve()),
        ("", None),
        ("~/x", Path.home().resolve() / "x"),
    ):
        monkeypatch.setenv("NAS_NB_DATA", value)
        assert core.data_folder() == want


def test_no_home(monkeypatch, tmp_path):
    "A container whose user has neither HOME nor a name (a `~` then stays as it is)."
    monkeypatch.undo()
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.setattr(images_py, "root", lambda: (_ for _ in ()).throw(FileNotFoundError()))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for f, args in (
        (list_data, ()),
        (load_images, ("mine",)),
        (load_text, ("mine",)),
        (get_data, ("mnist",)),
        (verify_data, ("mine",)),
    ):
        refused("no folder for data is known: set HOME, or XDG_CACHE_HOME", f, *args)
    assert load_images().name == "digits" and load_text().name == "Python manual"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert next(r for r in list_data() if r["name"] == "digits")["state"] == "ready"


@pytest.mark.parametrize("value", ["~nobody-of-this-name/x", "/no/such/folder", "no-such-folder"])
def test_a_root_that_is_not_there_is_mentioned(monkeypatch, roots, value):
    monkeypatch.setenv("NAS_NB_DATA", value)
    npz(roots[1] / "mine.npz")
    text_folder(roots[1] / "ptb", train="a\n", valid="a\n", test="a\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert next(r for r in list_data() if r["name"] == "mine")["state"] == "ready"
        load_images(roots[1] / "mine.npz")  # a path is not looked for
    assert images_py.shown_roots(", then ").endswith(
        f"{value} (NAS_NB_DATA, which does not exist), then {roots[1]}"
    )
    for load, name in ((load_images, "mine"), (verify_data, "mine"), (load_text, "ptb")):
        with pytest.warns(
            UserWarning, match=f"NAS_NB_DATA names .*{value}, which does not exist: make this folder"
        ):
            load(name)


def test_roots_that_cannot_be_read(monkeypatch, roots):
    def denied(self):
        raise PermissionError(13, "Permission denied", str(self))

    roots[1].mkdir()
    monkeypatch.setattr(Path, "iterdir", denied)
    for f, args in (
        (list_data, ()),
        (load_images, ("mine",)),
        (load_text, ("mine",)),
        (verify_data, ("mine",)),
    ):
        refused("cannot be read .PermissionError.* who may read it", f, *args)
    monkeypatch.undo()
    for name in ("x" * 300, "x/" * 3000, "\n"):
        monkeypatch.setenv("NAS_NB_DATA", name)
        refused("which does not exist", get_data, "mnist")
        assert (
            name == "\n"
            and list_data()
            or refused("cannot be read .OSError: .Errno 36. File name too long", list_data)
        )


LOADS = SimpleNamespace(code=["load_images()"])


def test_one_place_decides_whether_data_have_changed(roots, monkeypatch):
    "A batch and the cache see the same: every file, however deep, its size and its time."
    f = folder(roots[0] / "mine", {f"top/{n}": b for n, b in files().items()})
    image, states = f / "top" / "train" / "ant" / "0.png", []
    seen = lambda: (core.listing(f), datasets_py._key([f], ""), jobs._data(LOADS)[0])
    states.append(seen())
    assert states[0] == seen() and [row[:2] for row in states[0][0]][-1] == [
        "top/train/cat/5.png",
        len(files()["train/cat/5.png"]),
    ]
    before = image.stat().st_mtime_ns
    image.write_bytes(image.read_bytes()[:-1] + b"x")  # in place, of the same size
    os.utime(image, ns=(before, before + 1))
    states.append(seen())
    image.write_bytes(b"x")
    os.utime(image, ns=(before, before + 1))
    states.append(seen())
    image.rename(image.with_name("00.png"))
    states.append(seen())
    (f / "top" / "train" / "dog").mkdir()
    states.append(seen())
    for i, kind in enumerate(zip(*states)):
        assert len({json.dumps(k) for k in kind}) == 5, i
    for name in (".hidden", "top/.DS_Store"):
        (f / name).touch()
    (f / "nowhere").symlink_to("gone")
    assert seen() == states[-1]
    (f / "top" / "train" / "up").symlink_to(f)
    assert len(core.listing(f)) < 3 * len(states[0][0])  # it ends


def test_a_listing_of_what_cannot_be_read(tmp_path, monkeypatch):
    f, scandir = folder(tmp_path / "f", files()), os.scandir
    monkeypatch.setattr(
        os,
        "scandir",
        lambda p: (
            scandir(p) if not str(p).endswith("bee") else (_ for _ in ()).throw(PermissionError(13, "no"))
        ),
    )
    rows = core.listing(f)
    assert (
        ["train/bee/", -1, 0] in rows
        and "train/ant/0.png" in [r[0] for r in rows]
        and core.listing(f / "none") == [["", -1, 0]]
    )


def test_a_listing_is_fast(tmp_path):
    "10,000 images in a twentieth of a second of an idle processor."
    (tmp_path / "first").touch()
    for c in range(10):
        (tmp_path / f"many/train/{c}").mkdir(parents=True)
        for i in range(1000):
            os.link(tmp_path / "first", tmp_path / f"many/train/{c}/{i}")
    start = time.process_time()
    assert len(core.listing(tmp_path / "many")) == 10_011 and time.process_time() - start < 0.5


def test_an_error_is_one_line_whatever_a_file_is_called(tmp_path):
    "A name can hold line breaks, and commands to the terminal that shows it."
    said = refused(
        "cannot be read",
        load_images,
        folder(tmp_path / "f", files() | {"train/ant/a\nb\x1b[2J\u202e.png": b"x"}),
    )
    assert said.isprintable() and "train/ant/a b [2J .png" in said
    said = refused(
        "…", load_images, archive(tmp_path / "a.zip", files() | {f"train/ant/{'x' * 60_000}.png": b"x"})
    )
    assert len(said) < 2000 and said.endswith("get it anew")


def official_mnist(path, monkeypatch, suffix=".gz"):
    "A small MNIST: its content has the MD5 that is asked for."
    idx(path, suffix)
    content = {p.name: p.read_bytes() for p in path.iterdir()}
    plain = {n.removesuffix(".gz"): gzip.decompress(b) if suffix else b for n, b in content.items()}
    md5 = {n: hashlib.md5(plain[n]).hexdigest() for n in formats_py._MNIST_MD5}
    monkeypatch.setattr(formats_py, "_MNIST_MD5", md5)
    return content


def test_mnist_by_its_content(roots, monkeypatch):
    raw = roots[0] / "MNIST" / "raw"
    content = official_mnist(raw, monkeypatch)
    d = load_images("mnist")
    assert (
        same(d, False, ("0", "1", "2"))
        and d.name == "MNIST"
        and d.about["form"] == "idx, gzipped"
        and d.about["source"] == "MNIST/raw"
    )
    for name, data in content.items():  # compressed otherwise: the same content
        (raw / name).write_bytes(gzip.compress(gzip.decompress(data), 1))
    assert load_images("mnist").hash == d.hash
    labels = bytearray(gzip.decompress(content["t10k-labels-idx1-ubyte.gz"]))
    labels[-1] ^= 1
    (raw / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    told = refused("is not MNIST's", load_images, "mnist")
    assert (
        "t10k-labels-idx1-ubyte.gz" in told
        and hashlib.md5(labels).hexdigest() in told
        and formats_py._MNIST_MD5["t10k-labels-idx1-ubyte"] in told
    )
    assert same(
        load_images(idx(roots[0].parent / "mine")), False, ("0", "1", "2")
    )  # one's own idx files are not MNIST's


def test_other_forms_of_known_names(roots):
    npz(roots[0] / "mnist.npz")
    folder(roots[0] / "cifar10", files("jpg"))
    assert load_images("mnist").name == "MNIST (npz)" and load_images("cifar10").name == "CIFAR-10 (JPEG)"
    shutil.rmtree(roots[0] / "cifar10")
    idx(roots[0] / "cifar10")
    d = load_images("cifar10")
    assert (
        d.name == "CIFAR-10 (idx)"
        and d.about["form"] == "idx"
        and "no checksums are known" in verify_data("cifar10")
    )


def cifar_files(monkeypatch):
    "The pickles of a small CIFAR-10, and torchvision's MD5 of them."
    from torchvision.datasets import CIFAR10

    def batch(n, seed):
        data = np.random.default_rng(seed).integers(0, 256, (n, 3072), dtype=np.uint8)
        return pickle.dumps(dict(data=data, labels=[i % 10 for i in range(n)]))

    content = {f"data_batch_{i}": batch(10, i) for i in range(1, 6)} | {"test_batch": batch(20, 9)}
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    content["batches.meta"] = pickle.dumps(dict(label_names=names))
    md5 = {n: hashlib.md5(b).hexdigest() for n, b in content.items()}
    monkeypatch.setattr(CIFAR10, "train_list", [[n, md5[n]] for n in content if n.startswith("data")])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | dict(md5=md5["batches.meta"]))
    return {f"cifar-10-batches-py/{n}": b for n, b in content.items()}


def test_cifar10(roots, monkeypatch):
    from torchvision.datasets import CIFAR10

    content = cifar_files(monkeypatch)
    path = archive(roots[0] / "cifar-10-python.tar.gz", content)
    refused("is not CIFAR-10's .MD5 c58f30108f718f92721af3b95e74349a", load_images, "cifar10")
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(path.read_bytes()).hexdigest())
    from_archive = load_images("cifar10")
    folder(roots[0], content)
    d = load_images("cifar10")
    assert (
        d.name == from_archive.name == "CIFAR-10"
        and d.hash == from_archive.hash
        and d.about["form"] == "official pickles"
    )
    want = np.concatenate(
        [pickle.loads(content[f"cifar-10-batches-py/data_batch_{i}"])["data"] for i in range(1, 6)]
    ).reshape(-1, 3, 32, 32)
    assert (
        torch.equal(d.train.x, torch.from_numpy(want))
        and d.train.y.tolist() == [i % 10 for i in range(10)] * 5
    )
    assert d.about["also here, not used"] == ["cifar-10-python.tar.gz"] and d.train.classes[0] == "airplane"


class Evil:
    def __reduce__(self):
        return os.mkdir, (str(Path(os.environ["NAS_NB_DATA"]) / "executed"),)


def test_a_foreign_pickle_is_never_loaded(roots, monkeypatch):
    content = cifar_files(monkeypatch)
    for name in list(content):
        folder(roots[0], content | {name: pickle.dumps(Evil())})
        assert name in refused("is missing or not CIFAR-10's", load_images, "cifar10")
        assert not (roots[0] / "executed").exists()
    npz(roots[0] / "evil.npz", x_train=np.array([Evil()], dtype=object))
    refused("allow_pickle", load_images, "evil")
    assert not (roots[0] / "executed").exists()


# -- the cache --


def cached(own):
    return sorted((own / "cache").iterdir())


def test_cache(tmp_path, roots, monkeypatch):
    path = archive(tmp_path / "a.tar.xz", files())
    first = load_images(path)
    assert [p.name[:2] for p in cached(roots[1])] == ["a-"]
    monkeypatch.setattr(formats_py, "_decode", None)  # a second time, nothing is decoded
    again = load_images(path)
    assert same(again) and again.about == first.about and again.mean == first.mean
    monkeypatch.undo()


@given(**DAMAGE)
@settings(CHECKED, max_examples=100)
def test_damaged_cache(tmp_path_factory, how, where, value):
    if "cache" not in MADE:
        base = tmp_path_factory.mktemp("cached")
        d = load_images(archive(base / "a.tar", files()))
        cache = next(p for p in (images_py._own_root() / "cache").iterdir() if p.name[:2] == "a-")
        (base / "a.npz").write_bytes(cache.read_bytes())
        MADE["cache"] = base / "a.npz", cache.read_bytes(), d
    path, whole, d = MADE["cache"]
    path.write_bytes(damaged(whole, how, where, value))
    got = datasets_py._from_cache(path)
    assert got is None or (
        all(torch.equal(getattr(got[0][s], k), getattr(d.splits[s], k)) for s in d.splits for k in "xy")
        and got[1]["hash"] == d.hash
    )


def test_broken_cache_is_made_anew(tmp_path, roots):
    path = archive(tmp_path / "a.tar", files())
    load_images(path)
    (cache,) = cached(roots[1])
    whole = cache.read_bytes()
    cache.write_bytes(whole[:-100])
    assert same(load_images(path)) and cache.read_bytes() == whole and len(cached(roots[1])) == 1


def test_a_change_of_the_source_is_seen(tmp_path):
    f = folder(tmp_path / "f", files())
    assert same(load_images(f))
    other = encoded(255 - X["train"][0])
    stat_ = (f / "train/ant/0.png").stat()
    (f / "train/ant/0.png").write_bytes(other)
    os.utime(f / "train/ant/0.png", ns=(stat_.st_atime_ns, stat_.st_mtime_ns + 1))
    assert torch.equal(load_images(f).train.x[0], 255 - torch.from_numpy(X["train"][0].transpose(2, 0, 1)))
    both = [
        folder(tmp_path / g / "same", {f"{s}/a/0.bmp": encoded(x, "bmp") for s in ("train", "test")})
        for g, x in zip("gh", X["train"])
    ]
    for path in (p for g in both for p in g.rglob("*")):
        os.utime(path, ns=(1, 1))
    assert len({load_images(g).hash for g in both}) == 2  # names, sizes and times are the same
    path = archive(tmp_path / "a.tar", files())
    stat_ = path.stat()
    load_images(path)
    archive(path, files() | {"train/ant/0.png": other})
    os.utime(path, ns=(stat_.st_atime_ns, stat_.st_mtime_ns))
    assert not torch.equal(load_images(path).train.x[0], torch.from_numpy(X["train"][0].transpose(2, 0, 1)))


@pytest.mark.parametrize("change", ["pixels", "labels", "classes", "mean", "hash"])
def test_the_cache_is_not_trusted(tmp_path, roots, change):
    "Whoever writes another content into it with numpy also writes zip's check sums: what counts is the hash."
    path = archive(tmp_path / "a.tar", files())
    first = load_images(path)
    (cache,) = cached(roots[1])
    whole = cache.read_bytes()
    with np.load(cache) as z:
        arrays = {k: z[k].copy() for k in z}
    notes = bytes(arrays["notes"])
    if change == "pixels":
        arrays["x_train"][:] = 0
    elif change == "labels":
        arrays["y_train"][:] = 77
    else:
        old, new = {
            "classes": (b'"ant"', b'"dog"'),
            "mean": (b'"mean": [0.', b'"mean": [1.'),
            "hash": (first.hash.encode(), b"0" * 16),
        }[change]
        assert notes.count(old) == 1
        arrays["notes"] = np.frombuffer(notes.replace(old, new), np.uint8)
    np.savez(cache, **arrays)
    assert datasets_py._from_cache(cache) is None
    again = load_images(path)
    assert (
        same(again)
        and again.about == first.about
        and again.mean == first.mean
        and cache.read_bytes() == whole
    )


def test_nothing_is_left_in_the_cache_to_which_nothing_leads(tmp_path, roots):
    "Of a source one copy, and none of a source that is gone; a known name and a path are two sources."
    a, b = archive(tmp_path / "a.tar", files()), npz(tmp_path / "b.npz")
    load_images(a), load_images(b)
    kept = cached(roots[1])
    assert len(kept) == 2
    folder(roots[1] / "cache", {"c-0123.npz": b"damaged", "notes.txt": b"somebody's"})
    archive(a, files() | {"train/ant/9.png": PNG})
    load_images(a)
    assert (
        [p.name[:2] for p in cached(roots[1])] == ["a-", "b-", "no"]
        and kept[0] not in cached(roots[1])
        and kept[1] in cached(roots[1])
    )
    a.unlink()
    load_images(archive(tmp_path / "d.zip", files()))
    assert [p.name[:2] for p in cached(roots[1])] == ["b-", "d-", "no"]
    idx(roots[0] / "cifar10")
    load_images("cifar10"), load_images(roots[0] / "cifar10")
    assert [p.name[:2] for p in cached(roots[1])] == ["b-", "ci", "ci", "d-", "no"]


@pytest.mark.parametrize("form", ["folder", "npz"])
def test_one_copy_of_what_was_added(tmp_path, roots, form, monkeypatch):
    path = folder(tmp_path / "mine", files()) if form == "folder" else npz(tmp_path / "mine.npz")
    for name in ("flowers", "more"):
        add_data(name, path)
    assert [p.name.partition("-")[0] for p in cached(roots[1])] == ["flowers", "more"]
    monkeypatch.setattr(datasets_py, "_decoded", None)  # nothing is decoded a second time
    assert load_images("flowers").hash == load_images("more").hash and len(cached(roots[1])) == 2


def test_images_that_change_while_they_are_decoded_are_not_kept(tmp_path, roots, monkeypatch):
    f, decode = folder(tmp_path / "f", files()), formats_py._decode

    def slow(item):
        (f / "train" / "ant" / "0.png").write_bytes(PNG)
        return decode(item)

    monkeypatch.setattr(formats_py, "_decode", slow)
    load_images(f)
    assert not (roots[1] / "cache").exists()


def test_a_cache_that_cannot_be_written(tmp_path, roots, monkeypatch):
    path = archive(tmp_path / "a.tar", files())
    with monkeypatch.context() as m:
        m.setattr(os, "fsync", lambda f: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.warns(
            UserWarning, match="cannot keep the decoded images .OSError.*No space left"
        ) as told:
            assert same(load_images(path))
        assert len(told) == 1 and cached(roots[1]) == []
    roots[1].joinpath("cache").rmdir()
    roots[1].joinpath("cache").write_text("in the way")
    with pytest.warns(UserWarning, match="FileExistsError"):
        assert same(load_images(path))


def test_what_a_killed_process_left_in_the_cache(tmp_path, roots):
    old, young, other = (roots[1] / "cache" / n for n in (".new-old", ".new-young", "other"))
    for path in (old, young, other):
        folder(roots[1], {f"cache/{path.name}": b"half"})
    for path, hours in ((old, 25), (young, 23), (other, 25)):
        os.utime(path, (time.time() - 3600 * hours,) * 2)
    load_images(npz(tmp_path / "a.npz"))
    assert not old.exists() and young.exists() and other.exists() and len(cached(roots[1])) == 3


def test_a_full_disk(tmp_path):
    "For real: a process that may write no file larger than 20 kB."
    npz(tmp_path / "a.npz", x_train=np.zeros((6, 80, 80), np.uint8), x_test=np.zeros((4, 80, 80), np.uint8))
    code = f"""
import resource, nas_nb.datasets as datasets_py, nas_nb.images as images_py
from pathlib import Path
images_py._own_root = lambda: Path({str(tmp_path / "own")!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
data = datasets_py.load_images({str(tmp_path / "a.npz")!r})
print(len(data.train), [p.name for p in Path({str(tmp_path / "own/cache")!r}).iterdir()])
try:
    datasets_py.add_data("mine", {str(tmp_path / "a.npz")!r})
except images_py.DataError as e:
    print("refused", e)
"""
    done = subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("6 []\nrefused") and "cannot be copied" in done.stdout
    assert "cannot keep the decoded images" in done.stderr and "Traceback" not in done.stderr
    assert not [*(tmp_path / "given").iterdir()]


# -- who gets which images --


@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    shares=st.lists(st.one_of(st.floats(0.05, 1), st.integers(1, 30)), min_size=1, max_size=4),
    seed=st.integers(0, 2**31 - 1),
)
def test_split(counts, shares, seed):
    y = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    y = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))]
    images = Images(
        torch.arange(len(y)).view(-1, 1, 1, 1).to(torch.uint8), y, tuple(map(str, range(len(counts))))
    )
    ids = Images(torch.arange(len(y)).view(-1, 1, 1, 1), y, images.classes)
    sizes = dict(zip("dbca", shares))
    whole = sum(s * len(y) if isinstance(s, float) else s for s in shares)
    try:
        parts = split(ids, seed, **sizes)
    except DataError:
        assert whole > len(y) - 0.5 or min(s * len(y) for s in shares) < 1
        return
    assert whole < len(y) + 0.51 and list(parts) == list(sizes)
    members = [p.x.flatten().tolist() for p in parts.values()]
    assert len({i for m in members for i in m}) == sum(map(len, members)) and all(
        m == sorted(m) for m in members
    )
    for name, part in parts.items():
        size = sizes[name]
        assert len(part) == size if isinstance(size, int) else abs(len(part) - size * len(y)) <= 1
        assert torch.equal(part.y, y[part.x.flatten()])
        exact = np.array(counts) * len(part) / len(y)
        assert abs(np.array(part.counts()) - exact).max() < (1 if len(set(counts)) == 1 else 2)
    again = split(ids, seed, **dict(reversed(sizes.items())))
    assert all(torch.equal(again[k].x, parts[k].x) for k in parts)


def test_split_shares_use_every_image():
    for n in (99, 100, 101):
        assert sum(map(len, split(some(n), 1, a=1 / 3, b=1 / 3, c=1 / 3).values())) == n
    one, other = split(some(), 1, a=0.5)["a"], split(some(), 2, a=0.5)["a"]
    assert not torch.equal(one.x, other.x)


@pytest.mark.parametrize(
    "sizes", [(1.1,), (-0.5,), (0,), (0.0,), (True,), (121,), (0.6, 0.5), ("x",), (1e-9,), (float("nan"),)]
)
def test_bad_splits(sizes):
    refused("cannot make", split, some(), 0, **dict(zip("ab", sizes)))


def test_a_split_without_parts():
    refused("give at least one", split, some(), 0)


def test_few_labels():
    images = some()
    few = few_labels(images, 3, seed=5)
    assert few.counts() == [3] * 4
    at = [(images.x == x).flatten(1).all(1).nonzero().item() for x in few.x]
    assert at == sorted(at) and torch.equal(images.y[at], few.y)
    assert not torch.equal(few.x, few_labels(images, 3, seed=6).x)
    for n in (0, -1, min(images.counts()) + 1, 2.5, 2.0, True, "2"):
        refused("cannot take", few_labels, images, n, 0)


@given(rate=st.floats(0, 1), seed=st.integers(0, 2**31 - 1), k=st.integers(2, 5))
def test_noisy_labels(rate, seed, k):
    images = some(k=k)
    noisy = noisy_labels(images, rate, seed)
    assert (noisy.y != images.y).sum() == round(rate * 120) and torch.equal(noisy.x, images.x)
    assert 0 <= noisy.y.min() and noisy.y.max() < k
    assert torch.equal(noisy.y, noisy_labels(images, rate, seed).y)


def test_noise_is_uniform():
    images = Images(
        torch.zeros(20000, 1, 1, 1, dtype=torch.uint8), torch.zeros(20000, dtype=torch.int64), tuple("abcde")
    )
    counts = noisy_labels(images, 0.8, 3).counts()
    assert counts[0] == 4000 and max(abs(c - 4000) for c in counts) < 5 * 55
    where = (noisy_labels(images, 0.5, 3).y > 0).view(10, -1).sum(1)
    assert abs(where - 1000).max() < 5 * 23
    for rate in (-0.1, 1.1, float("nan")):
        refused("the rate is 0 to 1", noisy_labels, images, rate, 0)
    refused("2 classes", noisy_labels, Images(images.x, images.y, ("a",)), 0.1, 0)


def test_resize():
    images = some(shape=(3, 5, 8))
    padded = resize(images, 11)
    assert padded.shape == (3, 11, 11) and torch.equal(padded.x[:, :, 3:8, 1:9], images.x)
    assert padded.x.long().sum() == images.x.long().sum() and padded.x.is_contiguous()
    square = some(2000, shape=(1, 8, 8))
    large = resize(square, 32, "enlarge")
    want = [np.asarray(Image.fromarray(x[0].numpy()).resize((32, 32), Image.BILINEAR)) for x in square.x[:50]]
    assert abs(torch.from_numpy(np.stack(want)).int() - large.x[:50, 0].int()).max() <= 1
    assert (
        large.x.dtype == torch.uint8
        and len(large) == 2000
        and torch.equal(resize(square, 8, "enlarge").x, square.x)
    )
    small, tall = resize(square, 4, "shrink"), some(shape=(3, 8, 12))
    assert torch.equal(
        small.x, square.x.float().unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5)).round().to(torch.uint8)
    ) and small.shape == (1, 4, 4)
    assert resize(tall, 8, "shrink").shape == (3, 8, 8)
    for args in (
        (4,),
        (32, "smear"),
        (32.0,),
        (32.5, "enlarge"),
        (9, "shrink"),
        (0, "shrink"),
        (4.0, "shrink"),
    ):
        refused("cannot", resize, square, *args)


# -- batches --


def reference(images, size, mean, std, seed, a, step):
    "Crop, flip and cutout as one would write them for a single image."
    epoch, i = divmod(step, len(images) // size)
    order = batches_py._shuffled(len(images), seed, epoch, batches_py._ORDER)[i * size : (i + 1) * size]
    u = (
        batches_py.uniform(batches_py.check_seeds(seed), range(step, step + 1), 9 * size, batches_py._AUGMENT)
        .view(9, size)
        .tolist()
    )
    out = []
    for b, index in enumerate(order.tolist()):
        x = images.x[index].numpy()
        C, H, W = x.shape
        black = np.zeros((C, H + 2 * a.crop, W + 2 * a.crop), np.uint8)
        black[:, a.crop : a.crop + H, a.crop : a.crop + W] = x
        top, left = (int(u[k][b] * (2 * a.crop + 1)) for k in (0, 1))
        x = black[:, top : top + H, left : left + W]
        if a.flip and u[2][b] < 0.5:
            x = x[:, :, ::-1]
        x = (x / 255 - np.array(mean)[:, None, None]) / np.array(std)[:, None, None]
        if a.cutout:
            cy, cx = int(u[3][b] * H), int(u[4][b] * W)
            t, le = cy - a.cutout // 2, cx - a.cutout // 2
            x[:, max(t, 0) : max(t + a.cutout, 0), max(le, 0) : max(le + a.cutout, 0)] = 0
        out.append(x)
    return torch.from_numpy(np.stack(out)).float(), images.y[order]


@given(
    shape=st.tuples(st.sampled_from([1, 3]), st.integers(1, 7), st.integers(1, 7)), size=st.integers(1, 40),
    seed=st.integers(0, 2**31 - 1), crop=st.integers(0, 4), flip=st.booleans(), cutout=st.integers(0, 6),
    last=st.booleans(), step=st.integers(0, 500),
)  # fmt: skip
def test_batches_against_the_reference(shape, size, seed, crop, flip, cutout, last, step):
    images = some(40, 4, shape, seed % 97)
    mean, std, a = (0.5, 0.4, 0.3)[: shape[0]], (0.2, 0.25, 0.3)[: shape[0]], Augment(crop, flip, cutout)
    x, y = Batches(images, size, mean, std, seed, a, channels_last=last)(step)
    want, labels = reference(images, size, mean, std, seed, a, step)
    torch.testing.assert_close(x, want, rtol=1e-5, atol=1e-5)
    assert torch.equal(y, labels) and x.shape == (size, *shape)
    assert x.is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


@given(size=st.integers(1, 30), seed=st.integers(0, 2**31 - 1), epoch=st.integers(0, 1000))
def test_an_epoch(size, seed, epoch):
    n = 30
    images = Images(
        torch.arange(n).to(torch.uint8).view(-1, 1, 1, 1), torch.arange(n), tuple(map(str, range(n)))
    )
    batches = Batches(images, size, (0.0,), (1 / 255,), seed)
    assert batches.per_epoch == n // size
    seen = [batches(epoch * batches.per_epoch + i) for i in range(batches.per_epoch)]
    labels = torch.cat([y for _, y in seen])
    assert len(set(labels.tolist())) == len(labels) == n - n % size
    assert torch.equal(torch.cat([x for x, _ in seen]).flatten().round().long(), labels)


STRONG = Augment(2, True, 3, 15.0, 0.1, 0.2)


@given(steps=st.lists(st.integers(0, 200), min_size=1, max_size=6), seed=st.integers(0, 2**31 - 1))
def test_no_history(steps, seed):
    images = some(40)
    make = lambda: Batches(images, 16, (0.5,), (0.2,), seed, STRONG)
    batches, last = make(), steps[-1]
    for step in steps:
        x, y = batches(step)
    assert torch.equal(make()(last)[0], x) and torch.equal(make()(last)[1], y)
    assert not torch.equal(batches(last + 1)[0], x)


def test_the_augmentation_of_a_batch_does_not_change_its_images():
    "Order and labels depend on seed and step, whatever is done to the images; the source stays as it is."
    images = some(40, shape=(3, 6, 6))
    before = images.x.clone()
    labels = [
        Batches(images, 16, (0.5,) * 3, (0.2,) * 3, 3, a, last)(7)[1]
        for a in (None, Augment(2), STRONG)
        for last in (False, True)
    ]
    assert all(torch.equal(labels[0], y) for y in labels) and torch.equal(images.x, before)
    plain, turned = (Batches(images, 16, (0.5,) * 3, (0.2,) * 3, 3, a, True)(7)[0] for a in (STRONG, STRONG))
    assert torch.equal(plain, turned) and plain.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(plain, Batches(images, 16, (0.5,) * 3, (0.2,) * 3, 3, STRONG, False)(7)[0])


def test_affine():
    "Against torchvision's own, image by image."
    from torchvision.transforms import functional as T

    images = some(64, shape=(3, 9, 12))
    run = lambda **how: Batches(images, 64, (0.0,) * 3, (1 / 255,) * 3, 1, Augment(**how))(0)[0]
    u = (
        batches_py.uniform(batches_py.check_seeds(1), range(1), 9 * 64, batches_py._AUGMENT).view(9, 64)[5:]
        * 2
        - 1
    )
    plain, turned, larger, moved = run(), run(degrees=30.0), run(zoom=0.3), run(translate=0.25)
    for i in range(64):
        angle, dx, dy, zoom = u[:, i].tolist()
        want = lambda a, s: T.affine(plain[i], a, [0, 0], s, [0, 0], T.InterpolationMode.BILINEAR)
        torch.testing.assert_close(turned[i], want(-30 * angle, 1.0), rtol=1e-3, atol=0.1)
        torch.testing.assert_close(larger[i], want(0.0, 1 + 0.3 * zoom), rtol=1e-3, atol=0.1)
        rows, columns = (
            torch.arange(9) + 9 * 0.25 * dy,
            torch.arange(12) + 12 * 0.25 * dx,
        )  # bilinear by hand, for whole and half pixels
        black = torch.zeros(3, 29, 32)
        black[:, 10:19, 10:22] = plain[i]
        r, c = rows.floor().long() + 10, columns.floor().long() + 10
        fr, fc = (rows % 1)[:, None], columns % 1
        at = lambda a, b: black[:, (r + a)[:, None], c + b]
        by_hand = (at(0, 0) * (1 - fc) + at(0, 1) * fc) * (1 - fr) + (
            at(1, 0) * (1 - fc) + at(1, 1) * fc
        ) * fr
        torch.testing.assert_close(moved[i], by_hand, rtol=1e-3, atol=0.1)
    torch.testing.assert_close(run(zoom=1e-9), plain, rtol=1e-4, atol=1e-2)


def test_how_often():
    "Half are mirrored, windows and squares are everywhere."
    images = Images(
        torch.arange(1, 10).view(1, 1, 3, 3).to(torch.uint8), torch.zeros(1, dtype=torch.int64), ("0",)
    ).take([0] * 20000)
    flipped = Batches(images, 20000, (0.0,), (1 / 255,), 0, Augment(flip=True))(0)[0][:, 0, 0, 0].round() == 3
    assert abs(flipped.float().mean() - 0.5) < 5 * 0.5 / 20000**0.5
    middle = Batches(images, 20000, (0.0,), (1 / 255,), 0, Augment(crop=1))(0)[0][:, 0, 1, 1].round().long()
    assert abs(torch.bincount(middle)[1:] - 20000 / 9).max() < 5 * 47
    hole = (Batches(images, 20000, (0.0,), (1 / 255,), 0, Augment(cutout=1))(0)[0] == 0).flatten(1)
    assert (hole.sum(1) == 1).all() and abs(hole.sum(0) - 20000 / 9).max() < 5 * 47


def test_eval_batches():
    images = some(50, shape=(3, 4, 5))
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    for last in (False, True):
        parts = list(eval_batches(images, 16, mean, std, last))
        assert [len(x) for x, _ in parts] == [16, 16, 16, 2] and torch.equal(
            torch.cat([y for _, y in parts]), images.y
        )
        want = (images.x / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
        torch.testing.assert_close(torch.cat([x for x, _ in parts]), want, rtol=1e-5, atol=1e-5)
        assert all(
            x.is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
            for x, _ in parts
        )


def test_bad_batches():
    images = some(20)
    for size in (0, -1, 21, 5.0, True, "5"):
        refused(f"a batch of {size} cannot be made of 20", Batches, images, size, (0.5,), (0.2,))
    for size in (0, -1, 5.0, True, None):
        refused(
            f"batches of {size} cannot be made", eval_batches, images, size, (0.5,), (0.2,)
        )  # at once, not when the first is asked for
    for augment in ({}, dict(crop=4), 4, False):
        refused("is no Augment: write it like", Batches, images, 4, (0.5,), (0.2,), augment=augment)
    assert len(Batches(images, np.int64(5), (0.5,), (0.2,))(0)[1]) == 5
    refused("1 channels need 1", Batches, images, 4, (0.5,) * 3, (0.2,) * 3)
    for bad in (
        dict(crop=-1),
        dict(crop=1.5),
        dict(cutout=-1),
        dict(degrees=-1),
        dict(zoom=1.0),
        dict(translate=2),
        dict(degrees=float("nan")),
    ):
        with pytest.raises(ValueError, match=next(iter(bad))):
            Augment(**bad)
    black = Batches(Images(images.x * 0, images.y, images.classes), 4, (0.0,), (0.0,))(0)[0]
    assert (black == 0).all()
    for seed in (-1, 2**31, 0.5, True, "1", [1], None):
        refused("cannot have the seed", Batches, images, 4, (0.5,), (0.2,), seed=seed)


NAN = float("nan")
BAD_NORMS = {
    "float pixels": (
        dict(x=torch.rand(20, 1, 6, 6)),
        "images of torch.float32 .20, 1, 6, 6. .*: batches need uint8",
    ),
    "int64 pixels": (dict(x=torch.zeros(20, 1, 6, 6).long()), "images of torch.int64"),
    "flat pixels": (dict(x=torch.zeros(20, 36, dtype=torch.uint8)), r"\(20, 36\) .*: batches need uint8"),
    "float labels": (dict(y=torch.zeros(20)), "labels of torch.float32 .20,."),
    "fewer labels": (dict(y=torch.zeros(19).long()), r"labels of torch.int64 \(19,\)"),
    "mean of nan": (dict(mean=(NAN,)), "mean=nan cannot be that of pixels as 0..1"),
    "mean of bytes": (dict(mean=(127.5,)), "mean=127.5 cannot be"),
    "negative mean": (dict(mean=(-0.1,)), "mean=-0.1 cannot be"),
    "text": (dict(mean=("x",)), "give a number for each channel"),
    "no list": (dict(mean=0.5), "give a number for each channel"),
    "negative deviation": (dict(std=(-0.2,)), "std=-0.2 cannot be"),
    "deviation of nan": (dict(std=(NAN,)), "std=nan cannot be"),
    "infinite deviation": (dict(std=(float("inf"),)), "std=inf cannot be"),
    "no deviation": (dict(std=(0.0,)), "std=0.0 for channel 0, which varies"),
}


@pytest.mark.parametrize("case", BAD_NORMS)
def test_batches_take_bytes_and_statistics_that_can_be(case):
    changes, match = BAD_NORMS[case]
    given_ = dict(x=some(20).x, y=some(20).y, mean=(0.5,), std=(0.2,)) | changes
    images = Images(given_["x"], given_["y"], tuple("0123"))
    for f in (Batches, eval_batches):  # at once, not when the first is asked for
        refused(match, f, images, 4, given_["mean"], given_["std"])


def test_batches_say_what_they_are():
    "Whatever changes what comes out changes what they say, and nothing else does."
    images, norm = some(40, shape=(3, 6, 6)), dict(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
    make = lambda images=images, size=8, **how: Batches(images, size, **norm | how)
    about = make().about
    assert (
        json.loads(json.dumps(about)) == about
        and about == make(seed=np.int64(0), augment=Augment(), channels_last=True).about
    )
    assert (
        about
        == make(
            Images(images.x.flip(3).flip(3), images.y.clone(), images.classes), mean=np.array(norm["mean"])
        ).about
    )
    pixel, label = images.x.clone(), images.y.clone()
    pixel[3, 2, 1, 0] ^= 1
    label[7] = (label[7] + 1) % 4
    others = [
        make(Images(pixel, images.y, images.classes)),
        make(Images(images.x, label, images.classes)),
        make(noisy_labels(images, 0.1, 0)),
    ]
    others += [
        make(Images(images.x, images.y, tuple("abcd"))),
        make(images.take(range(39))),
        make(images.take(torch.arange(40).flip(0))),
    ]
    others += [
        make(size=9),
        make(seed=1),
        make(augment=Augment(flip=True)),
        make(mean=(0.5, 0.4, 0.31)),
        make(std=(0.2, 0.25, 0.31)),
    ]
    said = [json.dumps(b.about) for b in [make(), *others]]
    assert len({*said}) == len(said) == 12


def test_what_batches_are_is_computed_once(monkeypatch):
    batches, count, hash_ = Batches(some(40), 8, (0.5,), (0.2,)), [], images_py.hash_of
    monkeypatch.setattr(images_py, "hash_of", lambda splits: count.append(1) or hash_(splits))
    [batches(step) for step in range(12)]
    assert count == [] and batches.about == batches.about and count == [1]


# -- text --


def text_folder(path, **content):
    for name, lines in content.items():
        folder(path, {f"{name}.txt": lines.encode()})
    return path


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


# -- downloads, from a server on this machine --


class Server(http.server.BaseHTTPRequestHandler):
    "Serves `content` under /good/; /short/ stops half-way, /wrong/ changes a byte, /hang/ never answers."

    content, asked, stop = {}, [], threading.Event()

    def do_HEAD(self):
        self.do_GET(body=False)

    def do_GET(self, body=True):
        way, _, name = self.path.lstrip("/").partition("/")
        if body:
            self.asked.append(self.path)
        if way == "hang":
            self.stop.wait(60)
            return
        if way not in ("good", "slow", "short", "wrong") or name not in self.content:
            return self.send_error(404)
        data = self.content[name]
        if way == "wrong":
            data = bytes([data[0] ^ 1]) + data[1:]
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            time.sleep(0.3 if way == "slow" else 0)
            self.wfile.write(data[: len(data) // 2] if way == "short" else data)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    "Returns a function that sets from which places of the server MNIST is downloaded."
    content = official_mnist(tmp_path / "served", monkeypatch)
    s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    s.block_on_close = False
    Server.content, Server.asked, Server.stop = content, [], threading.Event()
    threading.Thread(target=s.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{s.server_port}"

    def mirrors(*ways):
        urls = lambda n: [f"http://127.0.0.1:9/{n}" if w == "refused" else f"{base}/{w}/{n}" for w in ways]
        table = [(urls(n), n, hashlib.md5(b).hexdigest()) for n, b in content.items()]
        monkeypatch.setattr(datasets_py, "_downloads", lambda name: ("MNIST/raw", table))

    mirrors("good")
    yield mirrors
    Server.stop.set()
    s.shutdown()
    s.server_close()


def left(root):
    return sorted(p.name for p in root.iterdir()) if root.exists() else []


def test_download(server, roots):
    assert same(load_images("mnist"), False, ("0", "1", "2"))
    assert left(roots[0]) == ["MNIST"] and left(roots[1]) == ["cache"]
    asked = len(Server.asked)
    assert (
        "already here" in get_data("mnist")
        and load_images("mnist").name == "MNIST"
        and len(Server.asked) == asked
    )


@pytest.mark.parametrize("bad", ["missing", "short", "wrong", "hang", "refused"])
def test_next_mirror(server, roots, bad):
    server(bad)
    start = time.monotonic()
    told = refused("cannot be downloaded", get_data, "mnist", timeout=0.3)
    assert time.monotonic() - start < 40
    assert "127.0.0.1" in told and "NAS_NB_DATA" in told and "MNIST/raw" in told
    assert left(roots[0]) == [] and socket.getdefaulttimeout() is None
    server(bad, "good")
    assert "is here now" in get_data("mnist", timeout=0.3) and same(
        load_images("mnist"), False, ("0", "1", "2")
    )


def test_an_interrupted_download(server, roots):
    "What a killed process left is never taken for whole, and is removed by the next."
    raw = roots[0] / "MNIST" / "raw"
    folder(raw, {"train-images-idx3-ubyte.gz": Server.content["train-images-idx3-ubyte.gz"][:50]})
    folder(roots[0] / ".new-abc", {"x.gz": b"half"})
    assert "not here" in next(r for r in list_data() if r["name"] == "mnist")["state"]
    assert same(load_images("mnist"), False, ("0", "1", "2")) and left(roots[0]) == ["MNIST"]


def test_a_full_disk_while_downloading(server, roots, monkeypatch):
    with monkeypatch.context() as m:
        m.setattr(os, "replace", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        refused("No space left on device", get_data, "mnist")
        assert not any((roots[0] / "MNIST" / "raw").iterdir())
    assert left(roots[0]) == ["MNIST"] and "is here now" in get_data("mnist")


def test_two_downloads_at_once(server, roots):
    server("slow")
    said = []
    threads = [threading.Thread(target=lambda: said.append(get_data("mnist"))) for _ in range(3)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert sorted("already" in s for s in said) == [False, True, True] and same(
        load_images("mnist"), False, ("0", "1", "2")
    )
    assert len(Server.asked) == 4 and left(roots[0]) == ["MNIST"]  # each file once


def test_nothing_is_writable(server, roots, monkeypatch):
    def denied(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(self))

    with monkeypatch.context() as m:
        m.setattr(Path, "mkdir", denied)
        refused("nowhere to put data .*Permission denied.*set NAS_NB_DATA", load_images, "mnist")
    roots[0].rmdir()
    roots[0].write_text("a file in the way")  # the next root is taken
    assert str(roots[1]) in get_data("mnist")


def test_what_cannot_be_downloaded():
    refused("ptb cannot be downloaded", get_data, "ptb")
    refused("nonsense cannot be downloaded", get_data, "nonsense")
    assert "nothing to download" in get_data("digits")


def test_the_table_of_downloads():
    where, files_ = datasets_py._downloads("mnist")
    assert (
        where == "MNIST/raw"
        and {f.removesuffix(".gz") for _, f, _ in files_} == {*formats_py._MNIST_MD5}
        and all(len(md5) == 32 for *_, md5 in files_)
    )
    where, ((urls, file, md5),) = datasets_py._downloads("cifar10")
    assert (where, file, md5) == (
        "",
        "cifar-10-python.tar.gz",
        "c58f30108f718f92721af3b95e74349a",
    ) and "toronto" in urls[0]


# -- one's own data --


def test_list(roots):
    rows = {r["name"]: r for r in list_data()}
    known = ["digits", "pydoc", "mnist", "cifar10", "ptb", "wikitext-2", "nasbench201", "nasbenchmacro"]
    assert list(rows) == known
    assert (
        rows["digits"]["state"] == "ready"
        and rows["mnist"]["state"] == "not here: nas-nb data get mnist"
        and "not here" in rows["ptb"]["state"]
    )
    idx(roots[0] / "MNIST" / "raw", ".gz")
    folder(roots[0] / "flowers", files())
    folder(
        roots[0],
        {
            "ptb/valid.txt": b"a\n",
            "ptb/test.txt": b"b\n",
            "book.txt": b"x\n",
            "half/train-images-idx3-ubyte": b"x",
            "wikitext-2/test.txt": b"x",
        },
    )
    rows = {r["name"]: r for r in list_data()}
    assert [rows["mnist"][k] for k in ("form", "where", "state")] == [
        "idx, gzipped",
        "MNIST/raw",
        "ready",
    ] and rows["mnist"]["size"] > 100
    assert rows["flowers"]["state"] == "ready" and rows["flowers"]["size"] == sum(map(len, files().values()))
    assert (
        rows["ptb"]["size"] == 4
        and rows["ptb"]["where"] == "ptb"
        and "without train.txt" in rows["ptb"]["form"]
    )
    assert (
        rows["book"]["what"] == "text"
        and rows["wikitext-2"]["state"].startswith("broken: ")
        and rows["wikitext-2"]["what"] == "text"
    )
    assert rows["half"]["state"].startswith("broken: ") and "lacks t10k-images" in rows["half"]["state"]
    assert "MNIST" not in rows and "runs" not in rows


def test_verify(roots, tmp_path, monkeypatch):
    official_mnist(roots[0] / "MNIST" / "raw", monkeypatch)
    assert (
        "the known checksums" in verify_data("mnist")
        and "hash" in verify_data("digits")
        and "words" in verify_data("pydoc")
    )
    archive(roots[0] / "flowers.tar", files())
    assert "no checksums are known" in verify_data("flowers")
    (cache,) = (p for p in cached(roots[1]) if p.name.startswith("flowers"))
    monkeypatch.setattr(formats_py, "_decode", lambda item: (_ for _ in ()).throw(DataError("decoded")))
    load_images("flowers")  # from the cache
    refused("decoded", verify_data, "flowers")
    refused("nas-nb data get cifar10", verify_data, "cifar10")
    refused("neither a file", verify_data, "nonsense")
    refused("no text ptb", verify_data, "ptb")


@pytest.mark.parametrize("form", ["folder", "npz", "tar.xz", "idx", "txt", "texts", "read-only"])
def test_add(tmp_path, roots, form):
    make = {
        "npz": lambda: npz(tmp_path / "mine.npz"),
        "tar.xz": lambda: archive(tmp_path / "mine.tar.xz", files()),
        "idx": lambda: idx(tmp_path / "mine", ".gz"),
        "txt": lambda: next(folder(tmp_path / "t", {"mine.txt": b"a b\n" * 20}).iterdir()),
        "texts": lambda: text_folder(tmp_path / "mine", train="a\n", valid="a\n", test="b\n"),
    }.get(form, lambda: folder(tmp_path / "mine", files()))
    path = make()
    if form == "read-only":
        path.chmod(0o555)
    said = add_data("flowers", path)
    assert "flowers is here now" in said and "flowers" in left(roots[0])[0] and len(left(roots[0])) == 1
    load = load_text if form in ("txt", "texts") else load_images
    assert load("flowers").hash == load(path).hash and load("flowers").name == "flowers"
    assert next(r for r in list_data() if r["name"] == "flowers")["state"] == "ready"
    assert path.exists() and "flowers" in verify_data("flowers")
    assert (roots[0] / left(roots[0])[0]).stat().st_mode & 0o200  # it can be moved and removed again
    refused("the name 'flowers' is taken", add_data, "flowers", path)


def test_bad_add(tmp_path, roots):
    good = npz(tmp_path / "a.npz")
    for name in (
        "digits",
        "MNIST",
        "cifar10",
        "cache",
        "",
        "../x",
        "a/b",
        ".hidden",
        "a b",
        "x.npz",
        "x" * 65,
        "x" * 300,
    ):
        refused("cannot be given", add_data, name, good)
    for name in (
        "cifar-10-batches-py",
        "cifar-10-python",
        "cifar-10-t",
        "CIFAR-10-Batches-py",
        "MNIST",
        "mNIST",
    ):
        refused("cannot be given: use up to 64 letters", add_data, name, good)
    assert "x" * 64 in add_data("x" * 64, good)
    shutil.rmtree(roots[0])
    roots[0].mkdir()
    refused("float64, not uint8", add_data, "mine", npz(tmp_path / "b.npz", x_train=X["train"] / 255))
    refused("neither a file", add_data, "mine", tmp_path / "nowhere")
    refused("neither a file", add_data, "mine", "digits")  # a path is asked for, not a name
    assert left(roots[0]) == []


def test_a_name_taken_meanwhile(tmp_path, roots, monkeypatch):
    good = npz(tmp_path / "a.npz")
    for file, its_name in (("mine.npz", "mine"), ("yours.zip", "yours")):
        monkeypatch.setattr(
            datasets_py,
            "_verified",
            lambda path, keep: (str((roots[0] / file).write_bytes(b"another's")), None),
        )
        refused(f"'{its_name}' is taken", add_data, its_name, good)
        assert (roots[0] / file).read_bytes() == b"another's"
    assert left(roots[0]) == ["mine.npz", "yours.zip"]


def test_a_target_that_is_there(tmp_path, roots):
    "What is in no list is told like what is: a file without a suffix, where a folder should go."
    (roots[0] / "mine").write_text("something")
    assert "mine" not in [r["name"] for r in list_data()]
    refused("'mine' is taken, .*given/mine is there", add_data, "mine", folder(tmp_path / "f", files()))
    assert (roots[0] / "mine").read_text() == "something" and left(roots[0]) == ["mine"]


def test_what_is_reported_as_here_was_loaded_from_there(tmp_path, roots, monkeypatch):
    path, copy_ = archive(tmp_path / "a.tar", files()), shutil.copy

    def half(source, target):
        copy_(source, target)
        Path(target).write_bytes(Path(target).read_bytes()[:3000])

    monkeypatch.setattr(shutil, "copy", half)
    assert str(path) in refused("cannot be read|holds no|has no", add_data, "mine", path)
    assert left(roots[0]) == []


def test_official_cifar10_under_another_name(tmp_path, roots, monkeypatch):
    "Its form depends on the name, so under another it could not be loaded."
    from torchvision.datasets import CIFAR10

    content = cifar_files(monkeypatch)
    path = archive(tmp_path / "cifar-10-python.tar.gz", content)
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(path.read_bytes()).hexdigest())
    folder(tmp_path, content)
    for source in (path, tmp_path / "cifar-10-batches-py"):
        assert "the known checksums" in verify_data(str(source))
        refused("put it into .*given under this very name", add_data, "mine", source)
    assert left(roots[0]) == []


def test_a_misspelt_root_is_not_made(server, roots, tmp_path):
    good = npz(tmp_path / "a.npz")
    roots[0].rmdir()
    for f, args in ((get_data, ("mnist",)), (load_images, ("mnist",)), (add_data, ("mine", good))):
        refused(f"NAS_NB_DATA names {roots[0]}, which does not exist", f, *args)
    assert (
        not roots[0].exists()
        and left(roots[1]) in ([], ["cache"])
        and data_roots()[0] == roots[0]
        and list_data()
    )
    roots[0].mkdir()
    assert "is here now" in get_data("mnist") and "is here now" in add_data("mine", good)


@pytest.mark.parametrize("suffix", [".ZIP", ".Tar", ".TAR.GZ", ".TGZ", ".tar.XZ", ".NPZ", ".TXT"])
def test_suffixes_in_capitals(tmp_path, roots, suffix):
    plain = tmp_path / f"mine{suffix.lower()}"
    if suffix == ".TXT":
        plain.write_text("a b\n" * 20)
    else:
        npz(plain) if suffix == ".NPZ" else archive(plain, files())
    load = load_text if suffix == ".TXT" else load_images
    path = plain.rename(roots[0] / f"flowers{suffix}")
    assert load("flowers").hash == load(path).hash and load(path).name == "flowers"
    (row,) = (r for r in list_data() if r["name"] == "flowers")
    assert row["state"] == "ready" and row["where"] == path.name and "flowers" in verify_data("flowers")
    assert "more is here now" in add_data("more", path) and load("more").hash == load(path).hash
    assert sorted(left(roots[0])) == sorted([path.name, f"more{suffix.lower()}"])


def test_archives_of_splits_in_capitals(tmp_path):
    for s in ("train", "test"):
        path = archive(tmp_path / "p" / f"{s}.tar.gz", {n: b for n, b in files().items() if n.startswith(s)})
        path.rename(path.with_name(f"{s}.TAR.GZ"))
    d = load_images(tmp_path / "p")
    assert same(d) and d.about["form"] == "tar.gz, one for each split (PNG)"


def test_an_error_is_one_line_in_a_log(tmp_path, roots):
    "What `nas-nb` says about an image has no progress bar in front, and names the data set."
    folder(roots[0] / "flowers", files() | {"val/ant/notes.txt": b"hello"})
    environment = {
        k: v for k, v in os.environ.items() if k not in ("IN_TEST", "NAS_NB_BATCH", "NAS_NB_STATUS")
    }
    command = [sys.executable, "-m", "nas_nb.cli", "data", "verify", "flowers"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    where = f"{roots[0] / 'flowers'}: val/ant/notes.txt"
    why = "(UnidentifiedImageError: cannot identify image file)"
    want = f"nas-nb: {where} cannot be read {why}: remove it, or get it anew\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", want)


def odd_tiff():
    "A TIFF that says of itself that each pixel has 516 numbers."
    whole = encoded(X["train"][0], "tiff")
    samples = struct.pack("<HHIH", 277, 3, 1, 3)
    assert whole.count(samples) == 1
    return whole.replace(samples, struct.pack("<HHIH", 277, 3, 1, 516))


def large_png():
    "A PNG that says of itself that it is large enough for Pillow to warn of it."
    head = b"IHDR" + struct.pack(">IIBBBBB", 10_000, 10_000, 8, 0, 0, 0, 0)
    return PNG[:12] + head + struct.pack(">I", zlib.crc32(head)) + PNG[33:]


@pytest.mark.parametrize("kind", ["log", "warning", "npz"])
def test_nothing_is_said_beside_the_one_line(tmp_path, kind):
    "Libraries log and warn on their own account; a file that Python 2 wrote is read without a word."
    path = tmp_path / "f"
    if kind == "npz":
        head = b"{'descr': '<i8', 'fortran_order': False, 'shape': (6L,), }"
        part = b"\x93NUMPY\1\0" + struct.pack("<H", 118) + head.ljust(117) + b"\n" + Y["train"].tobytes()
        path = npz(tmp_path / "a.npz", y_train=None)
        with zipfile.ZipFile(path, "a") as z:
            z.writestr("y_train.npy", part)
    else:
        folder(path, files() | {"train/ant/9.png": odd_tiff() if kind == "log" else large_png()})
    environment = {k: v for k, v in os.environ.items() if k != "IN_TEST"}
    command = [sys.executable, "-m", "nas_nb.cli", "data", "verify", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout.count("\n")) == ((0, 1) if kind == "npz" else (1, 0)), done
    assert done.stderr.count("\n") == (kind != "npz") and done.stderr[:8] in ("", "nas-nb: "), done.stderr


def test_unknown_names_are_told_the_known(roots):
    npz(roots[0] / "flowers.npz")
    for own in ("cache", "locks", "runs"):  # folders that the program makes
        (roots[0] / own).mkdir(exist_ok=True)
    assert refused("known are", load_images, "flower").strip().endswith("digits, mnist, cifar10, flowers")


# -- the real ones --

real = pytest.mark.skipif(not SHARED, reason="NAS_NB_DATA is not set")


@real
def test_real_mnist(monkeypatch):
    monkeypatch.setenv("NAS_NB_DATA", SHARED)
    if not datasets_py._official("mnist"):
        pytest.skip("no MNIST there")
    d = load_images("mnist")
    assert (
        d.name == "MNIST"
        and d.train.counts()[:3] == [5923, 6742, 5958]
        and d.mean == (0.13066,)
        and d.std == (0.308108,)
    )
    assert d.hash == "898fabb0a5215434" and d.train.y[:5].tolist() == [5, 0, 4, 1, 9]


@real
def test_real_cifar10(monkeypatch):
    monkeypatch.setenv("NAS_NB_DATA", SHARED)
    monkeypatch.setattr(
        images_py, "_own_root", OWN_ROOT
    )  # with the cache of this checkout: decoding takes a quarter of a minute
    if not datasets_py._places("cifar10"):
        pytest.skip("no CIFAR-10 there")
    d = load_images("cifar10")
    assert (
        d.train.counts() == [5000] * 10
        and d.test.counts() == [1000] * 10
        and d.train.classes[:2] == ("airplane", "automobile")
    )
    assert d.train.y[:8].tolist() == [6, 9, 9, 4, 1, 1, 2, 7] and d.test.y[:5].tolist() == [
        3,
        8,
        8,
        0,
        6,
    ]  # the official order
    start = time.process_time()
    assert load_images("cifar10").hash == d.hash and time.process_time() - start < 2  # 0.3 s from the cache


@real
@pytest.mark.parametrize("name", ["ptb", "wikitext-2"])
def test_real_text(monkeypatch, name):
    monkeypatch.setenv("NAS_NB_DATA", SHARED)
    if not (Path(SHARED) / name).exists():
        pytest.skip(f"no {name} there")
    t = load_text(name)
    assert len(t.splits["train"]) > 60_000 and t.vocab[0] in ("the", "<eos>", "<unk>")


def test_a_listing_ends_at_the_depth_from_which_nothing_is_read(tmp_path):
    "A folder like / as a data set is answered at once, and a deep tree beside the data costs nothing."
    at = tmp_path
    for n in range(9):
        at = at / str(n)
        at.mkdir()
        (at / "x").write_text("x")
    names = [row[0] for row in core.listing(tmp_path)]
    assert "0/1/2/3/4/x" in names and "0/1/2/3/4/5/" in names and "0/1/2/3/4/5/x" not in names
    started = time.process_time()
    with pytest.raises(DataError, match="is no split"):
        verify_data("/")
    assert time.process_time() - started < 1
