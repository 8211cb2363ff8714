"""How a soft prompt is tuned."""

from dataclasses import dataclass

from qanchor_plugin.errors import InputDataError
from qanchor_plugin.losses import DEFAULT_TEMPERATURE


@dataclass(frozen=True, kw_only=True)
class TunePlan:
    """Settings of a tuning (Query-as-Anchor §3.2.3). The defaults are plausible, not swept.

    Attributes:
        num_tokens: learnt rows: tokens before ``<USER_EMB>``, and what is added to it.
        steps: optimisation steps at most.
        batch_size: users of a step.
        learning_rate: AdamW's, after a linear warm-up of ``warmup_steps``.
        prototype_decay: weight of the prototypes' squared spread when they are fitted at the start.
        decay_to_start: weight of the squared distance of the tokens from where they started.
        temperature: tau of the prototype loss.
        averaging: the result is an exponential average of the steps with this decay; 0 takes the last.
        noise: standard deviation that the tokens start apart by.
        held_out: share of the users (by class) whose rows no step sees; the best average on them is kept
            where it beats the start by more than a standard error, and else the start. 0: the last is kept.
        evaluate_every: steps between two looks at the held-out users.
        patience: looks without a better one before the tuning stops.
        seed: of everything that is drawn.
        max_cache_bytes: read users are kept in memory up to this; above it each batch is read anew.
    """

    num_tokens: int = 6
    steps: int = 500
    batch_size: int = 64
    learning_rate: float = 5e-3
    warmup_steps: int = 20
    prototype_decay: float = 0.04
    decay_to_start: float = 0.0
    temperature: float = DEFAULT_TEMPERATURE
    averaging: float = 0.98
    noise: float = 0.02
    held_out: float = 0.1
    evaluate_every: int = 25
    patience: int = 6
    seed: int = 0
    max_cache_bytes: int = 2_000_000_000

    def __post_init__(self) -> None:
        faults = [
            f"{name} is {getattr(self, name)}; it must be {least} or more."
            for name, least in (
                ("num_tokens", 1),
                ("steps", 1),
                ("batch_size", 1),
                ("evaluate_every", 1),
                ("patience", 1),
                ("warmup_steps", 0),
                ("prototype_decay", 0),
                ("decay_to_start", 0),
                ("noise", 0),
                ("max_cache_bytes", 0),
            )
            if getattr(self, name) < least
        ]
        for name, most in (("averaging", 1.0), ("held_out", 0.5)):
            if not 0 <= getattr(self, name) < most:
                faults.append(f"{name} is {getattr(self, name)}; it must be 0 or more and below {most}.")
        for name in ("learning_rate", "temperature"):
            if not getattr(self, name) > 0:
                faults.append(f"{name} is {getattr(self, name)}; it must be above 0.")
        if faults:
            raise InputDataError("the plan of the tuning cannot be followed: " + " ".join(faults))
