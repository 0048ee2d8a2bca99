"""Addresses in real databases, whole and broken, while the files under them change."""

import gc
import ipaddress
import shutil
import threading
import time
import weakref
from pathlib import Path

import pytest

from gateway.adapters.geo import GeoNetworks, default_database
from gateway.core.ports.pipeline import Network
from tests.support.cost import cost
from tests.support.paths import VECTORS

DATABASES = VECTORS / "mmdb"
CITY, ASN, COUNTRY = (DATABASES / f"GeoLite2-{kind}-Test.mmdb" for kind in ("City", "ASN", "Country"))
LONDON, TELSTRA = "81.2.69.160", "1.128.0.1"
BROKEN = ["GeoIP2-City-Test-Invalid-Node-Count", "cyclic-data-structure"]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def wait_for_threads() -> None:
    for thread in threading.enumerate():
        if thread.name == "geo":
            thread.join(10)


@pytest.fixture
def world(tmp_path):
    """A database that can be replaced, what was said about it, and a clock."""

    class World:
        path = tmp_path / "data.mmdb"
        clock = Clock()
        said: list[str] = []

        def open(self, source: Path = CITY) -> GeoNetworks:
            self.said = []
            shutil.copy(source, self.path)
            return GeoNetworks([self.path], report=lambda _, what: self.said.append(what), monotonic=self.clock)

        def later(self, networks: GeoNetworks) -> Network:
            self.clock.now += 3
            networks.lookup(LONDON)
            wait_for_threads()
            return networks.lookup(LONDON)

    return World()


def test_several_files_count_together_and_the_accuracy_radius_is_told():
    networks = GeoNetworks([CITY, ASN])
    assert networks.lookup(LONDON) == Network("GB", None, "", 51.5142, -0.0931, 100.0)
    assert networks.lookup(TELSTRA) == Network(asn=1221, organisation="Telstra Pty Ltd")
    assert networks.flaw == ""


def test_a_mapped_address_is_the_address_it_stands_for():
    networks = GeoNetworks([CITY])
    assert networks.lookup(f"::ffff:{LONDON}") == networks.lookup(LONDON)
    assert networks.lookup("::ffff:5102:45a0") == networks.lookup(LONDON)


@pytest.mark.parametrize(
    "junk", ["", "localhost", "1.2.3", "999.1.1.1", "fe80::1%eth0", "1.2.3.4/8", "\x00", "a" * 999]
)
def test_what_is_no_address_has_no_country_and_raises_nothing(junk):
    assert GeoNetworks([CITY]).lookup(junk) == Network()


def test_company_networks_and_vpn_ranges_are_known_without_any_database():
    networks = GeoNetworks([], company=[ipaddress.ip_network("10.0.0.0/8")], vpn=[ipaddress.ip_network("fd00:1::/32")])
    assert networks.lookup("10.1.2.3") == Network(company=True, flaw="absent")
    assert networks.lookup("::ffff:10.1.2.3") == Network(company=True, flaw="absent")
    assert networks.lookup("fd00:1::5") == Network(vpn=True, flaw="absent")
    assert networks.lookup("11.1.2.3") == Network(flaw="absent")


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_says_so_in_every_answer(name):
    said = []
    networks = GeoNetworks([DATABASES / f"{name}.mmdb"], report=lambda _, what: said.append(what))
    assert networks.flaw == "broken"
    assert {networks.lookup(ip).flaw for ip in (LONDON, "1.1.1.1", "2001:218::1")} == {"broken"}
    assert len(said) == 1
    assert "not a whole database" in said[0]


def test_a_record_that_cannot_be_read_is_broken_and_the_others_are_not():
    networks = GeoNetworks([DATABASES / "GeoIP2-City-Test-Broken-Double-Format.mmdb"])
    assert networks.lookup("2001:220::1").flaw in {"", "broken"}
    assert {networks.lookup(ip).flaw for ip in (LONDON, "89.160.20.112", "2001:218::1")} <= {"", "broken"}
    assert networks.lookup("89.160.20.112").country is None


@pytest.mark.parametrize("size", [0, 1, 1_000, 20_000])
def test_a_file_cut_short_is_broken(world, size):
    world.path.write_bytes(CITY.read_bytes()[:size])
    assert GeoNetworks([world.path]).lookup(LONDON) == Network(flaw="broken")


def test_a_missing_file_is_broken_while_no_file_at_all_is_absent(tmp_path):
    assert GeoNetworks([tmp_path / "none.mmdb"]).lookup(LONDON).flaw == "broken"
    assert GeoNetworks([tmp_path]).lookup(LONDON).flaw == "broken"
    assert GeoNetworks([]).lookup(LONDON).flaw == "absent"


def test_one_broken_file_beside_a_good_one_leaves_what_is_known_and_says_broken():
    networks = GeoNetworks([CITY, DATABASES / f"{BROKEN[0]}.mmdb"])
    assert networks.lookup(LONDON).country == "GB"
    assert networks.lookup(LONDON).flaw == "broken"


def test_a_new_version_comes_into_use_by_itself(world):
    networks = world.open(ASN)
    assert networks.lookup(LONDON).country is None
    shutil.copy(CITY, world.path.with_suffix(".new"))
    world.path.with_suffix(".new").replace(world.path)
    assert networks.lookup(LONDON).country is None  # not before it is looked at
    assert world.later(networks).country == "GB"
    assert world.said == ["in use", "in use"]


def test_a_new_version_that_is_broken_leaves_the_old_one_in_use_and_says_so(world):
    networks = world.open()
    world.path.write_bytes(b"half a file")
    assert world.later(networks) == Network("GB", None, "", 51.5142, -0.0931, 100.0)
    assert "the old one stays in use" in world.said[-1]
    assert world.later(networks).flaw == ""
    assert len(world.said) == 2  # once


def test_a_file_that_is_cut_short_or_removed_under_us_takes_nothing_down(world):
    networks = world.open()
    with world.path.open("r+b") as file:
        file.truncate(100)
    assert networks.lookup(LONDON).country == "GB"
    assert networks.lookup("2.125.160.216").country == "GB"  # not looked up before: read from our own copy
    world.path.unlink()
    assert world.later(networks).country == "GB"
    assert "there is no such file" in world.said[-1]
    shutil.copy(COUNTRY, world.path)
    assert world.later(networks) == Network("GB")


def test_a_broken_file_that_is_repaired_comes_into_use(world):
    world.path.write_bytes(b"")
    networks = GeoNetworks([world.path], monotonic=world.clock)
    assert networks.lookup(LONDON).flaw == "broken"
    time.sleep(0.01)
    shutil.copy(CITY, world.path)
    assert world.later(networks).country == "GB"
    assert networks.flaw == ""


def test_looking_goes_on_in_other_threads_while_the_file_is_replaced(world):
    networks = world.open()
    wrong, stop = [], threading.Event()

    def look() -> None:
        while not stop.is_set():
            if networks.lookup(LONDON).country != "GB":
                wrong.append(1)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for source in (COUNTRY, CITY) * 5:
        shutil.copy(source, world.path)
        networks.refresh()
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_database_that_is_installed_with_the_gateway_knows_countries():
    path = default_database()
    if path is None:
        pytest.skip("python-geoacumen is not installed here")
    networks = GeoNetworks([path])
    assert networks.lookup("193.0.6.139").country == "NL"
    assert networks.lookup("2001:4860:4860::8888").country == "US"
    assert networks.lookup("127.0.0.1") == Network()  # its "None" is no country


def test_a_look_costs_microseconds():
    networks = GeoNetworks([CITY, ASN])
    networks.lookup(LONDON)
    assert cost(lambda: networks.lookup(LONDON)) < 3


def test_the_databases_go_with_their_networks_and_wait_for_no_collector():
    gc.collect()
    gc.disable()
    try:
        networks = GeoNetworks([CITY])
        networks.lookup("2.125.160.216")
        alive = weakref.ref(networks)
        del networks
        assert alive() is None
    finally:
        gc.enable()
