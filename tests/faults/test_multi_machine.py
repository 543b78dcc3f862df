"""One RabbitMQ node of three and the Redis primary are lost under load, and stay lost. All losses in turn: make multi"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.crowd import Habits
from tests.multi.losses import Losses


@pytest.mark.timeout(400)
async def test_the_loss_of_a_rabbitmq_node_and_of_the_redis_primary_loses_doubles_and_misorders_nothing(
    tmp_path: Path,
) -> None:
    async with Losses(tmp_path, Habits(users=20, messages_per_s=60)) as losses:
        await losses.lose_rabbit(0, comes_back=False)
        await losses.lose_primary(comes_back=False)
        verdict = await losses.end()
    assert verdict.is_good, f"{verdict.line}\n{verdict.table}\n{verdict.story}"
    assert verdict.ledger.counts["seen"] > 100
