"""Fixtures and helpers for tests that need a running server; the server and the client themselves are in tools/hostrun."""
