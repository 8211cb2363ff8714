"""A page on which a person reads pairs beside their evidence."""

import html
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from qanchor_plugin.training.useru.counts import PairCounts
from qanchor_plugin.training.useru.pairs import Pair

_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;width:100%}td,th{border-top:1px solid #ccc;padding:.6rem;vertical-align:top;
text-align:left}td.evidence{font-size:13px;color:#444;width:38%}.query{font-weight:600}"""


def sample_page(pairs: Sequence[Pair], counts: PairCounts) -> str:
    """One self-contained HTML page: what was made of what was asked, then each pair and its evidence.

    All texts are escaped: they come from users' data or from an LLM.
    """
    shares = (
        f"{counts.num_uqa} of {counts.num_asked} drafts became pairs ({counts.yield_share:.1%}); of "
        f"{counts.num_claims} claims {counts.corrected_share:.1%} were corrected and "
        f"{counts.dropped_share:.1%} dropped; {counts.num_future} pairs tell the future and "
        f"{counts.num_outcome} the count of one action by rule."
    )
    figures = ", ".join(f"{one.name} {getattr(counts, one.name)}" for one in fields(counts))
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>UserU pairs</title><style>{_STYLE}"
        f"</style><h1>UserU pairs</h1><p>{shares}</p><p><small>{figures}</small></p><table><tr><th>Pair</th>"
        f"<th>Evidence</th></tr>{''.join(map(_row, pairs))}</table></html>\n"
    )


def _row(pair: Pair) -> str:
    kind = pair.kind if not pair.topic else f"{pair.kind}, {pair.topic}"
    evidence = "<br>".join(html.escape(line) for line in _evidence(pair.evidence))
    return (
        f"<tr><td><small>{html.escape(pair.user_key)} · {html.escape(kind)} · {html.escape(pair.generator)}"
        f"</small><div class='query'>{html.escape(pair.query)}</div>{html.escape(pair.answer)}</td>"
        f"<td class='evidence'>{evidence}</td></tr>"
    )


def _evidence(evidence: Any) -> list[str]:
    if "bins" in evidence:
        return [
            f"to day {one['to_day']}: "
            + (", ".join(f"{name} × {count}" for name, count in one["actions"]) or "–")
            for one in evidence["bins"]
        ]
    facts = [
        f"{fact['about']}: {fact['count']} (30 days {fact['count_30']}, 90 days {fact['count_90']}, "
        f"{fact['days_ago']} days ago)"
        for fact in evidence.get("facts", [])
    ]
    left_out = evidence.get("num_facts", len(facts)) - len(facts)
    more = [f"and {left_out} more"] if left_out else []
    counted = [f"{evidence['count']} in {evidence['days']} days"] if "days" in evidence else []
    return [*evidence.get("texts", []), *facts, *more, *counted]
