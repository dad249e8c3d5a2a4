"""A small data set in all its forms, and what the tests of data share."""

import gzip
import hashlib
import io
import os
import struct
import tarfile
import warnings
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from PIL import Image

import nas_nb.datasets as datasets_py
import nas_nb.formats as formats_py
import nas_nb.images as images_py
from nas_nb.images import DataError, Images

SHARED, OWN_ROOT = os.environ.get("NAS_NB_DATA"), images_py._own_root
settings.register_profile("data", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("data")
CHECKED = settings.get_profile("data")


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


PNG, GREY16 = encoded(X["train"][0]), encoded(Image.fromarray(np.zeros((5, 4), np.uint16)))


# -- damage: the same data or a DataError, never anything else --


def damaged(data, how, where, value):
    at = int(where * len(data))
    return data[:at] if how == "cut" else data[:at] + bytes([data[at] ^ value]) + data[at + 1 :]


DAMAGE = dict(
    how=st.sampled_from(["cut", "flip"]), where=st.floats(0, 1, exclude_max=True), value=st.integers(1, 255)
)
MADE = {}


def uncached(source):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return datasets_py._read(datasets_py._place(source), fresh=True)[1]["hash"]


def official_mnist(path, monkeypatch, suffix=".gz"):
    "A small MNIST: its content has the MD5 that is asked for."
    idx(path, suffix)
    content = {p.name: p.read_bytes() for p in path.iterdir()}
    plain = {n.removesuffix(".gz"): gzip.decompress(b) if suffix else b for n, b in content.items()}
    md5 = {n: hashlib.md5(plain[n]).hexdigest() for n in formats_py._MNIST_MD5}
    monkeypatch.setattr(formats_py, "_MNIST_MD5", md5)
    return content


# -- text --


def text_folder(path, **content):
    for name, lines in content.items():
        folder(path, {f"{name}.txt": lines.encode()})
    return path


def left(root):
    return sorted(p.name for p in root.iterdir()) if root.exists() else []


# -- the real ones --

real = pytest.mark.skipif(not SHARED, reason="NAS_NB_DATA is not set")
