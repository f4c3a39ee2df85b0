"""What is typed after `python run.py`: mistyped and misplaced words are refused, with the right ones, at once."""

import ast
import difflib
import logging
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from colorama import colorama_text
from sacred import Experiment
from sacred.arg_parser import printable_usage
from sacred.utils import ensure_wellformed_argv

from dvp.config.help import BEGIN, help_for
from dvp.config.rules import SENTENCES, TEXTS, check_value
from dvp.config.saved import is_saved, read_saved
from dvp.config.unread import ends_where_unread
from dvp.errors import Stopped, UserError, end_with

# What Sacred says of settings that may be of several types, beside a sentence, and of runs that are not written down
NOISE = ("Changed type of config entry", "Failed after", "Aborted after", "No observers have been added")
LAST = "shapes"  # the named config that makes any experiment small, and so goes last
PATHS = {"compare": "runs", "convert": "raw_root", "encode": "data_root"}  # what a path is to a command; else load_path
TELL = ("datasets", "load_path", "test_only")  # settings that say in an experiment's place what is done


class CommandLine(Experiment):
    """Sacred's command line behind a check of every word; it says nothing that its user cannot act on."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.logger = logging.getLogger("sacred.commands")
        self.logger.setLevel(logging.WARNING)
        self.logger.propagate = False
        self.logger.handlers = [handler := logging.StreamHandler()]
        handler.addFilter(lambda record: not str(record.msg).startswith(NOISE))
        self.doc = BEGIN

    words: Sequence[str] | None = None  # what was typed, with the program

    @property
    def settings(self) -> dict[str, Any]:
        """All settings with their defaults."""
        return self.configurations[0](preset={})

    @ends_where_unread()
    def run_commandline(self, argv: str | Sequence[str] | None = None) -> Any:
        """Run the command that was typed, or say what is wrong with it and end with exit code 1."""
        program, *words = self.words = ensure_wellformed_argv(argv)
        if words in ([], ["with"]):
            print(BEGIN, file=sys.stderr)
            sys.exit(1)
        try:
            if words[0] == "help" or words[1:] in (["-h"], ["--help"]):  # of a command, which Sacred would not read
                print(help_for(self, words[1:] if words[0] == "help" else words[:1]))
                sys.exit(0)
            self.check_command_line(*self._in_place(words))
        except UserError as error:
            end_with(error)
        with colorama_text():  # it takes colour codes out of what goes to no terminal
            return super().run_commandline([program, *map(_quote, words)])

    def get_usage(self, program_name: str | None = None) -> tuple[str, str, str]:
        """How it is used: in short, in full, and in full as Sacred reads it, which holds no name of two words."""
        *_, internal = super().get_usage(program_name)
        shown = re.sub("^  dummy", "  python run.py", internal, flags=re.MULTILINE)
        return printable_usage(shown), shown, internal

    @ends_where_unread()
    def run(self, *args: Any, **options: Any) -> Any:
        """Run a command; one that was typed ends with an exit code, without a traceback, where it is told to or must.

        Sacred's options --debug and --pdb get the error itself.
        """
        try:
            return super().run(*args, **options)
        except UserError as error:
            typed = options.get("options") or {"--debug": True}
            if typed.get("--debug") or typed.get("--pdb"):
                raise
            end_with(error)
        except Stopped as stopped:
            sys.exit(stopped.code)
        except KeyboardInterrupt:
            print("Interrupted.", file=sys.stderr)
            sys.exit(130)

    def check_command_line(self, command: str | None, words: Sequence[str]) -> dict[str, Any]:
        """The `key=value` updates among the words after `with`; refuses unknown names, wrong values and wrong order.

        Raises UserError with the nearest right name.
        """
        if command:
            self._require("command", command)
        _refuse_spaces(words)
        updates: dict[str, Any] = {}
        for before, word in pairwise(["", *words]):
            key, equals, value = map(str.strip, word.partition("="))
            if equals:
                self._require("setting", key)
                updates[key] = _value(key, value)
                check_value(key, updates[key])
            elif is_saved(word):
                read_saved(word)
            else:
                self._require("experiment", word, before, command or "main")
        self._refuse_order(words)
        if words and command in (None, "main"):
            self._require_experiment(words, updates)
        return updates

    def _in_place(self, words: Sequence[str]) -> tuple[str | None, list[str]]:
        """The command, or None, and what stands after `with`; raises UserError where a word should stand there."""
        plain = list(self._without_options(words))
        there = plain.index("with") if "with" in plain else len(plain)
        before, settings = plain[:there], plain[there + 1 :]
        command = before[0] if before else None
        if command in self.commands and len(before) == 1 or command is None:
            return command, settings
        if command not in self.commands and not self._is_setting(command):
            self._require("command", command)
        elif command not in self.named_configs and command in self.commands:
            before = before[1:]
        else:
            command = None
        right = [*([command] if command in self.commands else []), "with", *_in_order([*before, *settings])]
        raise UserError(f"Experiments and settings go after `with`: python run.py {shlex.join(right)}")

    def _is_setting(self, word: str) -> bool:
        return "=" in word or word in self.named_configs or word in self.settings or is_saved(word)

    def _without_options(self, words: Sequence[str]) -> Iterator[str]:
        """The words that are neither Sacred's options nor values of these; raises UserError for --learning_rate."""
        flags = {flag: option.arg for option in self.all_cli_options for flag in option.get_flags()}
        values = False
        for word in words:
            flag, equals, value = word.partition("=")
            name = flag.lstrip("-").replace("-", "_")
            if values or not word.startswith("-"):
                if not values:
                    yield word
                values = False
            elif name in self.settings:
                raise UserError(f"Settings have no dashes: write {name}={value or '<value>'} after `with`.")
            elif word.startswith("--") and not any(known.startswith(flag) for known in flags):
                raise UserError(f"There is no option {flag}: `python run.py --help` lists Sacred's.")
            else:
                values = bool(flags.get(word))

    def _require(self, kind: str, word: str, before: str = "", command: str = "") -> None:
        """Raise UserError, with what may be meant, where there is no command, setting or experiment of this name.

        before: the word that stands there, of which this one may be a part. command: for which an experiment is given.
        """
        choices = {"command": self.commands, "setting": self.settings, "experiment": self.named_configs}[kind]
        if word in choices:
            if kind == "experiment" and Path(word).is_file():
                raise UserError(f"A file named {word} lies here and would be read in the experiment's place: move it.")
            return
        experiments = [name for name in self.named_configs if word.lower() in name]
        parts = [name for name in choices if word.lower() in name]
        key, _, begun = before.partition("=")
        if key in SENTENCES and " " not in begun:
            hint = f'put quotes around a text of several words, as in {key}="{begun} {word} ...".'
        elif kind == "experiment" and ("/" in word or Path(word).is_dir()):
            hint = f"a folder or file is given by its setting, as in {PATHS.get(command, 'load_path')}={word}."
        elif kind == "experiment" and word in self.settings:
            hint = f"it is a setting, write {word}=<value>."
        elif kind == "experiment" and word in self.commands:
            hint = f"it is a command, write it before `with`: python run.py {word} with ..."
        elif kind == "command" and experiments:
            hint = f"experiments go after `with`, as in python run.py with {experiments[0]} ..."
        elif parts:
            hint = f"did you mean {' or '.join(parts)}?"
        elif near := difflib.get_close_matches(word, choices, 1, cutoff=0.4):
            hint = f"did you mean {near[0]}?"
        else:
            hint = "`python run.py help` lists what there is."
        raise UserError(f"There is no {kind} {word!r}: {hint}")

    def _require_experiment(self, words: Sequence[str], updates: Mapping[str, Any]) -> None:
        """Raise UserError where neither an experiment nor a file nor a setting says what is trained."""
        experiments = [name for name in self.named_configs if name != LAST]
        if not any(word in experiments or is_saved(word) for word in words) and not any(key in updates for key in TELL):
            whole = shlex.join(_in_order([experiments[0], *words]))
            raise UserError(
                f"No experiment is given: name one, as in `python run.py with {whole}`, or datasets=<task> for a "
                "training at the defaults (`python run.py help` lists them)."
            )

    def _refuse_order(self, words: Sequence[str]) -> None:
        """Raise UserError for two experiments, and for one that would take back what `shapes` says."""
        named = [word for word in words if word in self.named_configs]
        experiments = dict.fromkeys(word for word in named if word != LAST)
        if len(experiments) > 1:
            raise UserError(f"{' and '.join(experiments)} are both given: a run takes one experiment, leave one out.")
        if experiments and LAST in named[:-1]:
            raise UserError(f"{LAST} goes after the experiment: python run.py with {shlex.join(_in_order(words))}")


def _in_order(words: Sequence[str]) -> list[str]:
    """Experiments and files, then `shapes`, then settings."""
    return sorted(words, key=lambda word: ("=" in word, word == LAST))


def _refuse_spaces(words: Sequence[str]) -> None:
    """Raise UserError for `key = value`, `key= value` and `key =value`."""
    for before, word, after in zip(["", *words], words, [*words[1:], ""], strict=False):
        if word.startswith("="):
            raise UserError(f"Write {before}={word[1:] or after} without spaces around the =.")
        if word.endswith("=") and after and "=" not in after and _literal(after) != after:
            raise UserError(f"Write {word}{after} without spaces around the =.")


def _value(key: str, value: str) -> Any:
    """What Sacred makes of the word, but for names of folders: raw_root=2014 stays a word."""
    read = _literal(value)
    return value if key in TEXTS and isinstance(read, int | float) and not isinstance(read, bool) else read


def _quote(word: str) -> str:
    """The word so that Sacred reads the same value as `_value`."""
    key, equals, value = word.partition("=")
    return (
        f"{key}={value.strip()!r}" if equals and _value(key.strip(), value.strip()) != _literal(value.strip()) else word
    )


def _literal(value: str) -> Any:
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):  # a bare word is a string, as Sacred has it
        return value
    except (TypeError, MemoryError, RecursionError) as error:
        raise UserError(f"{value[:40]} is no value ({error}): write a number, a word or a list.") from error
