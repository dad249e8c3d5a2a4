"""Archives that lead out of their folder, swell, are cut off or damaged."""

import gzip
import io
import lzma
import shutil
import struct
import tarfile
import time
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from forms import (
    ALL_ARCHIVES,
    CLASSES,
    PNG,
    archive,
    encoded,
    files,
    folder,
    idx,
    npz,
    refused,
    rng,
    same,
    uncached,
)
from PIL import Image

import nas_nb.formats as formats_py
import nas_nb.images as images_py
from nas_nb.datasets import load_images
from nas_nb.images import DataError
from nas_nb.text import load_text

pytestmark = pytest.mark.usefixtures("roots")


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
    monkeypatch.setattr(formats_py, "_decode", lambda *item: (_ for _ in ()).throw(MemoryError()))
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
