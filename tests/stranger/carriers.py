"""The three carriers of PROTOCOL.md 1.2, each a stream of bytes in both directions."""

import base64
import json
import os
import select
import socket
import ssl
import threading
import time

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
import wsproto
import wsproto.events


class Closed(Exception):
    """The other side has gone."""


class TlsSocket:
    """A TLS 1.3 socket that one thread may read while another writes."""

    def __init__(self, host, port, alpn, max_version=ssl.TLSVersion.TLSv1_3):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # The domain key of the invite authenticates the server (PROTOCOL.md 1.1).
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = max_version
        if max_version == ssl.TLSVersion.TLSv1_3:
            context.minimum_version = max_version
        context.set_alpn_protocols([alpn])
        plain = socket.create_connection((host, port), timeout=10)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.tls = context.wrap_socket(plain, server_hostname=host)
        except BaseException:
            plain.close()
            raise
        self.alpn = self.tls.selected_alpn_protocol()
        self.tls.setblocking(False)
        self.lock = threading.Lock()
        self.closed = False

    def recv(self, deadline):
        """Bytes; b"" at the end of the stream. TimeoutError at the deadline."""
        while True:
            with self.lock:
                if self.closed:
                    return b""
                try:
                    return self.tls.recv(65_536)
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    pass
                except (OSError, ValueError):
                    return b""
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            try:
                select.select([self.tls], [], [], left)
            except (OSError, ValueError):
                return b""

    def sendall(self, raw):
        view = memoryview(raw)
        while view:
            with self.lock:
                if self.closed:
                    raise Closed
                try:
                    view = view[self.tls.send(view) :]
                    continue
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    pass
                except (OSError, ValueError) as error:
                    raise Closed from error
            try:
                select.select([], [self.tls], [], 1)
            except (OSError, ValueError) as error:
                raise Closed from error

    def close(self):
        # The lock and the flag keep a reading thread off the number that the next socket will get.
        with self.lock:
            if self.closed:
                return
            self.closed = True
            try:
                self.tls.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            self.tls.close()


class Lasting(h2.connection.H2Connection):
    """Goes on after a GOAWAY that spares the open streams, as RFC 9113 section 6.8 has it.

    The library takes every GOAWAY for the end, and would lose the server's last frames.
    """

    def _receive_goaway_frame(self, frame):
        if frame.last_stream_id >= 1 and frame.error_code == 0:
            return [], []
        return super()._receive_goaway_frame(frame)


class Http2:
    """POST /connect over HTTP/2 DATA frames."""

    def __init__(self, host, port, path="/connect"):
        self.socket = TlsSocket(host, port, "h2")
        assert self.socket.alpn == "h2", "the server did not choose h2"
        self.lock = threading.RLock()
        self.writable = threading.Condition(self.lock)
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.h2 = Lasting(config)
        self.ended = False
        self.status = None
        with self.lock:
            self.h2.initiate_connection()
            self.h2.increment_flow_control_window(8 * 1024 * 1024)
            self.stream = self.h2.get_next_available_stream_id()
            self.h2.send_headers(
                self.stream,
                [
                    (":method", "POST"),
                    (":scheme", "https"),
                    (":authority", f"{host}:{port}"),
                    (":path", path),
                    ("content-type", "application/octet-stream"),
                ],
            )
            self._flush()
        deadline = time.monotonic() + 10
        self.early = b""
        while self.status is None and not self.ended:
            self.early += self._pump(deadline)

    def _flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def _pump(self, deadline):
        raw = self.socket.recv(deadline)
        out = bytearray()
        with self.lock:
            if not raw:
                self._end()
                return b""
            try:
                events = self.h2.receive_data(raw)
            except h2.exceptions.ProtocolError:
                self._end()
                return b""
            for event in events:
                out += self._handle(event)
            try:
                self._flush()
            except Closed:
                self._end()
            self.writable.notify_all()
        return bytes(out)

    def _handle(self, event):
        if isinstance(event, h2.events.ResponseReceived):
            self.status = int(dict(event.headers)[":status"])
        elif isinstance(event, h2.events.DataReceived):
            if event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            return event.data
        elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
            self._end()
        elif isinstance(event, h2.events.ConnectionTerminated):
            if event.last_stream_id is not None and event.last_stream_id < self.stream:
                self._end()
        return b""

    def _end(self):
        self.ended = True
        self.writable.notify_all()

    def read(self, timeout):
        """Bytes; b"" at the end of the stream; TimeoutError."""
        if self.early:
            early, self.early = self.early, b""
            return early
        deadline = time.monotonic() + timeout
        while not self.ended:
            raw = self._pump(deadline)
            if raw:
                return raw
        return b""

    def write(self, raw):
        view = memoryview(raw)
        with self.lock:
            while view:
                if self.ended:
                    raise Closed
                room = min(
                    self.h2.local_flow_control_window(self.stream),
                    self.h2.max_outbound_frame_size,
                )
                if room <= 0:
                    self.writable.wait(1)
                    continue
                try:
                    self.h2.send_data(self.stream, bytes(view[:room]))
                except h2.exceptions.ProtocolError as error:
                    raise Closed from error
                view = view[room:]
                self._flush()

    def close(self):
        self.socket.close()


class Chunked:
    """POST /connect over HTTP/1.1 with chunked bodies."""

    def __init__(self, host, port, path="/connect"):
        self.socket = TlsSocket(host, port, "http/1.1")
        head = (
            f"POST {path} HTTP/1.1\r\nhost: {host}:{port}\r\n"
            "content-type: application/octet-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        self.socket.sendall(head.encode())
        self.buffer = bytearray()
        self.ended = False
        self.status, self.headers = read_head(self.socket, self.buffer)

    def read(self, timeout):
        deadline = time.monotonic() + timeout
        while not self.ended:
            chunk = self._chunk()
            if chunk is not None:
                return chunk
            raw = self.socket.recv(deadline)
            if not raw:
                self.ended = True
            self.buffer += raw
        return b""

    def _chunk(self):
        """The data of every whole chunk in the buffer, or None."""
        out = bytearray()
        while (end := self.buffer.find(b"\r\n")) >= 0:
            length = int(self.buffer[:end].split(b";")[0], 16)
            if len(self.buffer) < end + 4 + length:
                break
            if length == 0:
                self.ended = True
                break
            out += self.buffer[end + 2 : end + 2 + length]
            del self.buffer[: end + 4 + length]
        return bytes(out) if out else None

    def write(self, raw):
        if raw:
            self.socket.sendall(f"{len(raw):x}\r\n".encode() + raw + b"\r\n")

    def close(self):
        self.socket.close()


class WebSocket:
    """GET /connect with an upgrade; binary messages."""

    def __init__(self, host, port, path="/connect"):
        self.socket = TlsSocket(host, port, "http/1.1")
        key = base64.b64encode(os.urandom(16)).decode()
        head = (
            f"GET {path} HTTP/1.1\r\nhost: {host}:{port}\r\nconnection: Upgrade\r\n"
            f"upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n\r\n"
        )
        self.socket.sendall(head.encode())
        self.buffer = bytearray()
        self.status, self.headers = read_head(self.socket, self.buffer)
        self.ended = self.status != 101
        self.ws = wsproto.Connection(wsproto.ConnectionType.CLIENT)
        self.lock = threading.Lock()
        self.pings = 0

    def read(self, timeout):
        deadline = time.monotonic() + timeout
        raw = bytes(self.buffer)
        self.buffer.clear()
        while not self.ended:
            if not raw:
                raw = self.socket.recv(deadline)
                if not raw:
                    self.ended = True
                    break
            out = self._take(raw)
            if out:
                return out
            raw = b""
        return b""

    def _take(self, raw):
        out = bytearray()
        with self.lock:
            self.ws.receive_data(raw)
            for event in self.ws.events():
                if isinstance(event, wsproto.events.BytesMessage):
                    out += event.data
                elif isinstance(event, wsproto.events.Ping):
                    self.socket.sendall(self.ws.send(event.response()))
                elif isinstance(event, wsproto.events.Pong):
                    self.pings += 1
                elif isinstance(event, wsproto.events.CloseConnection):
                    self.ended = True
        return bytes(out)

    def write(self, raw):
        self.send_event(wsproto.events.BytesMessage(data=bytes(raw)))

    def send_event(self, event):
        with self.lock:
            if self.ended:
                raise Closed
            self.socket.sendall(self.ws.send(event))

    def close(self):
        self.socket.close()


def read_head(sock, buffer):
    """Reads an HTTP/1.1 response head; leaves what follows in `buffer`."""
    deadline = time.monotonic() + 10
    while (end := buffer.find(b"\r\n\r\n")) < 0:
        raw = sock.recv(deadline)
        if not raw:
            raise Closed
        buffer += raw
    lines = bytes(buffer[:end]).decode("latin-1").split("\r\n")
    del buffer[: end + 4]
    headers = {}
    for line in lines[1:]:
        name, value = line.split(":", 1)
        headers[name.lower()] = value.strip()
    return int(lines[0].split()[1]), headers


def get(host, port, path):
    """GET over HTTP/1.1; returns (status, headers, body)."""
    sock = TlsSocket(host, port, "http/1.1")
    sock.sendall(
        f"GET {path} HTTP/1.1\r\nhost: {host}:{port}\r\nconnection: close\r\n\r\n".encode()
    )
    buffer = bytearray()
    status, headers = read_head(sock, buffer)
    deadline = time.monotonic() + 10
    wanted = int(headers.get("content-length", "-1"))
    while wanted < 0 or len(buffer) < wanted:
        raw = sock.recv(deadline)
        if not raw:
            break
        buffer += raw
    sock.close()
    return status, headers, bytes(buffer)


def get_json(host, port, path):
    status, _, body = get(host, port, path)
    assert status == 200, f"{path}: status {status}"
    return json.loads(body)


CARRIERS = {"h2": Http2, "chunked": Chunked, "websocket": WebSocket}
