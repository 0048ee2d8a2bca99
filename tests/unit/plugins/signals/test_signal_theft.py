"""Stolen sessions: a cookie in another program, two holders at once, a token in two hands."""

from dataclasses import replace

import pytest

from gateway.core.ports.pipeline import Network
from plugins.signals.concurrent_use import ConcurrentUse
from plugins.signals.cookie_theft import CookieTheft
from plugins.signals.token_replay import TokenReplay
from tests.support.observations import BERLIN, CHROME, HINTS, MUNICH, SCRIPT_JA4, SYDNEY, Watched, seen

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:150.0) Gecko/20100101 Firefox/150.0"


def test_a_script_with_the_cookie_and_the_user_agent_is_another_program():
    theft = Watched(CookieTheft())
    assert theft.see(seen()) == {}
    terms = theft.see(seen(5, ja4=SCRIPT_JA4, hints="", network=SYDNEY, ip="198.51.100.9"), believe=False)
    assert set(terms) == {f"cookie_theft_{name}" for name in ("ja4", "hints", "asn", "country", "ip")}
    assert sum(terms.values()) >= 6
    assert theft.see(seen(6)) == {}  # its owner is not bothered


def test_a_script_in_the_same_network_is_told_by_its_cipher_suites_alone():
    theft = Watched(CookieTheft())
    theft.see(seen())
    assert theft.see(seen(1, ja4=SCRIPT_JA4)) == {"cookie_theft_ja4": 4.0}


def test_a_person_on_the_move_stays_below_what_another_program_weighs():
    theft = Watched(CookieTheft())
    theft.see(seen())
    assert sum(theft.see(seen(60, network=SYDNEY, ip="198.51.100.9")).values()) < 2.5
    assert theft.see(seen(61, network=SYDNEY, ip="198.51.100.9")) == {}  # believed, so it is the picture now


def test_an_update_of_the_browser_weighs_little_and_another_browser_much():
    theft = Watched(CookieTheft())
    theft.see(seen())
    assert theft.see(seen(1, agent=CHROME.replace("150.0", "151.0"))) == {"cookie_theft_version": 0.5}
    assert theft.see(seen(2, agent=FIREFOX, hints=""), believe=False) == {
        "cookie_theft_agent": 2.5,
        "cookie_theft_hints": 2.0,
    }


def test_a_websocket_without_client_hints_is_no_theft():
    theft = Watched(CookieTheft())
    theft.see(seen())
    assert theft.see(seen(1, hints="", protocol="websocket")) == {}


@pytest.mark.parametrize("change", [{"bound": True}, {"kind": "jwt"}])
def test_a_session_that_a_key_is_tied_to_and_a_token_are_not_judged_by_their_looks(change):
    theft, twice = Watched(CookieTheft()), Watched(ConcurrentUse())
    for at, ja4 in ((0, "a_b_c"), (1, SCRIPT_JA4), (2, "a_b_c")):
        assert theft.see(seen(at, ja4=ja4, **change)) == {}
        assert twice.see(seen(at, ja4=ja4, **change)) == {}


def test_two_programs_that_take_turns_with_one_cookie_are_two_holders():
    twice = Watched(ConcurrentUse())
    thief = {"ja4": SCRIPT_JA4, "network": SYDNEY}
    assert twice.see(seen(0)) == {}
    assert twice.see(seen(10, **thief)) == {}
    assert twice.see(seen(20)) == {"concurrent_use": 5.0}
    assert twice.see(seen(120, **thief)) == {"concurrent_use": 5.0}  # it is not forgotten at once
    assert twice.see(seen(2000)) == {}


def test_a_move_to_another_network_and_a_slow_way_back_are_one_holder():
    twice = Watched(ConcurrentUse())
    for at, network in ((0, BERLIN), (10, MUNICH), (100, BERLIN), (200, MUNICH)):
        assert twice.see(seen(at, network=network)) == {}


def test_one_program_in_two_networks_in_turn_weighs_half():
    twice = Watched(ConcurrentUse())
    for at, network in ((0, BERLIN), (10, MUNICH)):
        assert twice.see(seen(at, network=network)) == {}
    assert twice.see(seen(20, network=BERLIN)) == {"concurrent_use": 2.5}


def test_both_address_families_of_one_client_are_one_network():
    twice = Watched(ConcurrentUse())
    for at, ip in enumerate(["192.0.2.7", "2001:db8::7"] * 3):
        assert twice.see(seen(at, ip=ip, network=Network("DE"))) == {}


def test_a_clock_that_goes_back_hides_no_second_holder_for_longer_than_the_window():
    twice = Watched(ConcurrentUse())
    thief = {"ja4": SCRIPT_JA4, "network": SYDNEY}
    twice.see(seen(0))
    assert twice.see(seen(-3600, **thief)) == {}
    assert twice.see(seen(-3590)) == {}
    assert twice.see(seen(-3580, **thief)) == {"concurrent_use": 5.0}


def test_an_unbound_token_in_two_hands_is_replayed():
    replay = Watched(TokenReplay())
    mine, other = seen(kind="jwt"), seen(kind="jwt", network=SYDNEY, ja4=SCRIPT_JA4)
    assert replay.see(mine) == {}
    there = replay.see(replace(other, now=other.now + 5), believe=False)
    assert there == {"token_replay_place": 2.0}
    assert replay.see(replace(mine, now=mine.now + 10), believe=False) == {"token_replay_twice": 4.0}
    assert sum(replay.see(replace(other, now=other.now + 15), believe=False).values()) == 6.0


def test_a_bound_token_may_be_used_from_anywhere():
    replay = Watched(TokenReplay())
    for at, network in ((0, BERLIN), (5, SYDNEY), (10, BERLIN)):
        assert replay.see(seen(at, kind="jwt", bound=True, network=network)) == {}


def test_a_one_time_value_that_came_again_is_remembered_for_an_hour():
    replay = Watched(TokenReplay())
    assert replay.see(seen(0, failed="factor_replayed")) == {}
    assert replay.see(seen(60)) == {"token_replay_once": 2.0}
    assert replay.see(seen(3700)) == {}
    assert replay.see(seen(3800, failed="factor_invalid")) == {}
    assert replay.see(seen(3801)) == {}


def test_what_the_picture_holds_is_small():
    theft = Watched(CookieTheft())
    theft.see(seen(hints=HINTS * 50, agent=CHROME * 50))
    assert len(str(theft.memory)) < 700
