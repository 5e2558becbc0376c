"""The `ztb` command line over the same functions that a researcher imports."""
