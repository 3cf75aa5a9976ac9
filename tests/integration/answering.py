"""Who plays the daemon's side of `lookout deploy`, and the command itself as CI runs it."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import botocore.session

from lookout.model import ContainerReport, Json, Outcome, Phase
from lookout.result import Result
from testbed.sqs import REGION, LocalSqs
from tests.integration.forked import run
from tests.integration.running import CODE

#: What is told of a message, one after the other; a string is sent as it is.
Script = Callable[[Result], Iterable[Result | str]]

LONG = 60  # seconds: no test of speed
PAUSE = 0.1  # seconds between two looks at the queue: the end of a long poll would have to be waited for


def pulling(result: Result, percent: int) -> Result:
    return replace(
        result, phase=Phase.PULLING, percent=percent, bytes_done=percent * 10_000, bytes_total=1_000_000
    )


def ended(result: Result, outcome: Outcome, **more: Any) -> Result:
    now = datetime.now(UTC)
    return replace(result, outcome=outcome, started_at=now, finished_at=now, **more)


def deployed(result: Result) -> Iterable[Result | str]:
    """As a good deploy is told."""
    starting = ContainerReport("web", phase=Phase.STARTING)
    yield pulling(result, 10)
    yield pulling(result, 80)
    yield replace(result, phase=Phase.REPLACING, containers=(starting,))
    done = ContainerReport("web", Outcome.DEPLOYED, old_image="api:1", new_image="api:2", downtime=0.5)
    yield ended(result, Outcome.DEPLOYED, containers=(done,))


def reply_queues(sqs: LocalSqs) -> list[str]:
    """The URLs of those that the command has made."""
    answer = sqs._sqs.list_queues(QueueNamePrefix="lookout-reply-")
    return [url for url in answer.get("QueueUrls", ()) if re.search(r"/lookout-reply-[0-9a-f]{32}$", url)]


def remove_reply_queues(sqs: LocalSqs) -> None:
    for url in sqs._sqs.list_queues(QueueNamePrefix="lookout-reply-").get("QueueUrls", ()):
        sqs._sqs.delete_queue(QueueUrl=url)


class Answering:
    """Takes each message off the queue, notes what it asks for, and tells of it as the script says."""

    def __init__(self, environment: Mapping[str, str], queue_url: str, script: Script = deployed) -> None:
        self.asked: list[Json] = []
        self.told = threading.Event()  # all of a message
        self._queue_url = queue_url
        self._script = script
        self._sqs = botocore.session.Session().create_client(
            "sqs",
            region_name=REGION,
            endpoint_url=environment["AWS_ENDPOINT_URL_SQS"],
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._sqs.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            answer = self._sqs.receive_message(
                QueueUrl=self._queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=0, VisibilityTimeout=900
            )
            for message in answer.get("Messages", ()):
                self._answer(message)
            self._stop.wait(PAUSE)

    def _answer(self, message: Json) -> None:
        asked = json.loads(message["Body"])
        self.asked.append(asked)
        if "ReplyQueueUrl" not in asked:
            return
        result = Result(message["MessageId"], asked["ImageName"], asked["ImageTag"], "host-1")
        for told in self._script(result):
            text = told if isinstance(told, str) else told.to_json()
            try:
                self._sqs.send_message(QueueUrl=asked["ReplyQueueUrl"], MessageBody=text)
            except self._sqs.exceptions.QueueDoesNotExist:
                return  # nobody waits any more
        self.told.set()


class Ended:
    """How the command has ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @classmethod
    def of(cls, process: "subprocess.Popen[str]") -> Self:
        out, err = process.communicate(timeout=LONG)
        return cls(process.returncode, out, err)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


class Command:
    """`lookout deploy` with these variables and nothing else."""

    def __init__(self, environment: Mapping[str, str], cwd: Path) -> None:
        self.environment = {"PATH": os.defpath, "PYTHONPATH": CODE, **environment}
        self._cwd = cwd

    def __call__(self, *arguments: str, **variables: str) -> Ended:
        """To its end, in a process that has imported everything before, so that it starts sooner."""
        environment = self.environment | variables
        return Ended(*run(environment, self._cwd, ["deploy", *arguments], timeout=LONG))

    def side_by_side(self, *commands: Sequence[str]) -> list[Ended]:
        """The same with each of these arguments, in this order."""
        with ThreadPoolExecutor(len(commands)) as pool:
            return list(pool.map(lambda arguments: self(*arguments), commands))

    def start(self, *arguments: str, program: str = "", **variables: str) -> "subprocess.Popen[str]":
        """As CI runs it, not waiting for its end; `program` is Python that runs in the place of the command."""
        code = ["-c", program] if program else ["-m", "lookout"]
        return subprocess.Popen(
            [sys.executable, *code, "deploy", *arguments],
            env=self.environment | variables,
            cwd=self._cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
