"""Who works: the workers that a run uses, taken in as they come, asked, and let go of as they go."""

from __future__ import annotations

import contextlib
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dask.utils import funcname
from distributed import Client, performance_report

from ffdask import blocks, machine
from ffdask.embedded import machine_memory
from ffdask.errors import BadInput, Lost, RunFailed, reason
from ffdask.joining import Sharing, check_bits, check_gpus, check_versions, slot_of, unregister
from ffdask.lost import Watch
from ffdask.slots import Slot, addresses_of, in_order, is_there, says_gpu, workers_of
from ffdask.tables import ClusterTable

Say = Callable[[str], None]


@dataclass
class Cluster:
    """A client and the workers that the run uses.

    Attributes
    ----------
    client : distributed.Client
    slots : list of Slot
    embedded : bool
        Whether the cluster is the run's own.
    threads : bool
        Whether the workers live in this process.
    fingerprints : dict
        Worker name -> what its bits depend on.
    lacks : callable
        ``lacks(gpu)`` is called on each worker that is taken in, by whether it has a GPU: returns what it lacks for the
        run, empty if nothing.
    describes : callable
        The same for the GPU that bits depend on there, empty if none computes.
    gpu : bool
        Whether there must be a worker with a GPU. Given workers say so; those of the run's own cluster all count as
        having one, and are asked.
    """

    client: Client
    slots: list[Slot]
    embedded: bool
    threads: bool
    fingerprints: dict[str, dict[str, str]]
    lacks: Callable[[bool], Callable[[], str]] = lambda gpu: str
    describes: Callable[[bool], Callable[[], str]] = lambda gpu: str
    gpu: bool = False
    _refused: set[str] = field(default_factory=set)

    @property
    def units(self) -> int:
        """Number of steps that all workers do at a time."""
        return sum(slot.units for slot in self.slots)

    @property
    def dashboard(self) -> str:
        """Address of Dask's dashboard; an embedded one listens on loopback only, whatever its scheduler is called."""
        if not self.embedded:
            return str(self.client.dashboard_link)
        return f"http://127.0.0.1:{self.client.scheduler_info()['services']['dashboard']}/status"

    def on_each_gpu(self, function: Callable[..., Any]) -> dict[str, Any]:
        """Return what ``function()`` returns on each worker that has a GPU; else as `on_each_worker`."""
        return self._on([slot for slot in self.slots if slot.gpu], function)

    def on_each_worker(self, function: Callable[..., Any], *args: Any) -> dict[str, Any]:
        """Return what ``function(*args)`` returns on each worker, by the worker's name.

        As a task, which may take its time, not on the worker's event loop as `Client.run` would.

        Raises
        ------
        Lost
            If a worker goes before it has answered.
        StepFailed
            If the function raises on a worker: with its name, and why.
        RunFailed
            If the scheduler is gone.
        """
        return self._on(self.slots, function, *args)

    def _on(self, slots: Sequence[Slot], function: Callable[..., Any], *args: Any) -> dict[str, Any]:
        asked = uuid.uuid4().hex
        futures = [
            self.client.submit(
                function,
                *args,
                key=f"{funcname(function)}-{slot.name}-{asked}",
                resources={slot.resource: 0},
                pure=False,
            )
            for slot in slots
        ]
        try:
            values = Watch(self.client, slots).gather(futures)
        except Lost as lost:
            gone = f"worker {', '.join(lost.workers)} went" if lost.workers else "a worker went"
            raise Lost(f"{gone} before it had answered what it can do; start again") from lost
        return dict(zip([slot.name for slot in slots], values, strict=True))

    def take_stock(self, table: ClusterTable, say: Say) -> None:
        """Let go of workers that are gone, take in those that have come, as many as were asked for; wait for one.

        If one with a GPU is needed, it is that one which is waited for. A worker that cannot be used is named, and left
        alone.

        Raises
        ------
        RunFailed
            If none is there within the time that is waited for workers, or the scheduler is gone.
        """
        deadline, said = time.monotonic() + table.wait, False
        while True:
            known = workers_of(self.client)
            self.slots = [slot for slot in self.slots if is_there(slot, known)]
            for address in self._to_take(known, table):
                try:
                    self.take({address: known[address]}, table, say)
                except BadInput as error:
                    self._refused.add(address)
                    say(f"a worker that joined is left alone: {error}")
                except (OSError, KeyError):
                    # Gone again.
                    continue
            if self.slots and not self._lacks_gpu():
                return
            who = "no worker with a GPU" if self.slots else "no worker"
            if time.monotonic() > deadline:
                raise RunFailed(f"{who} is left, and none came within {table.wait:g} s (cluster.wait)")
            if not said:
                say(f"{who} is left: waiting up to {table.wait:g} s for one")
                said = True
            time.sleep(0.2)

    def _lacks_gpu(self) -> bool:
        return self.gpu and not any(slot.gpu for slot in self.slots)

    def _has_gpu(self, info: Mapping[str, Any]) -> bool:
        return self.embedded or says_gpu(info)

    def _to_take(self, known: Mapping[str, Mapping[str, Any]], table: ClusterTable) -> list[str]:
        """Return the addresses of the workers to take in: as many as are asked for, one with a GPU if need be."""
        seen = self._refused | {slot.address for slot in self.slots}
        strange = in_order({at: info for at, info in known.items() if at not in seen}, self.gpu)
        if not table.workers:
            return strange
        room = table.workers - len(self.slots)
        if self._lacks_gpu() and not (strange and self._has_gpu(known[strange[0]])):
            # The last place is kept for one that has.
            room -= 1
        return strange[: max(room, 0)]

    def take(self, workers: dict[str, dict[str, Any]], table: ClusterTable, say: Say) -> None:
        """Take workers in, by address.

        Raises
        ------
        BadInput
            If one lacks what the run needs, or (with `strict_bits`) has other bits.
        OSError, KeyError
            If one goes meanwhile.
        """
        if not workers:
            return
        if not self.embedded:
            check_versions(self.client, workers)
        gpus = {address: self._has_gpu(info) for address, info in workers.items()}
        lacking = self._ask(self.lacks, gpus)
        if lacking:
            raise BadInput("; ".join(f"worker {workers[address]['name']}: {what}" for address, what in lacking.items()))
        found = [slot_of(self.client, address, info, gpus[address]) for address, info in workers.items()]
        prints = self.client.run(machine.fingerprint, workers=list(workers))
        described = {address: {"gpu": gpu} for address, gpu in self._ask(self.describes, gpus).items()}
        fingerprints = {slot.name: prints[slot.address] | described.get(slot.address, {}) for slot in found}
        check_bits(fingerprints, table.strict_bits, say)
        if described:
            check_gpus(self.fingerprints | fingerprints, table.strict_bits, say)
        self.slots += found
        self.fingerprints |= fingerprints

    def _ask(self, question: Callable[[bool], Callable[[], str]], gpus: Mapping[str, bool]) -> dict[str, str]:
        """Return what workers answer, by address, unless that is empty; each is asked by whether it has a GPU."""
        found: dict[str, str] = {}
        for gpu in set(gpus.values()):
            alike = [address for address in gpus if gpus[address] == gpu]
            found |= self.client.run(question(gpu), workers=alike)
        return {address: answer for address, answer in found.items() if answer}

    def memory_limit(self) -> tuple[int, int]:
        """Return (bytes that the smallest worker process may take, workers in one process).

        Raises
        ------
        RunFailed
            If the scheduler is gone.
        """
        if self.threads:
            return machine_memory(), len(self.slots)
        known = workers_of(self.client)
        limits = [int(known[slot.address]["memory_limit"] or 0) for slot in self.slots if slot.address in known]
        # Without a limit of its own a worker has its machine's memory, which only it knows.
        return min((limit for limit in limits if limit), default=1 << 62), 1

    @contextlib.contextmanager
    def sharing(self, run: str, table: ClusterTable, say: Say) -> Iterator[None]:
        """Have states move between the embedded cluster's processes, and to here, without a copy.

        Given workers share nothing: they may be on several hosts, write to disk what they hold, and serve other runs;
        and their scheduler, which reads what tasks carry, may be anybody's.
        """
        if self.threads or not self.embedded or not table.share:
            yield
            return
        apart = self._apart()
        if apart:
            say(f"states travel by Dask's connections, not by shared memory: {apart}")
            yield
            return
        plugin = Sharing(run)
        self.client.register_plugin(plugin)
        try:
            yield
        finally:
            unregister(self.client, plugin.name)

    def _apart(self) -> str:
        """Return why a process cannot map the memory of all others, empty if each can."""
        here = addresses_of(self.client, self.slots)
        probes = [blocks.probe(), *self.client.run(blocks.probe, workers=here).values()]
        reasons = {"this process": blocks.out_of_reach(probes)}
        reasons |= self.client.run(blocks.out_of_reach, probes, workers=here)
        return next((f"{who}: {reason}" for who, reason in reasons.items() if reason), "")

    @contextlib.contextmanager
    def report(self, file: str | None, say: Say) -> Iterator[None]:
        """Write Dask's performance report of what happens meanwhile, if a file is named.

        If it cannot be, that is said: what is computed meanwhile is worth more.
        """
        if not file:
            yield
            return
        report = performance_report(filename=file)
        with self.client.as_current():
            report.__enter__()
            try:
                yield
            finally:
                try:
                    report.__exit__(None, None, None)
                except Exception as error:
                    say(f"the report {file} could not be written ({reason(error)})")

    def peak_memory(self) -> int:
        """Return the peak resident bytes of the job's processes, summed: this one and the workers'."""
        if self.threads:
            return machine.peak_memory()
        asked: dict[str, tuple[tuple[str, int], int]] = {}
        # A cluster that is gone at the end has no figure to give; what was trained is worth more.
        with contextlib.suppress(OSError, RunFailed):
            here = addresses_of(self.client, self.slots)
            asked = self.client.run(_process_peak, workers=here, on_error="ignore") if here else {}
        return machine.peak_memory() + sum(dict(asked.values()).values())


def _process_peak() -> tuple[tuple[str, int], int]:
    return (socket.gethostname(), os.getpid()), machine.peak_memory()
