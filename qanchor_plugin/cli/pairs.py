"""``qanchor pairs``: pre-training pairs of a profile's users, into the lake."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qanchor_plugin.cli.instants import from_micros, human_duration, iso, parse_instant, to_micros
from qanchor_plugin.cli.output import err, noise_to_stderr, out, print_json
from qanchor_plugin.cli.repo import JsonOption, Repo, RepoOption, opened, profile_named
from qanchor_plugin.errors import InputDataError

if TYPE_CHECKING:
    from qanchor_plugin.training.useru import PairCounts, PairPlan
    from qanchor_plugin.training.useru.generators import GeneratorRef

EXAMPLES = (
    "Examples:  qanchor pairs --until 2017-09-01  ·  qanchor pairs --until 2017-09-01 --sample 20 --page "
    "pairs.html  ·  qanchor pairs --until 2017-09-01 --generator http://localhost:8000/v1 --model qwen "
    "--estimate"
)
KEY_VARIABLE = "QANCHOR_LLM_API_KEY"
ASK_ABOVE_REQUESTS, ASK_ABOVE_DOLLARS = 1000, 1.0
"""A run that would send more, or cost more, needs --yes."""
CACHE = "_prompts/answers.sqlite"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The options, as given."""

    until: str | None
    profile: str | None
    cutoffs: int
    topics: int
    questions: int
    users_per_shard: int
    seed: int
    generator: str
    model: str | None
    max_requests_per_minute: float
    price: str
    estimate: bool
    yes: bool
    sample: int


def pairs(
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="INSTANT", help="Nothing from then on is seen; default the clock."),
    ] = None,
    profile: Annotated[
        str | None, typer.Option("--profile", help="Which behaviour, if there are several.")
    ] = None,
    cutoffs: Annotated[int, typer.Option("--cutoffs", min=1, help="Instants a user is looked at.")] = 6,
    topics: Annotated[int, typer.Option("--topics", min=0, help="Topics a user and cutoff (uqa).")] = 4,
    questions: Annotated[
        int, typer.Option("--questions", min=0, help="Questions on one action, a shard (outcome).")
    ] = 48,
    users_per_shard: Annotated[
        int, typer.Option("--users-per-shard", min=1, help="Users who share cutoffs and questions.")
    ] = 256,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed makes the same table.")] = 0,
    generator: Annotated[
        str, typer.Option("--generator", metavar="grounded|URL", help="Who writes the uqa pairs.")
    ] = "grounded",
    model: Annotated[str | None, typer.Option("--model", help="The endpoint's model.")] = None,
    max_requests_per_minute: Annotated[
        float, typer.Option("--max-requests-per-minute", min=0.001, help="To the endpoint, in all.")
    ] = 120.0,
    price: Annotated[
        str, typer.Option("--price", metavar="IN,OUT", help="Dollars a million prompt and answer tokens.")
    ] = "0,0",
    estimate: Annotated[bool, typer.Option("--estimate", help="Only say what it would cost.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Ask the endpoint however much it is.")] = False,
    sample: Annotated[int, typer.Option("--sample", min=0, help="Show this many pairs.")] = 0,
    page: Annotated[
        Path | None, typer.Option("--page", metavar="FILE.html", help="The sample beside its evidence.")
    ] = None,
    repo: RepoOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the pairs that qanchor train learns from; an earlier build is replaced.

    The default generator needs no LLM. An endpoint's key is read from QANCHOR_LLM_API_KEY; its answers are
    kept in the lake, so that a run that was stopped goes on where it was.
    """
    asked = Asked(
        until=until,
        profile=profile,
        cutoffs=cutoffs,
        topics=topics,
        questions=questions,
        users_per_shard=users_per_shard,
        seed=seed,
        generator=generator,
        model=model,
        max_requests_per_minute=max_requests_per_minute,
        price=price,
        estimate=estimate,
        yes=yes,
        sample=sample or (20 if page else 0),
    )
    target = None if page is None else page.resolve()
    with noise_to_stderr():
        answer = run(asked, repo, os.environ.get(KEY_VARIABLE, ""), target)
    if as_json:
        print_json(answer)
    else:
        _print(answer, target)
    if answer["state"] == "refused":
        raise typer.Exit(1)


def run(asked: Asked, repo: Path | None, key: str, page: Path | None) -> dict[str, Any]:
    """What was estimated or built, as JSON-like values.

    Raises:
        QAnchorError: no repo, an option that cannot be read, or the job's own.
    """
    from qanchor_plugin.extras import require

    require("pyspark", purpose="qanchor pairs")
    with opened(repo) as here:
        profile = profile_named(here.declarations(), asked.profile)
        plan = plan_of(asked, here)
        generator = generator_of(asked, here, key)
        from spark_jobs import build_pairs as jobs
        from spark_jobs.session import get_session

        spark = get_session(here.settings, app_name="qanchor-pairs")
        answer: dict[str, Any] = {"until": iso(from_micros(plan.known_until)), "generator": generator.name}
        if asked.estimate or (generator.endpoint is not None and not asked.yes):
            cost = jobs.estimate(spark, here.settings, profile, plan, generator)
            answer["estimate"] = asdict(cost)
            fresh = cost.num_requests - cost.num_cached
            too_much = fresh > ASK_ABOVE_REQUESTS or cost.dollars > ASK_ABOVE_DOLLARS
            if asked.estimate or (generator.endpoint is not None and too_much):
                return answer | {"state": "estimated" if asked.estimate else "refused"}
        built = jobs.build(spark, here.settings, profile, plan, generator)
        answer |= {"state": "succeeded", "run": built.run, "seconds": built.seconds}
        answer |= {"num_shards": built.num_shards, "counts": asdict(built.counts)}
        answer |= shares(built.counts)
        if asked.sample:
            answer["sample"] = sample_of(here.settings.lake, asked.sample, asked.seed, built.counts, page)
    return answer


def plan_of(asked: Asked, here: Repo) -> "PairPlan":
    """The plan that the options say."""
    from qanchor_plugin.training.useru import PairPlan

    until = here.settings.now() if asked.until is None else parse_instant("--until", asked.until)
    return PairPlan(
        known_until=to_micros(until),
        num_cutoffs=asked.cutoffs,
        num_topics=asked.topics,
        num_absent=min(1, asked.topics),
        questions_per_shard=asked.questions,
        users_per_shard=asked.users_per_shard,
        seed=asked.seed,
    )


def generator_of(asked: Asked, here: Repo, key: str) -> "GeneratorRef":
    """The grounded generator, or the endpoint that the options name.

    Raises:
        InputDataError: the endpoint has no model, or the price is none. DeclarationError: no address.
    """
    from qanchor_plugin.training.useru.endpoint import EndpointSettings
    from qanchor_plugin.training.useru.generators import GeneratorRef

    if asked.generator == "grounded":
        return GeneratorRef()
    if not asked.model:
        raise InputDataError(f"--generator {asked.generator!r} needs --model NAME, as the endpoint calls it.")
    try:
        prompt_price, answer_price = (float(one) for one in asked.price.split(","))
    except ValueError as error:
        raise InputDataError(f"--price {asked.price!r} is no price; write it as 0.15,0.60.") from error
    endpoint = EndpointSettings(
        base_url=asked.generator,
        model=asked.model,
        api_key=key,
        requests_per_minute=asked.max_requests_per_minute,
        dollars_per_million_prompt_tokens=prompt_price,
        dollars_per_million_answer_tokens=answer_price,
    )
    return GeneratorRef(endpoint=endpoint, cache=str(Path(here.settings.lake) / CACHE))


def shares(counts: "PairCounts") -> dict[str, float]:
    """Yield and the shares of claims corrected and dropped."""
    names = ("yield_share", "corrected_share", "dropped_share")
    return {name: round(getattr(counts, name), 4) for name in names}


def sample_of(
    lake: str, num_pairs: int, seed: int, counts: "PairCounts", page: Path | None
) -> list[dict[str, Any]]:
    """Some pairs of the table, evenly of each kind; they stand in ``page``, too.

    Raises:
        InputDataError: the page cannot be written.
    """
    from qanchor_plugin.prefix_store import LakeTables
    from qanchor_plugin.training.useru.sample_page import sample_page
    from qanchor_plugin.training.useru.sampled import sampled_pairs

    chosen = sampled_pairs(LakeTables(lake), num_pairs, seed=seed)
    if page is not None:
        try:
            page.write_text(sample_page(chosen, counts), encoding="utf-8")
        except OSError as error:
            raise InputDataError(f"--page {str(page)!r} cannot be written: {error}.") from error
    shown = ("user_key", "kind", "query", "answer", "evidence")
    return [
        {name: getattr(one, name) for name in shown} | {"cutoff": iso(from_micros(one.cutoff))}
        for one in chosen
    ]


def _print(answer: dict[str, Any], page: Path | None) -> None:
    console = out()
    cost = answer.get("estimate")
    if cost is not None:
        console.print(
            f"{answer['generator']}: {cost['num_requests']} requests, {cost['num_cached']} answered before; "
            f"{cost['prompt_tokens']} prompt and at most {cost['answer_tokens']} answer tokens, "
            f"at most ${cost['dollars']:.2f}",
            soft_wrap=True,
        )
    if answer["state"] == "refused":
        err().print(
            f"Nothing was sent: that is more than {ASK_ABOVE_REQUESTS} requests or ${ASK_ABOVE_DOLLARS:.2f}. "
            "To do it: --yes. For less: fewer --cutoffs or --topics.",
            soft_wrap=True,
        )
    if answer["state"] != "succeeded":
        return
    counts = answer["counts"]
    total = sum(counts[f"num_{kind}"] for kind in ("future", "uqa", "outcome"))
    console.print(
        f"{total} pairs of {counts['num_users']} users ({counts['num_held_out']} held out) in "
        f"{answer['num_shards']} shards, {human_duration(answer['seconds'])}; nothing seen from "
        f"{answer['until']} on",
        soft_wrap=True,
    )
    for kind in ("future", "uqa", "outcome"):
        console.print(f"    {kind:10} {counts[f'num_{kind}']}")
    console.print(
        f"uqa by {answer['generator']}: {answer['yield_share']:.1%} of {counts['num_asked']} drafts became "
        f"pairs ({counts['num_unusable']} unusable, {counts['num_unsupported']} unsupported); of "
        f"{counts['num_claims']} claims {answer['corrected_share']:.1%} corrected, "
        f"{answer['dropped_share']:.1%} dropped",
        soft_wrap=True,
    )
    for one in answer.get("sample", []) if page is None else []:
        console.print(f"{one['user_key']} {one['kind']}: {one['query']}\n    {one['answer']}", soft_wrap=True)
    if page is not None:
        console.print(f"wrote {page}", soft_wrap=True)
