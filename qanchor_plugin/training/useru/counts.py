"""What became of what was asked."""

from dataclasses import dataclass, fields


@dataclass(kw_only=True)
class PairCounts:
    """Filled while pairs are built; counts of several shards add up.

    Attributes:
        num_users, num_cutoffs: users seen, and (user, cutoff) with at least one visible event.
        num_held_out: users kept from training.
        num_future, num_outcome: pairs by rule.
        num_asked, num_uqa: D_uqa drafts asked for, and pairs that came of them.
        num_unusable: drafts that the generator could not give.
        num_unsupported: drafts of which no claim was supported.
        num_claims, num_corrected, num_dropped: claims checked, and by outcome.
    """

    num_users: int = 0
    num_held_out: int = 0
    num_cutoffs: int = 0
    num_future: int = 0
    num_outcome: int = 0
    num_asked: int = 0
    num_uqa: int = 0
    num_unusable: int = 0
    num_unsupported: int = 0
    num_claims: int = 0
    num_corrected: int = 0
    num_dropped: int = 0

    def __add__(self, other: "PairCounts") -> "PairCounts":
        return PairCounts(
            **{one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)}
        )

    @property
    def num_pairs(self) -> int:
        """Pairs of every kind."""
        return self.num_future + self.num_outcome + self.num_uqa

    @property
    def yield_share(self) -> float:
        """D_uqa pairs for each draft asked for (0 to 1)."""
        return self.num_uqa / max(1, self.num_asked)

    @property
    def corrected_share(self) -> float:
        """Claims whose number was corrected (0 to 1)."""
        return self.num_corrected / max(1, self.num_claims)

    @property
    def dropped_share(self) -> float:
        """Claims that were dropped (0 to 1)."""
        return self.num_dropped / max(1, self.num_claims)
