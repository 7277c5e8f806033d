"""Preload: what the processes of a run have imported before they start. Nothing here opens anything."""

import contextlib
import importlib

for _name in ("zbackbone", "benchmarks.processes", "asyncio", "nats", "zenoh", "pika",
              "aio_pika", "paho.mqtt.client", "redis", "redis.asyncio"):
    with contextlib.suppress(ImportError):
        importlib.import_module(_name)
