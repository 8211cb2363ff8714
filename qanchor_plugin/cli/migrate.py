"""``qanchor migrate``: a lake of an earlier release gets the present layout."""

import json
from dataclasses import asdict

from qanchor_plugin.cli.output import noise_to_stderr, out, print_json
from qanchor_plugin.cli.repo import JsonOption, RepoOption, find_repo, settings_of

EXAMPLES = "Examples:  qanchor backup /backups/before  ·  qanchor migrate  ·  qanchor migrate --json"


def migrate(repo: RepoOption = None, as_json: JsonOption = False) -> None:
    """Bring the lake to the layout of this version; a second run does nothing.

    Steps that only add columns are taken by every job by itself; take a backup before the others.
    """
    with noise_to_stderr():
        from spark_jobs.migrate import migrate as job

        told = job(settings_of(find_repo(repo)))
    if as_json:
        print_json(asdict(told))
        return
    if told.before == told.after:
        out().print(f"The lake has layout {told.after}, the present one; nothing to do.")
    for step, done in told.steps.items():
        out().print(f"to layout {step}: {json.dumps(done) if done else 'nothing to add'}", soft_wrap=True)
