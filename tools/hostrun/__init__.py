"""Runs a real ComfyUI for this pack: finds or installs it, starts and stops it, talks to its queue. For tools and tests.

Nothing in here is part of the pack: the host never imports it."""
