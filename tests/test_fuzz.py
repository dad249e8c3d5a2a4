"""Bad input, made up by hypothesis: never a traceback, never exit status 0, always one line that says what
to do.

Each test counts what it tried; `pytest -s tests/test_fuzz.py` prints the counts.
"""

import json
import math
from collections import Counter
from dataclasses import fields

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from nas_nb import cli, compare
from nas_nb.batches import Augment
from nas_nb.core import check_parameters, parse_value, resolve
from nas_nb.training import Recipe

TRIED = Counter()
settings.register_profile(
    "fuzz", deadline=None, derandomize=True, max_examples=200, suppress_health_check=list(HealthCheck)
)
settings.load_profile("fuzz")
text = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)
numbers = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from(["1e999", "-0", "0x10", "1_0", "٣", "½", "9" * 400, "1e-400", "nan", "+5", " 7", ""]),
).map(str)
words = st.one_of(
    text,
    numbers,
    st.sampled_from(
        [
            "--",
            "-",
            "--set",
            "--profile",
            "--jobs=",
            "--help=1",
            "figures",
            "runs",
            "rm",
            "..",
            "/",
            "~",
            "*",
            "51_asng_nas",
        ]
    ),
)


@pytest.fixture(scope="session", autouse=True)
def counted():
    yield
    print("\ntried:", dict(TRIED), "in all", sum(TRIED.values()))


# -- values and configs --

PROFILES = dict(
    paper=dict(
        n=3,
        rate=0.5,
        shift=-1.0,
        f=(0.5, 1.0),
        sizes=[1, 2],
        plain=False,
        name="a",
        names=("a", "b"),
        seeds=5,
    ),
    quick=dict(n=2),
)
LIKE = resolve(PROFILES, "paper")


@given(numbers | text, st.sampled_from(sorted(LIKE)))
@example("9" * 400, "n")
@example("nan", "rate")
@example("1,,2", "sizes")
def test_a_value_is_of_its_type_or_refused(written, key):
    like = LIKE[key]
    TRIED["values"] += 1
    try:
        value = parse_value(written, like)
    except ValueError as error:
        assert "\n" not in str(error).strip() or "\n" in written
        return
    assert type(value) is type(like)
    for item in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(item, (int, float)) and not isinstance(item, bool):
            assert math.isfinite(item) and (item > 0 or key == "shift") and written.isascii()


@given(
    st.lists(
        st.one_of(words, st.builds("{}={}".format, st.sampled_from(sorted(LIKE)), numbers | text)), max_size=3
    ).map(" ".join)
)
@example("n=1 n")
@example("=")
@example("n==1")
def test_overrides_change_what_is_known_or_are_refused(overrides):
    TRIED["overrides"] += 1
    try:
        values = resolve(PROFILES, "paper", overrides)
    except ValueError as error:
        assert len(str(error).splitlines()) == 1 and "cannot set" in str(error)
        return
    assert values.keys() == LIKE.keys() and all(type(v) is type(LIKE[k]) for k, v in values.items())


odd = st.one_of(st.floats(), st.integers(), st.text(max_size=3), st.none(), st.booleans())


@pytest.mark.parametrize("cls, needed", [(Recipe, dict(steps=5)), (Augment, {})], ids=["Recipe", "Augment"])
@given(st.data())
def test_settings_of_a_wrong_type_or_range_are_refused(cls, needed, data):
    TRIED["settings"] += 1
    field = data.draw(st.sampled_from([f for f in fields(cls)]))
    value = data.draw(odd)
    try:
        made = cls(**needed | {field.name: value})
    except ValueError as error:
        assert len(str(error).splitlines()) == 1 and field.name in str(error)
        return
    default = needed.get(field.name, field.default)
    assert isinstance(value, bool) == isinstance(default, bool) and isinstance(
        value, (int, float) if isinstance(default, float) else type(default)
    )
    assert (
        not isinstance(value, (int, float))
        or isinstance(value, bool)
        or 0 <= getattr(made, field.name) < math.inf
    )


@given(
    st.sampled_from(["profile", "seeds", "device", "overrides"]),
    odd | st.lists(odd, max_size=2) | st.sampled_from(["quick", "cuda:1", 7, "n=4"]),
)
@example("profile", ["quick"])
@example("device", "cuda:٣")
def test_parameters_of_a_wrong_type_are_refused(name, value):
    TRIED["parameters"] += 1
    try:
        check_parameters(PROFILES, **dict(profile="quick") | {name: value})
    except ValueError as error:
        assert len(str(error).splitlines()) == 1
        return
    assert type(value) is (int if name == "seeds" else str)


@given(numbers | text, st.sampled_from("hms"))
@example("٣", "m")
@example("9" * 400, "h")
def test_a_duration_is_a_number_of_seconds_or_refused(written, unit):
    TRIED["durations"] += 1
    for take, word in (cli.duration, written + unit), (cli.at_least_one, written):
        try:
            value = take(word)
        except cli.argparse.ArgumentTypeError:
            continue
        assert word.isascii() and 0 < value < 1e9


# -- command lines --

CELLS = [
    "#| export\nPROFILES = dict(paper=dict(trials=100, rate=0.5, f=(0, 0.5), plain=False, seeds=5), quick=dict(trials=8), smoke=dict(trials=1))",
    'profile: str = "quick"\nseeds: int = 0\ndevice: str = "auto"\noverrides: str = ""',
    "save_fig()",
]


def notebook(sources=CELLS):
    cells = [
        dict(cell_type="code", id=f"c{i}", metadata={}, outputs=[], execution_count=None, source=s)
        for i, s in enumerate(sources)
    ]
    cells[1]["metadata"] = dict(tags=["parameters"])
    return dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5)


@pytest.fixture
def project(tmp_path, monkeypatch, capfd):
    (tmp_path / "settings.ini").write_text("[DEFAULT]\nlib_name = nas_nb\n")
    (tmp_path / "nbs").mkdir()
    (tmp_path / "nbs" / "10_demo.ipynb").write_text(json.dumps(notebook()))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def answer(argv, capfd):
    "Exit status, stdout and stderr of a command line; `--help` is fine."
    try:
        status = cli.main(list(argv))
    except SystemExit as end:
        status = end.code
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err
    assert status in (0, 1, 2, 3) and (
        err.count("\n") == 1 and err.startswith("nas-nb: ") if status else not err
    ), (argv, status, err)
    return status


@given(argv=st.lists(words, max_size=5))
@example(["figures", "--jobs", "9" * 5000])
@example(["figures", "--time-limit", "9" * 400])
@example(["runs", "rm", "--", "-x"])
def test_any_words_get_an_answer(project, capfd, argv):
    TRIED["command lines"] += 1
    if argv[:1] == ["figures"] and "--dry-run" not in argv:
        argv = ["figures", "--dry-run", *argv[1:]]
    answer(argv, capfd)


NOWHERE = text.filter(
    lambda w: w.strip() and not w.startswith("-") and w not in ("digits", "pydoc")
) | st.sampled_from(["/", "/dev/null", "/proc/self/mem", "a" * 300, "nbs"])


@given(action=st.sampled_from(["get", "verify", "add"]), name=NOWHERE, path=NOWHERE)
def test_data_that_is_not_there(project, capfd, action, name, path):
    TRIED["data commands"] += 1
    assume(action != "get" or name not in ("mnist", "cifar10"))  # a download is not for a fuzzer
    assert answer(["data", action, "--", name, *([path] if action == "add" else [])], capfd) in (1, 2)
    assert not [p for p in (project / "data").rglob("*") if not p.name.startswith(".")]


BAD = dict(
    notebooks=words.filter(lambda w: not w.startswith("-") and not ("10_demo".startswith(w) and w)),
    profile=words.filter(lambda w: w not in ("paper", "quick", "smoke", "cpu")),
    device=text.filter(lambda w: w not in cli.DEVICES),
    seeds=numbers.filter(lambda w: not (w.isdecimal() and int(w) > 0))
    | text.filter(lambda w: not w.isdecimal()),
    jobs=numbers.filter(lambda w: not (w.isdecimal() and int(w) > 0)),
    set=st.builds(
        "{}={}".format,
        st.sampled_from(["trials", "rate", "f", "plain"]),
        text.filter(lambda w: not any(c.isdecimal() for c in w) and w.lower() not in ("true", "false")),
    )
    | text.filter(lambda w: "=" not in w),
)


@pytest.mark.parametrize("option", BAD)
@given(data=st.data())
def test_a_command_with_one_bad_value_is_refused(project, capfd, option, data):
    TRIED["bad values"] += 1
    bad = data.draw(BAD[option])
    words = ["figures", "--dry-run", *(["--", bad] if option == "notebooks" else [f"--{option}={bad}"])]
    assert answer(words, capfd) == 2
    assert not (project / "figures").exists()


# -- notebooks --

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda x: st.lists(x, max_size=3) | st.dictionaries(text, x, max_size=3),
    max_leaves=6,
)
PLACES = [
    "cells",
    "metadata",
    ("cells", 0),
    ("cells", 1, "source"),
    ("cells", 1, "metadata"),
    ("cells", 0, "cell_type"),
    ("cells", 0, "source"),
    ("cells", 1, "metadata", "tags"),
]


@given(
    place=st.sampled_from(PLACES),
    value=json_values
    | st.sampled_from(
        ["(" * 500, "x" + "\n y", "PROFILES = " + "-" * 5000 + "1", "PROFILES = dict(a=1, a=2)"]
    ),
)
def test_a_notebook_with_odd_content_is_read_or_refused(project, capfd, place, value):
    TRIED["notebooks"] += 1
    nb = notebook()
    *way, last = [place] if isinstance(place, str) else place
    inner = nb
    for step in way:
        inner = inner[step]
    inner[last] = value
    (project / "nbs" / "10_demo.ipynb").write_text(json.dumps(nb))
    answer(["figures", "--dry-run"], capfd)
    assert answer(["list"], capfd) == 0


@given(
    content=st.binary(max_size=60)
    | st.integers(0, len(json.dumps(notebook())) - 1).map(lambda n: json.dumps(notebook()).encode()[:n])
)
@example(b"[" * 100_000)
def test_a_file_that_is_no_notebook_is_refused(project, capfd, content):
    TRIED["files"] += 1
    (project / "nbs" / "10_demo.ipynb").write_bytes(content)
    assert answer(["figures", "--dry-run"], capfd) == 2
    assert answer(["list"], capfd) == 0


# -- what lies in figures/ --


@given(
    content=st.binary(max_size=60)
    | text.map(str.encode)
    | st.builds(lambda a, b: f"claim,verdict\n{a},{b}\n".encode(), text, text)
)
@example(b"claim\n" + b"x" * 200_000)
@example(b'claim,"\x00\r,\n"')
def test_a_table_of_claims_is_shown_or_named(project, capfd, content):
    TRIED["tables of claims"] += 1
    path = project / "figures" / "quick" / "10_demo" / "claims.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    try:
        readable = content.decode() is not None
    except UnicodeDecodeError:
        readable = False
    assert answer(["claims"], capfd) == (not readable)
    assert compare.committed("figures/quick/10_demo")[0].keys() == {"claims.csv"}


@given(content=st.binary(max_size=60) | json_values.map(lambda v: json.dumps(v).encode()))
@example(b"[" * 100_000)
def test_a_damaged_stamp_is_no_stamp(project, capfd, content):
    TRIED["stamps"] += 1
    path = project / "figures" / "quick" / "10_demo" / ".stamp.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    assert answer(["figures", "--dry-run"], capfd) == 0
    assert cli.main(["figures", "--dry-run"]) == 0 and "would run" in capfd.readouterr().out
