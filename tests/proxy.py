"""A proxy as Jupyter's: hands requests on without the part of their path by which it knows whose they are."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler, websocket_connect

PATH = "user/me/proxy/8787"


@contextlib.contextmanager
def proxied(server: str) -> Iterator[str]:
    """Stand before a server, ``host:port``; yield host, port and path of the same behind the proxy."""
    (listening,) = bind_sockets(0, "127.0.0.1")
    ready, ended = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        routes = [(rf"/{PATH}/(.*/ws)", _Socket, {"server": server}), (rf"/{PATH}/(.*)", _Plain, {"server": server})]
        http = HTTPServer(Application(routes))
        http.add_sockets([listening])
        ready.set()
        await ended.wait()
        http.stop()
        await http.close_all_connections()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    ready.wait()
    try:
        yield f"127.0.0.1:{listening.getsockname()[1]}/{PATH}"
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()


class _Plain(RequestHandler):
    def initialize(self, server: str) -> None:
        self.server = server

    async def get(self, path: str) -> None:
        address = f"http://{self.server}/{path}?{self.request.query}"
        answer = await AsyncHTTPClient().fetch(address, raise_error=False, follow_redirects=False)
        self.set_status(answer.code)
        self.set_header("Content-Type", answer.headers.get("Content-Type", "text/plain"))
        self.finish(answer.body)


class _Socket(WebSocketHandler):
    def initialize(self, server: str) -> None:
        self.server = server

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        self.offered = subprotocols
        return subprotocols[0] if subprotocols else None

    async def open(self, path: str) -> None:
        address = f"ws://{self.server}/{path}?{self.request.query}"
        self.beyond = await websocket_connect(
            address, subprotocols=self.offered, on_message_callback=self.hand_back, max_message_size=1 << 30
        )

    def hand_back(self, message: str | bytes | None) -> None:
        if message is None:
            self.close()
        else:
            self.write_message(message, binary=isinstance(message, bytes))

    async def on_message(self, message: str | bytes) -> None:
        await self.beyond.write_message(message, binary=isinstance(message, bytes))

    def on_close(self) -> None:
        if hasattr(self, "beyond"):
            self.beyond.close()
