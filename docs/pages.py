"""The pages of the site that are made of the source: settings, commands, experiments, messages, Python reference."""

import html
import inspect
import re

from docs.messages import ROOT, TOPICS, messages
from dvp.commands import ex
from dvp.commands.idle import IDLE
from dvp.config import NAMED, RULES

# Documents that lie elsewhere in the repository, and their pages
ELSEWHERE = {
    "README.md": "index.md",
    "DATA.md": "data.md",
    "RELIABILITY.md": "reliability.md",
    "CONTRIBUTING.md": "contributing.md",
    "result/README.md": "outputs.md",
    "benchmarks/README.md": "benchmarks.md",
    "Dynamic_Visual_Prompting_For_SQA/README.md": "tasks/scienceqa.md",
    "llama_7b_weights_hf/README.md": "llama.md",
}
# Pages of the Python reference: title and modules
REFERENCE = {
    "load": ("Load and ask", ("dvp.load", "dvp.answering.model", "dvp.answering.asked", "dvp.answering.heatmap")),
    "model": (
        "The model",
        ("dvp.model", "dvp.compressor", "dvp.adapters", "dvp.adapters.wrapped", "dvp.adapters.injected", "dvp.vision"),
    ),
    "backbones": ("Language models", ("dvp.families", "dvp.backbones", "dvp.backbones.base", "dvp.backbones.encoder",
                                      "dvp.backbones.encoder_decoder", "dvp.backbones.decoder")),
    "search": ("The search", ("dvp.search.rule", "dvp.search.bandit", "dvp.search.mean", "dvp.search.record")),
    "tasks": ("Tasks and scores", ("dvp.tasks", "dvp.evaluation")),
    "data": ("Data", ("dvp.prepare", "dvp.data.datamodule", "dvp.data.checked", "dvp.images")),
    "training": ("Training and checkpoints", ("dvp.build", "dvp.module", "dvp.optim", "dvp.checkpoints",
                                              "dvp.checkpoints.folder")),
    "clip": ("Image encoders", ("dvp.encoders", "dvp.encoders.rows", "dvp.encoders.preprocessing",
                                "dvp.encoders.transform", "dvp.encoders.folder", "dvp.encoders.loading",
                                "dvp.encoders.openai", "clip")),
    "errors": ("Errors", ("dvp.errors",)),
}  # fmt: skip
# Sources that a page is made of: a link to one is a link to the page
MADE_OF = {
    "dvp/config/defaults.py": "settings.md",
    "dvp/config/experiments.py": "experiments.md",
    "dvp/commands/verbs.py": "commands.md",
    "docs/messages.py": "messages.md",
    **{
        file: f"python/{name}.md"
        for name, (_, modules) in REFERENCE.items()
        for module in modules
        for file in (module.replace(".", "/") + ending for ending in (".py", "/__init__.py", ""))
        if (ROOT / file).exists()
    },
}
SETTINGS = """\
# Every setting

Its default, its meaning and its rule, made of `dvp/config`. `python run.py help <setting>` says it on the command line.
"""
COMMANDS = """\
# Every command

`python run.py <command> with ...`; without a command it searches, trains or tests.
"""
EXPERIMENTS = """\
# Every experiment

`python run.py with <experiment> ...`; of two words the later wins, and `shapes` goes last.
"""
MESSAGES = """\
# Every message

What ends a run with exit code 1, in bold what to do; in a log it stands behind `UserError:`. `<name>` and `...` stand
for what differs from case to case. [Troubleshooting](troubleshooting.md) says more of the common ones.
"""


def generated() -> dict[str, str]:
    """All pages that are made of the source, by their path in the site."""
    return {
        "settings.md": settings(),
        "commands.md": commands(),
        "experiments.md": experiments(),
        "messages.md": all_messages(),
        **{f"python/{name}.md": reference(name) for name in REFERENCE},
    }


def page_of(path: str) -> str | None:
    """The page of the site for a file or folder of the repository; None where it has none."""
    for table in (ELSEWHERE, MADE_OF):
        if found := table.get(path) or table.get(f"{path}/README.md"):
            return found
    return path.removeprefix("docs/") if path.startswith("docs/") else None


def settings() -> str:
    """Every setting by the groups of `dvp/config/defaults.py`: default, meaning, what it may be, who sets it."""
    values, lines = ex.settings, [SETTINGS]
    for name, meaning in _meanings():
        if not meaning:
            lines += [f"## {name}", ""]
            continue
        lines += [f"### {name}", "", f"`{name} = {values[name]!r}`: {_escaped(meaning)}.", ""]
        lines += [f"It must be {_escaped(RULES[name].what)}.", ""]
        for names, _, why in IDLE:
            lines += [f"It has no effect where {why}.", ""] if name in names else []
        by_value: dict[str, list[str]] = {}
        for experiment, config in NAMED.items():
            if name in config and name != "exp_name":
                by_value.setdefault(repr(config[name]), []).append(experiment)
        lines += [f"- `{value}`: {', '.join(f'`{one}`' for one in found)}" for value, found in by_value.items()] + [""]
    return "\n".join(lines)


def _meanings() -> list[tuple[str, str]]:
    """The settings in their order with their meanings, each group behind its title, which has none."""
    text = (ROOT / "dvp" / "config" / "defaults.py").read_text(encoding="utf-8")
    found = re.findall(r"^    (?:# (.+)|(\w+) = .*?  # (.+))$", text, re.MULTILINE)
    return [(title or name, meaning) for title, name, meaning in found]


def commands() -> str:
    """Every command, Sacred's own last, with what it says of itself, how README.md shows it, and what it reads."""
    shown, lines = (ROOT / "README.md").read_text(encoding="utf-8"), [COMMANDS]
    by_origin = sorted(ex.commands.items(), key=lambda row: row[1].__module__.startswith("sacred"))
    for name, command in by_origin:
        lines += [f"## {name}", "", _escaped(inspect.getdoc(command) or ""), ""]
        lines_or_code = rf"^(python run\.py {name} .*?)(?:  #.*)?$|`(python run\.py {name}\b[^`]*)`"
        examples = dict.fromkeys(map("".join, re.findall(lines_or_code, shown, re.MULTILINE)))
        lines += ["```bash", *examples, "```", ""] if examples else []
        reads = [f"[`{word}`](settings.md#{word})" for word in command.signature.arguments if word in ex.settings]
        lines += [f"It reads {', '.join(reads)}.", ""] if reads else []
    return "\n".join(lines)


def experiments() -> str:
    """Every named experiment with the settings that it changes."""
    defaults, lines = ex.settings, [EXPERIMENTS]
    for name, config in ex.named_configs.items():
        lines += [f"## {name}", "", _escaped(config.__doc__), "", "| setting | here | by default |", "|---|---|---|"]
        for key, value in config().items():
            shown = str(value).replace(f"{ROOT}/", "")
            lines.append(f"| [`{key}`](settings.md#{key}) | `{shown}` | `{defaults[key]}` |")
        lines.append("")
    return "\n".join(lines)


def all_messages() -> str:
    """Every message that a user may be told, by topic: what is wrong, what to do, and where it is raised."""
    helped, found, lines = troubles(), messages(), [MESSAGES]
    for topic in TOPICS:
        here = {message.shown: message for message in found if message.topic == topic}  # of equal ones the last
        lines += [f"## {topic}", ""] if here else []
        for shown, message in here.items():
            more = f" [More on it.](troubleshooting.md#{helped[shown]})" if shown in helped else ""
            wrong, remedy = (_literally(part) for part in message.parts)
            place = f"<small>`{message.file}`{f', `{message.function}`' if message.function else ''}</small>"
            lines.append(f"- <code>{wrong} <strong>{remedy}</strong></code>{more}<br>{place}")
        lines.append("")
    return "\n".join(lines)


def troubles() -> dict[str, str]:
    """The messages that docs/troubleshooting.md has longer help for, with the anchor of it."""
    found, anchor = {}, ""
    for line in (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            anchor = slug(line[3:])
        elif line.startswith("> "):
            found[line[2:].strip().strip("`").strip()] = anchor
    return found


def reference(name: str) -> str:
    """A page of the Python reference, of which mkdocstrings takes the docstrings."""
    title, modules = REFERENCE[name]
    return "\n\n".join((f"# {title}", *(f"::: {module}" for module in modules)))


def slug(title: str) -> str:
    """The anchor of a heading, as GitHub and the site make it."""
    plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def _escaped(text: str) -> str:
    """A text without what Markdown would take for HTML or a link."""
    return re.sub(r"([<*_\[\]])", r"\\\1", text) if "`" not in text else text.replace("<", "&lt;")


def _literally(text: str) -> str:
    """A text as it stands, in HTML."""
    return html.escape(text, quote=False).replace("`", "&#96;")


def slugify(title: str, separator: str) -> str:
    """`slug` as Python-Markdown asks for it."""
    return slug(title)
