"`nas-nb search` on one's own images, at tiny size: what it leaves, what it refuses, and that it goes on."

import contextlib
import io
import json
import math
import re
import shutil
import signal
from html import unescape
from importlib.metadata import version
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from nas_nb import cli, own_runs
from nas_nb.cells import DARTS_CELL, NB201_CELL, Genotype
from nas_nb.datasets import load_own
from nas_nb.images import DataError
from nas_nb.own_data import MAKERS, SPACES, Own, kept_edges, load_found, make_method
from nas_nb.own_report import confusion, verdict
from nas_nb.own_runs import Times, bought, least, stage_seconds
from nas_nb.search_command import METHODS
from nas_nb.search_command import SPACES as NAMED_SPACES

pytestmark = [pytest.mark.usefixtures("one_thread", "roots")]
TINY = "--channels 2 --cells 1 --steps 4,4,2".split()
SMALL = [*TINY, *"--space nb201 --side 4 --seed 3".split()]  # with this seed the network has a path


def picture(path, size=(6, 5), mode="L", seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], *((len(mode),) if len(mode) > 1 else ()))
    pixels = np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8)
    Image.fromarray(pixels, mode).save(path)


@pytest.fixture
def here(tmp_path, monkeypatch):
    "An empty folder to work in, which is no checkout."
    (place := tmp_path / "here").mkdir()
    monkeypatch.chdir(place)
    return place


def make_pets(place):
    "Two classes of eight pictures of three sizes, without splits."
    for n in range(16):
        picture(place / "pets" / ("cat", "dog")[n % 2] / f"{n}.png", (6 + n % 3, 5), seed=n)
    return place / "pets"


@pytest.fixture
def pets(here):
    return make_pets(here)


def answer(capfd, *words) -> tuple[int, str, str]:
    "Exit status, output, error of a command."
    capfd.readouterr()
    status = cli.main(["search", *map(str, words)])
    return status, *capfd.readouterr()


def refused(capfd, says, *words):
    status, _, err = answer(capfd, *words)
    assert (status, err.count("\n")) == (2, 1) and re.search(says, err), err
    assert "Traceback" not in err


def weights(folder):
    return torch.load(folder / "weights.pt", weights_only=True)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# -- a whole search --


@pytest.fixture(scope="module")
def whole(tmp_path_factory, one_thread):
    "A finished search: a folder with the images and the results, and what was told."
    make_pets(place := tmp_path_factory.mktemp("whole"))
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as told:
        patch.chdir(place)
        patch.setenv("IN_TEST", "1")
        patch.setattr("nas_nb.images._own_root", lambda: place / "own")
        assert cli.main(["search", "pets", *SMALL]) == 0
    return SimpleNamespace(place=place, told=told.getvalue())


@pytest.fixture
def done(whole, here):
    "A copy of it."
    shutil.copytree(whole.place, here, dirs_exist_ok=True)
    return SimpleNamespace(out=here / "nas-search-pets", told=whole.told)


def test_a_folder_of_classes_becomes_a_network_and_a_report(done, capfd):
    for said in (
        "pets: 12 train, 4 test images, 2 classes, grey, 4 × 4 pixels",
        "its middle square, brought to 4 × 4 pixels",
        "25 % of each class were split off",
        "search: 4 steps",
        "2 random architectures, 1 steps each",
        "GiB of memory",
        "1/4 search, seed 3",
        "4/4 training of the best of them",
        "random baseline",
    ):
        assert said in done.told, said
    names = "cell.svg", "found.json", "genotype.json", "report.html", "search.json", "weights.pt"
    assert {*names} <= {p.name for p in done.out.iterdir()}
    about = json.loads((done.out / "found.json").read_text())
    genotype = Genotype.from_json((done.out / "genotype.json").read_text())
    assert genotype.to_json() == about["genotype"] and about["classes"] == ["cat", "dog"]
    assert not list((done.out / "parts").glob("*.pt"))  # checkpoints go when their stage is done
    before = (done.out / "report.html").stat().st_mtime_ns
    status, out, _ = answer(capfd, "pets", *SMALL)
    assert status == 0 and "is finished: its report is nas-search-pets" in out and "measuring" not in out
    assert (done.out / "report.html").stat().st_mtime_ns == before


def test_the_report_stands_by_itself(done):
    page = (done.out / "report.html").read_text()
    images = re.findall(r"<img [^>]*>", page)
    alts = [unescape(re.search(r'alt="([^"]*)"', tag)[1]) for tag in images]
    assert len(images) == 4 and all(len(alt.split()) >= 6 for alt in alts)  # cell, curves, confusions, data
    assert all('src="data:image/svg+xml;base64,' in tag for tag in images)
    assert not re.search(r"(src|href)=\"(?!data:)", page) and "<script" not in page
    text = unescape(re.sub(r"<[^>]+>", " ", page)).replace("\xa0", " ")
    found = json.loads((done.out / "found.json").read_text())
    for said in (
        found["verdict"],
        'load_found("nas-search-pets")',
        "2 random architectures after 1 steps each, on 6 held-out training images",
        f"{found['parameters']:,}",
        "25 % of each class were split off",
        "--steps 4,4,2 --out nas-search-pets-again",
        version("torch"),
    ):
        assert said in text, said
    assert re.search(r"class\s+train\s+test\s+cat\s+6\s+2\s+dog\s+6\s+2\s+all\s+12\s+4", text)


def test_two_lines_load_what_was_found(done, here):
    network = load_found("nas-search-pets")
    assert not network.training and network(torch.rand(3, 1, 4, 4)).shape == (3, 2)
    data, x = load_own("pets", 4), torch.rand(3, 1, 4, 4)
    with torch.inference_mode():  # it normalises by itself
        assert torch.allclose(network(x), network.network((x - data.mean[0]) / data.std[0]), atol=1e-5)
        assert not torch.allclose(network(x), network.network(x), atol=1e-5)
    with torch.inference_mode():
        right = (network(data.test.x / 255).argmax(1) == data.test.y).float().mean().item()
    assert right == json.loads((done.out / "found.json").read_text())["test_accuracy"]
    chances = network.classify("pets/dog/1.png")
    assert sum(chances.values()) == pytest.approx(1) and {*chances} == {"cat", "dog"}
    assert list(chances.values()) == sorted(chances.values(), reverse=True)
    picture(here / "large.png", (40, 30), "RGBA")
    assert {*network.classify("large.png")} == {"cat", "dog"}
    (done.out / "weights.pt").write_bytes(b"?")
    with pytest.raises(DataError, match="nas-search-pets cannot be loaded"):
        load_found("nas-search-pets")
    with pytest.raises(DataError, match="pets holds no finished search"):
        load_found("pets")


def test_the_same_steps_and_seed_give_the_same_again(done, here, capfd):
    again = [*SMALL, "--out", "again"]
    assert answer(capfd, "pets", *again)[0] == 0
    assert same(weights(done.out), weights(here / "again"))
    assert answer(capfd, "pets", *SMALL, "--out", "other", "--seed", 1)[0] == 0
    assert not same(weights(done.out), weights(here / "other"))


def test_several_seeds_are_compared_in_pairs_and_the_first_is_kept(done, here, capfd):
    status, out, _ = answer(capfd, "pets", *SMALL, "--seeds", 2, "--out", "two")
    assert status == 0 and "5/8 search, seed 4" in out and "mean of 2 seeds, paired" in out
    assert "95 % interval" in out and same(weights(done.out), weights(here / "two"))


def test_it_is_exported_without_this_package(done, capfd):
    status, out, _ = answer(capfd, "pets", *SMALL, "--export")
    assert status == 0 and "finished" in out and "network.pt2" in out
    program, x = torch.export.load(done.out / "network.pt2").module(), torch.rand(5, 1, 4, 4)
    assert torch.allclose(program(x), load_found(done.out)(x), atol=1e-6)


def test_it_is_exported_to_onnx_where_that_is_installed(done, capfd):
    "Computed by ONNX's own reference, which knows nothing of torch."
    pytest.importorskip("onnxscript")
    reference = pytest.importorskip("onnx.reference")
    status, out, _ = answer(capfd, "pets", *SMALL, "--export")
    assert status == 0 and "network.onnx" in out
    model = reference.ReferenceEvaluator(str(done.out / "network.onnx"))
    (name,) = model.input_names
    for n in (5, 1):  # any number of images
        x = torch.rand(n, 1, 4, 4)
        (found,) = model.run(None, {name: x.numpy()})
        assert torch.allclose(torch.from_numpy(found), load_found(done.out)(x), atol=1e-5)


@pytest.mark.parametrize("method", [m for m in METHODS if m != "asng"])
def test_every_method_goes_through_the_loop(pets, method, capfd):
    assert answer(capfd, "pets", *SMALL, "--method", method)[0] == 0
    assert load_found("nas-search-pets")(torch.rand(2, 1, 4, 4)).isfinite().all()


@pytest.mark.parametrize("space", [s for s in SPACES if s != "nb201"])
def test_every_space_is_built_and_loaded(pets, space, capfd):
    assert answer(capfd, "pets", *TINY, "--side", 4, "--space", space)[0] == 0
    assert load_found("nas-search-pets")(torch.rand(2, 1, 4, 4)).isfinite().all()
    assert {p.name for p in (pets.parent / "nas-search-pets").glob("*.svg")} == {
        "cell.svg",
        "reduction-cell.svg",
    }


def test_names_are_those_of_the_help():
    assert list(MAKERS) == list(METHODS) and list(SPACES) == list(NAMED_SPACES)


def test_a_space_that_a_method_cannot_search_is_refused(pets, capfd):
    refused(capfd, "use a method that samples", "pets", *TINY, "--method", "darts", "--space", "asng")
    assert not (pets.parent / "nas-search-pets").exists()


def test_random_architectures_follow_the_methods_rule():
    method = lambda name: make_method(name, DARTS_CELL, 0, 10)
    assert [kept_edges(method(name)) for name in ("darts", "darts2", "asng", "snas")] == [2, 2, None, None]
    data = load_own("digits")
    asked = dict(method="darts", flip=False, channels=2, cells=1)
    own = Own(asked, data, DARTS_CELL, torch.device("cpu"))
    assert {len(node) for node in own_runs._drawn(own, 0).normal} == {2}
    own.asked["method"] = "asng"
    assert max(len(node) for node in own_runs._drawn(own, 0).normal) > 2


# -- stopped and gone on --


class Stop(BaseException):
    "As if the process had been killed."


STOPS = [("kill -9", at) for at in range(1, 6)]  # in the search, found, both that are tried, baseline


@pytest.mark.parametrize(("how", "at"), [*STOPS, ("Ctrl-C", 1), ("Ctrl-C", 5), ("kill", 2)])
def test_what_was_stopped_goes_on_to_the_same(done, here, how, at, monkeypatch, capfd):
    monkeypatch.setenv("NAS_NB_CHECKPOINT_SECONDS", "0")
    made, batches = [], Own.batches

    def stopping(self, part, seed):
        found = batches(self, part, seed)
        made.append(found)
        if len(made) != 5 + at + (at > 1):  # five are made for measuring, two for the search
            return found

        def batch(step):
            if step == 2 or found.images.x.shape[0] == 6 and at in (3, 4):
                if how == "kill -9":
                    raise Stop
                signal.raise_signal(signal.SIGINT if how == "Ctrl-C" else signal.SIGTERM)
            return found(step)

        return batch

    monkeypatch.setattr(Own, "batches", stopping)
    words = "pets", *SMALL, "--out", "stopped"
    if how == "kill -9":
        with pytest.raises(Stop):
            own_runs.search_command(arguments(*words))
    else:
        status, out, err = answer(capfd, *words)
        assert status == 130 and "run again to go on" in out and "nas-nb search pets" in out and err == ""
    assert not (here / "stopped" / "report.html").exists()
    monkeypatch.setattr(Own, "batches", batches)
    status, out, _ = answer(capfd, *words)
    assert status == 0 and "going on in stopped" in out and "measuring" not in out
    assert same(weights(done.out), weights(here / "stopped"))
    before, after = (json.loads((f / "found.json").read_text()) for f in (done.out, here / "stopped"))
    assert before == after
    tries = lambda f: re.findall(
        r"<td>[\d.]+</td><td>[\d.]+&nbsp;%</td></tr>", (f / "report.html").read_text()
    )
    assert tries(done.out) == tries(here / "stopped") and len(tries(done.out)) == 2


def arguments(*words):
    given = cli.parser().parse_args(["search", *map(str, words)])
    given.argv = ["search", *map(str, words)]
    return given


def test_a_stage_that_was_damaged_is_computed_again(done, capfd):
    before = weights(done.out)
    kept = done.out / "parts" / "found-3.done"
    whole = bytearray(kept.read_bytes())
    whole[len(whole) // 2] ^= 1
    kept.write_bytes(whole)
    (done.out / "report.html").unlink()
    status, out, _ = answer(capfd, "pets", *SMALL)
    assert status == 0 and "found-3.done is not used (it is damaged)" in out and "1/4 search" not in out
    assert "2/4 training" in out and same(before, weights(done.out))


# -- budgets --


def test_a_budget_is_kept_and_divided_fairly():
    asked = dict(method="asng", flip=False, channels=2, cells=1)
    own, random = Own(asked, load_own("digits"), NB201_CELL, torch.device("cpu")), np.random.default_rng(0)
    for _ in range(200):
        search, train = 10 ** random.uniform(-3, 1, 2)
        t, budget = Times(search, train, train / 100, 0), 10 ** random.uniform(0, 5)
        plan = bought(own, t, budget)
        if isinstance(plan, float):
            enough = bought(own, t, 1.2 * plan)
            assert plan > budget * 0.9 and not isinstance(enough, float)
            continue
        seconds = stage_seconds(plan, t, own.data)
        assert plan.search >= least(own)[0] and plan.train >= least(own)[1]
        one = seconds["tried"] / plan.random
        assert abs(seconds["tried"] - seconds["search"]) <= 1.01 * one / 2 or plan.random == 1
        assert seconds["search"] <= budget / 4 and seconds["baseline"] == seconds["found"]
        assert math.fsum(seconds.values()) <= budget + one


def test_a_small_budget_is_refused_with_one_that_suffices(pets, capfd, monkeypatch):
    slow = Times(search=0.1, train=0.1, image=0.001, memory=2**20)  # whatever this machine is
    monkeypatch.setattr(own_runs, "measure", lambda own: slow)
    words = "pets", "--channels", 2, "--cells", 1, "--space", "nb201", "--side", 4
    refused(capfd, r"a budget of 1 s is too small: .* --budget \d+[sm] \(30 steps", *words, "--budget", "1s")
    assert not (pets.parent / "nas-search-pets").exists()


@pytest.mark.parametrize(
    "seeds, budget, stops", [(1, 40.0, None), (1, 39.0, 4), (2, 40.0, 3), (1, None, None)]
)
def test_measuring_stops_when_a_few_steps_take_what_many_may(seeds, budget, stops, monkeypatch):
    ticks = iter([0, 90, 94, 97, 100])  # the first step warms up: it is not counted
    monkeypatch.setattr(own_runs, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    own = SimpleNamespace(device=torch.device("cpu"), asked=dict(budget=budget, seeds=seeds))
    clock, done = own_runs.Clock(lambda step: step, own, 30), 0
    try:
        for done in range(5):
            clock(done)
    except own_runs.Refused as e:
        assert done == stops
        assert re.fullmatch(
            r"a budget of \d+ s is too small: 30 steps .* one takes 3.* --budget \d+m or more .*", str(e)
        )
    else:
        assert stops is None and clock.seconds() == 3


@pytest.mark.parametrize("budget", ["abc", "0", "-3", ""])
def test_what_is_no_time_is_no_budget(here, budget, capfd):
    refused(capfd, "is no duration: write 9m", "pets", f"--budget={budget}")


# -- bad input --

BAD = {
    "nowhere": (lambda at: None, "nowhere is neither a file, nor a folder"),
    "./nowhere": (lambda at: None, "nowhere is neither a file"),
    "an empty folder": (lambda at: at.mkdir(), "holds no images in folders of classes: arrange them"),
    "images without classes": (lambda at: picture(at / "1.png"), "holds no images in folders of classes"),
    "one class": (lambda at: [picture(at / "cat" / f"{n}.png") for n in range(8)], "has one class, 'cat'"),
    "one image in a class": (
        lambda at: [picture(at / p) for p in ("a/1.png", "b/2.png", "b/3.png", "b/4.png", "b/5.png")],
        "the class 'a' has 1 image, and a class needs 4",
    ),
    "an empty class": (
        lambda at: [picture(at / f"a/{n}.png") for n in range(4)] + [(at / "b").mkdir()],
        "the class folder b is empty",
    ),
    "one image to train a class": (
        lambda at: (
            [picture(at / p / f"{n}.png") for p in ("train/a", "test/a") for n in range(3)]
            + [picture(at / "train/b/1.png"), picture(at / "test/b/1.png")]
        ),
        "the class 'b' of .* has one training image",
    ),
    "a text": (lambda at: (at.mkdir(), (at / "cat").mkdir(), (at / "cat/1.txt").touch()), "cannot be read"),
    "misnamed splits": (
        lambda at: [picture(at / p / "a" / "1.png") for p in ("training", "testing")],
        "the folder 'testing' is no split",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_images_get_one_sentence(here, case, capfd):
    make, says = BAD[case]
    name = case if "nowhere" in case else "images"
    make(here / name)
    refused(capfd, says, name, *SMALL)
    assert not list(here.glob("nas-search-*")) and not list(here.glob(".*"))


def test_a_corrupt_image_is_named(pets, capfd):
    whole = (pets / "dog" / "3.png").read_bytes()
    (pets / "dog" / "3.png").write_bytes(whole[: len(whole) // 2])
    refused(capfd, r"pets: dog/3.png cannot be read .*: remove it, or get it anew", "pets", *SMALL)


def npz(path, **more):
    x, y = np.zeros((6, 5, 4), np.uint8), np.array([0, 1] * 3)
    arrays = dict(x_train=x, y_train=y, x_test=x, y_test=y) | more
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (dict(y_test=np.array([0, 1, 2] * 2)), "labels of test are 0 to 2: they must be 0 to 1"),
        (dict(y_train=np.array([0, 1, -1] * 2)), "number the classes"),
        (dict(y_train=np.array([0, 9] * 3)), "number the classes"),
        (dict(x_test=None), "lacks x_test"),
        (dict(x_train=np.zeros((6, 5, 4))), "store pixels as bytes"),
    ],
)
def test_a_bad_npz_gets_one_sentence(here, more, says, capfd):
    npz("a.npz", **more)
    refused(capfd, says, "a.npz", *SMALL)


def test_options_that_make_no_sense_get_one_sentence(pets, here, capfd):
    for says, words in {
        "unknown method 'asgn': known are asng, reinforce, .* or your own": ("--method", "asgn"),
        "unknown space 'dart': known are darts, nb201": ("--space", "dart"),
        "there is no file mine.py": ("--method", "mine.py:Mine"),
        "no_such_module cannot be imported": ("--space", "no_such_module:SPACE"),
        "json has no 'SPACE': it has": ("--space", "json:SPACE"),
        "json:loads is no CellSpace": ("--space", "json:loads"),
        "are no steps: write three whole numbers": ("--steps", "10"),
        "not a whole number from 1 to 512": ("--side", "0"),
        "unknown device 'gpu'": ("--device", "gpu"),
        "no / or": ("--name", "a/b"),
    }.items():
        refused(capfd, says, "pets", *SMALL, *words)
    assert not list(here.glob("nas-search-*"))


def test_a_folder_with_other_things_is_left_alone(done, here, capfd):
    (here / "full").mkdir()
    (here / "full" / "thesis.txt").write_text("all of it")
    refused(capfd, "full holds something else than a search", "pets", *SMALL, "--out", "full")
    refused(capfd, "thesis.txt is a file", "pets", *SMALL, "--out", "full/thesis.txt")
    says = r"nas-search-pets holds another search \(seed 3, not 1\): give another --out"
    refused(capfd, says, "pets", *SMALL, "--seed", 1)
    (here / "pets" / "dog" / "1.png").unlink()
    refused(capfd, r"holds another search \(data \w+, not \w+\)", "pets", *SMALL)
    (done.out / "search.json").write_text("{")
    refused(capfd, "search.json is damaged", "pets", *SMALL)


# -- images of all kinds --


def test_grey_and_transparent_pictures_mix_and_tiny_ones_fit(here, capfd):
    for n in range(16):
        mode = ("L", "RGB", "RGBA")[n % 3]
        picture(here / "mixed" / ("cat", "dog")[n % 2] / f"{n}.png", (3, 3), mode, seed=n)
    status, out, _ = answer(capfd, "mixed", *TINY, "--space", "darts")
    assert status == 0 and "colour, 3 × 3 pixels" in out and "images are as they were" in out
    assert load_found("nas-search-mixed").shape == (3, 3, 3)


def test_large_pictures_become_32_pixels_and_a_side_is_obeyed(here):
    for n in range(8):
        picture(here / "large" / ("cat", "dog")[n % 2] / f"{n}.png", (50, 40), seed=n)
    assert load_own("large").train.shape == (1, 32, 32) and load_own("large", 40).train.shape == (1, 40, 40)
    npz("wide.npz", x_train=np.zeros((6, 40, 60), np.uint8), x_test=np.zeros((6, 40, 60), np.uint8))
    assert load_own("wide.npz").train.shape == (1, 32, 32)
    image = Image.open("large/cat/0.png").crop((5, 0, 45, 40))
    assert np.array_equal(load_own("large", 40).splits["train"].x[0, 0], image) or np.array_equal(
        load_own("large", 40).splits["test"].x[0, 0], image
    )


def test_a_folder_with_train_alone_is_split_and_one_with_splits_is_not(here):
    for n in range(16):
        picture(here / "alone" / "train" / ("cat", "dog")[n % 2] / f"{n}.png", seed=n)
    data = load_own("alone")
    assert data.train.counts() == [6, 6] and data.test.counts() == [2, 2] and len(data.about["done"]) == 2
    again = load_own("alone")
    assert again.hash == data.hash and again.about == data.about  # from the cache, too
    shutil.copytree(here / "alone" / "train", here / "alone" / "test")
    data = load_own("alone")
    assert data.train.counts() == data.test.counts() == [8, 8] and len(data.about["done"]) == 1


def test_an_archive_without_splits_is_read_like_its_folder(pets):
    shutil.make_archive("zipped", "zip", ".", "pets")
    assert load_own("zipped.zip").hash == load_own("pets").hash


# -- one's own method and space --

MINE = """
import torch
from nas_nb.cells import CellSpace, decode
from nas_nb.methods import SamplingMethod
from nas_nb.operations import DARTS_OPS
from nas_nb.relaxations import one_hot

TINY = CellSpace({k: DARTS_OPS[k] for k in ("skip_connect", "sep_conv_3x3")}, nodes=1)


class First(SamplingMethod):
    "Always the first operation."

    def __init__(self, space, steps):
        super().__init__()
        self.space, self.steps = space, steps

    def ask(self, draw, n):
        return [one_hot([0] * len(self.space.sizes)) for _ in range(n)]

    def tell(self, losses):
        assert losses.shape == (2,)

    def architecture(self):
        return decode(self.space, [0] * len(self.space.sizes))


class Fails(First):
    def tell(self, losses):
        return losses[7]


def broken(space):
    return space.nothing
"""


def test_a_method_and_a_space_of_ones_own(pets, here, tmp_path, monkeypatch, capfd):
    (here / "mine.py").write_text(MINE)
    words = "pets", *TINY, "--side", 4, "--method", "mine.py:First"
    assert answer(capfd, *words, "--space", "mine.py:TINY")[0] == 0
    network = load_found("nas-search-pets")
    assert {op for op, _ in network.network.genotype.normal[0]} == {"skip_connect"}
    (here / "mine.py").write_text(MINE + "\n# another thought\n")
    refused(capfd, r"holds another search \(own code .*mine.py", *words, "--space", "mine.py:TINY")
    shutil.move("nas-search-pets", tmp_path / "moved")  # the space goes with the folder
    monkeypatch.chdir(tmp_path)
    x = torch.rand(2, 1, 4, 4)
    assert torch.equal(load_found("moved")(x), network(x))
    monkeypatch.chdir(here)
    (here / "as_module.py").write_text(MINE)
    assert answer(capfd, *words[:-1], "as_module:First", "--space", "as_module:TINY")[0] == 0


def test_the_faults_of_ones_own_method_are_told_with_their_line(pets, here, capfd):
    (here / "mine.py").write_text(MINE)
    line = MINE.splitlines().index("        return losses[7]") + 1
    for name, says in {
        "Fails": rf"mine.py:Fails fails in a search \(IndexError: .*, mine.py line {line}\)",
        "broken": r"mine.py:broken cannot be made with the space \(AttributeError: .*mine.py line",
        "one_hot": "cannot be made with the space|gives no method",
        "CellSpace": "cannot be made with the space|gives no method",
        "Nobody": "mine.py has no 'Nobody': it has",
    }.items():
        refused(capfd, says, "pets", *SMALL, "--method", f"mine.py:{name}")


# -- the verdict --


def pair(found, base, n=100):
    made = lambda right: dict(answers=[0] * right + [1] * (n - right))
    return dict(found=made(found), baseline=made(base))


@pytest.mark.parametrize(
    ("pairs", "beat", "words"),
    [
        ([(80, 60)], True, "The search beat its random baseline: 80 of 100 test images (80.0 %)"),
        ([(60, 80)], False, "The search did worse than its random baseline"),
        ([(62, 60)], False, "did not beat its own random baseline: 62 of 100"),
        ([(60, 60)], False, "the same number"),
        ([(80, 60), (82, 61), (79, 60)], True, "The search beat its random baseline: +20.0 points"),
        ([(60, 80), (61, 82), (60, 79)], False, "did worse than its random baseline: -20.0 points"),
        ([(80, 60), (60, 80), (61, 60)], False, "did not beat its own random baseline: +0.3 points"),
        ([(61, 60), (61, 60)], False, "did not beat its own random baseline: +1.0 points"),
    ],
)
def test_the_verdict_in_plain_words(pairs, beat, words):
    found = verdict([pair(*p) for p in pairs], [0] * 100)
    assert found.beat == beat and words in found.sentence


def test_confusions_are_counted_by_true_class():
    assert confusion([0, 1, 1, 2], [0, 0, 1, 2], 3).tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]


def test_the_help_lists_methods_and_spaces(capfd):
    with pytest.raises(SystemExit) as end:
        cli.parser().parse_args(["search", "--help"])
    shown = capfd.readouterr().out
    assert end.value.code == 0 and "examples:" in shown and "load_found" in shown
    for name, line in (METHODS | NAMED_SPACES).items():
        assert re.search(rf"(?m)^  {name} +{re.escape(line)}$", shown), name
