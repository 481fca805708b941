"""Starts the server as a real process and gives tests what they need around it."""

import contextlib
import functools
import os
import pathlib
import re
import secrets
import signal
import socket
import sqlite3
import subprocess
import time

import balancer
import carriers
from accounts import Account, Device, Member, ServerInfo
from ccp1 import CcpError, Session, entry_id
from wire import parse_invite

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SERVER = os.environ.get("COMMUCAT_SERVER", str(ROOT / "target/debug/commucat-server"))
CLI = os.environ.get("COMMUCAT_CLI", str(ROOT / "target/debug/commucat-cli"))

# Set where the servers are to keep their state in PostgreSQL and speak through Redis.
POSTGRES = os.environ.get("TEST_POSTGRES_URL")
PSQL = os.environ.get("TEST_PSQL", "psql")
REDIS = os.environ.get("TEST_REDIS_URL")

# Processes that make up one server, on one database, behind one port.
NODES = int(os.environ.get("TEST_NODES", "1"))

# The suite makes many accounts and devices from one address in a short time.
ROOMY = {
    "COMMUCAT_LIMITS_REGISTRATIONS_PER_ADDRESS": "1000000",
    "COMMUCAT_LIMITS_HANDSHAKES_PER_ADDRESS": "1000000",
    "COMMUCAT_LIMITS_HANDSHAKES_BURST": "1000000",
    "COMMUCAT_LIMITS_CONNECTIONS_PER_ADDRESS": "10000",
    "COMMUCAT_LIMITS_REQUEST_RATE": "10000",
    "COMMUCAT_LIMITS_REQUEST_BURST": "100000",
}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def make_database():
    """A new, empty database of the run's own cluster: its address."""
    name = f"stranger_{secrets.token_hex(8)}"
    made = f"CREATE DATABASE {name} TEMPLATE template0"
    subprocess.run([PSQL, "-X", "-q", "-d", POSTGRES, "-c", made], check=True)
    return f"{POSTGRES.rpartition('/')[0]}/{name}"


# Holds back all that write, not those that read, until its transaction ends.
LOCK = """
BEGIN;
DO $$ DECLARE tables text; BEGIN
  SELECT string_agg(quote_ident(tablename), ', ') INTO tables FROM pg_tables
  WHERE schemaname = current_schema();
  EXECUTE 'LOCK TABLE ' || tables || ' IN EXCLUSIVE MODE';
END $$;
\\echo locked
"""


class Server:
    """One server process over a directory of its own, or several nodes of one domain."""

    def __init__(self, directory, **settings):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.ports = [free_port() for _ in range(NODES)]
        self.settings = {
            **ROOMY,
            **{f"COMMUCAT_{name.upper()}": value for name, value in settings.items()},
        }
        if NODES == 1:
            self.port = self.ports[0]
        else:
            self.port = balancer.start(self.ports)
            # Three processes for each server are a lot for one machine: what is under way between them
            # shall not go to the store for lateness.
            self.settings.setdefault("COMMUCAT_LIMITS_ACK_WAIT", "2s")
            # The first node makes it, as only it can have made it.
            self.settings["COMMUCAT_CRYPTO_KEYS"] = str(self.directory / "keys")
            self.settings["COMMUCAT_SERVER_ENDPOINT"] = f"localhost:{self.port}"
        self.database = make_database() if POSTGRES else None
        if self.database:
            self.settings["COMMUCAT_STORAGE_URL"] = self.database
            self.settings["COMMUCAT_STORAGE_REDIS_URL"] = REDIS
            self.settings["COMMUCAT_STORAGE_REDIS_PREFIX"] = f"{secrets.token_hex(8)}:"
        self.log = self.directory / "server.log"
        self.processes = []
        self.start()

    @property
    def process(self):
        """The first node."""
        return self.processes[0]

    def data(self, node=0):
        return self.directory / ("data" if node == 0 else f"data{node}")

    def environment(self, node=0):
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith("COMMUCAT")
        }
        own = {
            "COMMUCAT_SERVER_LISTEN": f"127.0.0.1:{self.ports[node]}",
            "COMMUCAT_SERVER_DATA": str(self.data(node)),
        }
        return {**kept, **own, **self.settings}

    def start(self):
        self.processes = []
        for node in range(NODES):
            self.start_node(node)
        # What a node knows alone it tells nobody.
        deadline = time.monotonic() + 30
        while NODES > 1 and self.counters("cluster_nodes")["cluster_nodes"] < NODES * NODES:
            assert time.monotonic() < deadline, "the nodes do not hear each other"
            time.sleep(0.05)
        if not hasattr(self, "info"):
            self.info = ServerInfo.at("127.0.0.1", self.port)

    def start_node(self, node):
        with open(self.log, "ab") as log:
            process = subprocess.Popen(
                [SERVER], cwd=self.directory, env=self.environment(node), stdout=log, stderr=log
            )
        self.processes.append(process)
        deadline = time.monotonic() + 30
        while True:
            if process.poll() is not None:
                raise RuntimeError(f"the server ended:\n{self.log.read_text()}")
            try:
                if carriers.get("127.0.0.1", self.ports[node], "/readyz")[0] == 200:
                    break
            except (OSError, carriers.Closed):
                pass
            if time.monotonic() > deadline:
                raise RuntimeError(f"the server is not ready:\n{self.log.read_text()}")
            time.sleep(0.05)

    @functools.cached_property
    def invite(self):
        """The first start's invite, checked against what the server says of itself."""
        invite = parse_invite(self.first_link())
        ServerInfo("127.0.0.1", self.port, invite.domain, invite.domain_key)
        return invite

    def first_link(self):
        """The invite link that the first start prints."""
        deadline = time.monotonic() + 10
        while True:
            text = self.log.read_text()
            if match := re.search(r"commucat://[^\s']+", text):
                return match.group()
            if time.monotonic() > deadline:
                raise RuntimeError(f"no invite link was printed:\n{text}")
            time.sleep(0.05)

    def cli(self, *arguments):
        """Runs `commucat-cli` as the operator; returns what it prints as JSON text."""
        printed = subprocess.run(
            [CLI, *arguments, "--json"],
            cwd=self.directory,
            env=self.environment(),
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        # Other nodes take new keys up by themselves.
        deadline = time.monotonic() + 30
        while NODES > 1 and len(set(map(self.keys_of, self.ports))) > 1:
            assert time.monotonic() < deadline, "the nodes have different keys"
            time.sleep(0.05)
        return printed

    def keys_of(self, port):
        return carriers.get_json("127.0.0.1", port, "/.well-known/commucat")["server_keys"]

    def counters(self, *names):
        """Values of counters in /metrics, summed over labels and nodes."""
        pages = [carriers.get("127.0.0.1", port, "/metrics")[2].decode() for port in self.ports]
        lines = "\n".join(pages).splitlines()
        parts = [line.rpartition(" ") for line in lines if not line.startswith("#")]
        return {
            name: sum(
                float(value) for label, _, value in parts if label.split("{")[0].endswith(name)
            )
            for name in names
            if name in pages[0]
        }

    def kept(self):
        """All that the server keeps, as bytes."""
        files = [path for node in range(NODES) for path in self.data(node).rglob("*")]
        kept = b"".join(path.read_bytes() for path in files if path.is_file())
        if self.database:
            program = str(pathlib.Path(PSQL).with_name("pg_dump"))
            dump = subprocess.run([program, self.database], check=True, capture_output=True).stdout
            kept += dump
            for value in re.findall(rb"\\x((?:[0-9a-f]{2})+)", dump):
                kept += bytes.fromhex(value.decode())
        return kept

    @contextlib.contextmanager
    def failing_store(self):
        """Nothing can be written into the store meanwhile."""
        if not self.database:
            path = self.data() / "store.sqlite3"
            store = sqlite3.connect(path, isolation_level=None)
            store.execute("BEGIN IMMEDIATE")
            yield
            store.execute("ROLLBACK")
            store.close()
            return
        pipe = subprocess.PIPE
        arguments = [PSQL, "-X", "-q", "-d", self.database]
        with subprocess.Popen(arguments, stdin=pipe, stdout=pipe, text=True) as holder:
            holder.stdin.write(LOCK)
            holder.stdin.flush()
            assert holder.stdout.readline() == "locked\n"
            yield
            holder.stdin.close()

    def ledgers(self):
        """What the ledgers of all nodes say, where they are files."""
        logs = [self.data(node) / "ledger.jsonl" for node in range(NODES)]
        return "".join(log.read_text() for log in logs if log.exists())

    def runs(self):
        return all(process.poll() is None for process in self.processes)

    def kill(self):
        for process in self.processes:
            process.send_signal(signal.SIGKILL)
            process.wait()

    def terminate(self):
        for process in self.processes:
            process.send_signal(signal.SIGTERM)

    def wait(self):
        """Waits for its end; zero if all was well."""
        return max(abs(process.wait(timeout=30)) for process in self.processes)

    def stop(self):
        self.terminate()
        return self.wait()

    # --- Shortcuts for tests ---

    def register(self, account=None, device=None, carrier="h2", token=None):
        """A registered device, connected. The server must be open, or `token` be live."""
        account = account or Account(self.info.domain)
        device = device or Device(account)
        account.certify(device)
        registration = {1: account.list()}
        if token is not None:
            registration[0] = token
        return Session(self.info, device, "XK", registration, carrier)

    def connect(self, device, pattern="IK", **options):
        return Session(self.info, device, pattern, **options)

    def reconnect(self, session, pattern="IK", **options):
        session.close()
        return self.connect(session.device, pattern, **options)


# Deletions are batched: what was acknowledged less than this ago may come once more.
DELETION = 0.15


def commit(session, member, expect, **changes):
    """Sends a commit and waits for its result; waits when told to."""
    sequence, body = session.update(member, expect, **changes)
    while True:
        try:
            return session.answer(sequence), body
        except CcpError as error:
            if error.title != "Rate Limited":
                raise
            time.sleep(error.extra[0])
            sequence = session.resend_update(member, body)


def make_group(*sessions, admins=0):
    """A group of the devices of `sessions`, made by the first; returns a Member for each.

    Every device has acknowledged what the making sent to it. `admins` more devices than the
    creator have the flag.
    """
    creator, others = sessions[0], sessions[1:]
    members = [creator.create_group()]
    group_id = members[0].group_id
    for session in others:
        members.append(Member(group_id, creator.server.domain, session.own_reference(group_id)))
    if others:
        domain = creator.server.domain
        entries = [
            member.entry(domain, 1 if index < admins else 0)
            for index, member in enumerate(members[1:])
        ]
        result, body = commit(
            creator,
            members[0],
            0,
            add=entries,
            welcomes=[[[member.handle for member in members[1:]], b"welcome"]],
        )
        assert result == {0: 1}, result
        for session in others:
            session.next(), session.next()
            session.ack()
        time.sleep(DELETION)
        members[0].entry_id = entry_id(body)
    return members


def refused(title, action, *arguments, **named):
    """Calls `action` and checks that it ends in the ERROR `title`; returns it."""
    try:
        action(*arguments, **named)
    except CcpError as error:
        assert error.title == title, f"{error.title}, not {title}"
        check_error(error)
        return error
    raise AssertionError(f"accepted, not refused as {title}")


STATUS = {
    "Invalid Frame Type": 400,
    "Varint Overflow": 400,
    "Truncated Frame": 400,
    "Identifier Out Of Range": 400,
    "Sequence Out Of Order": 400,
    "Frame Too Large": 413,
    "Control Payload Too Large": 413,
    "Payload Too Large": 413,
    "Invalid Control Payload": 400,
    "Protocol Version Mismatch": 426,
    "Handshake Rejected": 401,
    "Handshake Timeout": 408,
    "Idle Timeout": 408,
    "Replaced": 409,
    "Revoked": 403,
    "Draining": 503,
    "Rate Limited": 429,
    "Not Joined": 409,
    "Conflict": 409,
    "Epoch Old": 409,
    "Forbidden": 403,
    "Not Found": 404,
    "Federation Failure": 502,
    "Storage Failure": 503,
}


def check_error(error):
    """Type, title and status belong together (section 7)."""
    assert STATUS[error.title] == error.status
    kebab = error.title.lower().replace(" ", "-")
    assert error.type == f"urn:commucat:error:{kebab}"
    assert error.detail


def fatal(session, title):
    """Waits until the server closes and checks the ERROR that it said."""
    error = session.wait_closed()
    assert error is not None, f"closed without a word, not with {title}"
    assert error.title == title, f"{error.title}, not {title}"
    assert error.sequence is None
    check_error(error)
    return error


def refused_registration(server, token):
    """A new account is refused with this token."""
    account = Account(server.info.domain)
    device = Device(account)
    account.certify(device)
    registration = {0: token, 1: account.list()}
    session = Session(server.info, device, "XK", registration, wait=False)
    return fatal(session, "Handshake Rejected")
