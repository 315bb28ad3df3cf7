"""The picture of the rooms in docs/architecture.md, drawn from the imports.

Owns docs/_static/rooms.svg and the table between the markers of the page. Rewrite both with
`python -m tests.rooms`; test_docs.py compares. The picture draws an arrow only where no longer way leads
to the same room; the table names them all.
"""

from __future__ import annotations

from pathlib import Path

from tests.imports import MODULES, ROOT, arrows
from tests.test_layering import RANK, STOREYS, room_of

SVG = ROOT / "docs" / "_static" / "rooms.svg"
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- rooms: begin -->", "<!-- rooms: end -->"
STOREY, MARGIN, HEIGHT = 58, 24, 28
LEFT, RIGHT, WIDTH = 190, 560, 760
MACHINE = ("model.", "jit")  # rooms of the right column: what is compiled, and what builds it


def room_arrows() -> dict[str, set[str]]:
    """By room, the rooms that its files import from."""
    out: dict[str, set[str]] = {room: set() for room in RANK}
    for module, targets in arrows().items():
        if (room := room_of(module)) in RANK:
            out[room] |= {room_of(t) for t in targets} & set(RANK) - {room}
    return out


def shortest(graph: dict[str, set[str]]) -> list[tuple[str, str]]:
    """The arrows that no longer way replaces."""
    below: dict[str, set[str]] = {}
    for room in sorted(graph, key=RANK.__getitem__):
        below[room] = graph[room].union(*(below[target] for target in graph[room]))
    return sorted(
        (room, target)
        for room, targets in graph.items()
        for target in targets
        if not any(target in below[other] for other in targets - {target})
    )


def is_machine(room: str) -> bool:
    return room.startswith(MACHINE)


def places() -> dict[str, tuple[int, int, int]]:
    """By room: centre x, top y and width of its box."""
    out = {}
    for rank, rooms in enumerate(STOREYS):
        y = MARGIN + (len(STOREYS) - 1 - rank) * STOREY
        for centre, side in ((LEFT, False), (RIGHT, True)):
            row = [room for room in rooms if is_machine(room) is side]
            widths = [9 * len(room) + 24 for room in row]
            x = centre - (sum(widths) + 20 * (len(row) - 1)) // 2
            for room, width in zip(row, widths, strict=True):
                out[room] = (x + width // 2, y, width)
                x += width + 20
    return out


def _line(start: tuple[int, int, int], end: tuple[int, int, int]) -> str:
    """A curve from the foot of one box to the head of another; long ones in one column bow outwards."""
    (x1, y1, _), (x2, y2, _) = start, end
    y1 += HEIGHT
    bend = (y2 - y1) // 2
    bow = 0
    if abs(x1 - x2) < 60 and y2 - y1 > STOREY:
        bow = (-1 if x1 < (LEFT + RIGHT) // 2 else 1) * min(150, 60 + (y2 - y1) // 6)
    return f'<path d="M{x1} {y1} C{x1 + bow} {y1 + bend} {x2 + bow} {y2 - bend} {x2} {y2 - 2}"/>'


def svg() -> str:
    """The picture: one row a storey, the machine on the right."""
    at = places()
    height = 2 * MARGIN + (len(STOREYS) - 1) * STOREY + HEIGHT
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" font-family="monospace" font-size="14">',
        "<title>The rooms of spbfast by storey, with arrows to what they import</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        '<marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#777777" stroke="none"/></marker>',
        '<g fill="none" stroke="#999999" marker-end="url(#a)">',
        *(_line(at[room], at[target]) for room, target in shortest(room_arrows())),
        "</g>",
    ]
    for room, (x, y, width) in at.items():
        fill = "#dbe9f6" if is_machine(room) else "#f6ecd9"
        out += [
            f'<rect x="{x - width // 2}" y="{y}" width="{width}" height="{HEIGHT}" rx="5" fill="{fill}" '
            'stroke="#555555"/>',
            f'<text x="{x}" y="{y + 19}" text-anchor="middle" fill="#111111">{room}</text>',
        ]
    return "\n".join([*out, "</svg>"]) + "\n"


def table() -> str:
    """Every room from the top down: its files, and where it imports from."""
    graph = room_arrows()
    lines = ["| room | imports from |", "|---|---|"]
    for rooms in reversed(STOREYS):
        for room in rooms:
            targets = sorted(graph[room], key=lambda r: (-RANK[r], r))
            lines.append(f"| `{room}` | {', '.join(f'`{t}`' for t in targets) or 'nothing'} |")
    return "\n".join(lines)


def page(text: str) -> str:
    """The page with its table brought up to date."""
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n\n{table()}\n\n{END}{rest.split(END)[1]}"


def main() -> None:
    SVG.parent.mkdir(exist_ok=True)
    SVG.write_text(svg(), encoding="utf-8")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"{len(MODULES)} files in {len(RANK)} rooms: {_short(SVG)}, {_short(PAGE)}")


def _short(path: Path) -> str:
    return str(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
