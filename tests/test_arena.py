"Searches by look-up: what they see, what they return, and random search without a random number."

import math
from itertools import product
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from nas_nb.files import Checkpoint
from nas_nb.known_tables import known_table
from nas_nb.papers.arena_figures import (
    SPACES,
    Looked,
    _judge_library,
    _missing,
    against,
    beyond_random,
    in_short,
    judge_lookup,
    judge_pairs,
    judge_samples,
    missed,
    of_seeds,
    room_over,
)
from nas_nb.papers.arena_figures import regrets as regrets_of
from nas_nb.papers.arena_lookup import (
    METHODS,
    Arena,
    LookUp,
    exact_random,
    headroom,
    lookup,
    noise_of,
    of_best_of,
)
from nas_nb.papers.arena_oneshot import MAKERS, probabilities, searches_before
from nas_nb.papers.last_figures import picked_by_count
from nas_nb.papers.oneshot_figures import (
    at_equal,
    best_of_all,
    convolutions_of,
    grown,
    live,
    ranked_by,
    stopped,
    told_equal,
    told_map,
    two_skips,
)
from nas_nb.tables import TABLE_CELL

SMALL = Arena(
    (2, 3), np.array([[61, 63], [70, 68], [55, 57], [71, 75], [72, 72], [40, 44.0]]), dict(name="small")
)
SLOW = {"TPE", "PNAS"} | {name for name in METHODS if "controller" in name or "NAO" in name}
CHEAP = sorted(METHODS.keys() - SLOW)


def regrets(method, seeds, null=False):
    record = dict(result=lookup(SMALL, method, [1, 7, 200], [7, 200], seeds, null))
    return [of_seeds(record, at) for at in (7, 200)]


@pytest.mark.parametrize("method", CHEAP)
def test_a_search_is_the_same_alone_and_in_a_crowd(method):
    crowd, alone = regrets(method, range(5, 9)), regrets(method, [7])
    for many, one in zip(crowd, alone):
        assert many[0][2] == one[0][0] and many[1][2] == one[1][0]


def test_the_best_seen_is_what_a_loop_finds():
    look = LookUp(SMALL, 20, [1, 4, 30])
    METHODS["random search"][0](look)
    asked, seen = look.asked[0].numpy(), look.seen[0].numpy()
    for n, best in zip((1, 4, 30), look.best_seen()):
        assert best.tolist() == [rows[max(range(n), key=lambda i: v[i])] for rows, v in zip(asked, seen)]


def test_every_answer_is_a_training_of_what_was_asked_and_under_the_null_of_any():
    for null in (False, True):
        look = LookUp(SMALL, 300, [6], null)
        answers = look(torch.tensor(list(product(range(2), range(3))))[None].expand(300, -1, -1)).numpy()
        own = [set(answers[:, i]) == set(SMALL.values[i]) for i in range(6)]
        assert all(own) != null
        assert set(answers.ravel()) == set(SMALL.values.ravel())


def test_random_search_exactly_is_what_all_draws_give():
    values = np.array([1.0, 2.0, 2.0, 3.0])
    chosen = [max(range(3), key=lambda i: values[draw[i]]) for draw in product(range(4), repeat=3)]
    drawn = [draw[i] for draw, i in zip(product(range(4), repeat=3), chosen)]
    assert of_best_of(values, 3) == pytest.approx(np.bincount(drawn) / 64)


def test_random_search_exactly_has_the_mean_and_quantiles_of_many():
    exact = exact_random(SMALL, [1, 3], [3])["seen"]
    many = lookup(SMALL, "random search", [1, 3], [3], 4000)["seen"]
    assert exact["mean"] == pytest.approx(many["mean"], abs=0.5)
    ours, theirs = (np.array(x["regret"]["3"].split(), float).mean() / 100 for x in (exact, many))
    assert ours == pytest.approx(exact["mean"][1], abs=0.02) and theirs == pytest.approx(ours, abs=0.5)


def test_a_grid_in_order_is_the_order_of_the_table_and_shuffled_has_each_once():
    for method, same in (("grid", True), ("shuffled grid", False)):
        look = LookUp(SMALL, 10, [6])
        search, settings, _ = METHODS[method]
        search(look, **settings)
        rows = look.asked[0]
        assert (rows.sort(1).values == torch.arange(6)).all()
        assert (rows == torch.arange(6)).all() == same


def test_variables_of_other_sizes_are_never_asked_for_a_choice_that_they_lack():
    arena = Arena((2, 5, 3), np.arange(30.0)[:, None], dict(name="uneven"))
    for method in CHEAP:
        found = lookup(arena, method, [300], [300], 30)
        assert found["seen"]["mean"][-1] < 2, method


def test_a_run_that_is_missing_leaves_a_claim_untested():
    said = {}

    class Study:
        def judge(self, id, ours, **how):
            said[id] = (ours, how)

    judge_lookup(Study(), "one", lambda: {}["TPE"])
    assert said == {"one": ("no run of TPE in this profile", dict(tested=False))}


@pytest.mark.parametrize(
    "mean, room, tested, needed",
    [(0.0, 0.9, False, "a space with more room"), (0.1, 0.9, False, "a space with more room"),
     (0.8, 0.9, True, None), (-0.8, 0.9, True, None), (0.0, 1.0, True, None), (0.0, math.inf, True, None)],
)  # fmt: skip
def test_without_room_only_an_interval_on_one_side_of_0_decides(mean, room, tested, needed):
    said = {}
    stated = dict(one=dict(rule="better", smallest=1.0))
    study = SimpleNamespace(stated=stated, judge=lambda id, ours, **how: said.update(how, ours=ours))
    judge_pairs(study, "one", mean + np.array([-0.2, -0.1, 0, 0.1, 0.2]), room=room)
    assert said["tested"] is tested and said.get("needed") == needed
    assert ("is possible here" in said["ours"]) == math.isfinite(room)


SPREAD = np.array([-0.2, -0.1, 0, 0.1, 0.2])


@pytest.mark.parametrize(
    "mean, other, tested",
    [(3.0, 2.0, True), (3.0, 0.3, True), (3.0, 0.0, False), (0.0, 3.0, False), (0.0, 0.1, True), (0.9, 0.0, True)],
)  # fmt: skip
def test_a_verdict_that_hangs_on_a_reading_is_none(mean, other, tested):
    said = {}
    stated = dict(one=dict(rule="better", smallest=1.0))
    study = SimpleNamespace(stated=stated, judge=lambda id, ours, **how: said.update(how, ours=ours))
    wide = SPREAD * (10 if mean == 0.9 else 1)  # inconclusive, which no reading contradicts
    judge_pairs(study, "one", mean + wide, also=("at another rate", other + SPREAD))
    assert (
        said["tested"] is tested and (said.get("needed") == "the same verdict at another rate") is not tested
    )
    assert "{also}: {other}" in said["ours"] and said["other"].startswith(f"{other:+.3f} (")


def test_what_cannot_decide_says_what_would():
    said = {}
    stated = dict(one=dict(rule="better", smallest=1.0))
    study = SimpleNamespace(stated=stated, judge=lambda id, ours, **how: said.update(how))
    judge_pairs(study, "one", 3 + SPREAD, unless="500 evaluations")
    assert (said["tested"], said["needed"]) == (False, "500 evaluations") and len(said["differences"]) == 5


def test_taus_of_a_score_with_ties():
    score, true = np.array([1.0, 1, 2, 3]), np.array([0.0, 1, 2, 3])
    found = ranked_by(score, true, np.zeros(4))
    assert found["tau_a"] == pytest.approx(5 / 6) and found["tau"] == pytest.approx(5 / math.sqrt(5 * 6))
    assert ranked_by(-score, true, np.zeros(4))["tau_a"] == pytest.approx(-5 / 6)
    assert found["tau_apart"] == 0  # no pair has unlike counts


def test_what_a_count_ties_is_left_out_where_only_the_others_count():
    from nas_nb.papers.oneshot_figures import tau_apart

    counts, true = np.array([1, 1, 2, 3]), np.array([0.1, 0.9, 0.5, 0.7])
    assert tau_apart(counts, true, counts) == pytest.approx(1 / 5)  # 3 of 5 pairs as in the table, 2 not
    assert tau_apart(true, true, counts) == 1 and tau_apart(-true, true, counts) == -1


def test_the_best_of_all_by_shared_losses():
    table = known_table("digits")
    true, counts = convolutions_of(table)
    search = dict(shared=(-true).tolist())
    run = lambda method, null=False: dict(
        seed=1, config=dict(method=method, null=null, block=10), result=dict(searches=[search, {}, search])
    )
    best = best_of_all([run("random search"), run("ASNG"), run("random search", null=True)], table)
    assert best.to_dict() == {10: true.max(), 12: true.max()}


def test_most_convolutions_pick_among_the_same_hundred():
    table, df = known_table("digits"), pd.DataFrame(dict(name=["one", "one", "other"], seed=[3, 4, 5]))
    drawn = [np.random.default_rng(s).integers(4, size=(100, 6)) for s in (3, 4)]
    most = lambda rows: max((live(rows) == 2).sum(1))
    expected = [table.percentile(rows[(live(rows) == 2).sum(1) == most(rows)]).mean() for rows in drawn]
    assert picked_by_count(df, "one", table).tolist() == pytest.approx(expected)


def test_the_room_over_a_method_is_what_it_misses_on_the_worst_table():
    exact = dict(result=dict(counts=[1000], seen=dict(mean=[2.0])))
    seen = lambda regret: dict(regret={"5": regret}, above={"5": "1 1"})
    table = lambda regret: {"exact": exact, "GA": dict(result=dict(encodings=9, seen=seen(regret)))}
    runs = {"nasbench201-12": table("100 300"), "nasbenchmacro": table("20 80")}
    assert room_over(runs, "GA", 5) == pytest.approx(0.25)
    assert room_over(runs, "GA", 5, tables=1) == pytest.approx(1)


def test_tpe_where_optuna_is_there():
    pytest.importorskip("optuna")
    assert lookup(SMALL, "TPE", [40], [40], 2)["seen"]["mean"][-1] <= 4


def test_controllers_and_pnas_are_the_same_in_blocks():
    arena = Arena((3, 2, 4), np.arange(24.0)[:, None] + [[0, 0.5]], dict(name="blocks"))
    for method in ("controller", "controller, PPO", "PNAS"):
        whole, parts = (lookup(arena, method, [20, 40], [40], range(5), block=b) for b in (16, 2))
        assert whole == parts, method
        assert whole["seen"]["mean"][-1] < 2


ROW = dict(path=["0"], path_but_none=["0"], entropy=[0.5], best_of_100="0", shared=[0.1])
LIKE = dict(path=[], path_but_none=[], entropy=[], best_of_100="", shared=[])


@pytest.mark.parametrize("searches", [3, [3], [{}], [ROW | dict(best_of_100=1)], [ROW | dict(entropy=0.5)]])
def test_a_checkpoint_of_other_searches_is_refused(tmp_path, searches):
    ckpt = Checkpoint(tmp_path / "checkpoint.pt")
    ckpt.save(dict(searches=searches))
    with pytest.raises(ValueError, match="the checkpoint of these searches"):
        searches_before(ckpt, LIKE)


def test_a_checkpoint_of_these_searches_is_taken(tmp_path):
    ckpt = Checkpoint(tmp_path / "checkpoint.pt")
    assert searches_before(ckpt, LIKE) == searches_before(None, {}) == []
    ckpt.save(dict(searches=[ROW, ROW]))
    assert searches_before(ckpt, LIKE) == [ROW, ROW]


def test_what_is_seen_and_what_judges_may_differ():
    seen, final = np.array([[1.0], [3.0], [2.0]]), np.array([5.0, 4.0, 9.0])
    arena = Arena((3,), seen, dict(name="apart"), final)
    found = exact_random(arena, [1, 200], [1])["seen"]
    assert found["mean"] == pytest.approx([3.0, 5.0])  # the best that is seen is the worst
    assert lookup(arena, "random search", [200], [200], 5)["seen"]["mean"] == [5.0]
    assert arena.above.tolist() == [3, 5, 1]


def test_what_needs_no_search_is_found_by_hand():
    final = np.array([9.0, 8.0, 7.5, 8.5, 1.0, 2.0])
    arena = Arena((2, 3), np.array([1.0, 9, 2, 8, 3, 4])[:, None], dict(name="by hand"), final)
    found = headroom(arena, 1, np.array([0, 1, 2, 0, 4, 5]))  # one function of two encodings near the best
    assert (found["lucky"], found["largest"], found["marginal"]) == (1.0, 8.0, 8.0)
    assert found["noise"] == pytest.approx(0.5, abs=1e-4) and found["within"] == 1
    trainings = np.array([[1.0, 3.0], [4.0, 4.0]])
    assert noise_of(Arena((2,), trainings, {})) == pytest.approx(1.0)


def test_evolution_kills_the_oldest_and_changes_one_variable():
    arena = Arena((3, 4, 5), np.arange(60.0)[:, None], dict(name="rising"))
    look = LookUp(arena, 4, [40])
    METHODS["evolution"][0](look, population=5, rivals=2)
    asked = [[np.unravel_index(i, (3, 4, 5)) for i in rows] for rows in np.concatenate(look.asked, 1)]
    for search in asked:
        for n, child in enumerate(search[5:], 5):
            alive = search[n - 5 : n]
            assert any(sum(a != b for a, b in zip(child, parent)) == 1 for parent in alive)


def test_differences_are_in_units_of_what_random_search_misses():
    runs = {name: dict(result=lookup(SMALL, name, [1, 3], [3], 6)) for name in ("random search", "GA")}
    runs["exact"] = dict(result=exact_random(SMALL, [1, 3, 2000], [3]))
    regret = lambda name: of_seeds(runs[name], 3)[0]
    expected = (regret("random search") - regret("GA")) / runs["exact"]["result"]["seen"]["mean"][1]
    assert missed(runs) == runs["exact"]["result"]["seen"]["mean"][1]
    assert against({"digits": runs}, "random search", "GA", 3)["digits"] == pytest.approx(expected)
    with pytest.raises(KeyError, match="2,000 evaluations"):
        against({"digits": runs}, "random search", "GA", 2000)


def test_a_library_is_compared_with_the_best_seen_too():
    runs = dict(exact=dict(result=exact_random(SMALL, [3, 40], [3])))
    for name, method in dict(TPE="random search", ASNG="ASNG").items():
        runs[name] = dict(result=lookup(SMALL, method, [3, 40], [3, 40], 30))
    stated = {"lookup-library": dict(rule="not worse", smallest=0.25, unit="of what random search misses")}
    at, said = Looked(dict(digits=runs), regrets_of(dict(digits=runs)), {}, 40, 3, 40), {}
    study = SimpleNamespace(stated=stated, judge=lambda id, ours, **how: said.update(how))
    _judge_library(study, at, "0.00")
    tpe, likely, seen = (
        of_seeds(runs[n], 3, k)[0] for n, k in (("TPE", ""), ("ASNG", "likely"), ("ASNG", "seen"))
    )
    assert said["differences"]["digits"] == pytest.approx((tpe - likely) / missed(runs))
    assert said["other"] == in_short(study, "lookup-library", (tpe - seen) / missed(runs))
    assert likely.mean() > seen.mean() and said["also"] == "with the best that ASNG has seen"
    ends = of_seeds(runs["ASNG"], 40)[0]
    assert _missing(at, "ASNG") == f"{100 * (ends > 0).mean():.1f}" and _missing(at, "TDGA") == "–"


def test_samples_are_compared_with_two_by_both_readings():
    names = {2: "ASNG", 8: "ASNG of 8 samples", 32: "ASNG of 32 samples"}
    runs = {n: dict(result=lookup(SMALL, "ASNG", [3, 64], [64], 12, samples=lam)) for lam, n in names.items()}
    runs["exact"] = dict(result=exact_random(SMALL, [3, 64], [64]))
    stated = {"lookup-samples": dict(rule="not worse", smallest=0.25, unit="of what random search misses")}
    at, said = Looked(dict(digits=runs), regrets_of(dict(digits=runs)), {}, 64, 3, 64), {}
    study = SimpleNamespace(stated=stated, judge=lambda id, ours, **how: said.update(how))
    judge_samples(study, at)
    regret = {lam: of_seeds(runs[n], 64)[0] for lam, n in names.items()}
    for lam in (8, 32):
        lead = said["differences"][f"ASNG of {lam} samples, digits"]
        assert lead == pytest.approx((regret[lam] - regret[2]) / missed(runs))
        assert said[f"likely{lam}"] == f"{runs[names[lam]]['result']['likely']['mean'][-1]:.2f}"


def test_searches_with_two_skip_connections_are_counted():
    plain = dict(method="DARTS", null=False, apart=True, delta0=1.0)
    path = {0: [0, 2, 1], 1: [1, 1, 0], 2: [0, 0, 3]}  # live skip connections at each look
    rows = [plain | dict(seed=s, step=10 * i, skips=n) for s, ns in path.items() for i, n in enumerate(ns, 1)]
    rows += [
        plain | dict(null=True, seed=1, step=10, skips=5),
        plain | dict(method="SNAS", seed=9, step=10, skips=6),
    ]
    df = pd.DataFrame(rows)
    assert two_skips(df, "DARTS") == (2, 3) and two_skips(df, "DARTS without none") == (0, 0)
    early = stopped(df)
    assert early["seed"].tolist() == [0, 1, 2] and set(early["step"]) == {10}
    assert set(early["method"]) == {"DARTS, stopped at a tenth"}


def test_only_a_claim_whose_number_was_raised_has_further_searches():
    first, more = (dict(result=lookup(SMALL, "ASNG", [3, 40], [40], range(n, n + 6))) for n in (0, 6))
    at = Looked(dict(digits=dict(ASNG=first)), None, {}, 40, 40, 40, dict(digits=dict(ASNG=[more])))
    study = SimpleNamespace(stated=dict(open=dict(raised="from 6 to 12 searches"), decided={}))
    regret = lambda id: of_seeds(at.of(study, id).runs["digits"]["ASNG"], 40)[0]
    all_of_them = lookup(SMALL, "ASNG", [3, 40], [40], range(12))
    assert regret("open").tolist() == of_seeds(dict(result=all_of_them), 40)[0].tolist()
    assert regret("decided").tolist() == regret("open")[:6].tolist()
    means = at.of(study, "open").df.query("kind == 'likely'")["mean"]
    assert means.tolist() == pytest.approx(all_of_them["likely"]["mean"], abs=1e-3)


def test_random_search_is_its_exact_mean():
    exact = dict(result=dict(counts=[1, 10], seen=dict(mean=[3.0, 2.0])))
    seen = dict(regret={"10": "50 150"}, above={"10": "0 0"})
    method = dict(result=dict(seen=seen, encodings=4))
    name = next(iter(SPACES))
    found = beyond_random({name: dict(exact=exact, GA=method)}, "GA", 10, tables=1)
    assert found[SPACES[name]].tolist() == [0.75, 0.25]  # in units of the 2 points that random search misses
    with pytest.raises(KeyError, match="5,000 evaluations"):
        beyond_random({name: dict(exact=exact, GA=method)}, "GA", 5000)


def test_methods_are_compared_at_their_last_look_with_as_much_computing():
    looks = [("DARTS", s, seed, p) for seed in (0, 1) for s, p in ((1, 0.9), (2, 0.8), (3, 0.1))]
    looks += [("ASNG", s, 0, s / 4) for s in (1, 2, 3)]
    df = pd.DataFrame(looks, columns=["method", "step", "seed", "percentile"])
    spent = grown(df, dict(DARTS=[2e9, 4e9, 6e9], ASNG=[1e9, 2e9, 4.4e9]))
    equal = at_equal(spent)
    assert equal["q50"].to_dict() == dict(DARTS=0.8, ASNG=0.75) and equal["step"].to_dict() == dict(
        DARTS=2, ASNG=3
    )
    told = told_equal(equal)
    assert (told["equal"], told["cheapest"], told["at_darts"], told["steps_asng"]) == (
        "4",
        "ASNG",
        "0.800",
        "3",
    )
    assert "2 searches: ASNG from 0.25 to 0.75, DARTS from 0.90 to 0.10" in told_map(df)[0]


def test_the_probabilities_of_a_controller_are_those_of_what_it_draws():
    method = MAKERS["ENAS"](TABLE_CELL, 0, 1, 0.0)
    for draw in range(3):  # so that it is no longer uniform
        method.ask(draw, 8)
        method.tell(torch.linspace(0, 1, 8))
    method.ask(9, 4000)
    drawn, p = torch.nn.functional.one_hot(method.asked.cat).double().mean(0), probabilities(method)
    assert p.sum(1).tolist() == pytest.approx([1] * 6) and (p - 0.25).abs().max() > 0.1
    torch.testing.assert_close(p, drawn.to(p), rtol=0, atol=0.03)
