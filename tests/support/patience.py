"""How long a test waits for what has to come."""

PATIENCE_S = 300.0
"""Only what hangs is waited for as long: a busy machine of few cores takes many times as long as a quiet one."""
