"""Price data: import, cache, validation, synthetic markets and slices."""
