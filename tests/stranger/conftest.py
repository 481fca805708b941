"""Fixtures: one open server for most tests, others made where a test needs them."""

import pytest

from ccp1 import SEEN, Session
from harness import STATUS, Server

# Fewer tests than this are a selection.
WHOLE_RUN = 500


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes more than some seconds")


def pytest_terminal_summary(terminalreporter):
    """The line of figures, and a failure if a whole run did not provoke each documented error."""
    reporter = terminalreporter
    passed, failed = (len(reporter.stats.get(name, ())) for name in ("passed", "failed"))
    missing = set(STATUS) - SEEN
    reporter.write_line(
        f"stranger: {passed} passed, {failed} failed, "
        f"{len(SEEN & set(STATUS))} of {len(STATUS)} documented errors provoked"
    )
    if missing and passed >= WHOLE_RUN:
        reporter.write_line(f"not provoked: {sorted(missing)}")


def pytest_sessionfinish(session, exitstatus):
    if session.testscollected >= WHOLE_RUN and set(STATUS) - SEEN and not exitstatus:
        session.exitstatus = 1


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A server that anybody may register at."""
    process = Server(tmp_path_factory.mktemp("open"), server_registration="open")
    yield process
    if process.runs():
        assert process.stop() == 0


@pytest.fixture
def make_server(tmp_path):
    """Makes servers with settings of their own."""
    made = []

    def make(**settings):
        made.append(Server(tmp_path / f"server{len(made)}", **settings))
        return made[-1]

    yield make
    for process in made:
        if process.runs():
            process.kill()


@pytest.fixture(autouse=True)
def close_sessions(monkeypatch):
    """Closes every connection that a test opened."""
    opened = []
    original = Session.__init__

    def opening(self, *arguments, **named):
        original(self, *arguments, **named)
        opened.append(self)

    monkeypatch.setattr(Session, "__init__", opening)
    yield
    for session in opened:
        session.close()
