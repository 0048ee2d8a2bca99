"""The demo: a development identity provider, two services, and a tour through the real gateway."""
