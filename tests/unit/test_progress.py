"""Who watches a run."""

from spark_jobs.progress import Silent, default_progress, watched_by


def test_a_run_is_shown_to_whoever_watches_its_context_and_to_nobody_after() -> None:
    watcher = Silent()
    with watched_by(watcher):
        assert default_progress() is watcher
        with watched_by(Silent()):
            assert default_progress() is not watcher
        assert default_progress() is watcher
    assert default_progress() is not watcher
