"""The daemons on classic queues, whose confirm does not mean fsynced: to see what the quorum queues' promise costs."""

from __future__ import annotations

from functools import partial

from brokerd.links import amqp


def use_classic_queues() -> None:
    """Before a composition is imported."""
    setattr(amqp, "Topology", partial(amqp.Topology, queue_type="classic"))  # noqa: B010 - mypy knows it as a class
