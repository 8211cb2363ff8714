"""One prefix's keys and values as they are stored, without torch: a scheme, an owner and bytes."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SCHEMES = ("bf16", "int8")
"""``bf16``: the engine's own bits where it computes in bfloat16, else keys before RoPE without their bias,
rounded. ``int8``: keys before RoPE without their bias, one scale a channel; values, one scale a
token and 16 channels."""

KV_LAYOUT = "scales,keys,values;unrotated,unbiased/1"
"""Version of the payload's order; part of every stored entry's identity."""


@dataclass(frozen=True, kw_only=True, eq=False)
class KeptKV:
    """The cache of one prefix, ready to be stored or to be answered from.

    Attributes:
        scheme: one of :data:`SCHEMES`.
        num_tokens: L, prefix tokens.
        kv_digest: ``EngineIdentity.kv_digest`` of the engine that made it; no other may use it.
        payload: (N,) uint8, writable (torch wants it so) and never written.
    """

    scheme: str
    num_tokens: int
    kv_digest: str
    payload: npt.NDArray[np.uint8]
