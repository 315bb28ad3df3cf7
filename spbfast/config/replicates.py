"""How many runs a point gets: a number, or as many as an interval needs to become narrow.

Owns the section `replicates`. Whether an interval is narrow is decided in sweep/points/stopping.py.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from spbfast.config.base import Model
from spbfast.outputs.variables import VARIABLES
from spbfast.text import suggest

MOST = 100_000


def _scalar_of_a_run(name: str) -> str:
    known = [n for n, var in VARIABLES.items() if not var.dims]
    if name in known:
        return name
    if name in VARIABLES:
        dims = ", ".join(VARIABLES[name].dims)
        raise ValueError(f"{name} has values along {dims}; it must be one number a run: {', '.join(known)}")
    raise ValueError(f"no output is called {name!r}{suggest(name, known)}; it can be {', '.join(known)}")


class UntilSpec(Model):
    """When a point has enough replicates."""

    metric: Annotated[str, AfterValidator(_scalar_of_a_run)] = Field(
        description="an output that is one number a run", examples=["tainted_end"]
    )
    half_width: float = Field(
        gt=0, le=1e18, description="the interval's half width that is wanted, in the metric's unit"
    )
    level: float = Field(
        0.95, ge=0.5, lt=1, description="chance that all intervals that were looked at hold the true mean"
    )
    of: Literal["point", "difference"] = Field(
        "point",
        description="the mean of which the interval is: a point's, or that of its paired differences to "
        "sweep.baseline",
    )


class ReplicatesSpec(Model):
    """Runs per point, between two numbers."""

    min: Annotated[int, Field(ge=1, le=MOST)] = Field(5, description="runs that every point gets")
    max: Annotated[int, Field(ge=1, le=MOST)] = Field(40, description="runs that a point gets at most")
    until: UntilSpec | None = Field(None, description="when a point has enough")

    def __str__(self) -> str:
        return str(self.max) if self.until is None else f"{self.min} to {self.max}"

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.until is None and self.min != self.max:
            raise ValueError("until: is missing; say when a point has enough, or give one number of runs")
        if self.until is not None and self.min < 2:
            raise ValueError(f"min: must be at least 2 to see how runs differ, got {self.min}")
        if self.max < self.min:
            raise ValueError(f"max: must be at least min ({self.min}), got {self.max}")
        return self


def _from_number(value: Any) -> Any:
    """The mapping that a plain number stands for."""
    if isinstance(value, dict | ReplicatesSpec):
        return value
    if isinstance(value, float):
        raise ValueError(f"must be a whole number, got {value!r}")
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"must be a whole number, or a mapping of min, max and until; got {value!r}")
    if not 1 <= value <= MOST:
        raise ValueError(f"must be {'at least 1' if value < 1 else f'at most {MOST}'}, got {value}")
    return {"min": value, "max": value}


Replicates = Annotated[ReplicatesSpec, BeforeValidator(_from_number)]
