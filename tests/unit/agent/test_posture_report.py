"""What a device finds out about itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.agent.enroll import EnrolmentFailed, gateway_of
from gateway.agent.posture_report import UNKNOWN, collect
from gateway.identity.devices.posture import _are_facts


def device(root: Path, name: str, uuid: str = "", slaves: tuple[Path, ...] = ()) -> Path:
    """A block device as /sys shows it."""
    made = root / "sys/devices" / name
    made.mkdir(parents=True)
    if uuid:
        (made / "dm").mkdir()
        (made / "dm/uuid").write_text(uuid + "\n")
    for slave in slaves:
        (made / "slaves").mkdir(exist_ok=True)
        (made / "slaves" / slave.name).symlink_to(slave)
    return made


def mounted(root: Path, found: Path) -> None:
    """Make this the device below the root file system."""
    number = root.stat().st_dev
    link = root / f"sys/dev/block/{os.major(number)}:{os.minor(number)}"
    link.parent.mkdir(parents=True)
    link.symlink_to(found)


def test_this_machine_says_only_what_a_report_may_hold() -> None:
    facts = collect()
    assert _are_facts(facts)
    assert facts["kernel"] == os.uname().release
    assert facts["disk_encrypted"] in {True, False, UNKNOWN}
    assert (facts["screen_lock"], facts["firewall"]) == (UNKNOWN, UNKNOWN)


def test_what_cannot_be_read_is_unknown_and_never_good(tmp_path: Path) -> None:
    facts = collect(tmp_path)
    assert (facts["os"], facts["os_version"], facts["disk_encrypted"]) == (UNKNOWN, UNKNOWN, UNKNOWN)


def test_the_system_is_read_from_os_release(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text('# c\nNAME="De\x07bian"\nID=debian\nVERSION_ID="13"\nbroken\n')
    facts = collect(tmp_path)
    assert (facts["os"], facts["os_version"]) == ("debian", "13")


def test_a_plain_disk_is_not_encrypted(tmp_path: Path) -> None:
    mounted(tmp_path, device(tmp_path, "sda1"))
    assert collect(tmp_path)["disk_encrypted"] is False


def test_a_disk_below_dm_crypt_is_encrypted_also_with_volumes_on_it(tmp_path: Path) -> None:
    crypt = device(tmp_path, "dm-0", "CRYPT-LUKS2-abc-root", (device(tmp_path, "sda2"),))
    mounted(tmp_path, device(tmp_path, "dm-1", "LVM-xyz", (crypt,)))
    assert collect(tmp_path)["disk_encrypted"] is True


def test_a_volume_that_lies_on_a_plain_disk_too_is_not_encrypted(tmp_path: Path) -> None:
    crypt = device(tmp_path, "dm-0", "CRYPT-LUKS2-abc-root")
    mounted(tmp_path, device(tmp_path, "dm-1", "LVM-xyz", (crypt, device(tmp_path, "sdb1"))))
    assert collect(tmp_path)["disk_encrypted"] is False


@pytest.mark.parametrize("text", ["[]", "{}", '{"gateway": 1}', '{"gateway": "http://plain.example"}', "x"])
def test_a_damaged_folder_names_no_gateway(tmp_path: Path, text: str) -> None:
    (tmp_path / "gateway.json").write_text(text)
    with pytest.raises(ValueError, match=r".") as caught:
        gateway_of(tmp_path)
    assert not isinstance(caught.value, EnrolmentFailed)
