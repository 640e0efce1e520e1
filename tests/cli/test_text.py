"""Paths, URLs, addresses and names that a command is given: blanks around them do not count, and a
blank one is refused, by every command alike."""

from __future__ import annotations

import json

import click
import pytest

from revstore.cli import TEXT
from revstore.cli._main import cli

PLACES = {"PATH", "FILE", "ADDRESS", "URL", "PREFIX", "FROM", "TO", "[TO]", "PATH..."}
#: Options of all commands, which follow the same rule as the configuration does.
OF_THE_CONFIGURATION = {"store", "config_file"}


def commands(group: click.Group, path: tuple[str, ...] = ()):
    """All commands with their parameters."""
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        if isinstance(found, click.Group):
            yield from commands(found, (*path, name))
        else:
            yield (*path, name), found


def places():
    for path, command in commands(cli):
        for each in command.params:
            named = each.metavar or (each.name or "").upper()
            if named in PLACES and each.name not in OF_THE_CONFIGURATION:
                yield path, command, each


EVERY = [pytest.param(*each, id=f"{' '.join(each[0])} {each[2].name}") for each in places()]


@pytest.mark.parametrize(("path", "command", "parameter"), EVERY)
def test_every_place_follows_the_rule(path, command, parameter):
    if parameter.name != "filenames":  # of apply and delete, which name what is missing
        assert parameter.type is TEXT


@pytest.mark.parametrize("text", ["", " ", "\n", "\t \r\n"])
@pytest.mark.parametrize(("path", "command", "parameter"), EVERY)
def test_blank_places_are_refused(revstore, path, command, parameter, text):
    if parameter.name == "filenames":
        pytest.skip("it names what is missing")
    arguments = []
    for each in command.params:
        if each is parameter:
            arguments += [text] if isinstance(each, click.Argument) else [each.opts[-1], text]
        elif each.required and each is not parameter:
            arguments += ["x"] if isinstance(each, click.Argument) else [each.opts[-1], "x"]
    line = revstore.error(*path, *arguments, code=2)
    assert "it is blank" in line
    assert list(revstore.folder.iterdir()) == []


def test_blanks_around_a_place_do_not_count(revstore, pod):
    revstore.apply(pod("a"))
    revstore("backup", " b.rsb\n")
    assert (revstore.folder / "b.rsb").exists()
    revstore("restore", "b.rsb\r\n", "--store", "sqlite:///other.db")
    assert "equal" in revstore("verify", "b.rsb ", " sqlite:///other.db\n").stdout


def test_what_cannot_be_seen_is_refused(revstore):
    assert "cannot be seen" in revstore.error("backup", "a\u200bb", code=2)
    assert not list(revstore.folder.iterdir())


def test_errors_name_the_file_that_was_asked_for(revstore, pod):
    revstore.apply(pod("a"))
    line = revstore.error("backup", "absent/x", code=1)
    assert line.split(": ")[1:] == ["absent/x", "No such file or directory"]
    line = revstore.error("restore", "absent", code=1)
    assert line.split(": ")[1:] == ["absent", "No such file or directory"]
    assert "absent: there is no such file" in revstore.error("verify", "absent", code=2)


def test_a_store_is_not_copied_into_itself(revstore, pod):
    revstore.apply(pod("a"))
    url = revstore.env["REVSTORE_URL"]
    assert "the target is the source" in revstore.error("copy", url, url, code=2)


def test_a_restore_into_the_store_of_the_backup_changes_nothing(revstore, pod):
    """Nobody's resource version means another thing then, so nobody is warned."""
    revstore.apply(pod("a"))
    revstore("backup", "b.rsb")
    done = revstore("restore", "b.rsb")
    assert "already holds" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("value", ["nan", "-1", "0", "x"])
def test_intervals_of_serve(revstore, value):
    line = revstore.error("serve", "--listen", "127.0.0.1:0", "--progress-interval", value, code=2)
    assert "progress" in line


@pytest.mark.parametrize(
    "words",
    [
        ["export", "-o", "x.yaml", ","],
        ["export", "-o", "x.yaml", ""],
        ["export", "-o", "x.yaml", "pods,,secrets"],
        ["export", "-o", "x.yaml", "--exclude", " "],
        ["export", "-o", "x.yaml", "--exclude", ","],
        ["rewrite", ",", "pods,secrets"],
        ["rewrite", " "],
        ["encryption", "rotate", "x.yaml", "--front", ""],
        ["encryption", "rotate", "x.yaml", "--resource", " "],
        ["encryption", "init", "x.yaml", "--resource", ""],
    ],
)
def test_blank_names_are_refused(revstore, words):
    """They are those of a variable that is not set, and must not mean everything."""
    assert "blank" in revstore.error(*words, code=2)
    assert list(revstore.folder.iterdir()) == []


def test_an_import_of_nothing(revstore):
    assert "standard input: it is empty" in revstore.error("import", "-", code=1, stdin="")
    (revstore.folder / "empty.jsonl").touch()
    assert "Created 0" in revstore("import", "empty.jsonl").stdout  # an export of no objects


def test_an_import_blames_no_object_for_the_configuration(revstore, pod):
    (revstore.folder / "pod.json").write_text(json.dumps(pod("a")))
    variables = {"REVSTORE_OPTIONS__POLL_INTERVAL": "abc"}
    line = revstore.error("import", "pod.json", code=2, **variables)
    assert "POLL_INTERVAL" in line
    assert "pod.json" not in line
