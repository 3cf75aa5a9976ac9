"""An engine that dies while a deploy has stopped nothing yet, and comes back."""

from collections.abc import Callable

import pytest

from lookout.model import Outcome
from testbed.engine import PrivateEngine
from testbed.faultproxy import FaultProxy
from tests.integration.conftest import AppImage, MakeContainer, MakeDeployer
from tests.integration.deploys import leftovers, request_for
from tests.integration.watching import state

pytestmark = [pytest.mark.engine, pytest.mark.engine_ends]


@pytest.mark.parametrize(
    ("end", "at"),
    [(PrivateEngine.kill, r"POST .*/images/create"), (PrivateEngine.stop, r"POST .*/containers/create")],
    ids=["killed in the pull", "stopped in the planning"],
)
async def test_what_ran_until_its_engine_died_runs_in_the_end_though_its_restart_policy_says_no(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    engine: PrivateEngine,
    line: FaultProxy,
    end: Callable[[PrivateEngine], None],
    at: str,
) -> None:
    """An engine that was killed stops itself what has outlived it, when it starts again."""
    name = make_container(app_image("1"), "api", "--restart=no")
    old, two, deployer = state(engine, name)[0], app_image("2"), make_deployer()

    def die() -> None:
        end(engine)
        engine.start()

    line.cut(at, action=die)
    report = await deployer.deploy(request_for(two))

    found, runs = state(engine, name)
    assert runs
    assert (found == old) == (report.outcome is not Outcome.DEPLOYED)
    assert not leftovers(engine)
