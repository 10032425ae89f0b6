"""Tokens: what a file or the environment may say, and whom they name."""

import pytest

from spicula.errors import UsageError
from spicula.serving.tokens import Tokens

ONE, OTHER, LONG = "0123456789abcdef", "fedcba9876543210", "a" * 64


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("SPICULA_TOKENS", raising=False)


@pytest.fixture
def write(tmp_path):
    def write(text, mode=0o600):
        path = tmp_path / "tokens"
        path.write_text(text)
        path.chmod(mode)
        return path

    return write


def test_without_a_file_and_a_variable_there_are_none():
    assert not Tokens(None)


def test_names_of_a_file(write):
    tokens = Tokens(write(f"# who\nradiology {ONE} # since spring\n\n  pacs\t{OTHER}\nradiology {LONG}\n"))
    assert tokens
    assert [tokens.who(token) for token in (ONE, OTHER, LONG)] == ["radiology", "pacs", "radiology"]
    assert [tokens.who(token) for token in ("", ONE[:-1], ONE + "0", ONE.upper(), "é" * 16, "\ud800")] == [None] * 6


def test_names_of_the_environment(monkeypatch):
    monkeypatch.setenv("SPICULA_TOKENS", f"radiology:{ONE}, pacs:{OTHER},")
    assert [Tokens(None).who(token) for token in (ONE, OTHER)] == ["radiology", "pacs"]


def test_tokens_are_not_kept(write):
    tokens = Tokens(write(f"radiology {ONE}"))
    assert ONE not in repr(vars(tokens))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no tokens"),
        ("# none\n", "no tokens"),
        (f"{ONE}\n", "line 1: a NAME and a TOKEN"),
        (f"a b {ONE}\n", "found 3 words"),
        (f"a {ONE}\nb {ONE}\n", "given before, to a"),
        (f"a {ONE[:-1]}\n", "fewer than 16"),
        (f"a {ONE}!\n", "letters, digits"),
        (f"a/b {ONE}\n", "a name has letters"),
        (f"{'a' * 65} {ONE}\n", "a name has letters"),
    ],
)
def test_files_that_are_refused(write, text, said):
    with pytest.raises(UsageError, match=said) as caught:
        Tokens(write(text))
    assert ONE not in str(caught.value)


@pytest.mark.parametrize("text", ["0123456789abcdef", "a:", f"a:{ONE}:x y", f":{ONE}"])
def test_variables_that_are_refused(monkeypatch, text):
    monkeypatch.setenv("SPICULA_TOKENS", text)
    with pytest.raises(UsageError, match="SPICULA_TOKENS"):
        Tokens(None)


@pytest.mark.parametrize("mode", [0o644, 0o602, 0o620, 0o601])
def test_a_file_for_others_is_refused(write, mode):
    with pytest.raises(UsageError, match="chmod 600"):
        Tokens(write(f"a {ONE}", mode))


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440])
def test_a_file_for_its_owner_and_its_group_is_read(write, mode):
    assert Tokens(write(f"a {ONE}", mode)).who(ONE) == "a"


def test_a_missing_file(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        Tokens(tmp_path / "none")


def test_a_file_is_read_again_and_a_wrong_one_changes_nothing(write):
    tokens = Tokens(write(f"a {ONE}"))
    write(f"b {OTHER}")
    tokens.read()
    assert (tokens.who(ONE), tokens.who(OTHER)) == (None, "b")
    write("short one")
    with pytest.raises(UsageError):
        tokens.read()
    assert tokens.who(OTHER) == "b"
