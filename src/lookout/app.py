"""Builds every part from the settings, runs them together, and stops them in order."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from lookout import (
    deployer,
    docker_config,
    findings,
    heartbeat,
    leases,
    puller,
    receiver,
    replies,
    settler,
    vitals,
)
from lookout.chosen import EngineSettings, QueueSettings, Settings, Unmatched
from lookout.cleaner import Cleaner
from lookout.dead_letters import DeadLetters
from lookout.deployer import Deployer
from lookout.dispatcher import Dispatcher
from lookout.docker_config import DockerConfig
from lookout.ecr import Ecr
from lookout.engine import Engine
from lookout.engine_check import EngineCheck
from lookout.errors import EngineError, EngineUnavailable, Interrupted, WrongSettings
from lookout.findings import Finding
from lookout.heartbeat import Heartbeat
from lookout.identity import own_id
from lookout.keychain import Given, Keychain, Source
from lookout.leases import Leases
from lookout.look_round import look_round
from lookout.model import Delivery, ImageRef
from lookout.planner import Planner
from lookout.puller import Puller
from lookout.receiver import Receiver
from lookout.replies import Replies
from lookout.settler import Settler
from lookout.sqs import Queue
from lookout.unbroken import ended, unless
from lookout.vitals import Vitals

if TYPE_CHECKING:
    from lookout.preview import Preview

UNDO_SHARE = 0.4  # of the grace is kept for undoing a swap that does not end in time
LONGEST_UNDO = 5.0  # seconds: an undo in a hurry needs no more

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True)
class Pace:
    """Times that are promises of the daemon rather than settings; tests lower them. All seconds."""

    lease_floor: float = leases.FLOOR
    lease_margin: float = leases.MARGIN
    backoff_base: float = settler.BACKOFF_BASE
    longest_poll_backoff: float = receiver.LONGEST_BACKOFF
    engine_patience: float = deployer.ENGINE_PATIENCE
    longest_pull_wait: float = puller.LONGEST_WAIT
    pull_inactivity: float = puller.INACTIVITY
    repair_every: float = deployer.REPAIR_EVERY
    result_patience: float = replies.RESULT_PATIENCE
    beat_every: float = heartbeat.EVERY
    ping_patience: float = heartbeat.ENGINE_PATIENCE
    poll_overrun: float = vitals.POLL_OVERRUN


PROMISED = Pace()


async def run(settings: Settings, *, pace: Pace = PROMISED) -> None:
    """Deploy what the queue asks for until SIGTERM or SIGINT.

    Raises WrongSettings where the queue, the engine or the credentials can never work.
    """
    log.info("starting", **settings.shown())
    for name, instead in settings.retired.items():
        log.warning("this setting of the original Lookout means nothing here", setting=name, instead=instead)
    seen = Vitals(longest_poll=settings.poll_time_seconds + pace.poll_overrun)
    async with (
        Engine.connect() as engine,
        _queue(settings) as queue,
        _pages(settings, seen),
        _beating(settings, pace, engine, seen),
    ):
        with _stop_signals() as stopping:
            try:
                await unless(stopping, _reach(engine))
                await _serve(settings, pace, engine, queue, stopping, seen)
            except Interrupted:
                pass
    log.info("stopped")


async def plan(
    settings: EngineSettings, image: ImageRef | None, container: str | None, *, pull: bool
) -> "Preview":
    """What a deploy would do on the engine, by the settings that the daemon would have."""
    from lookout.preview import Previewer

    async with Engine.connect() as engine:
        planner = Planner(engine, own_id=own_id(), require_label=settings.require_label)
        puller = Puller(engine, _keychain(settings, planner), timeout=settings.pull_timeout_seconds)
        return await Previewer(engine, planner, puller).preview(image, container, pull=pull)


async def check(queue: QueueSettings | None, engine: EngineSettings | None) -> AsyncIterator[Finding]:
    """Whether the daemon would find all that it needs; None leaves out that half. Nothing is changed."""
    from lookout.queue_check import check_queue

    halves = [check_queue(queue)] if queue else []
    halves += [_check_engine(engine)] if engine else []
    for half in [asyncio.create_task(half) for half in halves]:
        for finding in await half:
            yield finding


async def _check_engine(settings: EngineSettings) -> list[Finding]:
    try:
        async with Engine.connect() as engine:
            planner = Planner(engine, own_id=own_id(), require_label=settings.require_label)
            return await EngineCheck(engine, planner, Puller(engine, _keychain(settings, planner))).findings()
    except WrongSettings as exc:
        return [findings.problem("engine", line) for line in exc.lines]


@contextmanager
def _stop_signals() -> Iterator[asyncio.Event]:
    """An event that SIGTERM and SIGINT set. One more of them, near the end, changes nothing."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, stopping.set)
    try:
        yield stopping
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)


def _pages(settings: Settings, seen: Vitals) -> AbstractAsyncContextManager[None]:
    """What is served over HTTP, if anything is. Its libraries take memory, so only then they are imported."""
    if settings.http_port is None:
        return nullcontext()
    from lookout import web

    return web.serving(seen, settings.http_host, settings.http_port)


@asynccontextmanager
async def _beating(settings: Settings, pace: Pace, engine: Engine, seen: Vitals) -> AsyncIterator[None]:
    """Until the end of all, and never the cause of one."""
    beat = Heartbeat(
        settings.heartbeat_file, seen, engine, every=pace.beat_every, engine_patience=pace.ping_patience
    )
    beating = asyncio.create_task(beat.run(), name="heartbeat")
    try:
        yield
    finally:
        await ended(beating, within=None)


async def _reach(engine: Engine) -> None:
    """Wait for the engine before the first poll: what it cannot deploy, another host may."""
    retrying = AsyncRetrying(
        retry=retry_if_exception_type((EngineUnavailable, EngineError)),
        wait=wait_random_exponential(min=0.5, max=15),
        before_sleep=lambda state: _note_absence(engine, state),
    )
    await retrying(engine.api)


def _note_absence(engine: Engine, state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning(
        "the engine does not answer; trying again",
        engine=engine.address,
        error=str(error),
        seconds=round(state.upcoming_sleep, 1),
        hint="mount the Docker socket into Lookout's container, or set DOCKER_HOST; `lookout check` tells more",
    )


async def _serve(
    settings: Settings,
    pace: Pace,
    engine: Engine,
    queue: Queue,
    stopping: asyncio.Event,
    seen: Vitals,
) -> None:
    in_flight = Leases(
        queue, slots=settings.max_messages, floor=pace.lease_floor, margin=pace.lease_margin, vitals=seen
    )
    seen.held = in_flight
    telling = Replies(
        queue,
        result_queue_url=settings.result_queue_url,
        host_id=settings.host_id,
        stopping=stopping,
        result_patience=pace.result_patience,
    )
    ending = Settler(
        in_flight,
        retry_for=settings.retry_for_seconds,
        dead_letters=_dead_letters(settings, queue),
        replies=telling,
        keeps_unmatched=settings.unmatched_messages is Unmatched.KEEP,
        in_order=queue.is_fifo,
        backoff_base=pace.backoff_base,
        vitals=seen,
    )
    inbox: asyncio.Queue[Delivery] = asyncio.Queue()
    receiving = Receiver(
        queue,
        in_flight,
        ending,
        inbox,
        wait=settings.poll_time_seconds,
        deploy_time=settings.deploy_time_seconds,
        host_id=settings.host_id,
        stopping=stopping,
        other_queues=settings.other_queues,
        longest_backoff=pace.longest_poll_backoff,
        vitals=seen,
    )
    planner = Planner(engine, own_id=own_id(), require_label=settings.require_label)
    deploying = Deployer(
        engine,
        planner,
        Puller(
            engine,
            _keychain(settings, planner),
            timeout=settings.pull_timeout_seconds,
            inactivity=pace.pull_inactivity,
            longest_wait=pace.longest_pull_wait,
            vitals=seen,
        ),
        deploy_time=settings.deploy_time_seconds,
        monitor=settings.monitor_seconds,
        own_id=own_id(),
        stopping=stopping,
        parallelism=settings.update_parallelism,
        cleaner=Cleaner(engine, keep=settings.keep_images) if settings.cleanup_images else None,
        engine_patience=pace.engine_patience,
        repair_every=pace.repair_every,
    )
    undo_time = min(LONGEST_UNDO, settings.stop_grace_seconds * UNDO_SHARE)
    try:
        await unless(stopping, deploying.recover())
    except Interrupted:
        await deploying.close(within=undo_time)
        raise
    dispatcher = Dispatcher(inbox, deploying.deploy, in_flight, ending, telling, keep_all=queue.is_fifo)
    renewing = asyncio.create_task(in_flight.run(), name="leases")
    dispatching = asyncio.create_task(dispatcher.run(), name="dispatcher")
    polling = asyncio.create_task(receiving.run(), name="receiver")
    parts = (polling, dispatching, renewing)
    looking_round = asyncio.create_task(look_round(settings, planner, queue), name="look round")
    stop = asyncio.create_task(stopping.wait(), name="stop signal")

    await asyncio.wait({stop, *parts}, return_when=asyncio.FIRST_COMPLETED)
    stopping.set()
    looking_round.cancel()
    log.info("stopping", grace_seconds=settings.stop_grace_seconds)
    dispatching.cancel()
    await asyncio.gather(
        _end_poll(polling, settings.stop_grace_seconds),
        dispatcher.stop(grace=settings.stop_grace_seconds - undo_time, undo_time=undo_time),
        deploying.close(within=undo_time),
    )
    renewing.cancel()  # last: what is still in hand stays hidden until it is given back
    for result in await asyncio.gather(*parts, return_exceptions=True):
        if isinstance(result, Exception):
            raise result


async def _end_poll(polling: asyncio.Task[None], grace: float) -> None:
    """Let the open poll end by itself, so that what it brings can be given back."""
    await asyncio.wait({polling}, timeout=grace)
    polling.cancel()


def _queue(settings: Settings) -> AbstractAsyncContextManager[Queue]:
    # Each message in hand may be told of on two queues, beside the poll, renewals and a look round.
    calls = 2 * settings.max_messages + 12
    return Queue.connect(settings, poll_time=settings.poll_time_seconds, calls=calls)


def _dead_letters(settings: Settings, queue: Queue) -> DeadLetters | None:
    url = settings.dead_letter_queue_url
    return DeadLetters(queue.beside(url)) if url else None


def _keychain(settings: EngineSettings, planner: Planner) -> Keychain:
    sources: list[Source] = [DockerConfig(docker_config.folder()), Ecr()]
    if settings.registry_username is not None and settings.registry_password is not None:
        password = settings.registry_password.get_secret_value()
        server = settings.registry_server or ""
        sources.insert(0, Given(settings.registry_username, password, server, planner.registries))
    return Keychain(sources)
