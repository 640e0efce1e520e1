"""A measured figure, and tables of them."""

from __future__ import annotations

from typing import Any

import attrs

__all__ = ["Figure", "table"]


@attrs.frozen(kw_only=True)
class Figure:
    """``value`` in ``unit``, beside a ``bound`` in the same unit that was measured in the same
    run: ``bound_name`` says of what. Their ``ratio``, value over bound, must be at most
    (``relation`` "<=") or at least (">=") the ``target``."""

    name: str
    value: float
    unit: str
    bound: float
    bound_name: str
    relation: str
    target: float

    @property
    def ratio(self) -> float:
        return self.value / self.bound

    @property
    def holds(self) -> bool:
        return self.ratio <= self.target if self.relation == "<=" else self.ratio >= self.target

    def row(self) -> dict[str, Any]:
        """What goes into ``bench-results.json``."""
        return {
            "name": self.name,
            "value": round(self.value, 4),
            "unit": self.unit,
            "bound": round(self.bound, 4),
            "bound_name": self.bound_name,
            "ratio": round(self.ratio, 4),
            "target": f"{self.relation} {self.target:g}",
            "holds": self.holds,
        }


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(figures: list[Figure]) -> str:
    """Figures in aligned columns."""
    rows = [("FIGURE", "VALUE", "BOUND", "RATIO", "TARGET", "", "BOUND IS")]
    rows += [
        (
            each.name,
            f"{_number(each.value)} {each.unit}",
            f"{_number(each.bound)} {each.unit}",
            f"{each.ratio:.2f}",
            f"{each.relation} {each.target:g}",
            "ok" if each.holds else "MISSED",
            each.bound_name,
        )
        for each in figures
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
