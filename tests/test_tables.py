"""Tables of whole spaces: forms against networks that are run, measures, ceilings, our own tables and public ones."""

import hashlib
import itertools
import json
import lzma
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from functools import cache
from io import StringIO

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

import nas_nb.images as images_py
import nas_nb.table_files as table_files
import nas_nb.tiny as tiny
from nas_nb.bits import other_surroundings, portable_variables
from nas_nb.cells import NB201_CELL, decode
from nas_nb.core import root
from nas_nb.datasets import add_data, get_data, list_data, verify_data
from nas_nb.images import DataError
from nas_nb.known_tables import known_costs, known_table, nas_bench_201, nas_bench_macro
from nas_nb.known_tables import live as live_edges
from nas_nb.relaxations import one_hot
from nas_nb.tables import (
    TABLE_CELL,
    Table,
    ceiling,
    encodings,
    form,
    from_text,
    functions,
    kendall,
    terms,
    to_text,
)
from nas_nb.tiny import DATA, ManyNetworks, TinyNetwork
from nas_nb.twins import agreement, differences, twin_ceiling, twin_pairs

CODES = encodings(TABLE_CELL.sizes)
FEW = settings(deadline=None, derandomize=True, max_examples=60)


@cache
def of():
    return functions(TABLE_CELL)


@pytest.fixture
def double():
    "Tensors of float64, so that equal functions are equal to ten digits."
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# -- forms: networks that are run say what is one function --


def live(choices):
    "Edges of the convolutions that the output depends on: those whose weights change it."
    out, inside = terms(TABLE_CELL, choices)
    found, new = set(), {e for _, e in out if e >= 0}
    while new:
        found |= new
        new = {c for e in new for _, c in inside[e][1] if c >= 0} - found
    return sorted(found)


def one_function(a, b):
    "Whether some assignment of the convolutions of `a` to those of `b` gives the same outputs on random weights."
    network, mine, its = TinyNetwork(TABLE_CELL, channels=3).eval(), live(a), live(b)
    if len(mine) != len(its):
        return False
    x = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        wanted = network(x, one_hot(a))
        weight = {e: network.ops[f"{e}-2"][1][0].weight.clone() for e in mine}
        for order in itertools.permutations(mine):
            for e, from_e in zip(its, order):
                network.ops[f"{e}-2"][1][0].weight.copy_(weight[from_e])
            if torch.allclose(network(x, one_hot(b)), wanted, rtol=0, atol=1e-9):
                return True
    return False


def test_encodings_of_one_form_are_one_function(double):
    rng, tried = np.random.default_rng(0), 0
    for number in rng.permutation(of().max() + 1):
        rows = np.flatnonzero(of() == number)
        if len(rows) > 1 and len(live(CODES[rows[0]])) < 5 and tried < 120:
            tried += 1
            a, b = CODES[rng.choice(rows, 2, replace=False)].tolist()
            torch.manual_seed(tried)
            assert one_function(a, b), (a, b)
    assert tried == 120


def test_encodings_of_two_forms_are_two_functions(double):
    "Above all those that differ in one or two edges."
    rng, tried = np.random.default_rng(1), 0
    while tried < 120:
        a = CODES[rng.integers(len(CODES))].tolist()
        b = list(a)
        for e in rng.choice(6, rng.integers(1, 3), replace=False):
            b[e] = int(rng.integers(4))
        if form(TABLE_CELL, a) != form(TABLE_CELL, b) and len(live(a)) == len(live(b)) < 4:
            tried += 1
            torch.manual_seed(tried)
            assert not one_function(a, b), (a, b)


@pytest.mark.parametrize("name", DATA)
def test_costs_are_those_that_torch_counts(name):
    costs, space, shape = known_costs(name), DATA[name].space, DATA[name].shape
    network, codes = TinyNetwork(space, shape), encodings(space.sizes)
    for n in np.random.default_rng(0).integers(len(codes), size=20):
        choices = live_edges(codes[n : n + 1])[0].tolist()
        network.zero_grad()
        with FlopCounterMode(display=False) as counter:  # a multiply-add is two operations
            out = network(torch.randn(2, *shape), one_hot(choices))
        assert counter.get_total_flops() == 2 * 2 * costs["multiply_adds"][n]
        out.sum().backward()
        used = sum(p.numel() for p in network.parameters() if p.grad is not None)
        assert used == costs["parameters"][n] or not any(choices)  # nothing reaches the stem
    with pytest.raises(ValueError, match="unknown table"):
        known_costs("mnist")


def test_one_convolution_twice_is_not_two():
    twice, two = [2, 0, 1, 0, 1, 1], [2, 2, 0, 0, 1, 1]
    assert form(TABLE_CELL, twice) != form(TABLE_CELL, two)
    assert functions(NB201_CELL).max() + 1 == 5044 and of().max() + 1 == 845


# -- measures --

sizes_and_scores = st.lists(st.integers(2, 4), min_size=1, max_size=3).flatmap(
    lambda sizes: st.tuples(
        st.just(sizes), st.lists(st.integers(0, 5), min_size=(n := int(np.prod(sizes))), max_size=n)
    )
)


def table(sizes, scores, order=None):
    codes = ["".join(map(str, c)) for c in encodings(sizes).tolist()]
    frame = pd.DataFrame(dict(architecture=codes, score=scores))
    return Table(sizes, frame if order is None else frame.iloc[order], "score")


@FEW
@given(sizes_and_scores)
def test_percentiles_average_one_half_and_regret_is_none_below_zero(case):
    sizes, scores = case
    t, n, every = table(*case), len(scores), encodings(sizes)
    twice = t.percentile(every) * 2 * n
    assert np.allclose(twice, np.rint(twice)) and np.rint(twice).sum() == n * n  # so the mean is ½ exactly
    regret = t.regret(every)
    assert (regret >= 0).all() and (regret == 0).any()
    assert ((regret == 0) == (np.array(scores) == max(scores))).all()
    better = np.subtract.outer(t.score(every), t.score(every)) > 0
    assert (better == (np.subtract.outer(t.percentile(every), t.percentile(every)) > 0)).all()


@FEW
@given(sizes_and_scores, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(case, random):
    order = random.sample(range(len(case[1])), len(case[1]))
    assert (table(*case, order).scores == table(*case).scores).all()


def test_an_architecture_in_every_spelling():
    t = Table(NB201_CELL.sizes, frame_201(), "cifar10_test_200", NB201_CELL)
    c = [3, 0, 4, 1, 2, 3]
    text = "|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|"
    assert to_text(NB201_CELL, c) == text and from_text(NB201_CELL, f" {text}\n") == c
    rows = [t.at(x) for x in (c, np.array(c), tuple(c), "304123", "3-0-4-1-2-3", text)]
    assert set(map(int, rows)) == {int(t.at([c])[0])} and t[text]["architecture"] == "304123"
    assert t.at(decode(NB201_CELL, c)) == t.at(c)
    with pytest.raises(ValueError, match="knows no space"):
        Table(t.sizes, t.frame, t.columns).at(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("|x~0|+|none~0|none~1|+|none~0|none~1|none~2|", "unknown operation 'x'"),
        ("|none~0|+|none~0|none~1|", "a cell is written like"),
        ("|none~0|+|none~1|none~0|+|none~0|none~1|none~2|", "a cell is written like"),
        ("|none|+|none~0|none~1|+|none~0|none~1|none~2|", "2 choices|written like|digits"),
        ("30412", "6 choices below"),
        ("30412x", "choices are digits"),
        ("304129", "6 choices below"),
        ("", "choices"),
    ],
)
def test_texts_that_are_none(text, said):
    t = Table(NB201_CELL.sizes, frame_201(), "cifar10_test_200", NB201_CELL)
    with pytest.raises(ValueError, match=said) as error:
        t.at(text)
    assert "\n" not in str(error.value)


def test_a_ceiling_is_that_of_functions_and_zero_for_noise():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(dict(architecture=["".join(map(str, c)) for c in CODES.tolist()], function=of()))
    true, noise = rng.normal(size=845), rng.normal(size=(3, 845))
    for k in range(3):
        frame[f"noisy_{k}"], frame[f"mere_{k}"] = (true + 0.3 * noise[k])[of()], noise[k][of()]
    noisy = Table(TABLE_CELL.sizes, frame, [f"noisy_{k}" for k in range(3)])
    pairs = itertools.combinations(range(3), 2)
    plain = np.mean([kendall(true + 0.3 * noise[i], true + 0.3 * noise[j]) for i, j in pairs])
    assert ceiling(noisy) == pytest.approx(plain)  # each function once, not 4,096 rows
    assert ceiling(noisy, 0.5) < ceiling(noisy) - 0.1
    mere = Table(TABLE_CELL.sizes, frame, [f"mere_{k}" for k in range(3)])
    assert abs(ceiling(mere, 0.1)) < 0.1 and len(mere.best(0.1)) == 84
    assert (np.diff(noisy.scores[noisy.best()]) <= 0).all()
    for top in (0, -1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="must be a share"):
            ceiling(noisy, top)
    with pytest.raises(ValueError, match="two columns"):
        ceiling(Table(TABLE_CELL.sizes, frame, "noisy_0"))


# -- a table of one's own --

OWN = "architecture,seed_0,seed_1\n00,61,63\n01,70,68\n02,55,57\n10,71,75\n11,71.5,74.5\n12,40,44\n"


def own(text=OWN, score=("seed_0", "seed_1")):
    return Table((2, 3), pd.read_csv(StringIO(text), dtype=dict(architecture=str)), score)


def test_a_table_of_ones_own():
    mine = own()
    assert mine.regret([0, 1]) == 4 and mine.score("1-2") == 42 and mine.ranks.mean() == pytest.approx(0.5)
    assert mine.percentile([[1, 0], [1, 1], [1, 2]]) == pytest.approx([5 / 6, 5 / 6, 1 / 12])
    assert ceiling(mine) == pytest.approx(13 / 15)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("12,40,44\n", "", "architecture 1-2 has 0 rows"),
        ("12,40,44", "11,40,44", "architecture 1-1 has 2 rows"),
        ("12,40,44", "13,40,44", "2 choices below"),
        ("12,40,44", "120,40,44", "2 choices below"),
        ("12,40,44", "1,40,44", "2 choices below"),
        ("12,40,44", "ab,40,44", "choices are digits"),
        ("12,40,44", ",40,44", "choices are digits"),
        ("12,40,44", "12,,44", "finite number"),
        ("12,40,44", "12,inf,44", "finite number"),
        ("architecture", "arch", "needs the column architecture: it has arch, seed_0"),
        ("seed_1", "seed_2", "needs the column seed_1"),
        ("12,40,44", "12,good,44", "could not convert|finite number"),
    ],
)
def test_tables_that_are_none(old, new, said):
    with pytest.raises(ValueError, match=said) as error:
        own(OWN.replace(old, new))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "bad", [[0, 3], [-1, 0], [0], [0, 1, 2], [0.0, 1.0], [True, False], "zz", [[0, 1], [0, 3]]]
)
def test_architectures_that_are_none(bad):
    with pytest.raises(ValueError, match="choices"):
        own().score(bad)


# -- tiny networks --


def test_many_networks_are_single_ones(double):
    "Logits and all gradients, for encodings in which each operation is on each edge."
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    choices = [[(k + e) % 4 for e in range(6)] for k in range(4)] + CODES[rng.integers(4096, size=8)].tolist()
    start, x, y = TinyNetwork(TABLE_CELL), torch.randn(16, 1, 8, 8), torch.arange(16) % 10
    many = ManyNetworks(start, choices).double()  # its pooling is 1/9 in float32
    logits = many(x)
    F.cross_entropy(logits.flatten(0, 1), y.repeat(len(choices)), reduction="sum").backward()
    for m, c in enumerate(choices):
        start.zero_grad()
        alone = start(x, one_hot(c))
        F.cross_entropy(alone, y, reduction="sum").backward()
        assert torch.allclose(alone, logits[m], atol=1e-6)
        assert torch.allclose(start.linear.weight.grad.T, many.head.grad[m], atol=1e-6)
        stem = start.stem[0].weight.grad
        assert torch.allclose(
            torch.zeros(9, 8) if stem is None else stem.flatten(1).T, many.stem.grad[m], atol=1e-6
        )
        for e in (e for e in range(6) if c[e] == 2):
            at = many.on[e]["nor_conv_3x3"].tolist().index(m)
            grad = start.ops[f"{e}-2"][1][0].weight.grad
            if grad is not None:  # its output reaches the end
                its = many.convs[str(e)].grad[at]
                assert torch.allclose(grad.permute(2, 3, 1, 0).reshape(9, -1), its, atol=1e-6)


def test_a_part_that_is_there_is_not_computed_again(tmp_path, monkeypatch):
    monkeypatch.setitem(DATA, "digits", replace(DATA["digits"], steps=2, views=1))
    piece, threads = (3, 2, 1), torch.get_num_threads()
    path = tiny._do_part(tmp_path, "digits", piece)
    assert (
        path.name == "digits-1-0003.csv"
        and len(pd.read_csv(path)) == 2
        and len(list(tmp_path.iterdir())) == 1
    )
    before = path.read_bytes()
    monkeypatch.setattr(tiny, "train_part", lambda *_: pytest.fail("computed again"))
    assert tiny._do_part(tmp_path, "digits", piece).read_bytes() == before
    torch.set_num_threads(threads)


def test_parts_become_a_table(tmp_path):
    "Every encoding gets the row of its function, every seed its column, in whatever parts they were computed."
    data, paths = DATA["digits"], []
    pieces = tiny._pieces(data)
    assert len(pieces) == 39 and {seed for *_, seed in pieces} == {0, 1, 2}
    for first, size, seed in pieces:
        numbers = np.arange(first, min(first + size, 845))
        rows = pd.DataFrame(dict(accuracy=numbers / 10 + seed / 100, loss=numbers / 1000 + seed / 10000))
        paths.append(tmp_path / f"{first}-{seed}.csv")
        rows.to_csv(paths[-1], index=False)
    frame = pd.read_csv(StringIO(tiny._assembled(data, pieces, paths)), dtype=dict(architecture=str))
    assert (frame["function"] == of()).all() and len(frame) == 4096
    for seed in range(3):
        assert np.allclose(frame[f"accuracy_{seed}"], of() / 10 + seed / 100, atol=0.0051)
        assert np.allclose(frame[f"loss_{seed}"], of() / 1000 + seed / 10000, atol=0.0001)


GOLDEN = """
from dataclasses import replace
import torch
from nas_nb.tiny import DATA, representatives, train_part
torch.set_num_threads(1)
data = replace(DATA["digits"], steps=5, views=1)
print(train_part(data, representatives(data.space)[500:506], 1).to_csv(index=False, float_format="%.4f"), end="")
"""


@pytest.mark.skipif(bool(other_surroundings()), reason="; ".join(other_surroundings()))
def test_a_part_has_the_same_bits_everywhere():
    env = os.environ | portable_variables("quick") | dict(NAS_NB_DATA="")
    run = subprocess.run([sys.executable, "-c", GOLDEN], env=env, cwd=root(), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-800:]
    assert hashlib.sha256(run.stdout.encode()).hexdigest()[:16] == "9721d0d681eb54ef", run.stdout


# -- the tables that come with the package --


@pytest.mark.parametrize("name", ["digits", "cifar16"])
def test_known_tables(name):
    t, data = known_table(name), DATA[name]
    assert len(t.frame) == 4096 and len(t.columns) == data.seeds and (t.frame["function"] == of()).all()
    for column in [c for c in t.frame if c.startswith(("accuracy", "loss"))]:
        assert (t.frame.groupby("function")[column].nunique() == 1).all()
    nothing = t.scores[t.at([0] * 6)]
    assert 5 < nothing < 20 and t.scores.max() > 2 * nothing and np.rint(t.ranks * 8192).sum() == 4096**2


def test_known_tables_are_part_of_the_package():
    "Of the wheel, and of the tree: what git ignores is in no wheel."
    project = tomllib.loads((root() / "pyproject.toml").read_text())
    (pattern,) = project["tool"]["setuptools"]["package-data"]["nas_nb"]
    known = root() / "nas_nb" / "known"
    assert {p.name for p in (root() / "nas_nb").glob(pattern)} == {p.name for p in known.iterdir()}
    assert sum(p.stat().st_size for p in known.iterdir()) < 2**20


def test_known_tables_that_are_not_there(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="unknown table 'mnist': known are digits, cifar16"):
        known_table("mnist")
    monkeypatch.setattr("nas_nb.known_tables.resources.files", lambda _: tmp_path)
    with pytest.raises(DataError, match="is missing: install nas_nb again, or compute it"):
        known_table("digits")


# -- public tables: files made up here, and the real ones where they are --


@pytest.fixture
def roots(tmp_path, monkeypatch):
    "Two empty data roots."
    (tmp_path / "given").mkdir()
    monkeypatch.setenv("NAS_NB_DATA", str(tmp_path / "given"))
    monkeypatch.setattr(images_py, "_own_root", lambda: tmp_path / "own")
    return tmp_path / "given", tmp_path / "own"


@cache
def made_up(name):
    "A complete table with the accuracies that are looked up; the text of its CSV."
    form, rng = table_files._FORMS[name], np.random.default_rng(0)
    codes = ["".join(map(str, c)) for c in encodings(form.sizes).tolist()]
    frame = pd.DataFrame({form.key: codes})
    for column in (*form.percent, *form.counts):
        frame[column] = rng.integers(0, 10_000, len(frame)) / 100
    for choices, right in form.right.items():
        frame.loc[frame[form.key] == choices, form.checked] = right
    return frame.to_csv(index=False, lineterminator="\n")


def frame_201():
    frame = pd.read_csv(StringIO(made_up("nasbench201")), dtype=dict(edges=str))
    return frame.rename(columns=dict(edges="architecture"))


def refused(match, do, *args):
    with pytest.raises(DataError, match=match) as error:
        do(*args)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("ending", [".csv", ".csv.xz"])
@pytest.mark.parametrize("name", table_files.KNOWN_TABLES)
def test_a_public_table_is_added_and_read(tmp_path, roots, name, ending):
    state = lambda: next(r for r in list_data() if r["name"] == name)
    assert state()["state"] == f"not here: nas-nb data add {name} FILE"
    said = refused("cannot be downloaded", get_data, name)
    assert f"nas-nb data add {name} FILE" in said and "github.com/" in said
    refused(f"is not in .*: nas-nb data add {name} FILE", verify_data, name)
    read = dict(nasbench201=nas_bench_201, nasbenchmacro=nas_bench_macro)[name]
    refused("nas-nb data add", read)
    content = made_up(name).encode()
    (file := tmp_path / f"mine{ending}").write_bytes(
        lzma.compress(content) if ending == ".csv.xz" else content
    )
    assert "not the content that our figures are made from" in add_data(name, file)
    (there,) = (roots[0] / "tables").iterdir()
    assert lzma.decompress(there.read_bytes()) == content
    assert state()["state"] == "ready" and state()["what"] == "table" and "tables/" in state()["where"]
    assert "already here" in get_data(name) and hashlib.sha256(content).hexdigest()[:16] in verify_data(name)
    assert len(read().frame) == len(content.splitlines()) - 1
    refused(f"already here: remove {there}", add_data, name, file)


def test_the_known_content_is_recognised(roots, monkeypatch, tmp_path):
    content = made_up("nasbenchmacro").encode()
    form = replace(table_files._MACRO, sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(table_files._FORMS, "nasbenchmacro", form)
    (file := tmp_path / "a.csv").write_bytes(content)
    assert add_data("nasbenchmacro", file).endswith("the known content)")
    changed = content.replace(b"\n00000001,", b"\n00000001,0", 1)
    (roots[0] / "tables" / "nas-bench-macro.csv.xz").write_bytes(lzma.compress(changed))
    assert "not the content" in verify_data("nasbenchmacro")


def test_the_json_of_the_authors(tmp_path, roots):
    frame = pd.read_csv(StringIO(made_up("nasbenchmacro")), dtype=dict(layers=str))
    rows = frame.assign(params=frame["params"].astype(int), flops=frame["flops"].astype(int)).to_dict(
        "records"
    )
    every = {
        r["layers"]: dict(
            test_acc=[r["test_1"], r["test_2"], r["test_3"]],
            mean_acc=0,
            std=0,
            params=r["params"],
            flops=r["flops"],
        )
        for r in reversed(rows)
    }
    (file := tmp_path / "nas-bench-macro_cifar10.json").write_text(json.dumps(every))
    assert "is here now" in add_data("nasbenchmacro", file)
    assert (nas_bench_macro().frame["test_2"] == frame["test_2"]).all()
    for bad in ("[1]", "{}", '{"00000000": {}}', "no json", json.dumps(dict(list(every.items())[1:]))):
        file.write_text(bad)
        refused("cannot be read|architectures, not all", table_files.load_table, "nasbenchmacro", file)


def swap(old, new, n=1):
    return lambda text: text.replace(old, new, n)


BAD_FILES = {
    "a row is missing": (swap("\n012012,", "\n000000,"), "000000 has two rows"),
    "rows are missing": (
        lambda text: "\n".join(text.split("\n")[:-5]) + "\n",
        "has 15,621 architectures, not all",
    ),
    "a line is cut": (lambda text: text[:-30], "which is no percentage|not 6 digits|architectures, not all"),
    "another column": (swap("cifar10_test_200", "accuracy"), "unknown column 'accuracy'"),
    "a column is missing": (swap(",imagenet16_test_200", ""), "lacks the column|cannot be read"),
    "no architecture": (swap("\n012012,", "\n012015,"), "'012015', not 6 digits from 0 to 4"),
    "too short": (swap("\n012012,", "\n12012,"), "'12012', not 6 digits"),
    "no name": (swap("\n012012,", "\n,"), "'nan', not 6 digits"),
    "another operation order": (
        lambda text: re.sub(r"(?m)^\d{6}(?=,)", lambda m: m[0].translate(str.maketrans("13", "31")), text),
        "is not NAS-Bench-201, or its digits",
    ),
    "empty": (lambda text: "", "cannot be read"),
    "only a head": (lambda text: text.split("\n")[0] + "\n", "has 0 architectures"),
    "bytes": (lambda text: "\x00\x01" * 100, "lacks the column|unknown column|cannot be read"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_public_tables(tmp_path, roots, case):
    change, match = BAD_FILES[case]
    (file := tmp_path / "mine.csv").write_text(change(made_up("nasbench201")))
    assert "mine.csv" in refused(match, add_data, "nasbench201", file)
    assert not (roots[0] / "tables").exists() and list(roots[0].glob("*")) == []


@pytest.mark.parametrize("value", ["", "nan", "inf", "-1", "100.5", "good"])
def test_what_is_no_accuracy(tmp_path, roots, value):
    head, *rows = made_up("nasbench201").split("\n")
    rows[77] = ",".join([*rows[77].split(",")[:3], value, *rows[77].split(",")[4:]])
    (file := tmp_path / "mine.csv").write_text("\n".join([head, *rows]))
    said = refused("which is no percentage", add_data, "nasbench201", file)
    assert "cifar100_valid_12 of 000302" in said


def test_bad_compression(tmp_path, roots, monkeypatch):
    whole = lzma.compress(made_up("nasbench201").encode())
    (file := tmp_path / "mine.csv.xz").write_bytes(whole[: len(whole) // 2])
    assert "mine.csv.xz cannot be read (EOFError" in refused("get it anew", add_data, "nasbench201", file)
    file.write_bytes(whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:])
    refused("cannot be read", add_data, "nasbench201", file)
    file.write_bytes(b"no archive")
    refused("cannot be read", add_data, "nasbench201", file)
    refused("cannot be read", add_data, "nasbench201", tmp_path)
    refused("cannot be read", add_data, "nasbench201", tmp_path / "nowhere.csv")
    monkeypatch.setattr(table_files, "_LIMIT", 1000)
    file.write_bytes(whole)
    refused("more than 1,000 bytes", add_data, "nasbench201", file)


def test_a_budget_that_is_not_there(roots, tmp_path):
    (file := tmp_path / "a.csv").write_text(made_up("nasbench201"))
    add_data("nasbench201", file)
    assert nas_bench_201("cifar100", 12, "valid").columns == ["cifar100_valid_12"]
    for bad in (("cifar10", 200, "valid"), ("cifar10", 100), ("mnist",), ("cifar10", 12, "train")):
        with pytest.raises(ValueError, match="has no .*: it has cifar10_valid_12, "):
            nas_bench_201(*bad)


real = lambda name: pytest.mark.skipif(not table_files.table_path(name), reason=f"no {name} here")


@real("nasbench201")
def test_the_real_nas_bench_201():
    assert "the known content" in verify_data("nasbench201")
    t, short = nas_bench_201(), nas_bench_201(epochs=12)
    assert t.scores.max() == 94.37 and short.scores.max() == 89.16
    skip, conv = ("+".join("|" + "|".join(f"{op}~{i}" for i in range(n)) + "|" for n in (1, 2, 3)) for op in ("skip_connect", "nor_conv_3x3"))  # fmt: skip
    assert t.score(skip) == 54.30 and t.score(conv) == 93.76 and t.regret(conv) == pytest.approx(0.61)
    assert kendall(t.scores, t.frame["cifar100_test_200"]) == pytest.approx(0.8825, abs=1e-4)


@real("nasbenchmacro")
def test_the_real_nas_bench_macro():
    assert "the known content" in verify_data("nasbenchmacro")
    t = nas_bench_macro()
    assert len(t.frame) == 6561 and t.score([0] * 8) == pytest.approx(45.363, abs=1e-3)
    assert 0.8 < ceiling(t) < 1 and ceiling(t, 0.1) < ceiling(t)


# -- twins --


def test_twins_are_two_encodings_of_each_form():
    rng = np.random.default_rng(0)
    pairs = twin_pairs(of(), rng)
    number, count = np.unique(of(), return_counts=True)
    assert (of()[pairs[:, 0]] == number[count > 1]).all() and (of()[pairs[:, 0]] == of()[pairs[:, 1]]).all()
    assert (pairs[:, 0] != pairs[:, 1]).all() and (twin_pairs(of(), rng) != pairs).any()
    seen = {tuple(sorted(p)) for _ in range(40) for p in twin_pairs(np.zeros(4, int), rng).tolist()}
    assert len(seen) == 6  # every pair comes


def test_twins_show_the_noise_that_is_put_in():
    rng = np.random.default_rng(0)
    true = rng.normal(size=845)
    for sigma in (0.1, 0.3):
        scores = true[of()] + rng.normal(0, sigma, 4096)
        found = differences(scores, of(), 20, rng)
        assert found["twins"][50] == pytest.approx(2**0.5 * 0.6745 * sigma, rel=0.1)
        assert found["any"][50] > 0.6 and found["twins"] == sorted(found["twins"])
        again = true[of()] + rng.normal(0, sigma, 4096)
        t, same = twin_ceiling(scores, of(), 1.0, 20, rng), agreement(scores, again, 1.0, 20, rng)
        assert t["low"] < t["tau"] < t["high"] and t["tau"] == pytest.approx(same["tau"], abs=0.05)
        assert t["n"] == (np.unique(of(), return_counts=True)[1] > 1).sum() and same["n"] == 4096
    noise = rng.normal(size=4096)
    assert abs(twin_ceiling(noise, of(), 0.3, 20, rng)["tau"]) < 0.1


def test_the_figure_of_twins_is_drawn_from_its_record():
    "The committed record, found without the table."
    (path,) = (root() / "figures" / "cpu" / "17c_twins" / "records").glob("twins-*.json")
    record = json.loads(path.read_text())
    rows = {(r["ranking"], r["top"]): r for r in record["result"]["rows"]}
    assert record["data"]["content"] == "the known content" and record["config"]["source"] == "nasbench201"
    assert record["result"]["differences"]["twins"][50] < 0.1 * record["result"]["differences"]["any"][50]
    assert rows["twins", 0.064]["low"] < rows["twins", 0.064]["tau"] < rows["twins", 1.0]["tau"]
