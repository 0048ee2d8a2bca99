"""Risk: signals scored for each request, and the pattern of logins."""
