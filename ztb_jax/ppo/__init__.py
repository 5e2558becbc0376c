"""Proximal policy optimisation over a shared market."""
