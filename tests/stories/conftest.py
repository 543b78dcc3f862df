from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """`-m cluster` performs on the cluster only, `-m "not cluster"` without it."""
    config.addinivalue_line("markers", "cluster: needs Redis, RabbitMQ, two chatd and two brokerd")
