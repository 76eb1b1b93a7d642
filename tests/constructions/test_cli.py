"""``elicitable construct`` as it is typed: what it prints and keeps, and what it refuses."""

from __future__ import annotations

import inspect
import itertools
import json
import string
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from elicitable import cli
from elicitable.cli.construct.commands import CONSTRUCTIONS
from elicitable.cli.options import spread
from elicitable.constructions.catalog import CATALOG
from elicitable.models.speed.processor import kind

Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """Runs the command in this process: exit code, standard output, standard error."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["elicitable", "construct", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        code = stop.value.code
        assert isinstance(code, int)
        return code, *capsys.readouterr()

    return run


def test_i_love_transformers_is_shown_step_by_step_and_drawn(typed: Typed) -> None:
    code, out, error = typed("theorem-1", "--vocab", "94", "--length", "20", "--text", "I love transformers!")
    assert (code, error) == (0, "")
    assert "virtual token 1: (0.4362, 0, 0.8085" in out
    assert "emitted: I love transformers!" in out
    assert out.count("(1.00)") == 2 * 20
    assert "> 41 'I' █████████████████████████████████████████ 0.00" in out
    assert "  42 'J' █████████████████████████████████████     -1.00" in out
    assert max(map(len, out.splitlines())) <= 80


def test_a_map_is_read_from_a_file(typed: Typed, tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text(json.dumps({" ": "!!", "!": " "}), encoding="utf-8")
    asked = ("longer-answers", "--vocab", "2", "--length", "2", "--map", str(tmp_path / "map.json"))
    for given, emitted in ((" ", [1, 1]), ("!", [0, 0])):
        code, out, _ = typed(*asked, "--input", given, "--json")
        assert (code, json.loads(out)["emitted"]) == (0, emitted)


def keep_map(folder: Path, answers: dict[str, str]) -> str:
    (folder / "words.json").write_text(json.dumps(answers), encoding="utf-8")
    return str(folder / "words.json")


def letters_to_words() -> dict[str, str]:
    """The 52 letters, each with a word that begins with it; the longest has 10 letters."""
    words = """apple banana cherry dragonfly elephant falcon giraffe hedgehog iguana jackrabbit kangaroo llama manatee
        nightjar octopus penguin quail rabbit salamander tiger urchin vulture walrus xerus yak zebra""".split()  # noqa: SIM905
    return dict(zip(string.ascii_letters, [*words, *map(str.capitalize, words)], strict=True))


def test_52_letters_to_words_need_no_sizes(typed: Typed, tmp_path: Path) -> None:
    asked = ("longer-answers", "--map", keep_map(tmp_path, letters_to_words()))
    code, out, error = typed(*asked, "--verify", "exhaustive", "--quiet")
    assert (code, error) == (0, "")
    assert "V = 52, n_X = 1, n_Y = 10" in out
    assert "52 inputs, each run: 520 symbols, 0 wrong" in " ".join(out.split())
    code, out, _ = typed(*asked, "--input", "a", "--json")
    record = json.loads(out)
    letters = "".join(sorted(string.ascii_letters))
    assert (code, record["alphabet"]) == (0, letters)
    assert "".join(letters[symbol] for symbol in record["emitted"]) == "appleAAAAA"
    # symbol 0 fills up, as everywhere; what is written says where the answer ends
    assert "answer to 'a': 'apple', filled up to 10 symbols with 'A'" in typed(*asked, "--input", "a")[1]
    assert "answer to 'J': 'Jackrabbit'\n" in typed(*asked, "--input", "J")[1]


def test_the_one_map_is_what_is_verified(typed: Typed, tmp_path: Path) -> None:
    """At too low a temperature its own answers come out wrong, and are told in its characters."""
    asked = ("longer-answers", "--map", keep_map(tmp_path, letters_to_words()), "--verify", "exhaustive")
    record = json.loads(typed(*asked, "--json")[1])
    assert (record["checked"], record["passes"], record["failures"]) == (1, 52, 0)
    code, out, _ = typed(*asked, "--temperature", "2")
    assert code == 1
    assert "counterexample: input 'A', step 1: 'A' → " in out
    code, out, _ = typed(*asked, "--temperature", "2", "--json")
    table = json.loads(out)["counterexamples"][0]["target"]
    letters = sorted(string.ascii_letters)
    assert "".join(letters[symbol] for symbol in table[:10]) == "AppleAAAAA"


def test_an_entry_for_the_space_fills_up_with_spaces(typed: Typed, tmp_path: Path) -> None:
    asked = ("longer-answers", "--map", keep_map(tmp_path, letters_to_words() | {" ": ""}))
    out = typed(*asked, "--input", "a")[1]
    assert "V = 53" in out
    assert "answer to 'a': 'apple', filled up to 10 symbols with ' '" in out


def test_maps_of_one_and_two_characters(typed: Typed, tmp_path: Path) -> None:
    vowels = keep_map(tmp_path, {"é": "o", "o": "é"})
    assert "answer to 'é': 'o'\n" in typed("theorem-2", "--map", vowels, "--input", "é")[1]
    larger = keep_map(tmp_path, {a + b: max(a, b) for a, b in itertools.product("abc", repeat=2)})
    for name in ("packed-inputs", "tabled-inputs"):
        code, out, _ = typed(name, "--map", larger, "--input", "ac")
        assert code == 0
        assert "V = 3, n_X = 2" in out
        assert "answer to 'ac': 'c'\n" in out
        verified = typed(name, "--map", larger, "--verify", "exhaustive")[1]
        assert "9 inputs, each run: 9 symbols, 0 wrong" in " ".join(verified.split())


def test_an_alphabet_gives_the_order_and_the_vocabulary(typed: Typed, tmp_path: Path) -> None:
    code, out, _ = typed("theorem-1", "--alphabet", "no way", "--text", "nay")
    assert code == 0
    assert "V = 6, n_X = 0, n_Y = 3" in out
    assert "virtual token 1: (0, 0.6667, 0.8333)" in out
    assert "emitted: nay" in out
    swap = keep_map(tmp_path, {"b": "a", "a": "b"})
    code, out, _ = typed("theorem-2", "--alphabet", "ba", "--vocab", "2", "--map", swap, "--json")
    assert (code, json.loads(out)["tokens"]) == (0, [[0.5, 0.0]])
    assert json.loads(typed("theorem-2", "--alphabet", "abc", "--verify", "exhaustive", "--json")[1])["checked"] == 27


@pytest.mark.parametrize(
    ("arguments", "answers", "message"),
    [
        ("--alphabet aba", {}, "must differ, but 'a' stands more than once in 'aba'"),
        ("--alphabet ", {}, "an alphabet needs at least 1 character, got none"),
        ("--alphabet abc --vocab 5", {}, "--vocab 5 disagrees with the 3 characters of --alphabet; leave --vocab out"),
        ("--alphabet a\nb", {}, "the character '\\n' cannot be shown"),
        ("--alphabet abc", {"a": "b"}, "'b'; give each an answer. The inputs are made of the 3 symbols 'abc', given"),
        ("--alphabet ab", {"a": "x", "b": "a"}, "character 'x' at place 0 of 'x' is not among the 2 symbols 'ab'"),
        (
            "",
            {"a": "b", "b": "."},
            "is not total: 1 of 3 inputs have no answer, the first is '.'; give each an answer. The inputs are made of "
            "the 3 symbols '.ab', the characters of the map's inputs and answers ('.' only in answers).",
        ),
        ("--vocab 2", {" ": "!"}, "made of the 2 symbols ' !', the first printable ASCII characters."),
        ("", {}, "is empty; give each input an answer"),
        ("", {"a": "\ud800"}, "the character '\\ud800' cannot be shown"),
        ("", {"": "ab"}, "answers '', but an input is 1 character"),
        ("", {"a": "b", "b": "a", "ab": "c"}, "answers 'ab', but an input is 1 character"),
        ("--length 1", {"a": "ab", "b": ""}, "at most 1 character; shorten it or give --length 2."),
        ("--verify 3", {"a": "b", "b": "a"}, "--map is the one target: give --verify exhaustive with it"),
        ("--input ab", {"a": "b", "b": "a"}, "--input 'ab' has 2 characters, but an input is 1 character"),
    ],
)
def test_alphabets_and_maps_that_do_not_fit(
    typed: Typed, arguments: str, answers: dict[str, str], message: str, tmp_path: Path
) -> None:
    keys = arguments.split(" ") if arguments else []
    code, out, error = typed(
        "longer-answers", *keys, "--map", keep_map(tmp_path, answers or ({} if not keys else {"a": "a"}))
    )
    assert (code, out) == (2, "")
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error


def test_a_map_that_is_not_total_is_named_before_its_size(typed: Typed, tmp_path: Path) -> None:
    words = keep_map(tmp_path, {"ab": "c", "yz": "d"} | {a + "x": "e" for a in string.ascii_lowercase})
    assert "is not total: 648 of 676 inputs" in typed("packed-inputs", "--map", words)[2]


@pytest.mark.parametrize("name", [known.name for known in CATALOG])
def test_every_construction_is_run_verified_and_kept(typed: Typed, tmp_path: Path, name: str) -> None:
    code, out, error = typed(name, "--vocab", "2", "--out", str(tmp_path), "--json", "--seed", "-3")
    record = json.loads(out)
    assert (code, error, record["counterexamples"]) == (0, "", [])
    assert record["emitted"] == record["wanted"]
    assert (record["processor"], record["device"]) == (kind(), "cpu")
    assert json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8")) == record
    assert (tmp_path / f"{name}.svg").read_bytes().startswith(b"<?xml")
    code, out, _ = typed(name, "--vocab", "2", "--dtype", "float32", "--verify", "7", "--json", "--quiet")
    record = json.loads(out)
    assert (code, record["checked"], record["counterexamples"], record["dtype"]) == (0, 7, [], "float32")


# half of what each needs; theorem 2 needs none
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", ["theorem-1", "longer-answers", "packed-inputs", "tabled-inputs"])
def test_a_temperature_too_low_is_found_out(typed: Typed, name: str, dtype: str) -> None:
    code, out, _ = typed(name, "--vocab", "3", "--dtype", dtype, "--temperature", "2", "--verify", "50", "--json")
    record = json.loads(out)
    assert (code, record["dtype"]) == (1, dtype)
    assert record["inverse_temperature"] < record["temperature_bound"]
    assert record["counterexamples"][0]["margin"] <= 0
    assert record["failures"] >= len(record["counterexamples"]) > 0


@pytest.mark.parametrize(
    ("arguments", "above"),
    [
        ("packed-inputs --vocab 14 --inputs 2", "use V ≤ 13"),
        ("packed-inputs --vocab 5 --inputs 3", "use V ≤ 4"),
        ("packed-inputs --vocab 8 --inputs 2 --dtype float32", "use V ≤ 7"),
        ("theorem-1 --vocab 20 --length 3 --dtype bfloat16", "vocabulary 20 is beyond bfloat16"),
        ("theorem-2 --vocab 43 --dtype float16", "vocabulary 43 is beyond float16"),
    ],
)
def test_one_vocabulary_above_the_limit_is_refused_or_found_out(typed: Typed, arguments: str, above: str) -> None:
    asked = (*arguments.split(), "--verify", "40", "--json")
    code, out, error = typed(*asked)
    assert (code, out) == (2, "")
    assert above in error
    code, out, _ = typed(*asked, "--unchecked")
    assert code == 1
    assert json.loads(out)["counterexamples"]


def test_capacity_of_one_type_is_a_table_and_a_plot(typed: Typed, tmp_path: Path) -> None:
    code, out, _ = typed("capacity", "--dtype", "bfloat16", "--out", str(tmp_path), "--quiet")
    assert code == 0
    table, _, limits = out.partition("What limits each row:")
    assert max(map(len, out.splitlines())) <= 80
    assert [line.split()[1] for line in table.splitlines()[1:8]] == [
        "theorem-1",
        "theorem-1",
        "theorem-2",
        "longer-answers",
        "packed-inputs",
        "packed-inputs",
        "tabled-inputs",
    ]
    assert limits.count("bfloat16 ") >= 7
    assert (tmp_path / "capacity.svg").exists()
    assert {row["dtype"] for row in json.loads((tmp_path / "capacity.json").read_text("utf-8"))["rows"]} == {"bfloat16"}


def test_hard_tokens_reach_v_of_v_to_the_n(typed: Typed) -> None:
    code, out, _ = typed("reach", "--vocab", "6", "--length", "4")
    assert code == 0
    assert "V^N = 1,296 sequences" in out
    assert "6 hard tokens, each run, reach 6" in out
    assert "1,296 virtual tokens, each run, reach 1,296" in out


def test_every_construction_is_a_subcommand_with_the_sizes_that_it_takes() -> None:
    for known in CATALOG:
        command = CONSTRUCTIONS[known.name]
        assert known.states in " ".join((command.__doc__ or "").split())
        sizes = {"length", "inputs"} & set(inspect.signature(spread(command)).parameters)
        assert sizes == ({known.option} if known.option else set())


def test_a_default_that_the_help_names_is_the_one_that_is_taken(typed: Typed) -> None:
    for known in CATALOG:
        if known.option:
            assert f"[default: {known.default}" in " ".join(typed(known.name, "--help")[1].split())


def test_the_list_has_every_name(typed: Typed) -> None:
    code, out, _ = typed("list")
    assert code == 0
    for name in ("theorem-1", "tabled-inputs", "capacity", "reach", "token-reach"):
        assert name in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("theorem-1 --vocab 94 --length 3 --text hello", "'hello' has 5 characters, but the sequence holds 3"),
        ("theorem-1 --vocab 10 --text abc", "'a' at place 0 of 'abc' is not among the 10 symbols"),
        (
            "theorem-2 --text abc",
            "No such option: --text (Possible options: --dtype, --quiet); `elicitable construct theorem-2 --help`",
        ),
        ("theorem-1 --vocab 200 --text abc", "--text needs a vocabulary of at most 95"),
        ("theorem-1 --length 0", "at least 1 symbol"),
        ("theorem-1 --vocab -1", "at least 2 symbols, got -1"),
        ("packed-inputs --vocab -3 --inputs 2", "at least 2 symbols, got -3"),
        ("theorem-1 --vocab 0 --unchecked", "at least 2 symbols, got 0"),
        ("theorem-1 --length 100000", "a residual stream of 200,000 dimensions (100,000 for embedding"),
        ("theorem-1 --vocab 10000000", "at most 1,048,576 symbols here, got 10,000,000"),
        ("theorem-2 --vocab 100000", "a residual stream of 100,002 dimensions"),
        ("longer-answers --length 1000000000", "a residual stream of 2,000,000,010 dimensions"),
        ("packed-inputs --inputs 1000000000", "packs more than 62 bits"),
        ("tabled-inputs --inputs 1000000000", "needs V^(n_X−1) = 10^999999999 virtual tokens"),
        ("theorem-1 --length 20 --verify exhaustive", "10^20 targets here, too many to exhaust"),
        ("theorem-1 --verify ²", "--verify takes exhaustive or a number of random targets, got '²'"),
        ("theorem-1 --verify 0", "--verify takes exhaustive or a number of random targets, got '0'"),
        ("theorem-1 --temperature nan", "must be a number from 0 to 10000, got nan"),
        ("theorem-1 --temperature 1e300", "must be a number from 0 to 10000, got 1e+300"),
        ("theorm-1", "did you mean 'theorem-1'"),
        ("theorem-1 --dtype float", "unknown dtype 'float'"),
        ("capacity --dtype float8", "unknown dtype 'float8'"),
        ("capacity --vocab 3", "No such option: --vocab"),
        ("list --text x", "No such option: --text"),
        ("theorem-1 --hard-tokens 3", "No such option: --hard-tokens"),
        ("theorem-1 --text abc --verify 3", "theorem-1 with --verify does not take --text"),
        ("theorem-2 --length 3", "No such option: --length"),
        ("reach --vocab 1000000 --length 2 --verify 3", "No such option: --verify"),
        ("theorem-2 --verify 3 --input a", "theorem-2 with --verify does not take --input"),
        ("theorem-2 --vocab 3 --input zz", "'z' at place 0 of 'zz'"),
        ("token-reach --hard-tokens ²", "--hard-tokens takes a number or all"),
        ("token-reach --hard-tokens 0", "hard_tokens must be a positive whole number or 'all', got 0"),
        ("token-reach --virtual-tokens 0", "virtual_tokens must be a positive whole number, got 0"),
        ("token-reach --targets randon", "did you mean 'random'"),
        ("token-reach --vocab 3", "No such option: --vocab"),
    ],
)
def test_what_cannot_be_is_named(typed: Typed, arguments: str, message: str, tmp_path: Path) -> None:
    code, out, error = typed(*arguments.split(), "--out", str(tmp_path / "out"))
    assert (code, out) == (2, "")
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{" ": "!"}', "is not total: 1 of 2 inputs have no answer, the first is '!'"),
        ('{" ": "!", "!": " ", " ": " "}', "answers ' ' more than once"),
        ('{" ": "!", "!": "!!"}', "answers '!' with '!!', but an answer is at most 1 character; shorten it."),
        ('{" ": "!", "!!": "!"}', "answers '!!', but an input is 1 character"),
        ('{" ": "!", "!": "x"}', "character 'x' at place 0 of 'x' is not among the 2 symbols"),
        ('{" ": 1, "!": " "}', "must be a JSON object from input text to answer text"),
        ('{" ": {"!": " "}}', "must be a JSON object from input text to answer text"),
        ("[1, 2]", "must be a JSON object from input text to answer text"),
        ("{bad", "cannot be read: Expecting property name"),
        ("\udcff", "cannot be read"),
    ],
)
def test_maps_that_are_none(typed: Typed, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "map.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    code, out, error = typed("theorem-2", "--vocab", "2", "--map", str(tmp_path / "map.json"))
    assert (code, out) == (2, "")
    assert message in error


def test_maps_that_are_not_there_or_not_asked_for(typed: Typed, tmp_path: Path) -> None:
    missing = str(tmp_path / "none.json")
    assert "cannot be read" in typed("theorem-2", "--map", missing)[2]
    assert "No such option: --map" in typed("theorem-1", "--map", missing)[2]


@pytest.mark.parametrize("name", ["theorem-1", "reach", "token-reach"])
def test_a_place_that_cannot_be_written_to(typed: Typed, name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    code, out, error = typed(name, "--out", str(tmp_path / "file"))
    assert (code, out) == (2, "")
    assert "file" in error


def test_token_reach_takes_either_kind_of_target(typed: Typed, tmp_path: Path) -> None:
    told: dict[str, Any] = {}
    for targets in ("model", "random"):
        asked = ("--model", "toy:ascending", "--targets", targets, "--virtual-tokens", "1", "--hard-tokens", "3")
        code, out, _ = typed("token-reach", *asked, "--out", str(tmp_path), "--json", "--quiet")
        assert code == 0
        told[targets] = json.loads(out)["virtual"]["targets"]
    assert told == {"model": "model", "random": "random"}
