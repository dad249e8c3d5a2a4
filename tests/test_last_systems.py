"""NAO against numbers of the public code (nao_cases.json), SMASH, update rules: what must hold of each, and bad input."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nas_nb.asng import Space
from nas_nb.nao import LSTM, NAO, Encoder, Tokens, moved, point
from nas_nb.papers.last_runs import arena_record, mean_exact_run, mean_rules_run, one_smash
from nas_nb.relaxations import one_hot
from nas_nb.rule_table import RULE_STEPS, build_rule_table, rule_data, rule_table
from nas_nb.smash import Smash, smash_scores, train_smash
from nas_nb.tables import TABLE_CELL, encodings
from nas_nb.tiny import SEPARABLE_CELL, TinyNetwork
from nas_nb.training import Recipe
from nas_nb.update_rules import (
    KNOWN_RULES,
    RULE_SIZES,
    ManyRules,
    Seen,
    canonical,
    rule,
    rule_text,
    train_rules,
)

CASES = json.loads((Path(__file__).parent / "nao_cases.json").read_text())

pytestmark = pytest.mark.usefixtures("one_thread")


# --- NAO: numbers of the public code ------------------------------------------------------------------------


def test_a_cell_as_tokens_and_back():
    case = CASES["nao_tokens"]
    sizes = [k for node in range(5) for k in (2 + node, 5, 2 + node, 5)]
    tokens = Tokens(2 * sizes, ["input", "operation"] * 20)
    choices = torch.tensor(case["input"]["conv_cell"] + case["input"]["reduction_cell"])
    assert tokens.of(choices).tolist() == case["expected"]["tokens"] and tokens.count == 12
    assert torch.equal(tokens.of(choices) - tokens.first, choices)
    assert tokens.allowed[torch.arange(40), tokens.of(choices)].all()


def of_waves():
    "The small encoder of the case: parameter n, in alphabetical order of the public code's names, is a wave."
    ours = "embed.weight layers.0.bias layers.0.weight layers.1.bias layers.1.weight out.bias out.weight "
    ours = (ours + "lstm.state.bias lstm.input.bias lstm.state.weight lstm.input.weight").split()
    encoder, found = Encoder(12, 3, 6, (5, 5), join=2).double(), {}
    names = CASES["nao_encoder_step"]["input"]["parameter_names_sorted"]
    for n, (name, (_, shape)) in enumerate(zip(ours, names, strict=True)):
        wave = (0.4 * (0.7 * torch.arange(math.prod(shape)).double() + n).sin()).view(shape)
        found[name] = wave.T if name == "embed.weight" else wave
    encoder.load_state_dict(found)
    return encoder


def test_the_step_in_the_embedding_is_that_of_the_public_code():
    case, encoder = CASES["nao_encoder_step"], of_waves()
    states = encoder(torch.tensor([case["input"]["tokens"]]))
    as64 = lambda x: torch.tensor(x, dtype=torch.float64)
    near = lambda a, b: torch.testing.assert_close(a.detach().flatten(), as64(b), rtol=1e-9, atol=1e-12)
    near(encoder.predict(states), [case["expected"]["predict_value"]])
    near(point(states), case["expected"]["arch_emb"])
    near(point(moved(encoder, states, 2.0)), case["expected"]["new_arch_emb"])


def test_the_lstm_is_pytorchs():
    torch.manual_seed(0)
    ours, theirs = LSTM(3, 4).double(), torch.nn.LSTM(3, 4, batch_first=True).double()
    state = dict(zip(("state.weight", "state.bias"), (theirs.weight_hh_l0, theirs.bias_hh_l0)))
    ours.load_state_dict(state | {"input.weight": theirs.weight_ih_l0, "input.bias": theirs.bias_ih_l0})
    x, h, c = torch.randn(2, 5, 3).double(), torch.randn(2, 4).double(), torch.randn(2, 4).double()
    torch.testing.assert_close(ours(x, h, c), theirs(x, (h[None], c[None]))[0])


# --- NAO: what must hold ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def taught():
    "A search that knows 200 architectures of 625, whose loss is how far from 1 each choice is."
    torch.manual_seed(0)
    search = NAO(Space([5] * 4), 3, steps=300)
    search.tell((search.ask(200) - 1).square().sum(-1))
    search.fit()
    return search


def states_of(search, cat):
    return search.encoder(search.tokens.of(cat)).detach()


def test_the_decoder_gives_back_what_it_was_taught(taught):
    written = taught.decoder.write(states_of(taught, taught.cat), taught.tokens.allowed) - taught.tokens.first
    assert (written == taught.cat).double().mean() > 0.98


def test_the_decoder_writes_what_teaching_thinks_likeliest(taught):
    states = states_of(taught, taught.cat[:20])
    written = taught.decoder.write(states, taught.tokens.allowed)
    others = taught.tokens.of((taught.cat[:20] + 1) % 5)
    assert (taught.decoder(states, written).sum(1) > taught.decoder(states, others).sum(1)).all()


def test_a_step_along_the_gradient_raises_the_prediction_and_keeps_the_length(taught):
    states = states_of(taught, taught.cat)
    before = taught.encoder.predict(states)
    new = moved(taught.encoder, states, 0.1)
    assert (taught.encoder.predict(new) >= before - 1e-6).double().mean() > 0.99
    torch.testing.assert_close(new.square().sum(-1), torch.ones(new.shape[:2]))


def test_a_step_in_another_direction_is_as_long():
    torch.manual_seed(0)
    encoder = Encoder(6, 4, 8, (5,)).double()
    states, towards = encoder(torch.tensor([[1, 2, 3]])).detach(), torch.randn(1, 3, 8).double()
    leaf = states.clone().requires_grad_()
    (along,) = torch.autograd.grad(encoder.predict(leaf).sum(), leaf)
    wanted = states + 0.5 * towards / towards.norm() * along.norm()
    found = moved(encoder, states, 0.5, towards)
    torch.testing.assert_close(found, wanted / wanted.norm(dim=-1, keepdim=True))


def test_predictions_rank_what_was_evaluated(taught):
    predicted = taught.encoder.predict(states_of(taught, taught.cat))
    assert torch.corrcoef(torch.stack([predicted.double(), -taught.losses]))[0, 1] > 0.8


def searched(seed, **how):
    search = NAO(Space([3, 4, 3, 4]), seed, steps=120, hidden=16, units=16, **how)
    for n in (40, 10, 10):
        search.tell((search.ask(n) - 1).square().sum(-1))
    return search


def test_a_search_asks_for_new_ones_and_repeats_itself_from_its_seed():
    one, again, blind = searched(2), searched(2), searched(2, blind=True)
    assert torch.equal(one.cat, again.cat) and not torch.equal(one.cat, blind.cat)
    assert torch.equal(one.cat[:40], blind.cat[:40]) and sum(one.moves) > 10  # the null begins alike
    assert len(one.cat[40:].unique(dim=0)) == 20 and (one.cat < torch.tensor([3, 4, 3, 4])).all()
    assert one.losses[(one.cat == one.best()).all(1)].min() == one.losses.min()


def test_a_space_that_is_used_up_is_asked_again():
    search = NAO(Space([2, 2]), steps=2, hidden=4, units=4)
    for _ in range(2):
        search.tell(search.ask(6).sum(-1))
    assert len(search.cat) == 12 and len(search.cat.unique(dim=0)) == 4


@pytest.mark.parametrize(
    ("says", "how"),
    [
        ("categorical variables", dict(space=Space([2], reals=[(0, 1)]))),
        ("categorical variables", dict(space=[2, 3])),
        ("lr must be above 0", dict(lr=0)),
        ("steps = 0", dict(steps=0)),
        ("kinds must have an entry", dict(kinds=["a"])),
    ],
)
def test_settings_that_cannot_be_are_refused(says, how):
    with pytest.raises(ValueError, match=says):
        NAO(**dict(space=Space([2, 3])) | how)


@pytest.mark.parametrize(
    ("says", "losses"),
    [("not finite", [0, math.nan]), ("shape", [0.0]), ("numbers", ["a", "b"]), ("shape", [[0.0, 1.0]])],
)
def test_losses_that_do_not_fit_are_refused_and_change_nothing(says, losses):
    search = NAO(Space([2, 3]))
    with pytest.raises(ValueError, match="ask before you tell"):
        search.tell([0.0, 1.0])
    with pytest.raises(ValueError, match="nothing was evaluated"):
        search.best()
    search.ask(2)
    with pytest.raises(ValueError, match=says):
        search.tell(losses)
    search.tell([0.0, 1.0])
    assert len(search.cat) == 2


# --- SMASH --------------------------------------------------------------------------------------------------


def smashed(hidden, steps=10):
    torch.manual_seed(1)
    smash = Smash(TinyNetwork(TABLE_CELL), hidden)
    g = torch.Generator().manual_seed(0)
    batches = lambda step: (torch.randn(16, 1, 8, 8, generator=g), torch.arange(16) % 10)
    train_smash(smash, batches, Recipe(steps, "momentum", 0.1, clip=5.0, channels_last=False))
    return smash, batches(0)


def test_scores_side_by_side_are_those_of_single_networks():
    smash, batch = smashed(16)
    codes = encodings(TABLE_CELL.sizes)[[2730, 5, 1000, 4095, 0]]
    alone = torch.stack([F.cross_entropy(smash(batch[0], c), batch[1]) for c in codes.tolist()])
    torch.testing.assert_close(
        smash_scores(smash, codes, batch, part=2), alone.detach(), rtol=1e-4, atol=1e-5
    )


def test_without_units_weights_are_shared_and_it_is_a_plain_supernet():
    smash, (x, _) = smashed(0)
    some = smash.weights(torch.tensor([[2] * 6, [1, 2, 0, 3, 2, 1]]))
    assert torch.equal(some[0], some[1])
    code = [2, 1, 2, 0, 3, 2]
    torch.testing.assert_close(smash(x, code), smash.network(x, one_hot(code)))


def test_the_hypernetwork_begins_at_shared_weights_and_all_of_it_learns():
    begun = Smash(TinyNetwork(TABLE_CELL), 8)
    some = begun.weights(torch.tensor([[2] * 6, [1, 2, 0, 3, 2, 1]]))
    assert torch.equal(some[0], some[1])
    taught, _ = smashed(8)
    torch.manual_seed(1)
    before = Smash(TinyNetwork(TABLE_CELL), 8)
    changed = [
        n for (n, a), b in zip(taught.named_parameters(), before.parameters()) if not torch.equal(a, b)
    ]
    assert {"second", "first.weight", "network.stem.0.weight", "network.linear.weight"} <= set(changed)


def test_a_space_without_plain_convolutions_is_refused():
    with pytest.raises(ValueError, match="3×3 convolutions alone"):
        Smash(TinyNetwork(SEPARABLE_CELL, (3, 16, 16)))
    with pytest.raises(ValueError, match="hidden = -1"):
        Smash(TinyNetwork(TABLE_CELL), -1)


def test_a_training_is_the_same_again():
    assert one_smash(4, "digits", 2, 5) == one_smash(4, "digits", 2, 5) != one_smash(4, "digits", 2, 6)


# --- update rules -------------------------------------------------------------------------------------------


def test_rules_compute_what_their_texts_say():
    g = torch.Generator().manual_seed(0)
    seen = Seen(*(torch.randn(3, 7, generator=g).abs() + 0.1 for _ in range(3)))
    rules = [
        rule("g", "v̂", "−x", "√|x|", "÷"),
        rule("m̂", "1", "eˣ", "ln|x|", "×"),
        rule("g²", "sign(g)", b="+"),
    ]
    found = ManyRules(rules, [0.1] * 3).update(seen)
    by_hand = [-seen.g[0] / (seen.v[0].sqrt() + 1e-8), torch.zeros(7), seen.g[2] ** 2 + seen.g[2].sign()]
    torch.testing.assert_close(found, torch.stack(by_hand))
    assert [rule_text(r) for r in rules] == ["−g ÷ √|v̂|", "e^(m̂) × ln|1|", "g² + sign(g)"]


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSProp"])
def test_rules_with_names_train_as_pytorchs_optimisers(name):
    many = ManyRules([KNOWN_RULES[name], rule("1")], [0.02, 1.0])
    leaf = many.w[:1].clone().requires_grad_()
    make = dict(SGD=torch.optim.SGD, Adam=torch.optim.Adam)
    theirs = make[name]([leaf], 0.02) if name in make else torch.optim.Adam([leaf], 0.02, betas=(0.0, 0.999))
    g = torch.Generator().manual_seed(0)
    for step in range(8):
        x, y = torch.randn(32, 64, generator=g), torch.arange(32) % 10
        theirs.zero_grad()
        F.cross_entropy(many.logits(x, leaf)[0], y).backward()
        theirs.step()
        many.step(x, y)
    torch.testing.assert_close(many.w[:1], leaf.detach(), rtol=1e-3, atol=1e-5)


def test_a_network_alone_and_in_a_crowd_has_the_same_weights():
    some, g = encodings(RULE_SIZES)[100:140], torch.Generator().manual_seed(0)
    x, y = torch.randn(16, 64, generator=g), torch.arange(16) % 10
    crowd, alone = ManyRules(some, [0.01] * 40, 3), ManyRules(some[[7]], [0.01], 3)
    for _ in range(4):
        crowd.step(x, y), alone.step(x, y)
    torch.testing.assert_close(crowd.w[[7]], alone.w)


def test_rules_that_are_called_the_same_are_the_same():
    every, g = encodings(RULE_SIZES), torch.Generator().manual_seed(0)
    some = every[np.random.default_rng(0).integers(len(every), size=200)]
    seen = Seen(*(torch.randn(1, 5, generator=g).expand(200, -1) for _ in range(3)))
    seen = seen._replace(v=seen.v.abs())
    own, first = (ManyRules(r, [1.0] * 200).update(seen) for r in (some, canonical(some)))
    torch.testing.assert_close(own, first, equal_nan=True)
    assert (canonical(canonical(every)) == canonical(every)).all()


@pytest.mark.parametrize(
    ("says", "rules", "rates"),
    [
        ("five choices", [[0, 0, 0, 0, 4]], [0.1]),
        ("five choices", [[0, 0, 0]], [0.1]),
        ("five choices", [], []),
        ("learning rate above 0", [[0] * 5], [0.1, 0.2]),
        ("learning rate above 0", [[0] * 5], [math.nan]),
        ("learning rate above 0", [[0] * 5], [-1]),
    ],
)
def test_rules_that_cannot_be_are_refused(says, rules, rates):
    with pytest.raises(ValueError, match=says):
        ManyRules(rules, rates)


def test_the_table_of_rules_is_what_the_program_computes():
    table = rule_table()
    assert len(table.frame) == 4900 and len(table.columns) == 3 and table.frame["function"].max() == 2519
    assert (table.frame.groupby("function")[["rate", *table.columns]].nunique() == 1).all(axis=None)
    some = np.array([KNOWN_RULES[n] for n in ("SGD", "momentum", "Adam")])
    rates = table.frame["rate"][table.at(some)].to_numpy(float)
    again = train_rules(some, rates, *rule_data(1), RULE_STEPS, 1)
    assert np.allclose(again, table.frame["accuracy_1"][table.at(some)], atol=1.5)


def test_a_small_table_is_built():
    lines = build_rule_table(limit=6, steps=2).splitlines()
    assert lines[0] == "architecture,function,rate,accuracy_0,accuracy_1,accuracy_2" and len(lines) > 6


def test_a_search_by_means_finds_the_rule_with_the_best_mean_that_it_has_seen():
    table, found = rule_table(), mean_rules_run("random search", [20, 60], 60, 300, 0)
    regret = table.scores.max() - table.scores[[int(table.at(code)) for code in found["codes"]]]
    kept = [float(x) for x in found["seen"]["regret"]["60"].split()]
    assert kept == (np.rint(100 * (100 * regret)) / 100).tolist()
    exact, error = mean_exact_run([20, 60], 60, 0)["seen"]["mean"][1], regret.std() / 300**0.5
    assert abs(regret.mean() - exact) < 4 * error


def test_records_of_the_arena_are_found_by_their_labels():
    record = arena_record("digits", "evolution")
    assert record["label"] == "lookup-digits-evolution" and arena_record("digits", "nobody") is None
