"""How an explanation reads to a person."""

from qanchor_plugin.cli.refresh import lines_of

TOLD = {
    "end": "2024-03-04T00:00:00Z",
    "full": False,
    "sources": {
        "purchases": {
            "rows": 4,
            "read": "compared",
            "why": "the source is not Delta",
            "batch": "1f0c6a9b2d3e.2-2",
            "users": {"corrected": 2},
            "new_texts": 1,
        },
        "card": {"read": "nothing"},
    },
    "texts": {"5b0c1f2e8a77aa": 1},
    "prefixes": {"shopper/9d0e": {"users": 3, "reasons": {"corrected": 2, "time_passed": 1}}},
    "embeddings": {
        "shopper/9d0e": {"answers": 4, "scenarios": {"churn": {"new_prefix": 3, "aged": 1}, "milk": {}}}
    },
    "estimated_seconds": {"sequences": 2.5, "vectors": None, "total": None},
}


def test_an_explanation_names_every_count_and_reason() -> None:
    assert list(lines_of(TOLD)) == [
        "a refresh to 2024-03-04T00:00:00Z would do (nothing was written):",
        "  source purchases: compared, batch 1f0c6a9b2d3e.2-2, rows 4, new_texts 1, users corrected 2"
        " because the source is not Delta",
        "  source card: stands where it stood",
        "  texts to encode (5b0c1f2e8a77): 1",
        "  users to look at, shopper/9d0e: 3 (corrected 2, time_passed 1)",
        "  answers to make at most, shopper/9d0e: 4",
        "    churn: new_prefix 3, aged 1",
        "    milk: none",
        "  estimated seconds, from past runs: sequences 2.5",
    ]


def test_everyone_is_explained_and_a_first_run_has_no_estimate() -> None:
    look = {"users": 3, "reasons": {"everyone": 3}, "why": "never looked at"}
    lines = list(
        lines_of(TOLD | {"full": True, "prefixes": {"p": look}, "estimated_seconds": {"total": None}})
    )
    assert lines[0] == "a full refresh to 2024-03-04T00:00:00Z would do (nothing was written):"
    assert "  users to look at, p: 3 (everyone 3): never looked at" in lines
    assert lines[-1] == "  estimated seconds, from past runs: no past run tells"
