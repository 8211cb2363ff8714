"""Drafts from any OpenAI-compatible endpoint: retries, rate limit, cost estimate, resume."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import requests
import tenacity

from qanchor_plugin.declare.checks import raise_faults
from qanchor_plugin.errors import BackendError
from qanchor_plugin.identity import digest
from qanchor_plugin.training.useru.generator import Draft, Request
from qanchor_plugin.training.useru.prompt import prompt_messages, read_draft
from qanchor_plugin.training.useru.prompt_cache import PromptCache

CHARS_PER_TOKEN = 4.0
RETRIED_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
LONGEST_WAIT_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class EndpointSettings:
    """Which endpoint, and how hard it may be asked.

    Attributes:
        base_url: up to and with the version, such as ``http://localhost:8000/v1``.
        model: the endpoint's name of the model.
        api_key: sent as a bearer token; "" sends none. Never shown.
        requests_per_minute: most requests started in a minute.
        concurrency: most requests at a time.
        timeout_seconds: of one attempt.
        max_attempts: tries of one request, the first included.
        max_given_up: requests in a row that may fail at every attempt before the run stops.
        first_wait_seconds: before the second try; doubles with each, or what Retry-After says.
        max_answer_tokens: asked of the endpoint, and assumed by the cost estimate.
        dollars_per_million_prompt_tokens, dollars_per_million_answer_tokens: the price list.
    """

    base_url: str
    model: str
    api_key: str = field(default="", repr=False)
    requests_per_minute: float = 120.0
    concurrency: int = 4
    timeout_seconds: float = 60.0
    max_attempts: int = 5
    max_given_up: int = 5
    first_wait_seconds: float = 1.0
    max_answer_tokens: int = 500
    dollars_per_million_prompt_tokens: float = 0.0
    dollars_per_million_answer_tokens: float = 0.0

    def __post_init__(self) -> None:
        faults = []
        if not self.base_url.startswith(("http://", "https://")):
            faults.append(f"base_url is {self.base_url!r}; write it as http://host:port/v1.")
        for name in ("requests_per_minute", "concurrency", "timeout_seconds", "max_attempts", "max_given_up"):
            if getattr(self, name) <= 0:
                faults.append(f"{name} is {getattr(self, name)}; it must be above 0.")
        raise_faults(faults)


@dataclass(frozen=True, kw_only=True)
class CostEstimate:
    """What a run would ask for, before it asks.

    Attributes:
        num_requests, num_cached: requests, and those whose answers are stored already.
        prompt_tokens, answer_tokens: of the others, at four characters a token; answers at their most.
        dollars: at the given prices.
    """

    num_requests: int
    num_cached: int
    prompt_tokens: int
    answer_tokens: int
    dollars: float


class _RetriedError(Exception):
    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class _GivenUpError(BackendError):
    """One request failed at every attempt."""


class EndpointGenerator:
    """Asks an endpoint for drafts; answers are cached by the digest of model and prompt."""

    def __init__(self, settings: EndpointSettings, cache: PromptCache) -> None:
        self._settings = settings
        self._cache = cache
        self._pace = threading.Lock()
        self._next_at = 0.0
        self._given_up = 0

    @property
    def generator_id(self) -> str:
        """``endpoint:`` and the model."""
        return f"endpoint:{self._settings.model}"

    def estimate(self, asked: Sequence[Request]) -> CostEstimate:
        """The cost of ``generate(asked)``; sends nothing."""
        fresh = [body for body in map(self._body, asked) if self._cache.get(digest("prompt", body)) is None]
        chars = sum(len(message["content"]) for body in fresh for message in body["messages"])
        prompt_tokens = round(chars / CHARS_PER_TOKEN)
        answer_tokens = len(fresh) * self._settings.max_answer_tokens
        dollars = (
            prompt_tokens * self._settings.dollars_per_million_prompt_tokens
            + answer_tokens * self._settings.dollars_per_million_answer_tokens
        ) / 1e6
        return CostEstimate(
            num_requests=len(asked),
            num_cached=len(asked) - len(fresh),
            prompt_tokens=prompt_tokens,
            answer_tokens=answer_tokens,
            dollars=dollars,
        )

    def generate(self, requests: Sequence[Request]) -> list[Draft | None]:
        """One draft a request, in order; None where the endpoint answered rubbish or nothing.

        Raises:
            BackendError: the endpoint refused, or is down: it failed at every attempt of ``max_given_up``
                requests in a row, or of all. Answers that came before are kept: the same run again asks
                only for the rest.
        """
        with ThreadPoolExecutor(self._settings.concurrency) as pool:
            waiting = [pool.submit(self._draft, request) for request in requests]
            drafts: list[Draft | None] = []
            failed: _GivenUpError | None = None
            num_failed = 0
            for one in waiting:
                try:
                    drafts.append(one.result())
                    continue
                except _GivenUpError as error:
                    failed, num_failed = error, num_failed + 1
                    drafts.append(None)
                except BackendError:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
                if self._given_up >= self._settings.max_given_up:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise BackendError(str(failed)) from failed
        if failed is not None and num_failed == len(requests):
            raise BackendError(str(failed)) from failed
        return drafts

    def _draft(self, request: Request) -> Draft | None:
        body = self._body(request)
        key = digest("prompt", body)
        stored = self._cache.get(key)
        if stored is not None:
            return read_draft(stored)
        content = self._asked(body)
        draft = read_draft(content)
        if draft is not None:
            self._cache.put(key, content)
        return draft

    def _body(self, request: Request) -> dict[str, Any]:
        return {
            "model": self._settings.model,
            "messages": prompt_messages(request),
            "temperature": 0,
            "max_tokens": self._settings.max_answer_tokens,
        }

    def _asked(self, body: dict[str, Any]) -> str:
        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked_for = error.retry_after if isinstance(error, _RetriedError) else 0.0
            doubled = self._settings.first_wait_seconds * 2.0 ** (state.attempt_number - 1)
            return min(LONGEST_WAIT_SECONDS, max(asked_for, doubled))

        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_RetriedError),
            stop=tenacity.stop_after_attempt(self._settings.max_attempts),
            wait=wait,
            reraise=True,
        )
        try:
            content = attempts(self._attempt, body)
            self._given_up = 0
            return content
        except _RetriedError as error:
            self._given_up += 1
            raise _GivenUpError(
                f"{self._settings.base_url} failed {self._settings.max_attempts} times, last: {error}. "
                "What was answered is kept; run again to go on."
            ) from error

    def _attempt(self, body: dict[str, Any]) -> str:
        self._wait_for_turn()
        headers = {"Authorization": f"Bearer {self._settings.api_key}"} if self._settings.api_key else {}
        url = self._settings.base_url.rstrip("/") + "/chat/completions"
        try:
            answer = requests.post(url, json=body, headers=headers, timeout=self._settings.timeout_seconds)
        except (
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
        ) as error:
            raise _RetriedError(type(error).__name__) from error
        if answer.status_code in RETRIED_STATUS:
            raise _RetriedError(f"HTTP {answer.status_code}", _seconds(answer.headers.get("Retry-After")))
        if answer.status_code != 200:
            raise BackendError(
                f"{url} answered HTTP {answer.status_code}: {answer.text[:200]!r}. "
                "Check the address, the model's name and the key."
            )
        return _content(answer)

    def _wait_for_turn(self) -> None:
        with self._pace:
            starts_at = max(time.monotonic(), self._next_at)
            self._next_at = starts_at + 60.0 / self._settings.requests_per_minute
        time.sleep(max(0.0, starts_at - time.monotonic()))


def _content(answer: requests.Response) -> str:
    """The assistant's text; "" where the answer is no chat completion (which reads as rubbish)."""
    try:
        content = answer.json()["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        return ""
    return content if isinstance(content, str) else ""


def _seconds(retry_after: str | None) -> float:
    return float(retry_after) if retry_after and retry_after.isdecimal() else 0.0
