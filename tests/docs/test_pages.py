"""The pages that are made of the source hold all of it, and links between documents lead somewhere."""

import posixpath
import re
from importlib import import_module
from pathlib import PurePosixPath

import pytest

import run  # noqa: F401  registers the commands
from docs.messages import ROOT
from docs.pages import ELSEWHERE, MADE_OF, REFERENCE, generated, page_of, slug
from dvp.config import NAMED, ex
from dvp.families import FAMILIES, LANGUAGE_MODELS, REFUSED
from dvp.tasks import TASKS

PAGES = generated()
FOLDERS = ("*.md", "docs/**/*.md", "*/README.md", "dvp/**/*.md")
HANDWRITTEN = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for folder in FOLDERS
    for path in sorted(ROOT.glob(folder))
}
DOCUMENTS = HANDWRITTEN | {f"docs/{name}": text for name, text in PAGES.items()}
LINK = re.compile(r"\[[^\]]*\]\((?!https?:|mailto:)([^)#\s]*)#?([^)\s]*)\)")
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """Those of the headings of a document."""
    return {
        slug(title) for title in re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    }


def test_every_setting_stands_there_with_its_meaning() -> None:
    page = generated()["settings.md"]
    for name, value in ex.settings.items():
        assert re.search(
            rf"^### {name}\n\n`{name} = {re.escape(repr(value))}`: .{{5,}}\n\nIt must be .+\.$", page, re.M
        )
    assert "of weights, order, dropout and arms" in page  # the comment of `seed`, not what Sacred says of it


@pytest.mark.parametrize("page, names", [("commands.md", ex.commands), ("experiments.md", NAMED)])
def test_every_command_and_experiment_stands_there(page: str, names: dict) -> None:
    assert set(names) <= anchors(PAGES[page])
    assert "python run.py predict with load_path=" in PAGES["commands.md"]


def test_every_family_stands_there_with_what_it_does_or_why_not() -> None:
    page = HANDWRITTEN["docs/own_language_model.md"]
    works = re.findall(r"^\| `([A-Z0-9_]+)` \| (.+?) \| (\S+) \|.*\| (yes|no)\b[^|]*\|$", page, re.M)
    rows = [(key.upper(), row.name, row.kind.replace("_", "-"), row.headed) for key, row in FAMILIES.items()]
    assert {(*one, "yes" if writes else "no") for *one, writes in rows} == set(works)
    assert dict(re.findall(r"^\| `([a-z0-9-]+)`[^|]*\| (.+) \|$", page, re.M)) == REFUSED
    assert "Flan-T5" in FAMILIES["t5"].members and "Flan-T5" in page
    assert "LLaMA-3" in FAMILIES["llama"].members and "LLaMA 3" in page
    tried = re.search(r"^\| `language_model` \|(.+)\|\n.+\n((?:\|.+\n)+)", page, re.M)
    assert {one.strip() for one in tried[1].split("|")} == set(TASKS)
    assert {line.split("|")[1].strip() for line in tried[2].splitlines()} == set(LANGUAGE_MODELS)


@pytest.mark.parametrize("name", [name for _, modules in REFERENCE.values() for name in modules])
def test_the_reference_is_of_what_there_is(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    try:
        import_module(name)
    except ModuleNotFoundError:
        assert callable(getattr(import_module(module), attribute))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    text = CODE.sub("", DOCUMENTS[name]) if name in HANDWRITTEN else DOCUMENTS[name]
    for target, anchor in LINK.findall(text):
        place = posixpath.normpath(posixpath.join(posixpath.dirname(name), target)) if target else name
        assert place in DOCUMENTS if name not in HANDWRITTEN else (ROOT / place).exists(), f"{name}: {target}"
        if anchor:
            assert anchor in anchors(DOCUMENTS[place]), f"{name}: {target}#{anchor}"


@pytest.mark.parametrize("path", MADE_OF)
def test_a_link_to_a_source_is_one_to_its_page(path: str) -> None:
    assert page_of(path) in PAGES and (ROOT / path).exists()


def test_every_document_has_a_page() -> None:
    in_docs = {str(PurePosixPath(name).relative_to("docs")) for name in HANDWRITTEN if name.startswith("docs/")}
    pages = in_docs | set(PAGES) | set(ELSEWHERE.values())
    nav = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(nav) == sorted(pages)
    assert not ELSEWHERE.keys() - HANDWRITTEN.keys()
