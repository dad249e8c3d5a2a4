"""Reading images: every form that a data set may have, and every way in which it can be broken."""

import gzip
import json
import os
import struct
import warnings
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from forms import (
    ALL_ARCHIVES,
    CHECKED,
    DAMAGE,
    GREY16,
    MADE,
    PNG,
    X,
    Y,
    archive,
    damaged,
    encoded,
    files,
    folder,
    idx,
    idx_bytes,
    left,
    npz,
    official_mnist,
    refused,
    rng,
    same,
    uncached,
)
from hypothesis import given, settings
from PIL import Image

import nas_nb.batches as batches_py
import nas_nb.datasets as datasets_py
import nas_nb.formats as formats_py
import nas_nb.images as images_py
from nas_nb.datasets import add_data, list_data, load_images, verify_data
from nas_nb.images import DataError
from nas_nb.text import load_text

pytestmark = pytest.mark.usefixtures("roots")


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
