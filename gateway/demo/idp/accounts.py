"""The people, projects and clients of the development OpenID provider."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

ORG = "223281939119866113"
ORG_DOMAIN = "acme.localhost"
OTHER_ORG = "223281939119866999"
PROJECT = "259254020357488642"
OTHER_PROJECT = "259254020357488777"
APP_CLIENT = "243864426485212395"
SECOND_CLIENT = "243864381169886443"
API_CLIENT = "243864426485299001"
MACHINE_CLIENT = "tour-machine"
PASSWORD = "Password1!"  # noqa: S105  (everybody's, on loopback alone)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who can get tokens. `roles` maps a role of the project to the organisations it is granted in."""

    user: str
    subject: str
    name: str = ""
    roles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    other_roles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    department: str = ""
    amr: tuple[str, ...] = ("pwd", "otp", "mfa")
    org: str = ORG

    @property
    def email(self) -> str:
        """The person's address."""
        return f"{self.user}@{ORG_DOMAIN}"


PEOPLE: tuple[Person, ...] = (
    Person("alice", "164849494297477301", "Alice Adler", {"staff": (ORG,), "admin": (ORG,)}, department="people"),
    Person("bob", "164849494297477302", "Bob Brandt", {"staff": (ORG,)}, department="people"),
    Person("carol", "164849494297477303", "Carol Cho", {"staff": (ORG,)}, department="finance"),
    Person("dave", "164849494297477304", "Dave Diaz", {"guest": (ORG,)}, department="people"),
    Person("erin", "164849494297477305", "Erin Ek", {"staff": (ORG,)}, department="people", amr=("pwd",)),
    Person("fay", "164849494297477306", "Fay Fox", {"staff": (ORG, OTHER_ORG)}, {"admin": (ORG,)}, "people"),
    Person(MACHINE_CLIENT, "164849494297477399", "Tour machine", {"staff": (ORG,)}, department="people", amr=()),
)
