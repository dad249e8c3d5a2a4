"""Data sets: where they are found, the cache, downloads from a server on this machine, what is listed, checked and added."""

import gzip
import hashlib
import http.server
import json
import os
import pickle
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import warnings
import zipfile
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from forms import (
    CHECKED,
    DAMAGE,
    MADE,
    OWN_ROOT,
    PNG,
    SHARED,
    X,
    Y,
    archive,
    damaged,
    encoded,
    files,
    folder,
    idx,
    left,
    npz,
    official_mnist,
    real,
    refused,
    same,
    text_folder,
)
from hypothesis import given, settings

import nas_nb.core as core
import nas_nb.datasets as datasets_py
import nas_nb.formats as formats_py
import nas_nb.images as images_py
from nas_nb import jobs
from nas_nb.datasets import add_data, get_data, list_data, load_images, verify_data
from nas_nb.images import DataError, data_roots
from nas_nb.text import load_text

pytestmark = pytest.mark.usefixtures("roots")


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


def test_a_listing_asks_for_no_more_than_it_must(tmp_path, monkeypatch):
    "A folder is opened once and asked for what it is once; what a file is, its entry tells."
    asked = {"stat": 0, "scandir": 0}

    def counted(name, real):
        def call(*args, **more):
            asked[name] += 1
            return real(*args, **more)

        return call

    for c in range(3):
        (tmp_path / f"a/train/{c}").mkdir(parents=True)
        for i in range(100):
            (tmp_path / f"a/train/{c}/{i}").touch()
    for name in asked:
        monkeypatch.setattr(core.os, name, counted(name, getattr(os, name)))
    assert len(core.listing(tmp_path / "a")) == 304
    assert asked == {"stat": 5, "scandir": 5}  # of the folders; an entry has its own, of files


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

    def slow(item, size):
        (f / "train" / "ant" / "0.png").write_bytes(PNG)
        return decode(item, size)

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
    patience = 2 if bad == "hang" else 30  # seconds: a good mirror may be slow to answer, too
    assert "is here now" in get_data("mnist", timeout=patience)
    assert same(load_images("mnist"), False, ("0", "1", "2"))


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
    monkeypatch.setattr(formats_py, "_decode", lambda *item: (_ for _ in ()).throw(DataError("decoded")))
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
