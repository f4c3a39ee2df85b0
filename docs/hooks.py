"""What mkdocs is told beside mkdocs.yml: pages that are made of the source or lie elsewhere, and links between them."""

import posixpath
import re
from typing import Any

from mkdocs.structure.files import File, Files

from docs.messages import ROOT
from docs.pages import ELSEWHERE, generated, page_of

LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https?:|mailto:|#)([^)#\s]*)(#[^)\s]*)?\)")
IMAGE = re.compile(r"(!\[[^\]]*\]\()(?!https?:)([^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """All pages: those of docs/, those made of the source, and those that lie elsewhere."""
    for page, text in generated().items():
        files.append(File.generated(config, page, content=text))
    for source, page in ELSEWHERE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """The page with links between files of the repository as links between pages; other files are only named."""
    here = page.file.src_uri
    source = next((source for source, of in ELSEWHERE.items() if of == here), f"docs/{here}")

    def place(target: str) -> str:
        """Where a file of the repository is in the site, seen from this page; nothing if it is not there."""
        page = page_of(posixpath.normpath(posixpath.join(posixpath.dirname(source), target)))
        return posixpath.relpath(page, posixpath.dirname(here) or ".") if page else ""

    def link(found: re.Match[str]) -> str:
        text, target, anchor = found[1], found[2], found[3] or ""
        return f"[{text}]({there}{anchor})" if (there := place(target)) else text

    markdown = IMAGE.sub(lambda found: f"{found[1]}{place(found[2])})", markdown)
    return LINK.sub(link, markdown)
