"""Policies: a market encoding once per bar, and a small network per account."""
