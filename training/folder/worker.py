"""The work at one server: keep a few prompts in its queue, fetch what is done, wait while it does not answer.

The server is asked again and again instead of listened to: a restarted one has forgotten its prompts, and says nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from training.common.results import ResultsFolder
from training.folder.client import NoAnswer, QueueClient, Refused, one_line
from training.folder.dispatcher import Dispatcher, PictureTask
from training.folder.events import Event, Message, PictureEnded, WorkerFailed, WorkflowRefused
from training.folder.prompt import PromptForm
from training.folder.record import sha256_of
from training.folder.result import Beside, NoResult, PictureAtFault, for_upload, read_ending, read_result, with_beside

MIN_PAUSE_S, MAX_PAUSE_S = 0.1, 2.0
"""Between two looks at a server: doubled while nothing changes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """What is the same for all servers. `ahead`: most prompts in a server's queue. `patience_s`: longest silence. `folder`: for
    the uploads of this run. `in_srgb`: results in sRGB, whatever profile their sources have.
    """

    form: PromptForm
    results: ResultsFolder
    ahead: int
    patience_s: float
    folder: str
    in_srgb: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Sent:
    task: PictureTask
    source_sha256: str
    warnings: tuple[str, ...] = ()
    beside: Beside | None = None


class Worker:
    """One server. `run` is for a thread of its own; it says what happens by `report`, and ends when nothing is left to do, when
    `stop` is set, or when it gives the server up. It leaves no prompt of its own behind.
    """

    def __init__(
        self,
        client: QueueClient,
        dispatcher: Dispatcher,
        options: WorkerOptions,
        *,
        stop: threading.Event,
        report: Callable[[Event], None],
    ) -> None:
        self.client = client
        self._dispatcher, self._options, self._stop, self._report = dispatcher, options, stop, report
        self._sent: dict[str, _Sent] = {}
        self._has_accepted = False
        self._left = False
        self._silent_since_s: float | None = None

    def run(self) -> None:
        """Work until there is nothing left."""
        try:
            self._work()
        except Exception as error:  # the other threads must hear of it
            self._stop.set()
            self._report(WorkerFailed(error=error))
        finally:
            self._cancel()

    def _work(self) -> None:
        pause_s = MIN_PAUSE_S
        while not (self._stop.is_set() or self._left or self._dispatcher.is_finished):
            try:
                changed = self._collect() | self._fill()
                if self._silent_since_s is not None:
                    self._say("answers again")
                    self._silent_since_s = None
            except (NoAnswer, Refused) as error:
                changed = False
                self._on_silence(str(error))
            pause_s = MIN_PAUSE_S if changed else min(2 * pause_s, MAX_PAUSE_S)
            self._stop.wait(pause_s)

    def _on_silence(self, reason: str) -> None:
        now_s = time.monotonic()
        if self._silent_since_s is None:
            self._silent_since_s = now_s
            self._say(f"does not answer ({reason}), trying for {self._options.patience_s:g} s")
        elif now_s - self._silent_since_s > self._options.patience_s:
            self._say(f"given up ({reason})")
            self._leave()

    def _fill(self) -> bool:
        """Queue pictures up to the number ahead. Whether any was."""
        changed = False
        while len(self._sent) < self._options.ahead and not (self._left or self._stop.is_set()):
            task = self._dispatcher.take(self.client.url)
            if task is None:
                break
            self._send(task)
            changed = True
        return changed

    def _send(self, task: PictureTask) -> None:
        prompt_id = str(uuid.uuid4())
        try:
            data = task.path.read_bytes()
        except OSError as error:
            self._fail(_Sent(task=task, source_sha256=""), f"expected a readable picture ({error.strerror})")
            return
        sent = _Sent(task=task, source_sha256=sha256_of(data))
        try:
            upload = for_upload(data, task.path.name, self._options.form)
        except PictureAtFault as error:
            self._fail(sent, str(error), for_good=True)
            return
        sent = dataclasses.replace(sent, warnings=upload.warnings, beside=upload.beside)
        try:
            stored = self.client.upload(upload.data, folder=self._options.folder, name=upload_name(task.key, upload.suffix))
        except NoAnswer:
            self._dispatcher.put_back(task)
            raise
        except Refused as error:
            self._fail(sent, str(error))
            return
        self._sent[prompt_id] = sent
        try:
            # Without an answer the prompt may have come through all the same; the next look at the queue will show.
            self.client.post(self._options.form.filled(stored), prompt_id=prompt_id, output_node=self._options.form.output_node)
            self._has_accepted = True
        except Refused as error:
            if self._has_accepted:
                self._fail(self._sent.pop(prompt_id), str(error))
            else:
                self._report(WorkflowRefused(server=self.client.url, reason=str(error)))
                self._leave()

    def _collect(self) -> bool:
        """Take what has ended. Whether anything had."""
        if not self._sent and self._silent_since_s is None:
            return False
        waiting = self.client.queued()  # before the histories: a prompt goes from one to the other in one step, never back
        ended = [prompt_id for prompt_id in self._sent if prompt_id not in waiting]
        for prompt_id in ended:
            entry = self.client.history(prompt_id)
            if entry is None:
                self._lose(self._sent.pop(prompt_id))
                continue
            try:
                self._finish(prompt_id, entry)
            except (NoResult, Refused) as error:
                self._fail(self._sent.pop(prompt_id), str(error), for_good=isinstance(error, PictureAtFault))
        return bool(ended)

    def _finish(self, prompt_id: str, history: dict[str, Any]) -> None:
        sent = self._sent[prompt_id]
        ending = read_ending(history, self._options.form)
        result = read_result(self.client.view(ending.image), str(ending.image.get("filename", "")))
        result, notes = with_beside(result, sent.beside, in_srgb=self._options.in_srgb)
        name = sent.task.key + result.suffix
        try:
            self._options.results.write(name, result.data)
        except ValueError as error:  # with the suffix of the server's file, something else lies there
            raise PictureAtFault(str(error)) from error
        del self._sent[prompt_id]
        entry = {
            "status": "done",
            "source": str(sent.task.path),
            "source_sha256": sent.source_sha256,
            "result": name,
            "result_sha256": sha256_of(result.data),
            "width_px": result.width_px,
            "height_px": result.height_px,
            "mode": result.mode,
            "server": self.client.url,
            "prompt_id": prompt_id,
            "seconds": ending.seconds,
        }
        told = (*sent.warnings, *notes)
        ended = PictureEnded(key=sent.task.key, server=self.client.url, entry=entry, final=True, warnings=told)
        self._report(ended)
        self._dispatcher.done()

    def _fail(self, sent: _Sent, message: str, *, for_good: bool = False) -> None:
        self._end_badly(sent, message, final=self._dispatcher.failed(sent.task, self.client.url, for_good=for_good))

    def _lose(self, sent: _Sent) -> None:
        if self._dispatcher.lost(sent.task):
            self._say(f"has forgotten {sent.task.key}, which is queued again")
        else:
            self._end_badly(sent, f"vanished from queues {sent.task.lost + 1} times", final=True)

    def _end_badly(self, sent: _Sent, message: str, *, final: bool) -> None:
        entry = {"status": "failed", "source": str(sent.task.path), "source_sha256": sent.source_sha256}
        entry |= {"server": self.client.url, "message": one_line(message)}
        self._report(PictureEnded(key=sent.task.key, server=self.client.url, entry=entry, final=final))

    def _leave(self) -> None:
        self._left = True
        self._dispatcher.leave(self.client.url, [sent.task for sent in self._sent.values()])

    def _cancel(self) -> None:
        """What a server that was given up still has goes, too: the others do it now."""
        if not self._sent:
            return
        try:
            self.client.cancel(self._sent)
        except (NoAnswer, Refused) as error:
            if not self._left:
                self._say(f"may go on with {len(self._sent)} of these pictures, it could not be told to stop ({error})")

    def _say(self, text: str) -> None:
        self._report(Message(text=f"{self.client.url} {text}"))


def upload_name(key: str, suffix: str) -> str:
    """A name that every file system takes, one for each key: pictures of the same name in two folders stay apart."""
    return hashlib.sha256(key.encode()).hexdigest()[:20] + suffix
