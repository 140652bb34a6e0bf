"""The load generator: clients of a process of its own, each sending its next request when the last was answered.

It speaks HTTP/1.1 on sockets that stay open, and reads of an answer its status and length alone, so that it takes as
little of the machine as it can; what it takes is measured. Where a rate is given, requests are due at even intervals,
and a latency counts from when its request was due.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import uvloop

from benchmarks.index.timing import percentiles_ms

_PATIENCE_S = 120.0

Ask = Callable[[], Awaitable[int | None]]
"""Asks once; returns the status of the answer, None where there is nothing more to ask."""


@dataclass(frozen=True)
class Offered:
    """What was sent to one address.

    Attributes:
        port: Of the server.
        path: Of the requests.
        key: Key of the service; None: none is sent.
        bodies: Bodies, one after another.
        clients: Connections.
        seconds: How long at most.
        per_s: Requests a second, evenly; None: as fast as answers come.
        again: Whether bodies begin anew at their end; else that is the end.
    """

    port: int
    path: str
    key: str | None
    bodies: Sequence[bytes]
    clients: int
    seconds: float
    per_s: float | None = None
    again: bool = True


@dataclass(frozen=True)
class Measured:
    """What came of it: seconds of each answer, statuses other than 200, and what it took.

    Attributes:
        latencies: Seconds, by request.
        failed: Statuses other than 200, with their number.
        seconds: From the first request to the last answer.
        cpu_s: Processor seconds of whoever asked.
    """

    latencies: tuple[float, ...]
    failed: dict[int, int]
    seconds: float
    cpu_s: float

    @property
    def per_s(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds

    def summary(self) -> dict[str, float]:
        """Return it without the single latencies."""
        return {
            **percentiles_ms(self.latencies),
            "per_s": self.per_s,
            "answers": len(self.latencies),
            "asker_cpu_ms": 1000 * self.cpu_s / max(1, len(self.latencies)),
        }


def offer(*offers: Offered) -> list[Measured]:
    """Send all these at the same time, from one process of its own.

    Raises:
        RuntimeError: an answer was none of status 200.
    """
    found: list[Measured] = in_process(_offered, offers)
    for measured in found:
        if measured.failed:
            raise RuntimeError(f"Answers that are none, by status: {measured.failed}.")
    return found


def in_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """Return what `work` returns in a new process, as one of its own that nothing was done in before."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(work, arguments)


def _offered(offers: Sequence[Offered]) -> list[Measured]:
    async def all_of_them() -> list[Measured]:
        return await asyncio.gather(*map(_over_http, offers))

    return uvloop.run(all_of_them())


async def _over_http(offered: Offered) -> Measured:
    bodies = itertools.cycle(offered.bodies) if offered.again else iter(offered.bodies)
    head = f"POST {offered.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    if offered.key is not None:
        head += f"Authorization: Bearer {offered.key}\r\n"
    loop = asyncio.get_running_loop()
    connections = [
        (await loop.create_connection(_Connection, "127.0.0.1", offered.port))[1] for _ in range(offered.clients)
    ]

    def asking(connection: _Connection) -> Ask:
        async def ask() -> int | None:
            if (body := next(bodies, None)) is None:
                return None
            return await connection.ask(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

        return ask

    try:
        return await timed([asking(each) for each in connections], offered.seconds, offered.per_s)
    finally:
        for each in connections:
            each.close()


async def timed(clients: Sequence[Ask], seconds: float, per_s: float | None = None) -> Measured:
    """Have clients ask one thing after another, all at the same time."""
    latencies: list[float] = []
    failed: Counter[int] = Counter()
    used, began = time.process_time(), time.perf_counter()
    end = began + seconds
    due = _due(began, per_s)

    async def one(ask: Ask) -> None:
        while True:
            at = next(due)
            if at is not None and (wait := at - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            since = time.perf_counter() if at is None else at
            if since >= end:
                return
            if (status := await ask()) is None:
                return
            latencies.append(time.perf_counter() - since)
            if status != 200:
                failed[status] += 1

    async with asyncio.timeout(seconds + _PATIENCE_S):
        await asyncio.gather(*map(one, clients))
    return Measured(tuple(latencies), dict(failed), time.perf_counter() - began, time.process_time() - used)


def _due(began: float, per_s: float | None) -> Iterator[float | None]:
    if per_s is None:
        return itertools.repeat(None)
    return (began + number / per_s for number in itertools.count())


class _Connection(asyncio.Protocol):
    """One connection of a client that asks for one thing at a time."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._answer: asyncio.Future[int] | None = None
        self._read = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionResetError("The server closed the connection."))

    def data_received(self, data: bytes) -> None:
        self._read += data
        end = self._read.find(b"\r\n\r\n")
        if end < 0 or self._answer is None:
            return
        head = bytes(self._read[:end]).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(self._read) >= end + 4 + length and not self._answer.done():
            self._read.clear()
            self._answer.set_result(int(head[9:12]))

    async def ask(self, request: bytes) -> int:
        """Send a request; return the status of its answer."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """Hang up."""
        self._transport.close()
