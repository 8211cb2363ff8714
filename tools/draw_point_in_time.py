"""Draw docs/pictures/point-in-time.svg: what a training row at ``t`` sees, exactly and as it was served.

Run: python tools/draw_point_in_time.py
"""

from pathlib import Path

PLACE = Path(__file__).resolve().parents[1] / "docs" / "pictures" / "point-in-time.svg"
WIDTH, HEIGHT, LEFT, RIGHT, DAYS = 1000, 430, 170, 960, 30
INK, BLUE, GREY, AMBER, GREEN = "#1d2a36", "#2c6e9e", "#9aa7b3", "#a86b12", "#3b7a35"
WINDOW, T, SERVED, COMPLETE = 6, 24, 18, 18
EVENTS = [(3, 3), (8, 8.6), (12, 12.6), (16, 20), (20, 20.6), (22, 27), (26, 26.6)]
"""(event_at, known_at) in days."""


def x_of(day: float) -> float:
    """Where a day stands."""
    return LEFT + (RIGHT - LEFT) * day / DAYS


def text(x: float, y: float, words: str, *, fill: str = INK, anchor: str = "middle", size: int = 14) -> str:
    """Words at a place."""
    place = f'x="{x:.0f}" y="{y:.0f}" fill="{fill}" text-anchor="{anchor}" font-size="{size}"'
    return f"<text {place}>{words}</text>"


def line(
    x1: float, y1: float, x2: float, y2: float, *, stroke: str, dash: str = "", width: float = 1.5
) -> str:
    """A line."""
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{x1:.0f}" y1="{y1:.0f}" x2="{x2:.0f}" y2="{y2:.0f}" stroke="{stroke}" '
        f'stroke-width="{width}"{dashes}/>'
    )


def events(row: float, seen_by: float) -> list[str]:
    """Every event as a dot at event_at with its way to known_at; filled where it is seen at ``seen_by``."""
    parts = []
    for event_at, known_at in EVENTS:
        seen = WINDOW - (T - seen_by) < event_at <= seen_by and known_at <= seen_by
        colour = BLUE if seen else GREY
        parts.append(line(x_of(event_at), row, x_of(known_at), row + 16, stroke=colour))
        parts.append(
            f'<circle cx="{x_of(event_at):.0f}" cy="{row}" r="8" stroke="{colour}" stroke-width="2" '
            f'fill="{colour if seen else "#ffffff"}"/>'
        )
        parts.append(f'<path d="M {x_of(known_at) - 5:.0f} {row + 22} l 5 -9 l 5 9 z" fill="{colour}"/>')
    return parts


def axis(row: float) -> str:
    """The line of time."""
    return line(x_of(0), row, x_of(DAYS), row, stroke=INK, width=1)


def drawing() -> str:
    """The whole picture."""
    exact, served = 120, 285
    parts = [
        text(20, 34, "What a training row at t sees", anchor="start", size=18),
        text(150, exact + 5, "exact", anchor="end", size=16),
        text(150, served + 5, "as_served", anchor="end", size=16),
        f'<rect x="{x_of(WINDOW):.0f}" y="{exact - 26}" width="{x_of(T) - x_of(WINDOW):.0f}" height="62" '
        'fill="#e7f1f8"/>',
        text((x_of(WINDOW) + x_of(T)) / 2, exact - 34, "the profile's window: t − window to t", fill=BLUE),
        f'<rect x="{x_of(WINDOW) - x_of(T) + x_of(SERVED):.0f}" y="{served - 26}" '
        f'width="{x_of(T) - x_of(WINDOW):.0f}" height="62" fill="#e9f4e7"/>',
        axis(exact),
        axis(served),
        *events(exact, T),
        *events(served, SERVED),
        line(x_of(T), 60, x_of(T), served + 70, stroke=AMBER, dash="6 4", width=2),
        text(x_of(T), 54, "t, the row's instant", fill=AMBER),
        line(x_of(SERVED), served - 50, x_of(SERVED), served + 40, stroke=GREEN, width=2),
        text(x_of(SERVED), served - 56, "served_at: the newest stored answer before t", fill=GREEN),
        line(x_of(COMPLETE), served + 56, x_of(T), served + 56, stroke=GREEN),
        text((x_of(COMPLETE) + x_of(T)) / 2, served + 74, "age ≤ ttl, else null", fill=GREEN),
        text(x_of(16), exact + 52, "known too, by t", fill=BLUE, size=12),
        text(x_of(22.4), exact + 66, "happened before t, known after: not seen", fill=INK, size=12),
        _legend(),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" role="img" font-family="Helvetica,Arial,sans-serif" aria-label="Exact sees '
        "what had happened and was known by t; as served is the newest stored answer of before t, while it "
        f'was fresh"><rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _legend() -> str:
    y = HEIGHT - 22
    return "\n".join(
        [
            f'<circle cx="190" cy="{y - 5}" r="7" fill="{BLUE}"/>',
            text(204, y, "event, seen, at event_at", anchor="start", size=13),
            f'<circle cx="400" cy="{y - 5}" r="7" fill="#ffffff" stroke="{GREY}" stroke-width="2"/>',
            text(414, y, "event, not seen", anchor="start", size=13),
            f'<path d="M 555 {y} l 5 -9 l 5 9 z" fill="{BLUE}"/>',
            text(572, y, "known_at: when the event could first be known", anchor="start", size=13),
        ]
    )


if __name__ == "__main__":
    PLACE.write_text(drawing(), encoding="utf-8")
    print(f"wrote {PLACE}")
