"""Keys and values to bytes and back.

Qwen2's keys carry large biases, and RoPE mixes them into every channel: a scale then spends its 8 bits on
the bias. So keys are stored before RoPE with the bias taken away, and get both back when they are loaded.
Shape letters: N layers, H heads of a key or value, L prefix tokens, P padded prefix tokens, D head width,
B users.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor

from qanchor_plugin.engine.backbone import KV, CacheShape
from qanchor_plugin.engine.build_prefix import restored
from qanchor_plugin.engine.kv import SCHEMES, KeptKV
from qanchor_plugin.engine.modules import EngineModules
from qanchor_plugin.engine.prefix import Prefix
from qanchor_plugin.errors import EngineError

_LEAST_SCALE = 1e-12
_GROUP = 16
"""Channels of a value that share a scale: one for a whole head lets an outlier coarsen 64 channels (a small
model under key biases of 30 then keeps 0.9985, with this 0.9998). The scales add a sixteenth to the bytes."""
_Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class _Payload:
    """Where each array of a payload stands: (offset, shape, numpy type) by name."""

    arrays: dict[str, tuple[int, _Shape, str]]
    num_bytes: int


def payload_bytes(modules: EngineModules, scheme: str, num_tokens: int) -> int:
    """Bytes that a prefix of so many tokens takes.

    Raises:
        EngineError: an unknown scheme, or a backbone whose keys cannot be stored.
    """
    return _payload(modules.backbone.cache_shape(), scheme, num_tokens).num_bytes


def encode(
    modules: EngineModules, kv: KV, row: int, prefix: Prefix, *, scheme: str, kv_digest: str
) -> KeptKV:
    """The stored form of one user of a prefill.

    Args:
        modules: of the engine that made ``kv``.
        kv: from ``EngineModules.prefill``.
        row: the user's place in it.
        prefix: the user's prefix.
        scheme: ``bf16`` or ``int8``.
        kv_digest: the engine's.
    """
    shape, count = modules.backbone.cache_shape(), len(prefix.tokens)
    keys_NHLD, values_NHLD = (
        torch.stack([part[row, :, :count] for part in kv[start::2]]).float()
        for start in (shape.num_derived, shape.num_derived + 1)
    )
    if _unrotated(modules, scheme):
        keys_NHLD = _without_rotation(keys_NHLD, *_angles(modules, prefix)) - _bias(shape, keys_NHLD)
    layout = _payload(shape, scheme, count)
    payload = np.zeros(layout.num_bytes, np.uint8)
    if scheme == "bf16":
        parts = {"keys": _bits(keys_NHLD), "values": _bits(values_NHLD)}
    else:
        parts = _quantised_keys(keys_NHLD) | _quantised_values(values_NHLD)
    for name, values in parts.items():
        _view(payload, layout, name).copy_(values)
    return KeptKV(scheme=scheme, num_tokens=count, kv_digest=kv_digest, payload=payload)


def decode(
    modules: EngineModules,
    kept: Sequence[KeptKV],
    prefixes: Sequence[Prefix],
    length: int,
    *,
    size: int | None = None,
) -> KV:
    """The cache of these prefixes, as ``EngineModules.prefill`` makes it; zeros where padded.

    Args:
        modules: of the engine that made them.
        kept: one a prefix, of one length or shorter.
        prefixes: theirs, in order.
        length: P, what they are padded to.
        size: B, users of the forward; those beyond the given ones repeat the last. None adds none.
    """
    shape, device = modules.backbone.cache_shape(), modules.projection.inner.weight.device
    more = 0 if size is None else size - len(kept)
    users = len(kept) + more
    sizes = [
        (shape.num_layers, users, heads, length, shape.head_dim)
        for heads in (shape.num_key_heads, shape.num_value_heads)
    ]
    keys_NBHPD, values_NBHPD = (torch.zeros(one, dtype=modules.compute_dtype, device=device) for one in sizes)
    for row, (one, prefix) in enumerate(zip(kept, prefixes, strict=True)):
        keys, values = _restored(modules, shape, one, prefix, device)
        rows = slice(row, users if row == len(kept) - 1 else row + 1)
        keys_NBHPD[:, rows, :, : one.num_tokens] = keys.unsqueeze(1)
        values_NBHPD[:, rows, :, : one.num_tokens] = values.unsqueeze(1)
    soft = _soft(modules, [*prefixes, *[prefixes[-1]] * more], length, device)
    derived = modules.backbone.derived_cache(soft)
    return derived + [part for pair in zip(keys_NBHPD, values_NBHPD, strict=True) for part in pair]


def check_kept(modules: EngineModules, kept: KeptKV, prefix: Prefix, kv_digest: str) -> None:
    """Nothing, where the keys and values can be those of the prefix.

    Raises:
        EngineError: another engine's, another length's, or truncated.
    """
    if kept.kv_digest != kv_digest:
        raise EngineError(
            f"keys and values of engine {kept.kv_digest} were given, this is {kv_digest}. Prefill the prefix."
        )
    expected = payload_bytes(modules, kept.scheme, len(prefix.tokens))
    if kept.num_tokens != len(prefix.tokens) or len(kept.payload) != expected:
        raise EngineError(
            f"keys and values of {kept.num_tokens} tokens ({len(kept.payload)} bytes) were given for a "
            f"prefix of {len(prefix.tokens)} tokens ({expected} bytes as {kept.scheme}). Prefill the prefix."
        )


def _restored(
    modules: EngineModules, shape: CacheShape, kept: KeptKV, prefix: Prefix, device: torch.device
) -> tuple[Tensor, Tensor]:
    """(N, H, L, D) keys, rotated and with their bias, and values."""
    layout = _payload(shape, kept.scheme, kept.num_tokens)
    keys, values = (_view(kept.payload, layout, name).to(device) for name in ("keys", "values"))
    if kept.scheme == "int8":
        of_keys, of_values = (
            _view(kept.payload, layout, f"{name}_scales").to(device) for name in ("key", "value")
        )
        keys, values = keys * of_keys, (_grouped(values) * of_values.float()).flatten(3)
    if _unrotated(modules, kept.scheme):
        keys = _with_rotation(keys.float() + _bias(shape, keys), *_angles(modules, prefix))
    return keys, values


def _unrotated(modules: EngineModules, scheme: str) -> bool:
    """An engine that computes in bfloat16 gets its own bits back from ``bf16``."""
    return scheme != "bf16" or modules.compute_dtype != torch.bfloat16


def _payload(shape: CacheShape, scheme: str, count: int) -> _Payload:
    if scheme not in SCHEMES:
        raise EngineError(f"KV scheme {scheme!r} is unknown; accepted are {list(SCHEMES)}.")
    keys = (shape.num_layers, shape.num_key_heads, count, shape.head_dim)
    values = (shape.num_layers, shape.num_value_heads, count, shape.head_dim)
    wanted: list[tuple[str, _Shape, str]] = []
    if scheme == "int8":
        wanted += [
            ("key_scales", (*keys[:2], 1, keys[3]), "<f4"),
            ("value_scales", (*values[:3], values[3] // _group(values[3]), 1), "<f2"),
        ]
    item = "<i1" if scheme == "int8" else "<i2"
    wanted += [("keys", keys, item), ("values", values, item)]
    arrays, offset = {}, 0
    for name, size, dtype in wanted:
        arrays[name] = (offset, size, dtype)
        offset += prod(size) * np.dtype(dtype).itemsize
    return _Payload(arrays=arrays, num_bytes=offset)


def _view(payload: np.ndarray, layout: _Payload, name: str) -> Tensor:
    """One array of a payload, not copied; two-byte ones as bfloat16."""
    offset, shape, dtype = layout.arrays[name]
    array = np.frombuffer(payload, dtype, count=prod(shape), offset=offset).reshape(shape)
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if dtype == "<i2" else tensor


def _bits(values: Tensor) -> Tensor:
    return values.to(torch.bfloat16)


def _quantised_keys(keys_NHLD: Tensor) -> dict[str, Tensor]:
    """Eight bits, and one float32 scale a channel of the whole prefix."""
    scales = (keys_NHLD.abs().amax(dim=2, keepdim=True) / 127).clamp_min(_LEAST_SCALE)
    return {"key_scales": scales, "keys": (keys_NHLD / scales).round().to(torch.int8)}


def _quantised_values(values_NHLD: Tensor) -> dict[str, Tensor]:
    """Eight bits, and one float16 scale a token and group of channels, rounded up so that none is cut off."""
    grouped = _grouped(values_NHLD)
    scales = (grouped.abs().amax(dim=4, keepdim=True) / 127 * 1.001 + 6e-8).to(torch.float16)
    return {"value_scales": scales, "values": (grouped / scales.float()).round().to(torch.int8).flatten(3)}


def _grouped(values_NHLD: Tensor) -> Tensor:
    """(N, H, L, groups, channels of a group)."""
    return values_NHLD.unflatten(3, (-1, _group(values_NHLD.shape[3])))


def _group(head_dim: int) -> int:
    return _GROUP if head_dim % _GROUP == 0 else head_dim


def _bias(shape: CacheShape, like: Tensor) -> Tensor:
    """(N, H, 1, D) float32: the keys' bias, zeros without one."""
    return shape.key_bias_NHD.to(like.device, torch.float32).unsqueeze(2)


def _angles(modules: EngineModules, prefix: Prefix) -> tuple[Tensor, Tensor]:
    """(L, R/2) float32 cosines and sines that rotated the first R channels of the prefix's keys."""
    device = modules.projection.inner.weight.device
    positions = torch.from_numpy(prefix.positions).to(device, torch.int64)
    return modules.backbone.rotation(positions)


def _with_rotation(keys_NHLD: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    half = cosine.shape[-1]
    first, second, rest = keys_NHLD[..., :half], keys_NHLD[..., half : 2 * half], keys_NHLD[..., 2 * half :]
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine, rest], -1)


def _without_rotation(keys_NHLD: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """The inverse; a length other than 1 (scaled or rounded angles) is divided away."""
    square = cosine**2 + sine**2
    return _with_rotation(keys_NHLD, cosine / square, -sine / square)


def _soft(modules: EngineModules, prefixes: Sequence[Prefix], length: int, device: torch.device) -> Tensor:
    """(B, P, C) soft tokens, from which some backbones derive part of their cache."""
    rows = torch.zeros(len(prefixes), length, modules.config.token_width, dtype=modules.compute_dtype)
    for row, prefix in enumerate(prefixes):
        rows[row, : len(prefix.tokens)] = restored(prefix.tokens, modules.config.token_dtype).to(rows.dtype)
    return rows.to(device)
