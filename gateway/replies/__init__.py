"""Replies of the gateway's own: denials, redirects, pages."""
