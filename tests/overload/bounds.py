"""What an overload may cost, each bound once. A run that breaks one is red.

The latencies are for a machine of two cores that carries the load generator as well, and perhaps others: what they hold is that
bystanders are still served (before they were looked after, they waited for 18 s), not how fast.
"""

from __future__ import annotations

from typing import Final

# --- bystanders: a pair of users who talk while others overload the system
BYSTANDER_PER_S: Final = 20.0
ACCEPTED_MS_P99_MAX: Final = 4_000.0  # while it lasts
DELIVERED_MS_P99_MAX: Final = 5_000.0
BYSTANDER_SETTLE_S_MAX: Final = 60.0  # after it: all that was accepted is delivered

# --- memory: how much a process may grow, from before to the peak
CHATD_MIB_MAX: Final = 160.0  # 32 MiB that wait, 32 MiB unconfirmed, their copies in the sockets and in msgpack
BROKERD_MIB_MAX: Final = 160.0
REDIS_MIB_MAX: Final = 300.0  # beside what it is to keep,
KEPT_FACTOR: Final = 1.25  # of which an entry of 16 KiB and its head fill 20 KiB (jemalloc's classes)
RABBITMQ_MIB_MAX: Final = 700.0  # a quorum queue keeps what is not consumed

# --- answers
BUSY_S_MAX: Final = 3.0  # from the moment that the system can take no more until a sender is told so
REOPEN_S_MAX: Final = 10.0  # from the end of an alarm until a SEND is accepted again
READY_S_MAX: Final = 30.0  # until /readyz says what is wrong, and until it is ready again

# --- L01, idle sessions
IDLE_SESSIONS: Final = 10_000
IDLE_TCP_KIB_MAX: Final = 24.0  # of chatd's memory for a session
IDLE_WS_KIB_MAX: Final = 40.0
IDLE_CPU_MAX: Final = 0.25  # of a core, all of it for keepalive

# --- L02, logins
LOGINS_PER_S: Final = 2_000.0
LOGIN_MS_P99_MAX: Final = 10_000.0  # a login that takes longer ends with LOGIN_TIMEOUT
HERD_S_MAX: Final = 30.0  # until everybody is back after the death of a node

# --- L05, windows
SLOW_DOWN_AFTER: Final = 12  # logins of one device in two places, before it is told RATE_LIMITED
