"""Drawings in SVG, on a light or a dark ground.

A library for plots would bring dozens of megabytes, turn text into outlines, and still leave it to
its user to put labels beside lines so that none hides another.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import attrs

__all__ = ["DARK", "LIGHT", "Drawing", "Theme"]


@attrs.frozen
class Theme:
    """Colours. ``lines`` can be distinguished by people who see few colours too, and stand out from
    ``ground`` by 3 to 1 at least."""

    name: str
    ground: str
    text: str
    faint_text: str
    grid: str
    guide: str
    lines: tuple[str, ...]


LIGHT = Theme(
    name="light",
    ground="#ffffff",
    text="#1f2328",
    faint_text="#59636e",
    grid="#e3e7eb",
    guide="#b6bfc8",
    lines=("#0072b2", "#c8500a", "#00806a", "#a83e7f", "#8a6a00", "#57606a"),
)
DARK = Theme(
    name="dark",
    ground="#0d1117",
    text="#f0f6fc",
    faint_text="#9198a1",
    grid="#262c36",
    guide="#4b535d",
    lines=("#56b4e9", "#ff8c42", "#2ec4a0", "#e694c4", "#e6c229", "#b1bac4"),
)


class Drawing:
    """Shapes in the order in which they are drawn; coordinates in pixels from the upper left."""

    def __init__(self, theme: Theme, width: int, height: int, title: str) -> None:
        self.theme = theme
        fonts = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif"
        box = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" {box}>',
            f'<g font-size="13" font-family="{fonts}">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{width}" height="{height}" rx="6" fill="{theme.ground}"/>',
        ]

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        color: str = "",
        anchor: str = "start",
        size: int = 13,
        bold: bool = False,
    ) -> None:
        """Write text whose middle line is at ``y``; ``anchor`` says what of it is at ``x``."""
        weight = ' font-weight="600"' if bold else ""
        self._parts.append(
            f'<text x="{x:.1f}" y="{y + size * 0.35:.1f}" fill="{color or self.theme.text}" '
            f'text-anchor="{anchor}" font-size="{size}"{weight}>{escape(text)}</text>'
        )

    def line(
        self,
        points: Sequence[tuple[float, float]],
        color: str,
        *,
        width: float = 1,
        dashed: bool = False,
    ) -> None:
        """Join points."""
        dashes = ' stroke-dasharray="2 4"' if dashed else ""
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._parts.append(
            f'<polyline points="{joined}" fill="none" stroke="{color}" stroke-width="{width:g}" '
            f'stroke-linejoin="round" stroke-linecap="round"{dashes}/>'
        )

    def mark(self, x: float, y: float, color: str, kind: int) -> None:
        """Draw one of some shapes, which tell lines apart where colours do not."""
        r, side = 4.5, 7
        shapes = (
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r - 0.5}"',
            f'<rect x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="{side}" height="{side}"',
            f'<path d="M{x:.1f} {y - r:.1f}l{r} {2 * r - 1}h{-2 * r}z"',
            f'<path d="M{x:.1f} {y - r - 0.5:.1f}l{r} {r + 0.5}l{-r} {r + 0.5}l{-r} {-r - 0.5}z"',
            f'<path d="M{x:.1f} {y + r:.1f}l{r} {-2 * r + 1}h{-2 * r}z"',
        )
        ground = self.theme.ground
        self._parts.append(
            f'{shapes[kind % len(shapes)]} fill="{color}" stroke="{ground}" stroke-width="1.5"/>'
        )

    def bar(self, x: float, y: float, width: float, height: float, color: str) -> None:
        """Fill a box."""
        self._parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2" '
            f'fill="{color}"/>'
        )

    def finished(self) -> str:
        """Return the file's text."""
        return "\n".join([*self._parts, "</g>", "</svg>"]) + "\n"
