"""What all actors ask for together, against what the machine and the simulator can hold.

Owns these two checks; each actor's own are in actors.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from spbfast.config.actors import MOST_PER_SECOND, MOST_PLACES, Actor, SlabGrowth, too_fast
from spbfast.config.units import format_size
from spbfast.text import format_value


def check_demand(actors: Sequence[Actor], bytes_per_inode: float) -> None:
    """Check that the simulator can count what the actors ask for, and name what they hold.

    Raises
    ------
    ValueError
        Naming the actor that asks for most.
    """
    active = [actor for actor in actors if actor.enabled]
    for actor in active:
        if isinstance(actor, SlabGrowth):
            inodes = actor.rate / bytes_per_inode * (actor.burst.factor if actor.burst else 1.0)
            if inodes >= MOST_PER_SECOND:
                raise ValueError(f"{actor.label!r}: rate {too_fast(inodes)}")
    total = sum(actor.places for actor in active)
    if total > MOST_PLACES:
        largest = max(active, key=lambda actor: actor.places)
        raise ValueError(
            f"may hold {total:.3g} pages and blocks at once, the simulator can name {MOST_PLACES}; "
            f"{largest.label!r} has {largest.places:.3g} of them"
        )


def check_boot_fits(free_bytes: int, actors: Sequence[Actor]) -> None:
    """Check that the machine has room for what the actors hold at t = 0.

    Parameters
    ----------
    free_bytes : int
        Memory above the high watermark of an empty machine.

    Raises
    ------
    ValueError
        Naming the largest of them.
    """
    active = [actor for actor in actors if actor.enabled]
    total = sum(actor.boot_bytes for actor in active)
    if total > free_bytes:
        largest = max(active, key=lambda actor: actor.boot_bytes)
        held, room = format_value(total, "byte"), format_value(free_bytes, "byte")
        raise ValueError(
            f"hold {held} at boot, but the machine has only {room} above its high watermark; "
            f"lower {largest.label!r} ({format_size(largest.boot_bytes)}) or raise machine.memory"
        )


def check_starts(actors: Sequence[Actor], is_real: bool) -> None:
    """That actors which free what is in use at the start have a machine with such a start."""
    for i, actor in enumerate(actors):
        if getattr(actor, "from_start", None) is not None and not is_real:
            raise ValueError(
                f"{i}.from_start: frees what machine.from has in use at the start, and there is no "
                "machine.from; give one, or leave out from_start"
            )
