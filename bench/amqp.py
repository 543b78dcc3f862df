"""Runs the AMQP floor as a process of its own: it imports the product's lean path, and this side of the bench does not."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, Final

from bench.crowd import Target
from bench.plan import Scenario

BATCH_DEFAULT: Final = 256
END_S_MAX: Final = 60.0


async def run(plan: Scenario, target: Target, batch: float) -> dict[str, Any]:
    """`batch`: messages in one AMQP message, as the cluster was seen to have them (throughput)."""
    words = {
        "url": target.rabbit_url,
        "pid": target.pids["rabbitmq"],
        "batch": max(1, round(batch)),
        "in-flight": plan.pairs * plan.window,
        "payload": plan.payload_bytes,
        "rate": plan.rate or 1,
        "warmup": plan.warmup_s,
        "seconds": plan.seconds,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.inside.amqp_floor", plan.work.removeprefix("amqp_"),
        *(f"--{name}={value}" for name, value in words.items()),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(plan.warmup_s + plan.seconds + END_S_MAX):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        raise
    if process.returncode:
        raise RuntimeError(f"the AMQP floor ended with {process.returncode}")
    told: dict[str, Any] = json.loads(output)
    return told
