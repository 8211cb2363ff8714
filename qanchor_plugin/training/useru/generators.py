"""Which generator a build uses, as a record that travels to executors and is opened there."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path

from qanchor_plugin.errors import BackendError
from qanchor_plugin.training.useru.endpoint import CostEstimate, EndpointGenerator, EndpointSettings
from qanchor_plugin.training.useru.generator import Generator, GroundedGenerator
from qanchor_plugin.training.useru.prompt_cache import PromptCache


@dataclass(frozen=True, kw_only=True)
class GeneratorRef:
    """The grounded generator, or an endpoint and the file of its prompt cache.

    Attributes:
        endpoint: None is the grounded generator.
        cache: SQLite file that every executor sees under this path.
    """

    endpoint: EndpointSettings | None = None
    cache: str = ""

    @property
    def name(self) -> str:
        """For people: ``grounded``, or the model and where it is asked."""
        return "grounded" if self.endpoint is None else f"{self.endpoint.model} at {self.endpoint.base_url}"

    def shared_by(self, num_processes: int) -> "GeneratorRef":
        """The same, its pace and concurrency divided between processes that ask at the same time."""
        if self.endpoint is None:
            return self
        endpoint = replace(
            self.endpoint,
            requests_per_minute=self.endpoint.requests_per_minute / num_processes,
            concurrency=max(1, self.endpoint.concurrency // num_processes),
        )
        return replace(self, endpoint=endpoint)

    def open(self) -> Generator:
        """The generator, one a process: its pace holds over all that the process asks."""
        return GroundedGenerator() if self.endpoint is None else _endpoint(self)


@lru_cache(maxsize=4)
def _endpoint(ref: GeneratorRef) -> EndpointGenerator:
    if ref.endpoint is None:
        raise BackendError("the grounded generator has no endpoint; nothing was asked.")
    Path(ref.cache).parent.mkdir(parents=True, exist_ok=True)
    return EndpointGenerator(ref.endpoint, PromptCache(ref.cache))


def summed(estimates: Sequence[CostEstimate]) -> CostEstimate:
    """The estimates of parts of a run as one."""
    names = [one.name for one in fields(CostEstimate)]
    return CostEstimate(**{name: sum(getattr(one, name) for one in estimates) for name in names})
