"""The feature repo a command works on: found, read, and what stands in its registry."""

from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import typer

from qanchor_plugin.cli.output import quiet_libraries
from qanchor_plugin.declare import Declarations, Profile, Settings
from qanchor_plugin.errors import DeclarationError, QAnchorError
from qanchor_plugin.worker.settings import STORE_FILE, settings_of

RepoOption = Annotated[
    Path | None,
    typer.Option(
        "--repo",
        metavar="PATH",
        help=f"Folder of {STORE_FILE}; by default the nearest one upwards from here.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="The answer as JSON on stdout, nothing else there.")]


@dataclass(frozen=True, kw_only=True)
class Repo:
    """An opened feature repo.

    Attributes:
        path: folder of feature_store.yaml.
        config: feast's RepoConfig.
        settings: its ``qanchor:`` section.
    """

    path: Path
    config: Any
    settings: Settings

    @cached_property
    def registry(self) -> Any:
        """The registry as feast opens it.

        Raises:
            QAnchorError: it cannot be opened.
        """
        from feast import FeatureStore

        return FeatureStore(config=self.config).registry

    def declarations(self, *, pending: bool = False) -> Declarations:
        """What the registry declares; with ``pending`` what ``feast apply --no-promote`` has registered and
        nobody is served yet.

        Raises:
            DeclarationError: there is nothing of the kind; says the next step.
        """
        from qanchor_plugin.feast_ext.declarations import declarations_from_registry, pending_declarations

        read = pending_declarations if pending else declarations_from_registry
        declared = read(self.registry, self.config.project)
        if declared.scenarios:
            return declared
        project = repr(self.config.project)
        if pending:
            raise DeclarationError(
                f"every scenario of project {project} is served in its newest version: nothing waits. "
                f"Change a scenario or its engine and run feast apply --no-promote in {self.path}."
            )
        raise DeclarationError(
            f"the registry of project {project} holds no scenario yet. "
            f"Run feast apply in {self.path}, then feast materialize."
        )


def find_repo(given: Path | None) -> Path:
    """The folder of feature_store.yaml: ``given``, or the nearest upwards from the working folder.

    Raises:
        QAnchorError: there is none.
    """
    if given is not None:
        folder = given.parent if given.name == STORE_FILE else given
        if not (folder / STORE_FILE).is_file():
            raise QAnchorError(
                f"{folder} has no {STORE_FILE}. Give the folder of a feature repo, or make one: "
                "qanchor init FOLDER --source TABLE."
            )
        return folder.resolve()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / STORE_FILE).is_file():
            return folder
    raise QAnchorError(
        f"no {STORE_FILE} in {here} or above it. Change into a feature repo, give --repo PATH, or make one: "
        "qanchor init FOLDER --source TABLE."
    )


@contextmanager
def opened(given: Path | None) -> Iterator[Repo]:
    """The repo, with the process standing in its folder as feast's own commands do.

    Raises:
        QAnchorError: no repo, or a feature_store.yaml that feast does not accept.
    """
    path = find_repo(given)
    with chdir(path):
        yield _read(path)


def profile_named(declared: Declarations, name: str | None) -> Profile:
    """The profile of that name, or the only one.

    Raises:
        DeclarationError: unknown, or several and none named.
    """
    if name is None and len(declared.profiles) == 1:
        return next(iter(declared.profiles.values()))
    if name is None:
        raise DeclarationError(
            f"there are several profiles, {sorted(declared.profiles)}: give --profile NAME."
        )
    if name not in declared.profiles:
        raise DeclarationError(unknown("profile", name, list(declared.profiles)))
    return declared.profiles[name]


def unknown(kind: str, name: str, known: list[str]) -> str:
    """One sentence on a name that is not there: the nearest one, and all that are."""
    near = get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"there is no {kind} {name!r}.{hint} Known: {', '.join(sorted(known)) or 'none'}."


def _read(path: Path) -> Repo:
    settings_of(path)
    from feast.errors import FeastError
    from feast.repo_config import FeastConfigError, load_repo_config

    from qanchor_plugin.feast_ext.declarations import settings_from_config

    try:
        config = load_repo_config(path, path / STORE_FILE)
    except (FeastError, FeastConfigError) as error:
        raise DeclarationError(f"{path / STORE_FILE} is not accepted by feast: {error}") from error
    quiet_libraries()
    return Repo(path=path, config=config, settings=settings_from_config(config))
