"""Commands on the pages, each checked without doing its work: by the Makefile, by the module's own parser, or by the program's help.

A command of a kind that is not known here is refused, so that none stands on a page unchecked.
"""

import argparse
import importlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from functools import cache
from io import StringIO
from itertools import takewhile
from pathlib import Path
from unittest.mock import patch

from pipeline.settings import load_profile
from tests.docs.pages import PAGES, PROJECT, Code, blocks

PLACEHOLDER = "PLACEHOLDER"
"""Stands for what a reader fills in: <this repository>."""
ASSIGNMENT = re.compile(r"([A-Z_]+)=(.*)", re.DOTALL)
INLINE = re.compile(r"make [a-z]|\.venv/bin/|python -m |PIPELINE_PROFILE=")
"""How inline code begins that is a command."""


class Taken(Exception):  # noqa: N818
    """Not an error: a parser has taken its arguments, and the command ends here."""


def words_of(line: str) -> list[list[str]]:
    """The commands of a line, as words; comments are left out."""
    words = shlex.split(re.sub(r"<[^>]*>", PLACEHOLDER, line), comments=True)
    commands: list[list[str]] = [[]]
    for word in words:
        if word == "&&":
            commands.append([])
        else:
            commands[-1].append(word)
    return [command for command in commands if command]


def commands_of(block: Code) -> Iterator[tuple[str, list[str]]]:
    """Place and words of each command of a block."""
    text = block.text.replace("\\\n", " ")
    for line in text.splitlines():
        for words in words_of(line):
            yield f"{block}: {shlex.join(words)}", words


def check(words: Sequence[str]) -> None:
    """Refuse a command that can't be run as it stands. Raises AssertionError with the reason."""
    given = list(takewhile(ASSIGNMENT.fullmatch, words))
    for assignment in given:
        name, _, value = assignment.partition("=")
        check_variable(name, value)
    program, *arguments = words[len(given) :]
    if program == "make":
        check_make(arguments)
    elif program in (".venv/bin/python", "python") and arguments[:1] == ["-m"]:
        check_module(arguments[1], arguments[2:])
    elif program.startswith(".venv/bin/"):
        check_program(program.removeprefix(".venv/bin/"), arguments)
    elif program == "git":
        assert arguments[:2] == ["clone", PLACEHOLDER], "of git, only the cloning of this repository is known"
    elif program == "cd":
        assert arguments == [PROJECT_FOLDER], f"only the folder that the clone makes is known, {PROJECT_FOLDER}"
    else:
        raise AssertionError(f"{program}: commands of this kind are not checked: say how in tests/docs/commands.py")


PROJECT_FOLDER = "helpsteer-pipeline"


def check_variable(name: str, value: str) -> None:
    """An environment variable that the project reads, with a value that it takes."""
    if name == "PIPELINE_PROFILE":
        if value.endswith(".yaml"):
            shown = {b.text.partition("\n")[0] for page in PAGES for b in blocks(page) if b.language == "yaml"}
            assert f"# {value}" in shown, f"{value}: no page has a profile that begins with `# {value}`"
        else:
            load_profile(value)
    elif name == "HELPSTEER_ACCEPT_TERMS":
        profiles = [load_profile(path) for path in (PROJECT / "pipeline" / "profiles").glob("*.yaml")]
        known = {checkpoint.terms for profile in profiles for checkpoint in profile.checkpoints.values()}
        assert set(value.split(",")) <= known, f"{value}: no checkpoint has such terms"
    else:
        raise AssertionError(f"{name}: values of this variable are not checked")


def check_make(arguments: Sequence[str]) -> None:
    """Targets that the Makefile has, and variables that it takes."""
    makefile = (PROJECT / "Makefile").read_text()
    for argument in arguments:
        variable = ASSIGNMENT.fullmatch(argument)
        if variable:
            assert re.search(rf"^{variable[1]} \?=", makefile, re.MULTILINE), f"the Makefile takes no {variable[1]}"
        else:
            made = dry_run(argument)
            assert made.returncode == 0, made.stderr


@cache
def dry_run(target: str) -> "subprocess.CompletedProcess[str]":
    """`make -n TARGET`, without what a `make test` around this has set."""
    env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    command = ["make", "-n", "-C", str(PROJECT), target]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def check_module(module: str, arguments: Sequence[str]) -> None:
    """A module of the project that can be run, with arguments that its parser takes."""
    assert module.split(".")[0] in ("pipeline", "measurements", "tests"), (
        f"{module} is no module of this project that is run"
    )
    path = PROJECT.joinpath(*module.split("."))
    path = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    assert path.is_file(), f"there is no {path.relative_to(PROJECT)}"
    source = path.read_text()
    assert '__name__ == "__main__"' in source, f"{path.relative_to(PROJECT)} is not made to be run"
    if module.startswith("measurements."):  # importing one may load an engine
        for option in options_in(arguments):
            assert f'"{option}"' in source, f"{module} has no option {option}"
    elif arguments:
        assert "parse_args" in source, f"{module} takes no arguments"
        taken = parsed(f"{module}.__main__" if path.name == "__main__.py" else module, arguments)
        recipe = getattr(taken, "recipe", None)
        if recipe:
            assert recipe in load_profile(taken.profile).recipes, f"the profile has no recipe {recipe}"


def parsed(module: str, arguments: Sequence[str]) -> argparse.Namespace:
    """Arguments as the parser of a module's `main` takes them; what `main` would do with them is not begun."""
    parse = argparse.ArgumentParser.parse_args

    def take(self: argparse.ArgumentParser, args: None = None, namespace: None = None) -> None:
        raise Taken(parse(self, args, namespace))

    said = StringIO()
    with (
        patch.object(argparse.ArgumentParser, "parse_args", take),
        patch.object(sys, "argv", [module, *arguments]),
        redirect_stderr(said),
    ):
        try:
            importlib.import_module(module).main()
        except Taken as taken:
            namespace: argparse.Namespace = taken.args[0]
            return namespace
        except SystemExit:
            raise AssertionError(said.getvalue()) from None
    raise AssertionError(f"{module}: its main reads no arguments")


def check_program(name: str, arguments: Sequence[str]) -> None:
    """A program of the environment, with a subcommand and options that its help names."""
    subcommand = tuple(takewhile(lambda word: not word.startswith("-"), arguments))
    shown = help_of(name, subcommand)
    for option in options_in(arguments):
        assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", shown), f"{name} has no option {option}"


@cache
def help_of(name: str, subcommand: tuple[str, ...]) -> str:
    """What a program of the environment says of itself."""
    program = Path(sys.executable).with_name(name)
    assert program.is_file(), f"the environment has no program {name}"
    command = [str(program), *subcommand, "--help"]
    said = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    return said.stdout


def options_in(arguments: Sequence[str]) -> list[str]:
    """The options among arguments, without their values."""
    return [word.partition("=")[0] for word in arguments if re.match(r"--?[A-Za-z]", word)]
