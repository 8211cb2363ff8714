"""Whether embeddings are any good: tasks, folds, probe, metrics, bootstraps, baselines."""
