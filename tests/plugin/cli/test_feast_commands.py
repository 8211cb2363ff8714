"""Feast's own commands show what a scenario asks."""

from pathlib import Path

import yaml
from click.testing import CliRunner
from feast.cli.cli import cli

from .conftest import DAIRY


def feast(folder: Path, *arguments: str) -> str:
    done = CliRunner().invoke(cli, ["--chdir", str(folder), *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_list_finds_scenarios_by_what_qanchor_tagged(in_shop: Path) -> None:
    every = feast(in_shop, "feature-views", "list")
    assert "dairy_buyer" in every
    assert "wine_buyer" in every
    asked = feast(in_shop, "feature-views", "list", "--tags", f"qanchor.query:{DAIRY}")
    assert "dairy_buyer" in asked
    assert "wine_buyer" not in asked
    assert "dairy_buyer" in feast(in_shop, "feature-views", "list", "--tags", "qanchor.profile:journey")


def test_describe_shows_the_query_and_what_made_the_version(in_shop: Path) -> None:
    told = yaml.safe_load(feast(in_shop, "feature-views", "describe", "dairy_buyer"))["spec"]
    assert told["tags"]["qanchor.query"] == DAIRY
    assert told["tags"]["qanchor.engine"] == "demo"
    assert told["tags"]["qanchor.modalities"] == "purchases, home"
    assert told["description"] == DAIRY
    (embedding,) = [field for field in told["features"] if field["name"] == "embedding"]
    assert embedding["tags"]["qanchor.query"] == DAIRY
    for what in ("query", "profile", "engine", "projection"):
        assert len(embedding["tags"][f"qanchor.{what}_digest"]) == 32
