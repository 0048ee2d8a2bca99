"""Login in a browser: the authorization code flow and the requests that wait for it."""
