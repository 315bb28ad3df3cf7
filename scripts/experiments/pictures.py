"""What the gallery's page has to be carried out for its pictures: files and commands, in their order.

Owns how a page is read: a YAML block that begins with its name is a file, a console block holds commands, and
a command that writes an image (-o or --png) draws the picture of that name.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "gallery.md"
PICTURES = ROOT / "docs" / "_static" / "gallery"
BROUGHT = {
    "pagetypeinfo.txt": ROOT / "tests" / "observed" / "pagetypeinfo-highatomic.txt"
}  # files of a reader
IMAGE = (".png", ".svg")
BLOCK = re.compile(r"^```(yaml|console)[^\n]*\n(.*?)^```$", flags=re.M | re.S)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do: a file to write, or a command.

    Attributes
    ----------
    file, text : str
        Name and content of a file; "" for a command.
    words : list of str
        The command's words.
    picture : str
        Name of the image that it writes, "" if none.
    """

    file: str = ""
    text: str = ""
    words: list[str] = field(default_factory=list)
    picture: str = ""


def read_steps(page: Path = PAGE) -> list[Step]:
    """The files and commands of a page."""
    steps: list[Step] = []
    for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if kind == "yaml":
            name = re.match(r"# (\S+\.yaml)\n", text)
            if name is None:
                raise ValueError(f"{page}: a YAML block does not begin with its name")
            steps.append(Step(file=name[1], text=text))
        else:
            lines = re.findall(r"^\$ (.*)$", text.replace("\\\n", " "), flags=re.M)
            steps += [_command(shlex.split(line, comments=True)) for line in lines]
    return steps


def _command(words: list[str]) -> Step:
    after = [b for a, b in zip(words, words[1:], strict=False) if a in ("-o", "--png")]
    drawn = [name for name in after if name.endswith(IMAGE)]
    return Step(words=words, picture=drawn[0] if drawn else "")


def shown_pictures(page: Path = PAGE) -> list[str]:
    """Names of the pictures that a page shows of the gallery's folder."""
    return re.findall(r"\]\((?:\.\./)*_static/gallery/([^)]+)\)", page.read_text(encoding="utf-8"))
