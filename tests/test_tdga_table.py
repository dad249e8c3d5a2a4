"Document 50, spaces that are known in full: the same as one by one; searches by look-up and their nulls; verdicts."

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import nas_nb.papers.tdga_lookup as L
import nas_nb.papers.tdga_runs as D
import nas_nb.papers.tdga_space as S
import nas_nb.papers.tdga_table as T
import nas_nb.papers.tdga_verdicts as V
from nas_nb.files import Checkpoint

SETTINGS = dict(source="digits", width=0.0625, size=8, steps=2, lr=0.05, lr_alpha=0.5, looks=2)
CONFIG = dict(gates=5, images=[10, 20], report=12, calibrate=8, settings=SETTINGS)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def measured():
    network, method, _, parts, norm = D.trained_supernet("threshold", 0, SETTINGS)
    x, y = T.table_images(parts, norm, CONFIG["images"], CONFIG["report"])
    seen = D.first_images(parts["weights"], CONFIG["calibrate"], norm)[0]
    return network.eval().requires_grad_(False), method.bits(), x, y, seen


def table(losses, report=None, start=5, size=60):
    whole = lambda x: np.rint(1e4 * np.asarray(x))
    n = int(np.log2(len(losses)))
    graph = torch.zeros(105, dtype=torch.long)
    graph[T.nearest_gates(n)] = T.free_bits(start, n)
    columns = [whole(losses), whole(losses), whole(losses), whole(losses)]
    columns += [whole(losses if report is None else report), whole(losses)]
    return T.as_table(columns, D.to_text(graph), n, [20, size], 50)


# -- the table --


def test_a_graph_has_the_same_bits_alone_and_among_others(measured):
    network, base, x, y, seen = measured
    graphs = T.graphs_with(base, T.nearest_gates(5), range(32))
    losses, right = T.judged(network, graphs, x, y, seen)
    for n in (0, 13, 31):
        alone, also = T.judged(network, graphs[n : n + 1], x, y, seen)
        assert torch.equal(alone[0], losses[n]) and torch.equal(also[0], right[n])


def test_the_table_is_what_the_fitness_of_the_searches_says(measured):
    network, base, x, y, seen = measured
    found = T.table_of(dict(config=CONFIG, result=T.table_run(**CONFIG, seed=0)))
    assert D.to_text(base) == T.table_run(**CONFIG, seed=0)["graph"]
    graphs = T.graphs_with(base, T.nearest_gates(5), range(32))
    for name, cut in ((10, slice(10)), (20, slice(20)), ("report", slice(20, 32))):
        loss, accuracy = D.Fitness(network, x[cut], y[cut], seen)(graphs).T
        assert np.allclose(found.loss[name], loss, atol=6e-5)
        assert np.array_equal(found.right[name], (accuracy * len(y[cut])).round())
    assert torch.equal(T.graphs_with(base, T.nearest_gates(5), [found.start])[0], base)


def test_a_table_that_was_broken_off_goes_on(tmp_path):
    rows = []
    measure = lambda of: rows.append(of) or torch.tensor(of)[:, None] * 3
    blank = lambda: torch.zeros(600, 1, dtype=torch.long)
    ckpt = Checkpoint(tmp_path / "checkpoint.pt")
    ckpt.save(dict(values=T.filled(measure, blank(), None), done=512))
    rows.clear()
    assert T.filled(measure, blank(), ckpt)[:, 0].tolist() == list(range(0, 1800, 3))
    assert rows == [range(512, 600)]


def test_a_state_of_another_table_is_refused(tmp_path):
    ckpt = Checkpoint(tmp_path / "checkpoint.pt")
    ckpt.save(dict(values=torch.zeros(4, 2), done=2))
    with pytest.raises(ValueError, match="checkpoint of this table"):
        T.filled(None, torch.zeros(8, 2), ckpt)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s | dict(values=s["values"][:4]),
        lambda s: s | dict(values=s["values"].float()),
        lambda s: s | dict(graph=None),
        lambda s: dict(values=s["values"]),
    ],
)
def test_a_kept_table_that_was_altered_is_refused(change, tmp_path, monkeypatch):
    config = dict(gates=3, images=[20, 60], settings=dict(source="digits"))
    kept = dict(values=torch.zeros(8, 6, dtype=torch.long), graph="01")
    monkeypatch.setattr(T, "needed_state", lambda *args, **own: kept)
    assert T.kept_table(0, "cpu", None, **config) is kept
    monkeypatch.setattr(T, "needed_state", lambda *args, **own: change(kept))
    with pytest.raises(ValueError, match="the table that was kept"):
        T.kept_table(0, "cpu", None, **config)


@pytest.mark.parametrize("done", [3, [3], [["TDGA"]], [["TDGA", 1]], [[1, {}]]])
def test_a_state_of_other_searches_is_refused(tmp_path, done):
    ckpt = Checkpoint(tmp_path / "checkpoint.pt")
    ckpt.save(dict(done=done))
    with pytest.raises(ValueError, match="the checkpoint of these searches"):
        L.searched(None, {}, range(1), ckpt)


def test_gates_and_images_that_do_not_fit_are_refused():
    parts, norm = D.parts_of("digits")
    with pytest.raises(ValueError, match="not 15"):
        T.nearest_gates(15)
    with pytest.raises(ValueError, match="there are not 10 images that select and 100000 that report"):
        T.table_images(parts, norm, [10], 100_000)


# -- searches --


def test_searches_do_not_depend_on_those_beside_them(monkeypatch):
    losses = 1 + torch.rand(64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    args = dict(report=losses, start=3, T=0.01, replacement=True, individuals=6, generations=4)
    for flips in (False, True):
        monkeypatch.setattr(L, "PART", 100)
        whole = L.in_parts(losses, range(7), flips, **args)
        monkeypatch.setattr(L, "PART", 3)
        parts = L.in_parts(losses, range(7), flips, **args)
        assert all(torch.equal(a[k], b[k]) for a, b in zip(whole, parts) for k in a)


def test_random_search_finds_what_is_expected_of_the_best_of_n():
    losses = torch.arange(64, dtype=torch.float64)
    found = L.random_search(losses, range(400), torch.tensor([[4] * 400]))[0].double()
    expected = (64 + 1) / (4 + 1) - 1  # the least of 4 of 1 … 64, without replacement
    assert abs(found.mean() - expected) < 4 * found.std() / 20


def turned_by_hand(rng, gates, start):
    while True:
        yield int((rng.random(gates) < L.TURNED) @ 2 ** np.arange(gates - 1, -1, -1)) ^ start


def test_graphs_near_the_start_are_those_of_turning_gates_one_graph_after_the_other():
    losses, start, many = torch.arange(32, dtype=torch.float64).flip(0), 9, 6
    found = L.near_search(losses, start, range(3000), torch.tensor([[1] * 3000, [many] * 3000]))
    shares = torch.bincount(found[0], minlength=32) / 3000
    apart = T.free_bits(torch.arange(32) ^ start, 5).sum(1)
    expected = L.TURNED**apart * (1 - L.TURNED) ** (5 - apart)
    assert ((shares - expected).abs() < 5 * (expected / 3000).sqrt() + 1e-3).all()
    rng, best = np.random.default_rng(0), []
    for _ in range(3000):
        seen = set()
        for graph in turned_by_hand(rng, 5, start):
            seen.add(graph)
            if len(seen) == many:
                break
        best.append(max(seen))  # the last graph has the lowest loss
    assert abs(found[1].double().mean() - np.mean(best)) < 5 * np.std(best) * (2 / 3000) ** 0.5


def test_searches_near_the_start_have_seeds_of_their_own(monkeypatch):
    losses = T.pack(np.random.default_rng(0).integers(0, 999, 64))
    different = {"2": T.pack([3] * 7), "6": T.pack([9] * 7)}
    whole = L.near_run(losses, 5, different, seed=0)
    monkeypatch.setattr(L, "PART", 3)
    assert L.near_run(losses, 5, different, seed=1) == whole
    found = [T.unpack(x["found"]) for x in whole["each"].values()]
    assert (T.unpack(losses)[found[1]] <= T.unpack(losses)[found[0]]).all() and len(set(found[0])) > 1
    assert [x["different"] for x in whole["each"].values()] == list(different.values())


def test_coin_flips_find_nothing_and_losses_do():
    costs = 1 + 0.02 * T.free_bits(range(256), 8).sum(1).double()
    of = dict(report=costs, start=255, T=0.003, replacement=True, individuals=16, generations=30)
    found = {flips: costs[L.in_parts(costs, range(100), flips, **of)[-1]["found"]] for flips in (False, True)}
    assert found[False].mean() < 1.001 and abs(found[True].mean() - costs.mean()) < 0.02


def test_what_is_kept_is_read_again():
    losses = 1 + np.random.default_rng(0).random(64) / 10
    known = V.Known("s", table(losses), L.searched(table(losses), L.variants(0.003, (), 6, (20, 60), 6),
        range(10), None, individuals=8, generations=6), 6)  # fmt: skip
    rows = L.in_parts(torch.from_numpy(known.table.loss[60]), range(10), False, start=5, T=0.003,
        report=torch.from_numpy(known.table.loss["report"]), replacement=True, individuals=8, generations=6)  # fmt: skip
    assert known.found("TDGA").tolist() == rows[-1]["found"].tolist()
    assert known.end("TDGA", "different").tolist() == rows[-1]["different"].tolist()
    assert np.allclose(known.end("TDGA", "entropy"), rows[-1]["entropy"], atol=6e-5)
    assert len(known.found("coin flips")) == 2 and len(known.found("random")) == 10


# -- verdicts --


def test_any_graph_can_stand_in_the_place_of_that_of_darts():
    losses = np.random.default_rng(1).integers(0, 9, 8) / 10  # with ties
    found = V.centred(table(1 + losses))
    for graph, correlation in enumerate(found):
        gates = [(graph ^ other).bit_count() for other in range(8)]
        assert correlation == pytest.approx(spearmanr(gates, losses).statistic)


def test_what_is_left_is_said_and_how_often_random_draws_find_the_best(supernets):
    shares = [100 * V.hit(k, "near").mean() for k in supernets]
    found = V.solved_by(supernets, "near")
    assert found["near_all"] == f"{sum(x == 100 for x in shares)}" and set(found) == {
        "near_share",
        "near_all",
        "near_rest",
    }
    fine = supernets[0]
    losses = fine.table.loss[60]
    best = fine._replace(searches=dict(near=dict(each={"6": dict(found=T.pack([losses.argmin()] * 4))})))
    none = fine._replace(searches=dict(near=dict(each={"6": dict(found=T.pack([losses.argmax()] * 4))})))
    assert V.solved_by([best, none], "near") == dict(near_share="50", near_all="1", near_rest="0")
    assert V.solved_by([best], "near")["near_rest"] == "100"


def test_graphs_apart_and_by_chance():
    bits = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]])
    pairs = [(0, 1), (0, 2), (1, 2)]
    share = lambda a, b: bits[a].mean() * (1 - bits[b].mean()) + bits[b].mean() * (1 - bits[a].mean())
    expected = np.mean([(bits[a] != bits[b]).mean() for a, b in pairs]), np.mean([share(*p) for p in pairs])
    assert V.gates_apart(bits) == pytest.approx(expected)


@pytest.fixture(scope="module")
def supernets():
    made = []
    for s in range(3):
        losses = 1 + np.random.default_rng(s).random(64) / 10
        of = table(losses, losses + 0.01)
        found = L.searched(of, L.variants(0.003, (), 6, (20, 60), 6), range(10), None, individuals=4,
            generations=6)  # fmt: skip
        made.append(V.Known(f"supernet {s}", of, found, 6))
    return V.with_near(made, [dict(result=L.near_run(**k.near_start(), seed=0)) for k in made])


def test_one_supernet_decides_nothing(supernets):
    for name in ("beyond", "random", "images", "late", "temperature", "diverse"):
        found = getattr(V, f"judge_{name}")(supernets[:1])
        assert found["tested"] is False and found["needed"] and "differences" not in found
    assert V.judge_bias(supernets[:2])["tested"] is False


def test_the_unit_is_the_supernet(supernets):
    judged = V.judge_random(supernets)["differences"]
    for part, null in (("uniform", "random"), ("near its start", "near")):
        assert judged[part].tolist() == [(k.worth(null) - k.worth("TDGA")).mean() for k in supernets]
    late = V.judge_late(supernets)["differences"]
    assert set(late) == {"best", "population"} and all(len(x) == 3 for x in late.values())
    shares = V.judge_diverse(supernets)["differences"]
    assert shares == pytest.approx([(V.hit(k, "TDGA") - V.hit(k, "T = 0")).mean() for k in supernets])


def test_what_every_search_finds_tests_nothing(supernets):
    costs = 1 + 0.1 * T.free_bits(range(64), 6).sum(1).double().numpy()
    of = table(costs, start=0)  # the search begins with the best graph
    found = L.searched(
        of, L.variants(0.003, (), 6, (20, 60), 6), range(10), None, individuals=4, generations=6
    )
    easy = [V.Known(f"supernet {s}", of, found, 6) for s in range(3)]
    easy = V.with_near(easy, [dict(result=L.near_run(**k.near_start(), seed=0)) for k in easy])
    for judge in (V.judge_temperature, V.judge_diverse, V.judge_late, V.judge_stable, V.judge_random):
        assert judge(easy)["tested"] is False
    mixed = [*easy, supernets[0]]
    assert "differences" in V.judge_diverse(mixed)


def test_facts_hold_for_every_supernet_or_not_at_all(supernets, monkeypatch):
    near = lambda start: 1 + 0.1 * T.free_bits(np.arange(64) ^ start, 6).sum(1).double().numpy()
    biased = [k._replace(table=table(near(5), start=5)) for k in supernets]
    assert V.judge_bias(biased)["holds"] and not V.judge_bias([*biased[:2], supernets[2]])["holds"]
    apart = iter([(0.1, 0.4), (0.2, 0.4), (0.21, 0.4), (0.1, 0.4), (0.2, 0.4), (0.2, 0.4)])
    monkeypatch.setattr(V, "gates_apart", lambda bits: next(apart))
    assert not V.judge_stable(supernets)["holds"] and V.judge_stable(supernets)["holds"]


def test_the_null_near_the_start_is_as_good_where_the_start_is_best(supernets):
    judged = V.judge_random(supernets)
    worst = min(judged["differences"].values(), key=np.mean)
    assert judged["near"] == f"{judged['differences']['near its start'].mean():+.4f}"
    low, high = (float(judged[f"uniform_{end}"]) for end in ("low", "high"))
    assert low < float(judged["uniform"]) < high and worst.mean() <= float(judged["uniform"]) + 5e-5
    asked = supernets[0].near_start()
    assert T.unpack(asked["losses"]).tolist() == np.rint(1e4 * supernets[0].table.loss[60]).tolist()
    assert T.unpack(asked["different"]["6"]).tolist() == supernets[0].end("TDGA", "different").tolist()


def test_both_spaces_are_cited_and_one_decides(supernets):
    found = V.with_one(V.judge_bias, supernets, supernets[:1])
    assert "holds" in found and "tested" not in found and found["one_supernets"] == 1
    assert found["supernets"] == 3 and found["one_least"] == found["one_most"]


def test_supernets_have_images_of_their_own():
    cfg = SimpleNamespace(table_images=(5, 10), report=12, first_net=7, nets=3, net_gates=2)
    asked = T.several(cfg, dict(images=[5, 10], report=12, gates=5))
    assert list(asked) == [7, 8, 9] and [a["shift"] for a in asked.values()] == [0, 12, 24]
    assert all(a["gates"] == 2 for a in asked.values())
    parts, norm = D.parts_of("digits")
    made = [T.table_images(parts, norm, [5, 10], 12, a["shift"])[0] for a in asked.values()]
    seen = {tuple(image.flatten().tolist()) for x in made for image in x}
    assert len(seen) == 3 * 22
    with pytest.raises(ValueError, match="that report after 350 others"):
        T.table_images(parts, norm, [10], 12, 350)


def test_a_table_without_a_shift_is_asked_for_as_before():
    first, other = (T.table_run(**CONFIG | more, seed=0) for more in ({}, dict(shift=30)))
    assert first == T.table_run(**CONFIG, seed=0, shift=0) and first["graph"] == other["graph"]
    assert first["columns"] != other["columns"]


def test_the_figure_of_supernets_shows_what_is_judged(supernets):
    df = S.nets_table(supernets)
    judged = V.judge_random(supernets)["differences"] | V.judge_late(supernets)["differences"]
    parts = dict(uniform="uniform", near="near its start", best="best", population="population")
    for named, part in parts.items():
        drawn = df[(df["kind"] == "difference") & df["name"].str.contains(named)]["value"]
        assert drawn.tolist() == pytest.approx((1e3 * judged[part]).tolist())
    found = df[(df["name"] == "T = 0") & (df["kind"] == "found") & (df["generation"] == 6)]["value"]
    assert found.tolist() == [V.hit(k, "T = 0").mean() for k in supernets]
    title, alt = S.words_of_nets(df, 95.0)
    assert title.startswith("3 supernets") and title in alt
    fig = S.plot_nets(df, 95.0, 2.0, title)
    assert [len(a.lines) > 5 for a in fig.axes] == [True, True]


def test_where_less_than_the_smallest_effect_is_left_nothing_is_tested():
    judged = dict(ours="{mean:+.4f}", differences=np.array([0.1, 0.2]))
    smallest = V.CLAIMS["diverse"]["smallest"]
    assert V.or_no_room(judged, smallest, "diverse") == judged
    found = V.or_no_room(judged, smallest / 2, "diverse")
    assert found["tested"] is False and "room" in found["ours"] and found["needed"]
    untested = dict(ours="-", tested=False)
    assert V.or_no_room(untested, 0, "diverse") == untested


def test_nearly_all_does_not_read_as_all():
    shares = (1.0, 0.9989, 0.9999, 0.994, 0.0, 0.5)
    assert [V.percent(x) for x in shares] == ["100", "99.9", "99.99", "99", "0", "50"]
