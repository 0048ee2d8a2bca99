"""People and their habits: travel, countries, networks, devices; and attacks that are seen across people."""

from __future__ import annotations

from gateway.core.ports.pipeline import Network
from plugins.signals.country_change import CountryChange
from plugins.signals.credential_stuffing import CredentialStuffing
from plugins.signals.impossible_travel import ImpossibleTravel
from plugins.signals.new_device import NewDevice
from plugins.signals.new_network import NewNetwork
from plugins.signals.password_spraying import PasswordSpraying
from tests.support.observations import BERLIN, CHROME, MUNICH, SCRIPT_JA4, SYDNEY, Watched, seen

HOUR, DAY = 3600.0, 86_400.0


def test_two_sessions_at_the_ends_of_the_world_are_impossible_and_more_so_with_another_device():
    travel = Watched(ImpossibleTravel())
    assert travel.see(seen(0, session="here")) == {}
    same = travel.see(seen(HOUR, session="there", network=SYDNEY), believe=False)
    assert same == {"impossible_travel": 3.0}
    other = travel.see(seen(HOUR, session="there", network=SYDNEY, ja4=SCRIPT_JA4), believe=False)
    assert other == {"impossible_travel": 4.0}


def test_the_journey_that_an_aeroplane_makes_is_possible():
    travel = Watched(ImpossibleTravel())
    travel.see(seen(0, session="here"))
    assert travel.see(seen(24 * HOUR, session="there", network=SYDNEY)) == {}


def test_the_accuracy_radii_are_subtracted():
    near = Network("DE", 64502, "Vague Net", 52.52, 20.0, 500.0)
    travel = Watched(ImpossibleTravel())
    travel.see(seen(0, session="here"))
    assert travel.see(seen(60, session="there", network=near)) == {}
    exact = Network("DE", 64502, "Exact Net", 52.52, 20.0, 10.0)
    assert travel.see(seen(60, session="there", network=exact)) == {"impossible_travel": 3.0}


def test_a_position_without_a_radius_is_taken_for_a_vague_one():
    unknown = Network("DE", 64502, "Net", 52.52, 17.0)
    travel = Watched(ImpossibleTravel())
    travel.see(seen(0, session="here"))
    assert travel.see(seen(60, session="there", network=unknown)) == {}


def test_the_same_network_and_device_far_away_are_wrong_data():
    moved = Network("AU", BERLIN.asn, "Example Net", -33.0, 151.0, 10.0)
    travel = Watched(ImpossibleTravel())
    travel.see(seen(0, session="here"))
    assert travel.see(seen(60, session="there", network=moved)) == {}


def test_without_positions_another_country_at_the_same_time_counts():
    travel = Watched(ImpossibleTravel())
    travel.see(seen(0, session="here", network=Network("DE")))
    assert travel.see(seen(60, session="there", network=Network("AU")), believe=False) == {"impossible_travel": 1.0}
    assert travel.see(seen(HOUR, session="there", network=Network("AU"))) == {}


def test_the_place_of_a_suspicious_session_is_not_held_against_its_owner():
    travel = Watched(ImpossibleTravel())
    travel.see(seen(0, session="here"))
    travel.see(seen(60, session="there", network=SYDNEY), believe=False)
    assert travel.see(seen(120, session="here")) == {}


def test_the_companys_networks_have_no_place():
    travel, country = Watched(ImpossibleTravel()), Watched(CountryChange())
    for at, network in ((0, BERLIN), (60, Network("AU", vpn=True)), (120, Network(company=True)), (180, BERLIN)):
        assert travel.see(seen(at, session=str(at), network=network)) == {}
        assert country.see(seen(at, network=network)) == {}


def test_at_most_eight_sessions_are_remembered():
    travel = Watched(ImpossibleTravel())
    for number in range(20):
        travel.see(seen(number, session=f"s{number}"))
    assert set(travel.memory) == {f"s{number}" for number in range(12, 20)}


def test_a_session_that_changes_its_country_and_one_whose_country_gets_lost():
    country = Watched(CountryChange())
    assert country.see(seen(0)) == {}
    assert country.see(seen(1, network=SYDNEY), believe=False) == {"country_change": 2.0}
    assert country.see(seen(2, network=Network()), believe=False) == {"country_change": 1.0}
    assert country.see(seen(3)) == {}
    assert country.see(seen(4, network=SYDNEY)) == {"country_change": 2.0}
    assert country.see(seen(5, network=SYDNEY)) == {}


def test_a_new_network_is_news_once_and_again_after_half_a_year():
    network = Watched(NewNetwork())
    assert network.see(seen(0)) == {}
    assert network.see(seen(1, network=MUNICH), believe=False) == {"new_network": 1.0}
    assert network.see(seen(2, network=MUNICH)) == {"new_network": 1.0}
    assert network.see(seen(3, network=MUNICH)) == {}
    assert network.see(seen(4, network=Network(company=True))) == {}
    assert network.see(seen(200 * DAY)) == {"new_network": 1.0}


def test_without_an_as_the_country_and_else_the_range_is_the_network():
    network = Watched(NewNetwork())
    network.see(seen(0, network=Network("DE")))
    assert network.see(seen(1, network=Network("DE"), ip="198.51.100.1")) == {}
    assert network.see(seen(2, network=Network(), ip="198.51.100.1")) == {"new_network": 1.0}
    assert network.see(seen(3, network=Network(), ip="198.51.7.1")) == {}
    assert network.see(seen(4, network=Network(), ip="2001:db8::1")) == {"new_network": 1.0}


def test_a_new_browser_is_news_and_an_update_of_it_is_not():
    device = Watched(NewDevice())
    assert device.see(seen(0)) == {}
    assert device.see(seen(1, agent=CHROME.replace("150.0.0.0", "151.0.1.0"))) == {}
    assert device.see(seen(2, ja4=SCRIPT_JA4), believe=False) == {"new_device": 1.5}
    assert device.see(seen(3, device_id="d1")) == {"new_device": 0.5}
    assert device.see(seen(4, device_id="d1", ja4=SCRIPT_JA4, agent="other")) == {}


def test_only_the_latest_devices_and_networks_are_remembered():
    device, network = Watched(NewDevice(most=3)), Watched(NewNetwork(most=1))
    for number in range(10):
        device.see(seen(number * DAY, device_id=f"d{number}"))
        network.see(seen(number * DAY, network=Network(asn=number + 1)))
    assert set(device.memory) == {"device d7", "device d8", "device d9"}
    assert set(network.memory) == {"as10"}


def test_an_account_that_is_tried_from_many_networks_is_careful_with_a_success_from_one_of_them():
    stuffing = Watched(CredentialStuffing())
    for number in range(4):
        stuffing.see(seen(number, failed="login_failed", network=Network(asn=100 + number)))
    assert stuffing.see(seen(10)) == {"credential_stuffing": 2.0}
    assert stuffing.see(seen(11, network=Network(asn=101))) == {"credential_stuffing": 4.0}
    assert stuffing.see(seen(2 * HOUR)) == {}


def test_an_owner_who_mistypes_is_let_be():
    stuffing = Watched(CredentialStuffing())
    for number in range(6):
        stuffing.see(seen(number, failed="factor_invalid"))
    assert stuffing.see(seen(10)) == {}


def test_a_network_that_tries_many_accounts_is_suspicious_when_it_gets_in():
    spraying = Watched(PasswordSpraying())
    for number in range(40):
        spraying.see(seen(number, failed="login_failed", account=f"user{number}"))
    assert spraying.see(seen(50)) == {"password_spraying": 4.5}
    assert spraying.see(seen(51, network=Network(company=True))) == {}
    assert spraying.see(seen(HOUR)) == {}


def test_one_account_that_fails_often_is_no_spraying():
    spraying = Watched(PasswordSpraying())
    for number in range(40):
        spraying.see(seen(number, failed="login_failed", account="ann"))
    assert spraying.see(seen(50)) == {}


def test_the_memory_of_an_attack_does_not_grow_with_it():
    spraying, stuffing = Watched(PasswordSpraying()), Watched(CredentialStuffing())
    for number in range(500):
        spraying.see(seen(number / 10, failed="login_failed", account=f"user{number}"))
        stuffing.see(seen(number / 10, failed="login_failed"))
    assert len(spraying.memory) == 64
    assert len(stuffing.memory["f"]) == 32
