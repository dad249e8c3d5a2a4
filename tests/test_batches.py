"""Splits, and batches compared with a slow reference."""

import json

import numpy as np
import pytest
import torch
from forms import refused, some
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import nas_nb.batches as batches_py
import nas_nb.images as images_py
from nas_nb.batches import Augment, Batches, eval_batches, few_labels, noisy_labels, resize, split
from nas_nb.images import DataError, Images

pytestmark = pytest.mark.usefixtures("roots")


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
    for rate in (-0.1, 1.1, float("nan"), "0.1", None, [0.1]):
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
        (2**70,),
        (2**70, "enlarge"),
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
