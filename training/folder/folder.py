"""A folder through the queues of ComfyUI servers: one thread for each; the manifest, the bar and the messages are here."""

from __future__ import annotations

import dataclasses
import queue
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from tqdm import tqdm

from faithdiff_core.listing.walk import list_pictures
from training.common.folders import Tally, require_pictures, some
from training.common.results import ResultsFolder
from training.common.stopping import Interrupts
from training.folder.client import NoAnswer, QueueClient
from training.folder.dispatcher import Dispatcher
from training.folder.events import Event, Message, PictureEnded, WorkerFailed, WorkflowRefused
from training.folder.prompt import PromptForm
from training.folder.record import FolderRecord, Workflow, sha256_of
from training.folder.worker import Worker, WorkerOptions

SHUTDOWN_TIMEOUT_S = 60.0
"""How long we wait, once stopped, for servers to be told so: two quick requests, and what was under way."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderJob:
    """What the command line asks for. `servers` as `server_url` gives them; `ahead` prompts at most wait or run at each;
    one that is silent for `patience_s` is given up; `again` restores what is there already;
    `in_srgb`: results in sRGB, whatever profile their sources have.
    """

    source: Path
    out: Path
    form: PromptForm
    workflow_file: str
    settings: tuple[str, ...]
    servers: tuple[str, ...]
    headers: Mapping[str, str]
    ahead: int
    patience_s: float
    again: bool
    in_srgb: bool


def restore_folder(job: FolderJob, tell: Callable[[str], None]) -> int:
    """Restore every picture that is not done yet; the exit code: 0, 1 = some failed or are not done, 128 + the signal.

    `tell` gets the outcome in one line; warnings and failures go to stderr, above the bar.

    Raises:
        ValueError: no pictures, colliding names, a folder with other results, no ComfyUI at any address, a workflow that every
            server refuses.
        OSError: a result or the manifest cannot be written.
    """
    listed = list_pictures([job.source])
    require_pictures(listed, job.source)
    pictures = listed.pictures
    manifest = FolderRecord.open(job.out, _workflow(job), again=job.again)
    results = ResultsFolder(job.source, job.out, pictures, again=job.again, made=manifest.made())
    states = {key: manifest.state(key, path, job.out / manifest.result(key)) for key, path in pictures}
    missing = [(key, path) for key, path in pictures if states[key] == "missing"]
    if changed := [key for key, state in states.items() if state == "changed"]:
        _say(f"{len(changed)} results were changed since and stay as they are: {some(changed)} (--again makes them anew)")
    tally = Tally(left_out=listed.left_out)
    if not missing:
        for line in tally.lines():
            _say(line)
        tell(f"{job.out}: {tally.summary([f'{len(pictures)} done before'])}")
        return 0
    clients = [QueueClient(url, job.headers) for url in job.servers]
    _check_servers(clients)
    manifest.write()
    return _Run(job, manifest, results, missing, clients, tally, before=len(pictures) - len(missing), tell=tell).run()


def _workflow(job: FolderJob) -> Workflow:
    form, profile = job.form, ("--profile srgb",) if job.in_srgb else ()
    return Workflow(
        file=job.workflow_file,
        sha256=sha256_of(f"{form.sha256} {profile[0]}".encode()) if profile else form.sha256,
        settings=(*profile, *job.settings),
        input_node=form.input_node,
        output_node=form.output_node,
    )


def _check_servers(clients: list[QueueClient]) -> None:
    silent: dict[str, str] = {}
    for client in clients:
        try:
            client.check()
        except NoAnswer as error:
            silent[client.url] = str(error)
    listed = "; ".join(f"{url}: {reason}" for url, reason in silent.items())
    if len(silent) == len(clients):
        raise ValueError(f"expected a ComfyUI that answers, got none ({listed}), start one or check --server")


class _Run:
    """One run over the missing pictures. Only the main thread is in here; workers send it events."""

    def __init__(
        self,
        job: FolderJob,
        manifest: FolderRecord,
        results: ResultsFolder,
        missing: list[tuple[str, Path]],
        clients: list[QueueClient],
        tally: Tally,
        *,
        before: int,
        tell: Callable[[str], None],
    ) -> None:
        self._job, self._manifest, self._results = job, manifest, results
        self._tally, self._tell = tally, tell
        self._left = len(missing)
        self._done: Counter[str] = Counter()
        self._tried: set[str] = set()
        self._refusals: dict[str, str] = {}
        self._error: Exception | None = None
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._dispatcher = Dispatcher(missing, [client.url for client in clients])
        options = WorkerOptions(
            form=job.form,
            results=results,
            ahead=job.ahead,
            patience_s=job.patience_s,
            folder=f"faithdiff-{uuid.uuid4().hex[:12]}",
            in_srgb=job.in_srgb,
        )
        self._workers = [
            Worker(client, self._dispatcher, options, stop=self._stop, report=self._events.put) for client in clients
        ]
        self._labels = {client.url: client.label for client in clients}
        self._bar = tqdm(total=before + len(missing), initial=before, desc="restore", unit="picture", dynamic_ncols=True)
        self._before = before

    def run(self) -> int:
        """The exit code."""
        # As daemons: one that hangs in a request must not keep the program from ending.
        threads = [threading.Thread(target=worker.run, daemon=True) for worker in self._workers]
        try:
            with Interrupts() as interrupts:
                for thread in threads:
                    thread.start()
                self._listen(threads, interrupts)
        finally:
            self._stop.set()
            self._bar.close()
            self._manifest.write()
            self._results.forget()  # it was for a process that is killed between two writings of the record
        if self._error:
            raise self._error
        if self._refusals and not (self._done or self._tally.failed or self._dispatcher.servers):
            listed = "; ".join(f"{url}: {reason}" for url, reason in self._refusals.items())
            raise ValueError(f"expected servers to take the workflow, got a refusal ({listed}), mend it or choose another server")
        return self._summary(interrupts.received)

    def _listen(self, threads: list[threading.Thread], interrupts: Interrupts) -> None:
        stopped_s: float | None = None
        while any(thread.is_alive() for thread in threads) or not self._events.empty():
            try:
                self._take(self._events.get(timeout=0.1))
            except queue.Empty:
                pass
            if stopped_s is None and (interrupts.received or self._dispatcher.is_finished or self._stop.is_set()):
                self._stop.set()
                stopped_s = time.monotonic()
            elif stopped_s is not None and time.monotonic() - stopped_s > SHUTDOWN_TIMEOUT_S:
                break

    def _take(self, event: Event) -> None:
        if isinstance(event, PictureEnded):
            self._take_end(event)
        elif isinstance(event, Message):
            self._note(event.text)
        elif isinstance(event, WorkflowRefused):
            self._refusals[event.server] = event.reason
            self._note(f"{event.server} refuses the workflow: {event.reason}")
        else:
            assert isinstance(event, WorkerFailed)
            self._error = event.error

    def _take_end(self, event: PictureEnded) -> None:
        self._manifest.put(event.key, event.entry)
        if event.entry["status"] == "done":
            self._done[event.server] += 1
            self._tally.done += 1
            self._tally.warn(event.key, event.warnings)
            self._left -= 1
            self._bar.update()
            self._bar.set_postfix({self._labels[url]: count for url, count in self._done.items()})
            return
        message = f"{event.key}: {event.entry['message']}"
        if event.final:
            self._tally.failed[event.key] = event.entry["message"]
            self._left -= 1
            again = " again" if event.key in self._tried else ""
            self._note(f"failed{again}: {message} ({event.server})")
        else:
            self._tried.add(event.key)
            self._note(f"failed, to be tried once more: {message} ({event.server})")

    def _note(self, text: str) -> None:
        self._bar.write(text, file=sys.stderr)

    def _summary(self, signal_number: int) -> int:
        more = [f"{self._left} not done"] if self._left else []
        if self._before:
            more.append(f"{self._before} done before")
        for line in self._tally.lines():
            _say(line)
        self._tell(f"{self._job.out}: {self._tally.summary(more, shares=self._shares())}")
        if signal_number:
            _say("stopped; the same command goes on from here")
            return 128 + signal_number
        if self._left:
            _say("error: expected a server that answers, got none any more; start one, the same command goes on from here")
        return 1 if self._left else self._tally.exit_code

    def _shares(self) -> str:
        if len(self._labels) == 1:
            return ""
        return ", ".join(f"{label} {self._done[url]}" for url, label in self._labels.items())


def _say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)
