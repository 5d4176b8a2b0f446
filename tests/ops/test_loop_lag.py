"""How late the periodic timer is, as a histogram and as the longest delay of late."""

from __future__ import annotations

from koder_gateway.ops.loop_lag import BOUNDS, LoopLag


def test_delays_are_counted_up_to_each_bound() -> None:
    lag = LoopLag()
    for delay in (0.0, BOUNDS[0], BOUNDS[0] + 0.0001, BOUNDS[-1] + 1):
        lag.add(delay, 0.0)
    assert (lag.counts[0], lag.counts[1], lag.counts[-1], sum(lag.counts)) == (2, 1, 1, 4)
    assert lag.seconds == 2 * BOUNDS[0] + 0.0001 + BOUNDS[-1] + 1


def test_a_timer_that_is_early_is_on_time() -> None:
    lag = LoopLag()
    lag.add(-0.1, 0.0)
    assert (lag.counts[0], lag.seconds, lag.most) == (1, 0.0, 0.0)


def test_the_longest_delay_is_forgotten_after_two_windows() -> None:
    lag = LoopLag()
    lag.add(0.5, 1000.0)
    lag.add(0.1, 1059.0)
    assert lag.most == 0.5
    lag.add(0.2, 1060.0)
    assert lag.most == 0.5, "the window before counts"
    lag.add(0.0, 1120.0)
    assert lag.most == 0.2
    lag.add(0.0, 1300.0)
    assert lag.most == 0.0, "a silence says nothing"
