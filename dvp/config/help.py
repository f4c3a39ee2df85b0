"""What `python run.py help` answers: how to begin, and the meaning of a command, an experiment or a setting."""

import difflib
import textwrap
from collections.abc import Sequence
from typing import Any

from sacred import Experiment

from dvp.config.rules import RULES
from dvp.errors import UserError

BEGIN = """\
To begin, without any download:
  python run.py shapes                                               draw the embedded world, in seconds
  python run.py with dvp_search_bert_vqa shapes                      find K on it, on a laptop
  python run.py with dvp_adaption_bert_vqa shapes start_from=search  go on at that K, from what the search has learnt
  python run.py search_and_train with dvp_adaption_bert_vqa shapes   both, and the answers to the test questions
On VQAv2, GQA, SNLI-VE or ScienceQA (DATA.md):
  python run.py with dvp_search_bert_vqa data_root=./datasets per_gpu_batchsize=256
On data of your own (docs/own_data.md):
  python run.py with dvp_search_bert_custom data_root=./datasets/mine per_gpu_batchsize=256
What else there is:
  python run.py help           all commands, experiments and settings
  python run.py help <name>    what one of them means
  python run.py --help         the options of Sacred, which runs the commands"""


def help_for(ex: Experiment, names: Sequence[str]) -> str:
    """What is to be known of a command, experiment or setting, or of all in short; UserError where there is none."""
    if len(names) > 1:
        raise UserError("help takes one name: `python run.py help <command, experiment or setting>`.")
    if not names:
        return _overview(ex)
    name = names[0].partition("=")[0]
    settings = ex.configurations[0](preset={})
    found = [
        *([_command(ex, name)] if name in ex.commands else []),
        *([_experiment(name, ex.named_configs[name], settings)] if name in ex.named_configs else []),
        *([_setting(name, ex, settings)] if name in settings else []),
    ]
    if not found:
        everything = [*ex.commands, *ex.named_configs, *settings]
        near = difflib.get_close_matches(name, everything, 3) or [other for other in everything if name in other]
        hint = f"did you mean {' or '.join(near[:9])}?" if near else "`python run.py help` lists what there is."
        raise UserError(f"There is nothing called {name!r}: {hint}")
    return "\n\n".join(found)


def _overview(ex: Experiment) -> str:
    names = ", ".join(ex.configurations[0](preset={}))
    return "\n".join(
        (
            BEGIN,
            "\nCommands, as in `python run.py <command> with ...`; without one: search, train or test",
            *(f"  {name:22}{_first_line(command)}" for name, command in ex.commands.items()),
            "\nExperiments, as in `python run.py with <experiment> ...`",
            *(f"  {name:28}{_first_line(config)}" for name, config in ex.named_configs.items()),
            "\nSettings, as in `... with <experiment> <setting>=<value>`",
            textwrap.fill(names, 110, initial_indent="  ", subsequent_indent="  "),
        )
    )


def _command(ex: Experiment, name: str) -> str:
    reads = [word for word in ex.commands[name].signature.arguments if not word.startswith("_")]
    settings = f"\nIt reads {', '.join(reads)}." if reads else ""
    return f"python run.py {name}\n{(ex.commands[name].__doc__ or '').strip()}{settings}"


def _experiment(name: str, config: Any, settings: dict[str, Any]) -> str:
    changed = [
        f"  {key} = {value!r}" + (f"  (not {settings[key]!r})" if value != settings[key] else "  (as by default)")
        for key, value in config().items()
    ]
    return "\n".join((f"python run.py with {name}\n{config.__doc__} It sets", *changed))


def _setting(name: str, ex: Experiment, settings: Any) -> str:
    others = {experiment: config().get(name) for experiment, config in ex.named_configs.items() if name in config()}
    lines = (
        f"{name} = {settings[name]!r}  # {settings.docs[name]}",
        f"It must be {RULES[name].what}.",
        *(f"  {experiment}: {value!r}" for experiment, value in others.items()),
    )
    return "\n".join(lines)


def _first_line(documented: Any) -> str:
    return (documented.__doc__ or "").strip().split("\n")[0]
