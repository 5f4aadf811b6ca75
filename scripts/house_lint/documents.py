"""Rules for the documents: code shown is code that runs, and links lead somewhere."""

import re
from collections.abc import Iterator

from .source import Finding, Source

SNIPPET = re.compile(r"^<!-- snippet: (\S+) -->\n```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s:]+)(?:#[^)]*)?\)")


def snippets(source: Source) -> Iterator[Finding]:
    """A block after `<!-- snippet: FILE -->` stands in FILE word for word, where a test runs it."""
    if source.suffix != ".md":
        return
    for match in SNIPPET.finditer(source.text):
        file = source.root / match[1]
        if not file.is_file() or match[2] not in file.read_text():
            yield source.finding(source.line_of(match.start()), "snippet", f"the block is not part of {match[1]}")


def links(source: Source) -> Iterator[Finding]:
    if source.suffix != ".md":
        return
    folder = (source.root / source.path).parent
    for match in LINK.finditer(source.text):
        if not (folder / match[1]).exists():
            yield source.finding(source.line_of(match.start()), "link", f"{match[1]} does not exist")


DOCUMENT_RULES = (snippets, links)
