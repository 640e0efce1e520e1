"""A measured figure, and tables of them."""

from __future__ import annotations

from typing import Any

import attrs

__all__ = ["Figure", "table"]


@attrs.frozen(kw_only=True)
class Figure:
    """``value`` in ``unit``, beside a ``bound`` in the same unit that was measured in the same
    run: ``bound_name`` says of what. Their ``ratio``, value over bound, must be at most
    (``relation`` "<=") or at least (">=") the ``target``; of an ``absolute`` figure the value
    itself must, and the bound, if there is one, shows what the machine can do. One without a
    target is only shown. ``go`` is what Kubernetes' own code, in Go, took for the same work on a
    machine of this class, in the same unit; it is not measured here."""

    name: str
    value: float
    unit: str
    bound: float | None = None
    bound_name: str = ""
    relation: str = "<="
    target: float | None = None
    absolute: bool = False
    go: float | None = None

    def __attrs_post_init__(self) -> None:
        if self.target is not None and self._judged is None:
            raise ValueError(f"{self.name}: a target for a ratio needs a bound")

    @property
    def ratio(self) -> float | None:
        return None if self.bound is None else self.value / self.bound

    @property
    def _judged(self) -> float | None:
        return self.value if self.absolute else self.ratio

    @property
    def holds(self) -> bool | None:
        """None if there is no target."""
        if self.target is None or self._judged is None:
            return None
        return self._judged <= self.target if self.relation == "<=" else self._judged >= self.target

    @property
    def aim(self) -> str:
        """The target as text: of the value, or "x" of the ratio; "" if there is none."""
        if self.target is None:
            return ""
        unit = f" {self.unit}" if self.absolute else "x"
        return f"{self.relation} {_number(self.target)}{unit}"

    def row(self) -> dict[str, Any]:
        """What goes into ``bench-results.json``; null where there is none."""
        return {
            "name": self.name,
            "value": round(self.value, 4),
            "unit": self.unit,
            "bound": None if self.bound is None else round(self.bound, 4),
            "bound_name": self.bound_name,
            "ratio": None if self.ratio is None else round(self.ratio, 4),
            "target": self.aim,
            "holds": self.holds,
            "go": self.go,
        }


_VERDICTS = {None: "", True: "ok", False: "MISSED"}


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _with_unit(value: float | None, unit: str) -> str:
    return "" if value is None else f"{_number(value)} {unit}"


def table(figures: list[Figure]) -> str:
    """Figures in aligned columns; one that is empty is left out."""
    rows = [("FIGURE", "VALUE", "TARGET", "", "GO", "BOUND", "RATIO", "BOUND IS")]
    rows += [
        (
            each.name,
            _with_unit(each.value, each.unit),
            each.aim,
            _VERDICTS[each.holds],
            _with_unit(each.go, each.unit),
            _with_unit(each.bound, each.unit),
            "" if each.ratio is None else f"{each.ratio:.2f}",
            each.bound_name,
        )
        for each in figures
    ]
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in columns]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in zip(*columns, strict=True)
    )
