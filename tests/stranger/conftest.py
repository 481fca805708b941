"""Fixtures: one open server for most tests, others made where a test needs them."""

import pytest

from ccp1 import Session
from harness import Server


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes more than some seconds")


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A server that anybody may register at."""
    process = Server(tmp_path_factory.mktemp("open"), server_registration="open")
    yield process
    if process.process.poll() is None:
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
        if process.process.poll() is None:
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
