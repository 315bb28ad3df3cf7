"""Memory that is in use when a captured machine begins, and that an actor frees: the key `from_start`.

Owns the model. Which pages become an actor's is decided when a run begins (recordings/begun_run.py).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from spbfast.config.base import Model, key
from spbfast.config.units import Duration, format_duration

SHORTEST_LIFE = 100_000  # ns, as of the parts of `allocations`
MOST_BLOCKS = 1 << 28


class StartBlocks(Model):
    """Blocks of an actor's order and type that are in use at the start, and how long they go on to live."""

    blocks: int = Field(
        description="how many; as many as the machine of machine.from has, if those are fewer",
        examples=[1000],
        ge=1,
        le=MOST_BLOCKS,
    )
    lifetime: Duration = Field(
        description="mean time that they still live, exponential, at least 100us", examples=["30s"]
    )
    holder: Literal["anon", "huge", "page_cache", "slab", "page_table", "other"] | None = key(
        None,
        "what a capture's page flags say that they hold; not given, or without page flags: any",
        "ours",
    )

    @model_validator(mode="after")
    def _check(self) -> StartBlocks:
        if self.lifetime < SHORTEST_LIFE:
            least = format_duration(SHORTEST_LIFE)
            raise ValueError(f"lifetime: must be at least {least}, got {format_duration(self.lifetime)}")
        return self
