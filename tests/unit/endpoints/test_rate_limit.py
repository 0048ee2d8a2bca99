from typing import Any

from gateway.endpoints.rate_limit import RateLimiter


class Clock:
    now = 0.0

    def __call__(self) -> Any:
        return self.now


def test_attempts_come_back_with_time_and_an_ipv6_network_counts_as_one() -> None:
    clock = Clock()
    attempts = RateLimiter(burst=2, per_s=1, clock=clock)
    assert [attempts.take(f"2001:db8::{number}") for number in (1, 2, 3)] == [True, True, False]
    assert attempts.take("2001:db8:0:1::1")
    clock.now = 1.0
    assert [attempts.take("2001:db8::9") for _ in range(2)] == [True, False]


def test_one_client_takes_nothing_from_another_and_memory_is_bounded() -> None:
    attempts = RateLimiter(burst=2, per_s=1, clock=Clock())
    attempts._most = 50
    assert [attempts.take(f"10.0.{number // 256}.{number % 256}") for number in range(300)] == [True] * 300
    assert len(attempts._left) == 50
    assert [attempts.take(f"2001:db8::{number:x}") for number in range(4)] == [True, True, False, False]
