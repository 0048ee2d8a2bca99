"""Zitadel as the gateway sees it, on loopback: logins, sessions, users, events, actions, and its faults.

What it keeps to, by number; each behaviour names its number where it is written (`Zitadel C9: ...`), and the tests in
tests/e2e/contract ask the same of this provider, of a certified one and, where one is given, of a real Zitadel.

C1   the same paths, discovery document, exact redirects, S256 alone, no `iss` in the answer
C2   `typ` is "JWT" on access, id and logout tokens alike
C3   `aud` is an array of every client of the project, and the project
C4   no scope, sid, amr or acr in a JWT access token
C5   the `jti` of an access token names its session
C6   access tokens are JWTs or opaque, as the client is set
C7   introspection is for clients in `aud`, and tells the roles of the asking project alone
C8   a refresh ends the tokens before it; a refresh token that comes twice is refused, and its family lives on
C9   lock, deactivate, remove: tokens inactive, a JWT still verifies, an event, no back-channel logout
C10  a changed password or role is an event and nothing else
C11  the end of a session: tokens inactive, back-channel logout in three tries of 5 s, 400 counts as delivered
C12  webhooks are signed, sent once, with the payload as an object or as base64
C13  signing keys follow each other; a deleted one verifies nothing
C14  sessions, users, events, settings, actions over REST and Connect, whole numbers as text
C15  private addresses are refused for targets and logout URIs, unless the list is narrowed
C16  faults on order: no keys, another clock, no `max_age`, no `amr`, slow or double delivery, 503, another Host
C17  a sign-in without a browser: authorize, CreateSession, CreateCallback
"""
