"""Query-anchored user embeddings as a Feast plugin.

Importing this package loads no engine, no Spark and no Feast: each edge lives in a
sub-package and is imported where it is used.
"""

__version__ = "0.1.0"
