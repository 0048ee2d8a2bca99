"""The embedded edge, on mitmproxy's protocol layers."""
