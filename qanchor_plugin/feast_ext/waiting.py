"""Threads in which asynchronous requests wait for answers, apart from asyncio's own few.

asyncio's threads are as many as the machine has cores and four more; were requests to wait for a slow worker
there, reads of stored rows would wait behind them.
"""

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

NUM_THREADS = 128

_threads = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="qanchor-waiting")


async def in_waiting_thread(call: Callable[..., T], *arguments: Any) -> T:
    """What the call returns; the event loop goes on, and the call sees the caller's context."""
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(_threads, lambda: context.run(call, *arguments))
