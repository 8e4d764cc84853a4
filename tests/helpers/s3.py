"""An S3 server of this machine, for the time of some tests."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import fsspec
from fsspec.spec import AbstractFileSystem


@contextmanager
def served(bucket: str) -> Iterator[tuple[AbstractFileSystem, dict[str, str]]]:
    """A server with one bucket, where s3:// leads to; and the environment of other processes."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = {"endpoint_url": f"http://{host}:{port}", "key": "k", "secret": "s"}
    before = fsspec.config.conf.get("s3")
    fsspec.config.conf["s3"] = options
    system = fsspec.filesystem("s3")
    system.mkdir(bucket)
    try:
        yield system, {"FSSPEC_S3": json.dumps(options)}
    finally:
        fsspec.config.conf.pop("s3")
        if before is not None:
            fsspec.config.conf["s3"] = before
        server.stop()
