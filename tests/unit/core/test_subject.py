"""Device, identity and session as policy sees them."""

from gateway.core.subject import Device, Identity, Role, Session


def test_a_device_as_policy_sees_it():
    assert Device("d", "hash", "ada", "people", {"disk": True}).document() == {
        "id": "d",
        "verified": True,
        "posture": {"disk": True},
        "cert_sha256": "hash",
        "owner": "ada",
        "department": "people",
    }


def test_an_identity_as_policy_sees_it_has_no_secret():
    identity = Identity(
        "https://id", "u", "jwt", "hint", 5.0, roles=(Role("r", "o"),), scopes=("s",), amr=("otp",),
        confirmation={"jkt": "thumb"},
    )  # fmt: skip
    document = identity.document()
    assert document["roles"] == [{"key": "r", "org": "o"}]
    assert (document["scopes"], document["amr"], document["auth_time"]) == (["s"], ["otp"], None)
    assert not {"session_hint", "confirmation", "expires_at"} & document.keys()


def test_a_session_has_an_age_that_is_never_negative():
    session = Session("s", 100.0, ("mtls",), 300.0)
    assert session.document(130.9)["age_s"] == 30
    assert session.document(50.0)["age_s"] == 0
    assert session.document(130.9)["bound_by"] == ["mtls"]
